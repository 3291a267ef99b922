//! The text protocol: tokenizer, chat template, output parser.
#![forbid(unsafe_code)]

pub mod tokenizer;
