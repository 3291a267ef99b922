//! What is true of every parser of foreign bytes, whatever the bytes.
//!
//! One function per parser. It takes any input and panics where a law is broken; an error of the parser is a fine
//! answer. The fuzzer calls these functions with inputs of its own making (`fuzz/fuzz_targets`), `cargo test`
//! with the inputs in `fuzz/corpus`. All allocations made on a file's word are in here too: a fuzzer with a
//! memory limit finds those that the file's size doesn't justify.
#![forbid(unsafe_code)]

mod chat;
mod parser;
mod tokenizer;
mod weights;

pub use chat::{conversation, jinja};
pub use parser::output_parser;
pub use tokenizer::{tokenizer_json, tokenizer_text};
pub use weights::{config_json, gguf, safetensors};

/// A parser's name, which is that of its corpus, and its laws.
pub type Case = (&'static str, fn(&[u8]));

/// All of them.
pub const CASES: &[Case] = &[
    ("config_json", config_json),
    ("conversation", conversation),
    ("gguf", gguf),
    ("jinja", jinja),
    ("output_parser", output_parser),
    ("safetensors", safetensors),
    ("tokenizer_json", tokenizer_json),
    ("tokenizer_text", tokenizer_text),
];
