"""Scores carat-nano: `python nano/score.py` writes scores.json, exact match per skill.

The prompts are in heldout.jsonl, one per line as {skill, messages, tools, enable_thinking, expect} in the
OpenAI shape, so that any program can be scored with them; `--write-prompts` makes that file anew.
An answer is right if its content equals the expected content, or its calls the expected calls; what
the model thinks is not judged. Prompts with pictures and sounds are those of `score_media.py`, in media/.

Without thinking one pass over prompt and answer mostly suffices: greedy decoding gives the answer if each of its tokens
is the likeliest one after those before it. Else, and with thinking, the answer is generated.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

import pictures
import score_media
import sounds
from chat import answer_text, is_right, prompt_text
from model import STOP_IDS
from world import SKILLS, Draw, make_example

HERE = Path(__file__).parent
PROMPTS_PER_SKILL = 64
PROMPT_SEED, FRESH_SEED = 20260, 777
QUANT_BLOCK = 32


def held_out_prompts(count):
    """`count` held-out prompts of every skill, without repeats where the skill has that many."""
    for skill in SKILLS:
        draw, seen = Draw(random.Random(f"{PROMPT_SEED}{skill}"), held_out=True), set()
        for _ in range(40 * count):
            example = make_example(skill, draw)
            key = prompt_text(example)
            if key in seen:
                continue
            seen.add(key)
            answer = example.pop("answer")
            expect = {key: answer[key] for key in ("content", "tool_calls") if answer.get(key)}
            yield example | {"expect": expect}
            if len(seen) == count:
                break


def load_model(folder, q8_0):
    """The reference model in f32, its BF16 weights taken through a Q8_0 round trip if asked."""
    model = Gemma4ForConditionalGeneration(Gemma4Config.from_pretrained(folder))
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    if q8_0:
        tensors = {name: through_q8_0(tensor) if tensor.dim() == 2 else tensor for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model.eval()


def through_q8_0(tensor):
    """Values as blocks of 32 signed bytes with an f16 scale give them back."""
    blocks = tensor.reshape(-1, QUANT_BLOCK)
    scales = (blocks.abs().amax(1, keepdim=True) / 127).half().float().clamp(min=1e-12)
    return (torch.round(blocks / scales).clamp(-127, 127) * scales).reshape(tensor.shape)


@torch.no_grad()
def generate(model, tokenizer, examples, limit=150):
    """Greedy continuations of a batch of conversations, as text with its control tokens."""
    prompts = [tokenizer.encode(prompt_text(example), add_special_tokens=False).ids for example in examples]
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt):] = torch.tensor(prompt)
        mask[row, length - len(prompt):] = 1
    output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False,
                            eos_token_id=STOP_IDS, pad_token_id=0)
    return [tokenizer.decode([token for token in row if token], skip_special_tokens=False) for row in output[:, length:].tolist()]


@torch.no_grad()
def decodes_to_expected(model, tokenizer, examples):
    """Whether greedy decoding gives the expected answer, for each conversation without thinking."""
    pairs = [[tokenizer.encode(text, add_special_tokens=False).ids
              for text in (prompt_text(example), answer_text(example | {"answer": example["expect"]}))] for example in examples]
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.long)
    mask, judged = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, :len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask[row, :len(prompt) + len(answer)] = 1
        judged[row, len(prompt):len(prompt) + len(answer)] = True
    likeliest = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].argmax(-1)
    return ((likeliest == ids[:, 1:]) | ~judged[:, 1:]).all(1).tolist()


def judge(model, tokenizer, examples, batch=64):
    """One verdict for every conversation, in their order."""
    verdicts = [False] * len(examples)
    by_length = sorted(range(len(examples)), key=lambda index: len(prompt_text(examples[index])))
    for thinking in (False, True):
        chosen = [index for index in by_length if examples[index]["enable_thinking"] == thinking]
        for start in range(0, len(chosen), batch):
            indices = chosen[start:start + batch]
            part = [examples[index] for index in indices]
            good = [False] * len(part) if thinking else decodes_to_expected(model, tokenizer, part)
            # The same text may also be written in other tokens.
            doubtful = [place for place, right in enumerate(good) if not right]
            texts = generate(model, tokenizer, [part[place] for place in doubtful]) if doubtful else []
            for place, text in zip(doubtful, texts):
                good[place] = is_right(part[place], text)
            for index, right in zip(indices, good):
                verdicts[index] = right
    return verdicts


def score(model, tokenizer, examples, verdicts, show=0):
    """Share of right answers per skill; up to `show` wrong ones of each are printed."""
    results = {}
    for skill in dict.fromkeys(example["skill"] for example in examples):
        chosen = [index for index, example in enumerate(examples) if example["skill"] == skill]
        results[skill] = round(sum(verdicts[index] for index in chosen) / len(chosen), 3)
        print(f"{skill:14} {results[skill]:.3f} of {len(chosen)}", flush=True)
        wrong = [examples[index] for index in chosen if not verdicts[index]][:show]
        for example, text in zip(wrong, generate(model, tokenizer, wrong) if wrong else []):
            print(f"  {example['messages'][-1]['content']!r} -> {text!r}, expected {example['expect']}", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--prompts", type=Path, default=HERE / "heldout.jsonl")
    parser.add_argument("--media", type=Path, default=HERE / "media", help="the folder of prompts with pictures and sounds")
    parser.add_argument("--write-prompts", action="store_true", help="make the prompts anew; those with media need --bank")
    parser.add_argument("--bank", type=Path, help="the words that voices.py had spoken, for new prompts")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"), help="likewise")
    parser.add_argument("--fresh-media", type=int, help="score so many new media prompts of each skill and nothing else")
    parser.add_argument("--per-skill", type=int, help="use only so many prompts of each skill")
    parser.add_argument("--q8-0", action="store_true", help="score the weights after a Q8_0 round trip")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers of each skill")
    parser.add_argument("--out", type=Path, default=HERE / "scores.json")
    arguments = parser.parse_args()
    if arguments.bank:
        sounds.use_bank(arguments.bank)
        pictures.use_fonts(arguments.fonts)
    if arguments.write_prompts:
        if arguments.bank:
            score_media.write_prompts(arguments.media, PROMPT_SEED)
        lines = (json.dumps(example, ensure_ascii=False) for example in held_out_prompts(PROMPTS_PER_SKILL))
        arguments.prompts.write_text("\n".join(lines) + "\n")
        return
    tokenizer = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json"))
    if arguments.fresh_media:
        judge_of_media = score_media.Judge(load_model(arguments.checkpoint, arguments.q8_0), tokenizer, arguments.checkpoint)
        score_media.score(judge_of_media, score_media.fresh_prompts(arguments.fresh_media, FRESH_SEED), arguments.show)
        return
    examples = [json.loads(line) for line in arguments.prompts.read_text().splitlines()]
    if arguments.per_skill:
        counts = {}
        for example in examples:
            counts.setdefault(example["skill"], []).append(example)
        examples = [example for group in counts.values() for example in group[:arguments.per_skill]]
    start = time.time()
    model = load_model(arguments.checkpoint, arguments.q8_0)
    verdicts = judge(model, tokenizer, examples)
    results = score(model, tokenizer, examples, verdicts, show=arguments.show)
    judge_of_media = score_media.Judge(model, tokenizer, arguments.checkpoint)
    of_media, wrong_media = score_media.score(judge_of_media, score_media.read_prompts(arguments.media), arguments.show)
    record = {"weights": "Q8_0" if arguments.q8_0 else "BF16", "prompts": len(examples), "seconds": round(time.time() - start),
              "exact_match": results, "mean": round(sum(results.values()) / len(results), 3),
              "media": of_media, "mean_of_media": round(sum(of_media.values()) / len(of_media), 3)}
    wrong = [index for index, right in enumerate(verdicts) if not right]
    # The wrong prompts by their line in their file, on one line.
    arguments.out.write_text(json.dumps(record, indent=2)[:-2] + f',\n  "wrong": {json.dumps(wrong)},\n  "wrong_media": {json.dumps(wrong_media)}\n}}\n')


if __name__ == "__main__":
    main()
