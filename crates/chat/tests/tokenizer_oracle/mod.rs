//! Texts made from a seed, and the reference library as the oracle for them. Shared by `tests/tokenizer.rs`
//! (the small vocabulary) and `examples/tokenizer_oracle.rs` (a real one).

use carat_chat::tokenizer::Tokenizer;
use carat_tensor::TokenId;
use serde_json::Value;

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// First and last code point of what a script's words are drawn from.
const SCRIPTS: &[(u32, u32)] = &[
    (0x61, 0x7a),
    (0x41, 0x5a),
    (0xc0, 0x17f),
    (0x370, 0x3ff),
    (0x400, 0x45f),
    (0x531, 0x586),
    (0x5d0, 0x5ea),
    (0x620, 0x64a),
    (0x900, 0x94d),
    (0x980, 0x9cd),
    (0xb80, 0xbcd),
    (0xe01, 0xe4d),
    (0x10d0, 0x10f0),
    (0x1200, 0x1250),
    (0x1780, 0x17d3),
    (0x1ea0, 0x1ef9),
    (0x3041, 0x3096),
    (0x30a1, 0x30fa),
    (0x4e00, 0x5200),
    (0xac00, 0xae00),
    (0x1f300, 0x1f6ff),
    (0x20000, 0x20050),
    (0x300, 0x36f),
    (0x1d400, 0x1d433),
];
const ENGLISH: &[&str] = &[
    "the",
    "of",
    "and",
    "tokenizer",
    "Language",
    "running",
    "don't",
    "it's",
    "2024",
    "3.14159",
    "internationalization",
    "I",
    "a",
    "was",
    "which",
    "because",
    "WHY",
    "hello",
    "world",
    "e.g.",
    "(see",
    "below)",
    "\"quoted\"",
    "x",
    "unbelievable",
    "antidisestablishmentarianism",
    "McDonald's",
    "well-known",
    "co-operate",
    "naïve",
    "café",
];
const CODE: &[&str] = &[
    "fn main() {\n    println!(\"{}\", x);\n}\n",
    "def f(self):\n\treturn None\n",
    "for (int i = 0; i < n; ++i) {\n",
    "if (a == b && c != d) ",
    "    ",
    "\t\t",
    "// comment\r\n",
    "{\"key\": [1, 2.5e-3, null]}",
    "</div> </p>\n<br/>",
    "let v: Vec<u32> = vec![0; 16];",
    "https://example.org/a_b?c=d%20e&f=#g",
    "SELECT * FROM t WHERE id='1';--",
    "snake_case_name",
    "camelCaseName",
    "0xdeadBEEF",
    "\\n\\t\\\\",
    "$(cat <<'EOF')",
    "&&||!=<=>=->=>::..",
    "> </",
];
const EMOJI: &[&str] =
    &["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "❤️‍🔥", "🏳️‍🌈", "1️⃣", "🧑🏿‍🚀", "☃", "\u{fe0f}", "\u{200d}", "\u{e0067}", "🫠"];
const ODD: &[&str] = &[
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{ad}",
    "\u{200b}",
    "\u{2028}",
    "\u{202e}",
    "\u{feff}",
    "\u{fffd}",
    "\u{ffff}",
    "\u{10ffff}",
    "\u{e000}",
    "▁",
    "▁▁",
    " ▁",
    "\r",
    "\r\n",
    "\u{b}",
    "\u{c}",
    "\u{1b}[0m",
    "e\u{301}",
    "ﬁ",
    "ÅÅ",
    "İı",
    "ß",
    "<0x41>",
    "<0xFF>",
    "<0x0A>",
    "<unk>",
    "[UNK]",
    "<s>",
];
const CONTROL: &[&str] = &[
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
    "<|think|>",
    "<|image|>",
    "<|image>",
    "<image|>",
    "<|audio|>",
    "<|audio>",
    "<audio|>",
    "<|video|>",
    "<|turn",
    "turn|>",
    "<|",
    "|>",
    "<<|turn>>",
    "<|tool_",
];

fn word(rng: &mut Rng, out: &mut String) {
    let &(first, last) = rng.pick(SCRIPTS);
    for _ in 0..1 + rng.below(8) {
        out.extend(char::from_u32(first + rng.below((last - first + 1) as usize) as u32));
    }
}

/// A text of one of the kinds that the tests are about.
pub fn text(rng: &mut Rng, tokenizer: &Tokenizer) -> String {
    let kind = rng.below(10);
    let mut out = String::new();
    for _ in 0..1 + rng.below(40) {
        match if kind == 9 { rng.below(9) } else { kind } {
            0 => {
                out.push_str(rng.pick::<&str>(ENGLISH));
                out.push_str(rng.pick::<&str>(&[" ", " ", " ", ", ", ". ", "\n", ""]));
            }
            1 => {
                word(rng, &mut out);
                out.push_str(rng.pick::<&str>(&[" ", " ", "", "。", "\n"]));
            }
            2 => out.push_str(rng.pick::<&str>(CODE)),
            3 => out.push_str(rng.pick::<&str>(EMOJI)),
            4 => out.push_str(rng.pick::<&str>(ODD)),
            5 => {
                let unit = *rng.pick(&[" ", "\n", "\t", "▁", "-", "=", "a", "\r\n", " \n", "0", "ha", "的"]);
                let most = *rng.pick(&[4, 40, 90]);
                out.push_str(&unit.repeat(1 + rng.below(most)));
            }
            6 => {
                let end = *rng.pick(&[0x80, 0x800, 0x1_0000, 0x11_0000]);
                out.extend(char::from_u32(rng.below(end) as u32));
            }
            7 => {
                out.push_str(rng.pick::<&str>(CONTROL));
                out.push_str(rng.pick::<&str>(&["", "", " ", "\n", "x"]));
            }
            _ => {
                // Pieces of the vocabulary side by side: the densest source of competing merges.
                let id = TokenId(rng.below(tokenizer.vocab_size()) as u32);
                let piece = tokenizer.piece(id).unwrap_or("");
                out.push_str(&if rng.below(2) == 0 { piece.replace('▁', " ") } else { piece.to_owned() });
            }
        }
    }
    out
}

/// The reference library on the same `tokenizer.json`.
pub struct Oracle {
    /// Knows no added tokens: user text.
    plain: tokenizers::Tokenizer,
    /// As the file says: template text.
    special: tokenizers::Tokenizer,
}

impl Oracle {
    pub fn new(json: &[u8]) -> Self {
        let special = tokenizers::Tokenizer::from_bytes(json).expect("the reference library reads the file");
        let mut value: Value = serde_json::from_slice(json).expect("the file is JSON");
        value["added_tokens"] = Value::Array(Vec::new());
        let plain = serde_json::to_vec(&value).expect("a value prints");
        let plain = tokenizers::Tokenizer::from_bytes(plain).expect("the reference library reads the file");
        Oracle { plain, special }
    }

    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        ids(&self.plain, text)
    }

    pub fn encode_with_special(&self, text: &str) -> Vec<TokenId> {
        ids(&self.special, text)
    }

    /// Only for ids of valid text: of a broken run of bytes the library also throws the good ones away.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
        self.special.decode(&ids, false).expect("the reference library decodes")
    }
}

fn ids(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<TokenId> {
    let encoding = tokenizer.encode_fast(text, false).expect("the reference library encodes");
    encoding.get_ids().iter().map(|&id| TokenId(id)).collect()
}

/// Differences between this tokenizer and the reference on one text, as text.
pub fn differences(tokenizer: &Tokenizer, oracle: &Oracle, text: &str) -> Vec<String> {
    let plain = tokenizer.encode(text);
    let special = tokenizer.encode_with_special(text);
    let mut found = Vec::new();
    let mut compare = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug, equal: bool| {
        if !equal {
            found.push(format!("{what} of {text:?}:\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    };
    let expected = oracle.encode(text);
    compare("encode", &plain, &expected, plain == expected);
    let expected = oracle.encode_with_special(text);
    compare("encode_with_special", &special, &expected, special == expected);
    let decoded = tokenizer.decode(&special, carat_chat::tokenizer::Specials::Show);
    let expected = oracle.decode(&special);
    compare("decode", &decoded, &expected, decoded == expected);
    let control: Vec<_> = plain.iter().filter(|&&id| tokenizer.is_control(id)).collect();
    compare("control tokens", &control, &"none", control.is_empty());
    found
}
