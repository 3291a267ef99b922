//! Tiny models that see and hear and can be spoken to: the random checkpoints of `fixtures/multimodal` with a vocabulary.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/multimodal");

/// Control tokens by id; those of media are where the checkpoints expect them.
pub const CONTROL: [&str; 16] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<|turn>",
    "<turn|>",
    "<|think|>",
    "<|image|>",
    "<|channel>",
    "<channel|>",
    "<|audio|>",
    "<|video|>",
    "<|image>",
    "<image|>",
    "<|audio>",
    "<audio|>",
];

/// Words that follow the letters in the vocabulary.
pub const WORDS: [&str; 50] = [
    "and", "apple", "ball", "bear", "bird", "blue", "boat", "book", "brown", "cat", "cold", "day", "deep", "dog",
    "door", "far", "fish", "five", "four", "good", "green", "hand", "house", "ice", "jump", "king", "lamp", "light",
    "moon", "new", "night", "old", "one", "open", "red", "river", "sea", "seven", "six", "small", "snow", "star",
    "stone", "sun", "ten", "three", "tree", "two", "warm", "wind",
];

/// The id of `<eos>`, which ends an answer.
pub const EOS: u32 = 1;

/// The id of a word with the space before it.
pub fn id(word: &str) -> u32 {
    let at = WORDS.iter().position(|known| *known == word).expect("a word of the vocabulary");
    (96 - WORDS.len() + at) as u32
}

/// A directory with a model, removed with the value.
pub struct Tiny(pub PathBuf);

impl Tiny {
    /// `e2b` and `12b` see and hear, `31b` sees.
    pub fn new(name: &str) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("carat-tiny-{}-{n}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a writable directory");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(Path::new(FIXTURES).join(name).join(file), dir.join(file)).expect("the fixture is there");
        }
        std::fs::write(dir.join("tokenizer.json"), tokenizer().to_string()).expect("disk space");
        Tiny(dir)
    }

    /// As an argument.
    pub fn arg(&self) -> &str {
        self.0.to_str().expect("temporary paths are UTF-8")
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tokenizer() -> Value {
    let letters = ('a'..='z').map(String::from).chain(["\u{2581}", "\n", ".", ","].map(String::from));
    let words = WORDS.iter().map(|word| format!("\u{2581}{word}"));
    let pieces: Vec<String> = CONTROL.map(String::from).into_iter().chain(letters).chain(words).collect();
    let added: Vec<Value> =
        CONTROL.iter().enumerate().map(|(id, piece)| json!({"id": id, "content": piece, "special": true})).collect();
    let vocab: serde_json::Map<String, Value> = pieces.into_iter().zip((0..).map(Value::from)).collect();
    json!({
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": false, "vocab": vocab, "merges": []},
    })
}
