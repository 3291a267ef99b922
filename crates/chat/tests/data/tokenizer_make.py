"""Trains the test vocabulary `tokenizer.json`: Gemma 4's pipeline and control tokens over about 8,000 entries.

    python tokenizer_make.py OUT.json        (needs the `tokenizers` package)

The corpus is made here from a seed: words built from syllables of many scripts, code, numbers, runs of spaces
and newlines, emoji. What matters to the tests is not the language but the shape: merges inside words, with the
space mark in front, over runs, over several bytes per character, and characters that only bytes can write.
"""

import json
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTROL = (
    "<pad> <eos> <bos> <unk> <mask> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response> <tool_response|> "
    '<|"|> <|think|> <|channel> <channel|> <|turn> <turn|> <|image> <|audio> <|image|> <|audio|> <image|> <audio|> '
    "<|video|>"
).split()
SYLLABLES = {
    "latin": "ba co de fi gu ha in jo ka lo mi ne or pa qu re st tion the ing and er on ly ed es wh ch sh ou ea".split(),
    "accented": "é à ç ü ö ñ ă ţ ş ł ż ő ů č ě å ø ß la re ti mo sa ne".split(),
    "greek": "α β γα δε ζ η θε ι κα λο μη νυ ξ ος πα ρο σε τα".split(),
    "cyrillic": "а бо ве го де жи за ий ко ла ми на ов по ро ст та ущ ние ся".split(),
    "hebrew": "א בו גד ה ו ז חי ט כ ל מ נ ס ע פ צ קר ש ת".split(),
    "arabic": "ال با تا ثم جد حر خط در سا شم عل في قر كت لم من نو هو ية".split(),
    "devanagari": "का ने है में की से को पर यह था ति प्र र् स ल म न".split(),
    "thai": "กา ที่ เป็น ได้ ไม่ ของ และ ใน มี ว่า คน ไป".split(),
    "hangul": "가 나 다 라 마 하 는 은 이 를 에 서 고 한 국 어 습 니".split(),
    "kana": "の に は を た が で て と し れ さ ある いる も する から な こと として い や ア イ ウ ン ー ス".split(),
    "han": "的 一 是 不 了 人 我 在 有 他 这 中 大 来 上 国 个 到 说 们 为 子 和 你 地 出 道 也 时 年".split(),
}
SPACED = {"latin", "accented", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "hangul"}
CODE = [
    "fn main() {\n    println!(\"{}\", x);\n}\n", "def f(self, x):\n        return x + 1\n\n", "for (int i = 0; i < n; ++i) {",
    "<div class=\"a\"> </div>", "if (a == b && c != d) ", "// comment\n", "\t\treturn;\n", "SELECT * FROM t WHERE id = 1;\n",
    "{\"key\": [1, 2, 3], \"b\": null}", "https://example.org/a_b?c=d&e=f", "let v: Vec<u32> = vec![0; 16];\n",
]
EMOJI = "😀 😂 ❤️ 👍🏽 👩‍👩‍👧 🇩🇪 🎉 🔥 ✅ →".split()


def corpus(seed):
    rng = random.Random(seed)
    lexicon = {
        script: ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(400)]
        for script, syllables in SYLLABLES.items()
    }
    for _ in range(12_000):
        script = rng.choices(list(lexicon), weights=[6] + [1] * (len(lexicon) - 1))[0]
        words = [rng.choice(lexicon[script]) for _ in range(rng.randint(3, 14))]
        text = (" " if script in SPACED else "").join(words)
        tail = rng.choice([".", "!\n", ",", "\n\n", " " * rng.randint(1, 12), "\n" * rng.randint(1, 8), "\t" * 3, "'s"])
        extra = rng.choice([rng.choice(CODE), rng.choice(EMOJI), str(rng.randint(0, 99999)), " ", text.title()])
        yield text + tail + extra


def main(out):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # In training only: words end before a space mark, as in the real vocabulary, and newlines stay apart.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n+|▁*[^▁\n]*"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=CONTROL + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=600,
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(7), trainer)
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] in CONTROL]
    made["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
    }
    made["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ],
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(made, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")
    print(len(made["model"]["vocab"]), "entries,", len(made["model"]["merges"]), "merges")


main(sys.argv[1])
