"""Trains carat-nano from a seed: `python nano/train.py`.

Writes the checkpoint (config, tokenizer, BF16 weights) and, beside it, a state from which `--resume`
goes on. `--init` starts from the weights of a checkpoint with fresh optimiser state.
The budget is counted in tokens, so a run is repeatable; `--minutes` ends it earlier by the clock.

Each worker is a process of one thread that learns from its own batches; gradients are averaged once a
step. For matrices this small that uses the cores better than threads inside one process do.
"""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as distributed
import torch.nn.functional as functional
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import multiprocessing

import tokenizer as tokenizer_recipe
from chat import segments
from model import STOP_IDS, build_config, build_model, weights
from muon import Muon
from world import SKILLS, WEIGHTS, Draw, make_example

HERE = Path(__file__).parent
PROMPT_WEIGHT = 0.1
"""Loss weight of text the model only reads, against 1 for what it must say."""
MEDIA_IDS = range(5, 12)
POOL_SIZE = 512
FIRST_SKILLS = {"copy": 2.0, "facts": 2.0, "tool call": 2.0, "spell": 1.0, "extract": 1.0, "small sums": 1.0}
FIRST_TOKENS = 400_000
"""Copying appears suddenly, and everything else waits for it: training starts with these skills alone."""
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_UP_STEPS, CONSTANT_SHARE, LAST_RATE = 60, 0.35, 0.02
AVERAGE_DECAY = 0.99


class Examples:
    """An endless stream of batches of at most `batch_tokens` tokens, examples of like length together."""

    def __init__(self, tokenizer, seed, batch_tokens):
        self.tokenizer, self.batch_tokens, self.seed = tokenizer, batch_tokens, seed
        self.rng = random.Random(seed)
        self.pool = []

    def next_batch(self, skill_weights):
        if not self.pool:
            self._fill(skill_weights)
        return collate(self.pool.pop())

    def _fill(self, skill_weights):
        draw = Draw(self.rng, held_out=False)
        names = self.rng.choices(list(skill_weights), list(skill_weights.values()), k=POOL_SIZE)
        encoded = sorted((self._encode(make_example(name, draw)) for name in names), key=len)
        batch = []
        for sequence in encoded:
            if batch and len(sequence) * (len(batch) + 1) > self.batch_tokens:
                self.pool.append(batch)
                batch = []
            batch.append(sequence)
        self.pool.append(batch)
        self.rng.shuffle(self.pool)

    def _encode(self, example):
        """A conversation as a list of (token, loss weight)."""
        sequence = []
        for text, taught in segments(example):
            weight = 1.0 if taught else PROMPT_WEIGHT
            sequence += [(token, weight) for token in self.tokenizer.encode(text, add_special_tokens=False).ids]
        return sequence


def collate(sequences):
    """Padded ids, attention mask and loss weights, each `[batch, length]`."""
    length = max(map(len, sequences))
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    mask, loss_weights = torch.zeros_like(ids), torch.zeros(len(sequences), length)
    for row, sequence in enumerate(sequences):
        tokens, token_weights = zip(*sequence)
        ids[row, :len(tokens)] = torch.tensor(tokens)
        mask[row, :len(tokens)] = 1
        loss_weights[row, :len(tokens)] = torch.tensor(token_weights)
    loss_weights[(ids >= MEDIA_IDS.start) & (ids < MEDIA_IDS.stop)] = 0
    return ids, mask, loss_weights


class Trainer:
    """Model, optimisers, running average and counters of one training run."""

    def __init__(self, config, seed, batch_tokens, text_tokenizer):
        self.config = config
        self.model = build_model(config, seed)
        named = dict(self.model.named_parameters())
        matrices = {name for name, parameter in named.items() if parameter.dim() == 2 and "embed_tokens" not in name}
        self.others = [parameter for name, parameter in named.items() if name not in matrices]
        self.muon = Muon(parameter for name, parameter in named.items() if name in matrices)
        self.adam = torch.optim.AdamW(self.others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0)
        self.parameters = list(named.values())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.examples = Examples(text_tokenizer, f"{seed} worker {distributed.get_rank()}", batch_tokens)
        self.step, self.tokens, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0

    def learn(self, batch, rate):
        """One optimiser step at a share `rate` of the full learning rates; returns the loss of taught tokens."""
        ids, mask, loss_weights = batch
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        losses = functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1),
                                          reduction="none").view(len(ids), -1)
        wanted = loss_weights[:, 1:]
        ((losses * wanted).sum() / wanted.sum()).backward()
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
        self.tokens += int(mask.sum()) * distributed.get_world_size()
        taught = wanted == 1
        return float(losses.detach()[taught].mean())

    def _average_gradients(self):
        """Replaces the gradients by their mean over all workers."""
        gradients = [parameter.grad for parameter in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def load_weights(self, path):
        """Starts from the weights of a checkpoint."""
        missing, unexpected = self.model.load_state_dict(
            {name: tensor.float() for name, tensor in load_file(path).items()}, strict=False)
        assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    def save(self, folder, state_path):
        """Writes checkpoint and state; each file is complete or not there."""
        _write_atomically(state_path, lambda path: torch.save({
            "model": weights(self.model), "average": self.average, "momenta": self.muon.momenta, "adam": self.adam.state_dict(),
            "counters": (self.step, self.tokens, self.seconds, self.cpu_seconds)}, path))
        current = [parameter.detach().clone() for parameter in self.parameters]
        self._set(self.average)
        tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights(self.model).items()}
        self._set(current)
        _write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        self.config.save_pretrained(folder)
        (folder / "generation_config.json").write_text(json.dumps({
            "bos_token_id": 2, "eos_token_id": STOP_IDS, "pad_token_id": 0,
            "do_sample": True, "temperature": 1.0, "top_k": 1, "top_p": 1.0}, indent=2) + "\n")

    @torch.no_grad()
    def _set(self, values):
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)

    def restore(self, state_path):
        """Goes on where `save` left off, with fresh examples."""
        state = torch.load(state_path, weights_only=False)
        self.model.load_state_dict(state["model"], strict=False)
        self.average, self.muon.momenta = state["average"], state["momenta"]
        self.adam.load_state_dict(state["adam"])
        self.step, self.tokens, self.seconds, self.cpu_seconds = state["counters"]
        self.examples.rng.seed(f"{self.examples.seed} {self.step}")


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=float, default=24e6, help="the whole budget, over all resumed runs")
    parser.add_argument("--minutes", type=float, help="shrinks the budget to what this run does in that time")
    parser.add_argument("--workers", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--batch-tokens", type=int, default=640, help="per worker and step; twice that once the rate falls")
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--out", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--state", type=Path, default=HERE / "state.pt")
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
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=arguments.workers)
    text_tokenizer = Tokenizer.from_file(str(arguments.out / "tokenizer.json"))
    trainer = Trainer(build_config(), arguments.seed, arguments.batch_tokens, text_tokenizer)
    if arguments.init:
        trainer.load_weights(arguments.init / "model.safetensors")
    if arguments.resume:
        trainer.restore(arguments.state)
    start, cpu_start = time.time(), time.process_time()
    seconds_before, cpu_before, tokens_before = trainer.seconds, trainer.cpu_seconds, trainer.tokens
    progress_before = min(1.0, tokens_before / arguments.tokens)
    last_save, average_loss = start, None
    while True:
        progress = trainer.tokens / arguments.tokens
        if arguments.minutes:
            share = (time.time() - start) / (60 * arguments.minutes)
            progress = max(progress, progress_before + (1 - progress_before) * share)
        progress = shared_progress(progress)
        if progress >= 1:
            break
        trainer.examples.batch_tokens = arguments.batch_tokens * (1 if progress < CONSTANT_SHARE else 2)
        first = trainer.tokens < FIRST_TOKENS and not arguments.init
        skill_weights = FIRST_SKILLS if first else {name: WEIGHTS.get(name, 1.0) for name in SKILLS}
        rate = arguments.rate * learning_rate(trainer.step, progress)
        loss = trainer.learn(trainer.examples.next_batch(skill_weights), rate)
        average_loss = loss if average_loss is None else 0.98 * average_loss + 0.02 * loss
        trainer.seconds = seconds_before + time.time() - start
        trainer.cpu_seconds = cpu_before + (time.process_time() - cpu_start) * arguments.workers
        if rank:
            continue
        if trainer.step % 20 == 0:
            pace = (trainer.tokens - tokens_before) / (time.time() - start)
            print(f"{trainer.seconds:6.0f} s, step {trainer.step}, {trainer.tokens / 1e6:.2f} M tokens, {pace:.0f}/s, "
                  f"{progress:.0%} done, loss {average_loss:.4f}", flush=True)
        if time.time() - last_save > 60 * arguments.save_minutes:
            trainer.save(arguments.out, arguments.state)
            last_save = time.time()
    if rank == 0:
        trainer.save(arguments.out, arguments.state)
        write_record(arguments, trainer, average_loss)
    distributed.destroy_process_group()


def write_record(arguments, trainer, loss):
    """Writes training.json: what the committed weights cost."""
    record = {"seed": arguments.seed, "parameters": sum(map(torch.Tensor.numel, trainer.parameters)), "steps": trainer.step,
              "tokens": trainer.tokens, "seconds": round(trainer.seconds), "cpu_seconds": round(trainer.cpu_seconds),
              "loss": round(loss, 4), "workers": arguments.workers, "batch_tokens": arguments.batch_tokens}
    (arguments.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record), flush=True)


def main():
    arguments = parse_arguments()
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
