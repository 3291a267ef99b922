//! The tokenizer on a real vocabulary: equality with the reference library, load time, speed.
//!
//!     CARAT_REAL_VOCAB=gemma4-vocab.gguf cargo run --release -p carat-chat --example tokenizer_oracle [CASES]
//!
//! `CARAT_REAL_VOCAB` names a GGUF file (a vocabulary-only one suffices) or a `tokenizer.json`. A GGUF file is
//! also written out as a `tokenizer.json` in memory, which is what the reference library reads, so that both ways
//! to load are timed and compared. Ends with status 1 when anything differs.

#[path = "../tests/tokenizer_oracle/mod.rs"]
mod tokenizer_oracle;

use std::collections::HashMap;
use std::time::Instant;

use carat_chat::tokenizer::{Specials, StreamDecoder, Tokenizer, VocabParts};
use carat_tensor::TokenId;
use serde_json::{Value, json};
use tokenizer_oracle::{Oracle, Rng, differences, text};

fn main() {
    let path = std::env::var("CARAT_REAL_VOCAB").expect("CARAT_REAL_VOCAB names a GGUF file or a tokenizer.json");
    let cases: usize = std::env::args().nth(1).map_or(100_000, |arg| arg.parse().expect("CASES is a number"));
    let file = std::fs::read(&path).expect("the file can be read");
    let (from_gguf, json) = if file.starts_with(b"GGUF") {
        let metadata = Metadata::read(&file);
        let millis = best_of(5, || drop(Tokenizer::from_parts(metadata.parts()).expect("the vocabulary loads")));
        println!("load from GGUF metadata  {millis:8.1} ms");
        let tokenizer = Tokenizer::from_parts(metadata.parts()).expect("the vocabulary loads");
        (Some(tokenizer), metadata.to_json())
    } else {
        (None, file)
    };
    let megabytes = json.len() as f64 / 1e6;
    let millis = best_of(5, || drop(Tokenizer::from_json(&json).expect("the vocabulary loads")));
    println!("load from tokenizer.json {millis:8.1} ms ({megabytes:.1} MB)");
    let from_json = Tokenizer::from_json(&json).expect("the vocabulary loads");
    let tokenizer = from_gguf.as_ref().unwrap_or(&from_json);
    println!("entries                  {:8}", tokenizer.vocab_size());

    speed(tokenizer);

    let oracle = Oracle::new(&json);
    let (mut rng, mut mismatches, mut bytes, mut tokens) = (Rng(2), 0, 0, 0);
    for _ in 0..cases {
        let text = text(&mut rng, tokenizer);
        let mut found = differences(tokenizer, &oracle, &text);
        let ids = tokenizer.encode_with_special(&text);
        if ids != from_json.encode_with_special(&text) {
            found.push(format!("GGUF and tokenizer.json differ on {text:?}"));
        }
        let mut stream = StreamDecoder::new(Specials::Show);
        let mut streamed: String = ids.iter().map(|&id| stream.push(tokenizer, id).to_owned()).collect();
        streamed.push_str(stream.finish());
        if streamed != tokenizer.decode(&ids, Specials::Show) {
            found.push(format!("streamed decoding differs on {text:?}"));
        }
        bytes += text.len();
        tokens += ids.len();
        mismatches += found.len();
        found.iter().for_each(|difference| eprintln!("{difference}"));
    }
    println!("cases {cases}, bytes {bytes}, tokens {tokens}, mismatches {mismatches}");
    for (what, text) in long_texts() {
        let equal = tokenizer.encode(&text) == oracle.encode(&text);
        mismatches += usize::from(!equal);
        println!("1 MB of {what:24} {}", if equal { "equal" } else { "DIFFERENT" });
    }
    std::process::exit(i32::from(mismatches > 0));
}

/// Milliseconds of the quickest run.
fn best_of(runs: usize, mut work: impl FnMut()) -> f64 {
    let times = (0..runs).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e3
    });
    times.fold(f64::INFINITY, f64::min)
}

fn speed(tokenizer: &Tokenizer) {
    let mut rng = Rng(3);
    let mut mixed = String::new();
    while mixed.len() < 8 << 20 {
        mixed.push_str(&text(&mut rng, tokenizer));
        mixed.push('\n');
    }
    for (what, text) in [("random mixture", mixed)].into_iter().chain(real_texts()).chain(long_texts()) {
        let mut count = 0;
        let millis = best_of(3, || count = tokenizer.encode(&text).len());
        let rate = text.len() as f64 / 1e3 / millis;
        println!("encode {what:24} {rate:8.1} MB/s ({:.1} MB, {count} tokens)", text.len() as f64 / 1e6);
    }
}

/// Written text where the machine has some: this crate's sources, and a file that `CARAT_REAL_TEXT` names.
fn real_texts() -> Vec<(&'static str, String)> {
    let mut texts = Vec::new();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tokenizer");
    let files = std::fs::read_dir(source).expect("the crate's sources are there");
    let code: String = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok()).collect();
    texts.push(("source code", code));
    if let Ok(path) = std::env::var("CARAT_REAL_TEXT") {
        texts.push(("CARAT_REAL_TEXT", std::fs::read_to_string(path).expect("the text can be read")));
    }
    texts
}

/// What an encoder with a super-linear step chokes on.
fn long_texts() -> Vec<(&'static str, String)> {
    let mut rng = Rng(4);
    let letters: String = (0..1 << 20).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
    let vowels: String = (0..1 << 20).map(|_| *rng.pick(&['a', 'e', 'n', 't'])).collect();
    let han: String = (0..1 << 18).filter_map(|_| char::from_u32(0x4e00 + rng.below(3000) as u32)).collect();
    let spaces = (" ".repeat(31) + "\n").repeat(1 << 15);
    vec![
        ("one letter", "a".repeat(1 << 20)),
        ("random letters", letters),
        ("four letters", vowels),
        ("random Han", han),
        ("spaces", " ".repeat(1 << 20)),
        ("newlines", "\n".repeat(1 << 20)),
        ("lines of spaces", spaces),
        ("unknown characters", "\u{10fffd}".repeat(1 << 18)),
        ("angle brackets", "<|".repeat(1 << 19)),
    ]
}

/// The metadata of a GGUF file that a tokenizer needs.
struct Metadata<'a> {
    strings: HashMap<&'a str, Vec<&'a str>>,
    integers: HashMap<&'a str, Vec<i32>>,
}

impl<'a> Metadata<'a> {
    fn read(file: &'a [u8]) -> Self {
        let mut cursor = Cursor { file, at: 16 };
        let count = cursor.u64();
        let mut metadata = Metadata { strings: HashMap::new(), integers: HashMap::new() };
        for _ in 0..count {
            let key = cursor.string();
            let (kind, length) = match cursor.u32() {
                9 => (cursor.u32(), cursor.u64()),
                kind => (kind, 1),
            };
            for _ in 0..length {
                match kind {
                    8 => metadata.strings.entry(key).or_default().push(cursor.string()),
                    4 | 5 => metadata.integers.entry(key).or_default().push(cursor.u32() as i32),
                    0 | 1 | 7 => cursor.at += 1,
                    2 | 3 => cursor.at += 2,
                    6 => cursor.at += 4,
                    _ => cursor.at += 8,
                }
            }
        }
        metadata
    }

    fn parts(&self) -> VocabParts<'_> {
        let id = |key| self.integers.get(key).map(|ids| TokenId(ids[0] as u32));
        VocabParts {
            tokens: self.strings["tokenizer.ggml.tokens"].clone(),
            token_types: &self.integers["tokenizer.ggml.token_type"],
            merges: self.strings["tokenizer.ggml.merges"].clone(),
            scores: &[],
            bos: id("tokenizer.ggml.bos_token_id"),
            eos: id("tokenizer.ggml.eos_token_id"),
            unk: id("tokenizer.ggml.unknown_token_id"),
            pad: id("tokenizer.ggml.padding_token_id"),
        }
    }

    fn to_json(&self) -> Vec<u8> {
        let parts = self.parts();
        let added =
            parts.tokens.iter().zip(parts.token_types).enumerate().filter(|(_, (_, kind))| [3, 4].contains(kind));
        let added: Vec<Value> = added
            .map(|(id, (piece, _))| {
                json!({"id": id, "content": piece, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true})
            })
            .collect();
        let vocab: serde_json::Map<String, Value> =
            parts.tokens.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), id.into())).collect();
        let merges: Vec<_> = parts.merges.iter().filter_map(|merge| merge.split_once(' ')).collect();
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer":
                {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
            "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocab, "merges": merges},
        });
        serde_json::to_vec_pretty(&file).expect("a value prints")
    }
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, n: usize) -> &'a [u8] {
        self.at += n;
        &self.file[self.at - n..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().expect("eight bytes"))
    }

    fn string(&mut self) -> &'a str {
        let length = self.u64() as usize;
        std::str::from_utf8(self.bytes(length)).expect("GGUF strings are UTF-8")
    }
}
