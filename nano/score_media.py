"""Scores what carat-nano sees and hears; `score.py` calls this.

The prompts are in media/heldout.jsonl, one per line as {skill, messages, expect} in the OpenAI shape, where a picture or sound is
a part {type, path} and the path is from the folder of that file. Every prompt is answered on its own, through the checkpoint's own
processor.
"""

import io
import json
import random
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from transformers import AutoProcessor

from chat import answer_text, is_right, prompt_text
from media import SKILLS, expand, kind_of, make_media_example, soft_tokens_of_sound
from model import STOP_IDS
from world import Draw

RATE = 16000
MOST_BYTES = {"image": 6_000, "audio": 24_000}
"""Of a committed file: what is larger, mostly for its noise, is drawn again."""
PROMPTS_PER_SKILL = {"image": 64, "audio": 32}


def as_file(medium):
    """The bytes of a PNG or FLAC file."""
    file = io.BytesIO()
    if isinstance(medium, Image.Image):
        medium.save(file, "PNG", optimize=True)
    else:
        soundfile.write(file, medium, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def held_out_media(skill, seed):
    """An endless stream of held-out prompts of a skill: the prompt, and the bytes of its picture or sound."""
    draw = Draw(random.Random(f"{seed}{skill}"), held_out=True)
    while True:
        example = make_media_example(skill, draw)
        file = as_file(example.pop("medium"))
        yield example | {"expect": {"content": example.pop("answer")["content"]}}, file


def write_prompts(folder, seed):
    """Writes the committed prompts and their files."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    lines = []
    for skill in SKILLS:
        kind = kind_of(skill)
        small = (pair for pair in held_out_media(skill, seed) if len(pair[1]) <= MOST_BYTES[kind])
        for number, (example, file) in zip(range(PROMPTS_PER_SKILL[kind]), small):
            name = f"{skill.replace(' ', '-')}-{number:02}.{'png' if kind == 'image' else 'flac'}"
            (folder / name).write_bytes(file)
            parts = [part for message in example["messages"] if isinstance(message["content"], list) for part in message["content"]]
            next(part for part in parts if part["type"] == kind)["path"] = name
            lines.append(json.dumps({key: example[key] for key in ("skill", "messages", "expect")}, ensure_ascii=False))
    (folder / "heldout.jsonl").write_text("\n".join(lines) + "\n")


def read_prompts(folder):
    """The committed prompts, each with the bytes of its file."""
    pairs = []
    for line in (folder / "heldout.jsonl").read_text().splitlines():
        example = json.loads(line) | {"tools": [], "enable_thinking": False}
        path = next(part["path"] for message in example["messages"] if isinstance(message["content"], list)
                    for part in message["content"] if "path" in part)
        pairs.append((example, (folder / path).read_bytes()))
    return pairs


class Judge:
    """The reference model with the checkpoint's processor."""

    def __init__(self, model, tokenizer, folder: Path):
        self.model, self.tokenizer, self.processor = model, tokenizer, AutoProcessor.from_pretrained(folder)

    def inputs(self, file):
        """The model's inputs of a picture or sound, and how many soft tokens it takes."""
        if file.startswith(b"fLaC") or file.startswith(b"RIFF"):
            samples, rate = soundfile.read(io.BytesIO(file), dtype="float32")
            assert rate == RATE, rate
            features = self.processor.feature_extractor([samples], sampling_rate=RATE, return_tensors="pt")
            return dict(features), soft_tokens_of_sound(np.asarray(features["input_features_mask"][0]))
        features = self.processor.image_processor(images=[Image.open(io.BytesIO(file)).convert("RGB")], return_tensors="pt")
        count = int(features.pop("num_soft_tokens_per_image")[0])
        return dict(features), count

    @torch.no_grad()
    def answer(self, example, file, limit=24):
        """The greedy answer, as text with its control tokens."""
        inputs, count = self.inputs(file)
        ids = expand(self.tokenizer.encode(prompt_text(example), add_special_tokens=False).ids, count)
        output = self.model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **inputs,
                                     max_new_tokens=limit, do_sample=False, eos_token_id=STOP_IDS, pad_token_id=0)
        return self.tokenizer.decode(output[0, len(ids):].tolist(), skip_special_tokens=False)

    @torch.no_grad()
    def is_right(self, example, file):
        """Whether the greedy answer is the expected one: by one pass over it, or else by generating."""
        inputs, count = self.inputs(file)
        prompt, answer = (self.tokenizer.encode(text, add_special_tokens=False).ids
                          for text in (prompt_text(example), answer_text(example | {"answer": example["expect"]})))
        ids = expand(prompt, count)
        full = torch.tensor([ids + answer])
        logits = self.model(input_ids=full, attention_mask=torch.ones_like(full), use_cache=False, **inputs).logits
        if logits[0, len(ids) - 1:-1].argmax(-1).tolist() == answer:
            return True
        return is_right(example, self.answer(example, file))


def score(judge, pairs, show=0):
    """Share of right answers per skill, and the numbers of the wrong prompts."""
    right, counts, wrong = {}, {}, []
    for number, (example, file) in enumerate(pairs):
        skill, good = example["skill"], judge.is_right(example, file)
        right[skill], counts[skill] = right.get(skill, 0) + good, counts.get(skill, 0) + 1
        if not good:
            wrong.append(number)
            if counts[skill] - right[skill] <= show:
                print(f"  {example['messages'][-1]['content']!r} -> {judge.answer(example, file)!r}, expected {example['expect']}")
    for skill, count in counts.items():
        print(f"{skill:14} {right[skill] / count:.3f} of {count}", flush=True)
    return {skill: round(right[skill] / count, 3) for skill, count in counts.items()}, wrong


def fresh_prompts(count, seed):
    """Held-out prompts never looked at before, noise and all."""
    for skill in SKILLS:
        yield from (pair for _, pair in zip(range(count), held_out_media(skill, seed)))
