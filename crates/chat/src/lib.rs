//! The text protocol: tokenizer, chat template, output parser.
#![forbid(unsafe_code)]

pub mod jinja;
pub mod message;
pub mod parser;
pub mod schema;
pub mod template;
pub mod tokenizer;
mod value;
