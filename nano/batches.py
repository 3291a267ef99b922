"""Batches to learn from: conversations of text, and about pictures and sounds, made by processes of their own or in place."""

import os
import queue
import random
import threading
import time

import numpy as np
import torch
from torch import multiprocessing

import pictures
import sounds
from chat import segments
from media import SKILLS as MEDIA_SKILLS
from media import expand, inputs_of, kind_of, make_media_example
from world import SKILLS, WEIGHTS, Draw, make_example

PROMPT_WEIGHT = 0.1
"""Loss weight of text the model only reads, against 1 for what it must say."""
MEDIA_IDS = range(5, 12)
LENGTH_STEP = 16
"""Lengths of a batch are multiples of this, so that there are few of them."""
TOKENS_OF_EXAMPLE, POOL_BATCHES = 100, 8
FIRST_SKILLS = {"copy": 2.0, "facts": 2.0, "tool call": 2.0, "spell": 1.0, "extract": 1.0, "small sums": 1.0}
"""Copying appears suddenly, and everything else waits for it: training from nothing starts with these skills alone."""


def encode(tokenizer, example, soft_tokens=0):
    """A conversation as a list of (token, loss weight)."""
    sequence = []
    for text, taught in segments(example):
        weight = 1.0 if taught else PROMPT_WEIGHT
        ids = expand(tokenizer.encode(text, add_special_tokens=False).ids, soft_tokens)
        sequence += [(token, weight) for token in ids]
    return sequence


def collate(sequences, kinds, media):
    """A batch: `ids`, `mask` and `loss_weights`, each `[batch, length]`; the rows of each kind; the model's inputs of media."""
    length = -(-max(map(len, sequences)) // LENGTH_STEP) * LENGTH_STEP
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    mask, loss_weights = torch.zeros_like(ids), torch.zeros(len(sequences), length)
    for row, sequence in enumerate(sequences):
        tokens, token_weights = zip(*sequence)
        ids[row, :len(tokens)] = torch.tensor(tokens)
        mask[row, :len(tokens)] = 1
        loss_weights[row, :len(tokens)] = torch.tensor(token_weights)
    loss_weights[(ids >= MEDIA_IDS.start) & (ids < MEDIA_IDS.stop)] = 0
    return {"ids": ids, "mask": mask, "loss_weights": loss_weights, "kinds": kinds, "media": media, "tokens": int(mask.sum())}


class TextBatches:
    """An endless stream of batches of at most so many tokens, examples of like length together."""

    def __init__(self, tokenizer, seed):
        self.tokenizer, self.rng, self.pool = tokenizer, random.Random(seed), []

    def next(self, first, batch_tokens):
        """`first`: of the skills that training starts with."""
        if not self.pool:
            self._fill(FIRST_SKILLS if first else {name: WEIGHTS.get(name, 1.0) for name in SKILLS}, batch_tokens)
        sequences = self.pool.pop()
        return collate(sequences, {"text": slice(0, len(sequences))}, {})

    def _fill(self, skill_weights, batch_tokens):
        draw = Draw(self.rng, held_out=False)
        count = max(512, POOL_BATCHES * batch_tokens // TOKENS_OF_EXAMPLE)
        names = self.rng.choices(list(skill_weights), list(skill_weights.values()), k=count)
        encoded = sorted((encode(self.tokenizer, make_example(name, draw)) for name in names), key=len)
        batch = []
        for sequence in encoded:
            if batch and len(sequence) * (len(batch) + 1) > batch_tokens:
                self.pool.append(batch)
                batch = []
            batch.append(sequence)
        self.pool.append(batch)
        self.rng.shuffle(self.pool)


class MediaBatches:
    """An endless stream of batches of so many pictures and sounds."""

    def __init__(self, tokenizer, seed, n_pictures, n_sounds):
        self.rng = np.random.default_rng(random.Random(seed).getrandbits(64))
        self.tokenizer, self.draw, self.counts = tokenizer, Draw(random.Random(seed), held_out=False), {"image": n_pictures, "audio": n_sounds}
        self.weights = {skill: (pictures.WEIGHTS | sounds.WEIGHTS).get(skill, 1.0) for skill in MEDIA_SKILLS}

    def next(self):
        examples, kinds = [], {}
        for kind, count in self.counts.items():
            skills = {skill: weight for skill, weight in self.weights.items() if kind_of(skill) == kind}
            chosen = self.draw.rng.choices(list(skills), list(skills.values()), k=count)
            if count:
                kinds[kind] = slice(len(examples), len(examples) + count)
            examples += [make_media_example(skill, self.draw) for skill in chosen]
        media, soft_tokens = inputs_of([example["medium"] for example in examples], self.rng)
        sequences = [encode(self.tokenizer, example, count) for example, count in zip(examples, soft_tokens)]
        return collate(sequences, kinds, media)


class Inline:
    """Batches made when they are asked for."""

    def __init__(self, arguments, tokenizer, seed):
        prepare(arguments)
        self.text = TextBatches(tokenizer, f"{seed} text")
        self.media = MediaBatches(tokenizer, f"{seed} media", arguments.pictures, arguments.sounds)
        self.with_media = arguments.pictures + arguments.sounds > 0

    def next_batches(self, first, batch_tokens):
        return [self.text.next(first, batch_tokens)] + ([self.media.next()] if self.with_media else [])

    def report(self):
        return "made in place"

    def close(self):
        """Nothing is left running."""


def prepare(arguments):
    """Opens the words and fonts that scenes are made of."""
    if arguments.pictures + arguments.sounds:
        sounds.use_bank(arguments.bank)
        pictures.use_fonts(arguments.fonts)


def load(arguments, tokenizer, seed, kind, first, out):
    """A loader's run, to its end by its parent."""
    torch.set_num_threads(1)
    os.nice(5)
    if kind == "media":
        prepare(arguments)
        stream = MediaBatches(tokenizer, seed, arguments.pictures, arguments.sounds)
        while True:
            out.put(stream.next())
    stream = TextBatches(tokenizer, seed)
    while True:
        out.put(stream.next(first.value, arguments.batch_tokens))


class Loaders:
    """Batches that other processes make ahead, most of them pictures and sounds, and a thread brings to the device."""

    def __init__(self, arguments, tokenizer, seed):
        context = multiprocessing.get_context("spawn")
        self.queues = {"text": context.Queue(8), "media": context.Queue(12)}
        self.first, self.waited, self.began, self.processes = context.Value("b", False), 0.0, time.time(), []
        for index in range(arguments.loaders):
            kind = "text" if index % 8 == 0 else "media"
            self.processes.append(context.Process(target=load, daemon=True, args=(
                arguments, tokenizer, f"{seed} loader {index}", kind, self.first, self.queues[kind])))
            self.processes[-1].start()
        self.ready = queue.Queue(2)
        threading.Thread(target=self._bring, args=(arguments.device,), daemon=True).start()

    def next_batches(self, first, batch_tokens):
        """Those of text are of the size that the loaders were started with."""
        self.first.value = first
        start = time.time()
        batches = self.ready.get(timeout=180)
        self.waited += time.time() - start
        return batches

    def _bring(self, device):
        while True:
            batches = [waiting.get() for waiting in self.queues.values()]
            for batch in batches:
                for part in (batch, batch["media"]):
                    part.update({name: value.to(device) for name, value in part.items() if isinstance(value, torch.Tensor)})
            self.ready.put(batches)

    def report(self):
        """The share of the time spent waiting for batches."""
        return f"waited {self.waited / (time.time() - self.began):.0%}"

    def close(self):
        for process in self.processes:
            process.terminate()


