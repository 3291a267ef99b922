//! The tokenizer against the reference library, on a small vocabulary of Gemma 4's form
//! (`data/tokenizer.json`, made by `data/tokenizer_make.py`).
//!
//! `examples/tokenizer_oracle.rs` runs the same comparison on a real vocabulary.

mod tokenizer_oracle;

use carat_chat::tokenizer::Tokenizer;
use tokenizer_oracle::{Oracle, Rng, differences, text};

const JSON: &[u8] = include_bytes!("data/tokenizer.json");

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(JSON).expect("the test vocabulary loads")
}

#[test]
fn every_text_is_tokenised_as_the_reference_does() {
    let (tokenizer, oracle) = (tokenizer(), Oracle::new(JSON));
    let mut rng = Rng(1);
    for _ in 0..20_000 {
        let text = text(&mut rng, &tokenizer);
        let found = differences(&tokenizer, &oracle, &text);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
