//! What is true of every parser of foreign bytes, whatever the bytes.
//!
//! One function per parser. It takes any input and panics where a law is broken; an error of the parser is a fine
//! answer. It says whether the parser took the input. The fuzzer calls these functions with inputs of its own making (`fuzz/fuzz_targets`), `cargo test`
//! with the inputs in `fuzz/corpus`. All allocations made on a file's word are in here too: a fuzzer with a
//! memory limit finds those that the file's size doesn't justify.
#![forbid(unsafe_code)]

mod chat;
mod hub;
mod media;
mod parser;
mod quant;
mod tokenizer;
mod weights;

pub use chat::{conversation, jinja};
pub use hub::hub_listing;
pub use media::{picture, sound, video};
pub use parser::output_parser;
pub use quant::{blocks, quantised_checkpoint};
pub use tokenizer::{tokenizer_json, tokenizer_text};
pub use weights::{config_json, gguf, gguf_split, imatrix, safetensors, safetensors_index};

/// The laws of a parser; whether it took the input.
pub type Law = fn(&[u8]) -> bool;
/// A parser's name, which is that of its corpus, and its laws.
pub type Case = (&'static str, Law);

/// All of them.
pub const CASES: &[Case] = &[
    ("blocks", blocks),
    ("config_json", config_json),
    ("conversation", conversation),
    ("gguf", gguf),
    ("gguf_split", gguf_split),
    ("hub_listing", hub_listing),
    ("imatrix", imatrix),
    ("jinja", jinja),
    ("output_parser", output_parser),
    ("picture", picture),
    ("quantised_checkpoint", quantised_checkpoint),
    ("safetensors", safetensors),
    ("safetensors_index", safetensors_index),
    ("sound", sound),
    ("tokenizer_json", tokenizer_json),
    ("tokenizer_text", tokenizer_text),
    ("video", video),
];
