"""Trains carat-nano from a seed: `python nano/train.py`.

Writes the checkpoint (config, tokenizer, BF16 weights) and, beside it, a state from which `--resume`
goes on. `--init` starts from the weights of a checkpoint with fresh optimiser state.
The budget is counted in tokens, so a run is repeatable; `--minutes` ends it earlier by the clock.

Every step learns from a batch of text and one of pictures and sounds. On processors each worker is a process of one thread
that learns from its own batches; gradients are averaged once a step. For matrices this small that uses the cores better than
threads inside one process do. With `--device cuda` one process learns, and `--loaders` others make its batches.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

# One thread in each of many processes: matrices of NumPy would otherwise be shared out to all cores by every one of them.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import torch
import torch.distributed as distributed
import torch.nn.functional as functional
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import multiprocessing

import tokenizer as tokenizer_recipe
from batches import Inline, Loaders
from checkpoint import write_processor
from media import on_device
from model import STOP_IDS, build_config, build_model, weights
from muon import Muon

HERE = Path(__file__).parent
FIRST_TOKENS = 400_000
"""Training from nothing starts with a few skills (`batches.FIRST_SKILLS`)."""
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_UP_STEPS, CONSTANT_SHARE, LAST_RATE = 60, 0.35, 0.02
AVERAGE_DECAY = 0.99


class Trainer:
    """Model, optimisers, running average and counters of one training run."""

    def __init__(self, config, seed, device):
        self.config, self.device = config, device
        self.model = build_model(config, seed).to(device)
        named = dict(self.model.named_parameters())
        matrices = {name for name, parameter in named.items() if parameter.dim() == 2 and "embed_tokens" not in name}
        self.others = [parameter for name, parameter in named.items() if name not in matrices]
        self.muon = Muon(parameter for name, parameter in named.items() if name in matrices)
        self.adam = torch.optim.AdamW(self.others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0)
        self.names, self.parameters = list(named), list(named.values())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.step, self.tokens, self.seconds, self.cpu_seconds, self.progress = 0, 0, 0.0, 0.0, 0.0

    def learn(self, batches, rate):
        """One optimiser step at a share `rate` of the full learning rates; returns the loss of taught tokens by kind."""
        losses = {}
        for batch in batches:
            losses |= self._learn_from(batch)
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        self.muon.step(MUON_RATE * rate)
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        decay = min(AVERAGE_DECAY, self.step / (self.step + 10))
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1 - decay)
        self.step += 1
        self.tokens += sum(batch["tokens"] for batch in batches) * distributed.get_world_size()
        return losses

    def _learn_from(self, batch):
        """Adds the gradients of a batch, the mean over its tokens; returns the loss of each kind in it."""
        ids, mask, loss_weights = (batch[name].to(self.device, non_blocking=True) for name in ("ids", "mask", "loss_weights"))
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **on_device(batch["media"], self.device)).logits
        losses = functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1),
                                          reduction="none").view(len(ids), -1)
        wanted = loss_weights[:, 1:]
        ((losses * wanted).sum() / wanted.sum()).backward()
        losses, taught = losses.detach(), wanted == 1
        return {kind: (losses[rows] * taught[rows]).sum() / taught[rows].sum() for kind, rows in batch["kinds"].items()}

    def _average_gradients(self):
        """Replaces the gradients by their mean over all workers."""
        if distributed.get_world_size() == 1:
            return
        gradients = [parameter.grad for parameter in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def load_weights(self, path):
        """Starts from the weights of a checkpoint; encoders that it lacks stay as they are."""
        missing, unexpected = self.model.load_state_dict(
            {name: tensor.float() for name, tensor in load_file(path).items()}, strict=False)
        lacking = {name for name in missing if not any(part in name for part in ("vision", "audio"))}
        assert lacking <= {"lm_head.weight"} and not unexpected, (lacking, unexpected)
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    def save(self, folder, state_folder):
        """Writes checkpoint and state; each file is complete or not there. The state's files stay small."""
        counters = (self.step, self.tokens, self.seconds, self.cpu_seconds, self.progress)
        parts = {"model": (weights(self.model), counters), "average": self.average, "momenta": self.muon.momenta,
                 "adam": self.adam.state_dict()}
        for name, part in parts.items():
            _write_atomically(state_folder / f"{name}.pt", lambda path: torch.save(part, path))
        current = [parameter.detach().clone() for parameter in self.parameters]
        self._set(self.average)
        tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in weights(self.model).items()}
        self._set(current)
        _write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        self.config.save_pretrained(folder)
        write_processor(folder)
        (folder / "generation_config.json").write_text(json.dumps({
            "bos_token_id": 2, "eos_token_id": STOP_IDS, "pad_token_id": 0,
            "do_sample": True, "temperature": 1.0, "top_k": 1, "top_p": 1.0}, indent=2) + "\n")

    @torch.no_grad()
    def _set(self, values):
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)

    def restore(self, state_folder):
        """Goes on where `save` left off, with fresh examples."""
        parts = {name: torch.load(state_folder / f"{name}.pt", weights_only=False, map_location=self.device)
                 for name in ("model", "average", "momenta", "adam")}
        self.model.load_state_dict(parts["model"][0], strict=False)
        self.average, self.muon.momenta = parts["average"], parts["momenta"]
        self.adam.load_state_dict(parts["adam"])
        self.step, self.tokens, self.seconds, self.cpu_seconds, self.progress = parts["model"][1]


def _write_atomically(path, write):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    write(temporary)
    os.replace(temporary, path)


def learning_rate(step, progress):
    """Share of the full rate: a short warm-up, a plateau, and a straight line down."""
    decay = 1.0 if progress < CONSTANT_SHARE else (1 - progress) / (1 - CONSTANT_SHARE)
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(LAST_RATE, decay)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, required=True, help="the words that voices.py had spoken")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=float, default=24e6, help="the whole budget, over all resumed runs")
    parser.add_argument("--minutes", type=float, help="go by the clock instead: what this run takes")
    parser.add_argument("--until", type=float, default=1.0, help="with --minutes: the share of the schedule done after this run")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--loaders", type=int, default=0, help="processes that make batches, with --device cuda")
    parser.add_argument("--batch-tokens", type=int, default=640, help="of text per worker and step; twice that once the rate falls")
    parser.add_argument("--pictures", type=int, default=6, help="per worker and step; none and no sounds: text alone")
    parser.add_argument("--sounds", type=int, default=6)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--out", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--state", type=Path, default=HERE / "state", help="folder from which --resume goes on")
    parser.add_argument("--init", type=Path, help="a checkpoint folder whose weights to start from")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the full learning rates, for going on from trained weights")
    parser.add_argument("--resume", action="store_true", help="go on from --state")
    return parser.parse_args()


def shared_progress(progress):
    """The progress all workers go by: the first one's, whose clock counts."""
    value = torch.tensor([progress], dtype=torch.float64)
    distributed.broadcast(value, 0)
    return float(value)


def train(rank, arguments, meeting_point):
    """One worker's run; the first one prints and saves."""
    on_gpu = arguments.device == "cuda"
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=arguments.workers)
    trainer = Trainer(build_config(), arguments.seed, torch.device(arguments.device))
    if arguments.init:
        trainer.load_weights(arguments.init / "model.safetensors")
    if arguments.resume:
        trainer.restore(arguments.state)
    source = (Loaders if on_gpu else Inline)(arguments, Tokenizer.from_file(str(arguments.out / "tokenizer.json")),
                                             f"{arguments.seed} worker {rank} step {trainer.step}")
    start, cpu_start = time.time(), time.process_time()
    seconds_before, cpu_before, tokens_before, progress_before = trainer.seconds, trainer.cpu_seconds, trainer.tokens, trainer.progress
    last_save, averages = start, {}
    while True:
        trainer.progress = trainer.tokens / arguments.tokens
        if arguments.minutes:
            share = (time.time() - start) / (60 * arguments.minutes)
            trainer.progress = progress_before + (arguments.until - progress_before) * share
        trainer.progress = shared_progress(trainer.progress)
        if trainer.progress >= arguments.until:
            break
        first = trainer.tokens < FIRST_TOKENS and not arguments.init
        batch_tokens = arguments.batch_tokens * (1 if trainer.progress < CONSTANT_SHARE else 2)
        rate = arguments.rate * learning_rate(trainer.step, trainer.progress)
        losses = trainer.learn(source.next_batches(first, batch_tokens), rate)
        trainer.seconds = seconds_before + time.time() - start
        trainer.cpu_seconds = cpu_before + (time.process_time() - cpu_start) * arguments.workers
        if rank:
            continue
        for kind, loss in losses.items():
            averages[kind] = torch.lerp(averages.get(kind, loss), loss, 0.02)
        if trainer.step % 20 == 0:
            pace = (trainer.tokens - tokens_before) / (time.time() - start)
            shown = ", ".join(f"{kind} {float(loss):.4f}" for kind, loss in sorted(averages.items()))
            print(f"{trainer.seconds:6.0f} s, step {trainer.step}, {trainer.tokens / 1e6:.2f} M tokens, {pace:.0f}/s, "
                  f"{trainer.progress:.0%} done, loss: {shown}; {source.report()}", flush=True)
        if time.time() - last_save > 60 * arguments.save_minutes:
            trainer.save(arguments.out, arguments.state)
            last_save = time.time()
    if rank == 0:
        trainer.save(arguments.out, arguments.state)
        write_record(arguments, trainer, {kind: round(float(loss), 4) for kind, loss in averages.items()})
    source.close()
    distributed.destroy_process_group()


def write_record(arguments, trainer, loss):
    """Writes training.json: what the committed weights cost."""
    record = {"seed": arguments.seed, "parameters": sum(map(torch.Tensor.numel, trainer.parameters)), "steps": trainer.step,
              "tokens": trainer.tokens, "seconds": round(trainer.seconds), "cpu_seconds": round(trainer.cpu_seconds),
              "loss": loss, "device": arguments.device, "workers": arguments.workers, "batch_tokens": arguments.batch_tokens,
              "pictures": arguments.pictures, "sounds": arguments.sounds}
    (arguments.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record), flush=True)


def main():
    arguments = parse_arguments()
    if arguments.device == "cuda":
        arguments.workers = 1
    if arguments.init:
        # Weights belong to the tokenizer they were trained with, whatever the world has become since.
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (arguments.out / name).write_bytes((arguments.init / name).read_bytes())
    elif not arguments.resume:
        tokenizer_recipe.write(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (arguments, Path(folder) / "meeting"), nprocs=arguments.workers)


if __name__ == "__main__":
    main()
