"""Builds carat-nano's tokenizer: a small BPE over the world's text, in the form of Gemma 4's.

Gemma 4's control tokens keep their true ids as far as those are low (0-106); the media tokens, whose
true ids lie beyond this small vocabulary, sit at unused low ids. Then come the newline (107), the 256
byte-fallback tokens, single characters, and the learnt merges. Merges never cross words and never join
digits, so every digit is a token of its own.
"""

import json
import random
import re
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from chat import segments
from words import CITIES, COLOURS, NAMES, WORDS
from world import SKILLS, Draw, make_example

VOCAB_SIZE = 1280
MEDIA_TOKENS = {5: "<|image>", 6: "<image|>", 7: "<|image|>", 8: "<|audio>", 9: "<audio|>", 10: "<|audio|>", 11: "<|video|>"}
CONTROL_TOKENS = {
    0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>",
    46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>", 50: "<|tool_response>", 51: "<tool_response|>",
    52: '<|"|>', 98: "<|think|>", 100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>", **MEDIA_TOKENS,
}
NEWLINE_ID = 107
WORD_PATTERNS = ("\n", "[0-9]", r"▁?[A-Za-z]+|▁|[^A-Za-z▁]")


def training_text(seed=1, count=12000):
    """Conversations of the world without their control tokens, and its words on their own."""
    rng = random.Random(seed)
    control = re.compile("|".join(re.escape(token) for token in sorted(CONTROL_TOKENS.values(), key=len, reverse=True)))
    for _ in range(count):
        example = make_example(rng.choice(list(SKILLS)), Draw(rng, False))
        yield from filter(None, control.split("".join(text for text, _ in segments(example))))
    for words in (CITIES, COLOURS, NAMES, WORDS):
        yield from (f" {word}" for word in words for _ in range(40))


def learn_pieces(size):
    """Trains a plain BPE of `size` pieces; returns it as the JSON of a tokenizer."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in WORD_PATTERNS])
    alphabet = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, limit_alphabet=len(alphabet),
                                  special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(training_text(), trainer)
    return json.loads(tokenizer.to_str())


def build():
    """The JSON of tokenizer.json."""
    low = [CONTROL_TOKENS.get(index, f"<unused{index}>") for index in range(NEWLINE_ID)]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    data = learn_pieces(VOCAB_SIZE - len(low) - len(byte_tokens))
    pieces = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    tokens = low + ["\n"] + byte_tokens + [piece for piece in pieces if piece != "\n"]
    assert len(tokens) == len(set(tokens)) == VOCAB_SIZE, len(tokens)
    data["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    data["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    data["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    data["added_tokens"] = [
        {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for index, token in sorted(CONTROL_TOKENS.items())]
    return data


TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
    "mask_token": "<mask>", "sot_token": "<|turn>", "eot_token": "<turn|>", "soc_token": "<|channel>", "eoc_token": "<channel|>",
    "think_token": "<|think|>", "std_token": "<|tool>", "etd_token": "<tool|>", "stc_token": "<|tool_call>",
    "etc_token": "<tool_call|>", "str_token": "<|tool_response>", "etr_token": "<tool_response|>", "escape_token": '<|"|>',
    "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
    "boa_token": "<|audio>", "eoa_token": "<audio|>", "model_max_length": 4096, "padding_side": "left",
    "clean_up_tokenization_spaces": False,
}


def write(folder: Path):
    """Writes tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(build(), ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "checkpoint"))
