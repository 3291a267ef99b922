"""Scores carat-nano on recordings of people, which it was never trained on: `python nano/recordings.py`.

They are those of Debian's `asterisk-core-sounds-en-wav` (one woman, 8 kHz: ten digits, three of the model's words) and
`pocketsphinx-testdata` (two strings of digits by other speakers). None is part of this repository.
"""

import io
import random
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly
from tokenizers import Tokenizer

from score import HERE, load_model
from score_media import RATE, Judge

ASTERISK = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
SPHINX = Path("/usr/share/pocketsphinx/test/data")
WORDS = {"star": "digits/star.wav", "hello": "hello.wav", "goodbye": "goodbye.wav"}
STRINGS = {"2 9 3 4 0": "tidigits/dhd.2934z.raw", "5 5": "cards/004.wav"}
MADE_STRINGS, SEED = 32, 5


def read(path):
    """Samples at 16 kHz."""
    if path.suffix == ".raw":
        return np.frombuffer(path.read_bytes(), "<i2").astype(np.float32) / 32768
    samples, rate = soundfile.read(path, dtype="float32")
    return resample_poly(samples, RATE, rate).astype(np.float32) if rate != RATE else samples


def prompts(digits):
    """(group, question, answer, samples) of every prompt."""
    for value, samples in enumerate(digits):
        yield "digits", "Which digit do you hear?", str(value), samples
    rng = random.Random(SEED)
    for _ in range(MADE_STRINGS):
        values = [rng.randrange(10) for _ in range(rng.randint(2, 4))]
        yield "strings of those digits", "Transcribe the digits.", " ".join(map(str, values)), np.concatenate([digits[value] for value in values])
    for word, path in WORDS.items():
        yield "words", "Which word do you hear?", word, read(ASTERISK / path)
    for text, path in STRINGS.items():
        yield "strings of other speakers", "Transcribe the digits.", text, read(SPHINX / path)


def main():
    checkpoint = HERE / "checkpoint"
    judge = Judge(load_model(checkpoint, False), Tokenizer.from_file(str(checkpoint / "tokenizer.json")), checkpoint)
    counts = {}
    for group, question, answer, samples in prompts([read(ASTERISK / f"digits/{value}.wav") for value in range(10)]):
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
        example = {"messages": [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": question}]}], "tools": [],
                   "enable_thinking": False, "expect": {"content": answer}}
        right = judge.is_right(example, file.getvalue())
        good, count = counts.get(group, (0, 0))
        counts[group] = good + right, count + 1
        if not right:
            print(f"  {group}: {answer!r} was heard as {judge.answer(example, file.getvalue())!r}")
    for group, (good, count) in counts.items():
        print(f"{group:26} {good} of {count}")


if __name__ == "__main__":
    main()
