"""Makes what Gemma 3's tokenizer and chat format are held to.

    python gemma3_make.py TEMPLATE TEXT OUT        (needs sentencepiece, transformers 5.23, tokenizers)

TEMPLATE is the official `chat_template` of the `google/gemma-3-*-it` models, TEXT a text to train on
(`fixtures/text/alice.txt`). Writes to the folder OUT

  gemma3_spm.json        a small vocabulary as a GGUF file of Gemma 3 holds it (tokens, scores, types), and texts with
                         the ids that sentencepiece gives them, and those of the next file where they differ (in long
                         runs of spaces, which the one cuts by length and the other merges)
  gemma3_tokenizer.json  the same as transformers' GemmaTokenizer writes it
  gemma3.jsonl           conversations with what the template prints for them by transformers' renderer
"""

import io
import json
import random
import sys
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import GemmaTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

MARK = "\u2581"
CONTROL = ["<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>"]
DEFINED = ["[multimodal]", "\n", "\n\n", "\n\n\n", MARK * 2, MARK * 3, MARK * 4, "<table>", "</table>", "<b>"]
WORDS = 'Paris weather 東京 naïve {x} 3.5 <b> tool 🙂 Ω "quoted" a:b café \\ [1,2] end'.split()


def train(text):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        control_symbols=CONTROL, user_defined_symbols=DEFINED, split_digits=True, normalization_rule_name="identity",
        add_dummy_prefix=False, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        minloglevel=2, num_threads=1,
    )
    return model.getvalue()


def texts(text, rng):
    lines = text.split("\n")
    for _ in range(40):
        start = rng.randrange(len(lines) - 4)
        yield "\n".join(lines[start : start + rng.randint(1, 4)])
    pieces = [" ", "  ", "   ", "     ", "\n", "\n\n\n\n", "\t", "<table>", "<b>x", "Alice", " the", "é", "東京", "🙂", "12", "'s", "\r\n", "ing"]
    for _ in range(60):
        yield "".join(rng.choice(pieces) for _ in range(rng.randint(1, 14)))


def vocabulary(text, rng, out):
    model = train(text)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    spm = sentencepiece.SentencePieceProcessor(model_proto=model)
    # Converters write user-defined spaces as spaces, and call the unknown token a control token.
    tokens = [p.piece.replace(MARK, " ") if p.type == 4 else p.piece for p in proto.pieces]
    types = [3 if p.type == 2 else p.type for p in proto.pieces]
    cases = [{"text": t, "ids": spm.encode(t)} for t in texts(text, rng)]
    ids = {p.piece: i for i, p in enumerate(proto.pieces)}
    merges = []
    for piece in proto.pieces:
        splits = [(piece.piece[:at], piece.piece[at:]) for at in range(1, len(piece.piece))]
        known = sorted((ids[a], ids[b], a, b) for a, b in splits if a in ids and b in ids)
        if piece.type in (1, 4):
            merges += [(piece.score, a, b) for _, _, a, b in known]
    merges.sort(key=lambda merge: -merge[0])
    tokenizer = GemmaTokenizer(vocab=ids, merges=[(a, b) for _, a, b in merges])
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL[1:]})
    tokenizer.backend_tokenizer.add_tokens([t for t in DEFINED if MARK not in t])
    for case in cases:
        found = tokenizer.encode(case["text"], add_special_tokens=False)
        if found != case["ids"]:
            case["fast"] = found
    small = dict(tokens=tokens, scores=[p.score for p in proto.pieces], types=types, cases=cases)
    (out / "gemma3_spm.json").write_text(json.dumps(small, ensure_ascii=False, separators=(",", ":")) + "\n")
    tokenizer.backend_tokenizer.save(str(out / "gemma3_tokenizer.json"), pretty=False)


def conversations(template, rng):
    spaced = lambda: rng.choice(["", " ", "\n", "  \t"]) + " ".join(rng.choices(WORDS, k=rng.randint(0, 9))) + rng.choice(["", " ", "\n\n"])
    part = lambda: {"type": "text", "text": spaced()}

    def content(of_system):
        if rng.random() < 0.7:
            return spaced()
        parts = [part()]
        for _ in range(rng.randint(0, 2)):
            more = part() if of_system or rng.random() < 0.5 else {"type": "image"}
            parts.insert(len(parts) if of_system else rng.randint(0, len(parts)), more)
        return parts

    for _ in range(60):
        messages = [{"role": "system", "content": content(True)}] if rng.random() < 0.5 else []
        messages += [{"role": ["user", "assistant"][i % 2], "content": content(False)} for i in range(rng.randint(1, 5))]
        generate = rng.random() < 0.7
        (prompt,), _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=generate, bos_token="<bos>")
        yield {"messages": messages, "add_generation_prompt": generate, "prompt": prompt}


def main(template, text, out):
    rng, out = random.Random(3), Path(out)
    vocabulary(Path(text).read_text(), rng, out)
    lines = (json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in conversations(Path(template).read_text(), rng))
    (out / "gemma3.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
