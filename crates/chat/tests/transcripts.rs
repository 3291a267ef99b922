//! The official chat format, case by case.
//!
//! `data/transcripts.jsonl` holds conversations with what Google's templates print for them, large and small
//! models, produced with Jinja from the templates of 2026-07-09.

use carat_chat::message::Conversation;
use carat_chat::template::{Variant, render};
use serde_json::Value;

const CASES: &str = include_str!("data/transcripts.jsonl");

#[test]
fn every_transcript_is_rendered_byte_for_byte() {
    let mut equal = 0;
    for (line, case) in CASES.lines().enumerate() {
        let case: Value = serde_json::from_str(case).expect("each line is JSON");
        let conversation = Conversation::from_openai(&case).expect("each line is a conversation");
        for (variant, key) in [(Variant::Large, "large"), (Variant::Small, "small")] {
            assert_eq!(render(&conversation, variant).text(), case[key].as_str().unwrap(), "case {line}, {key}");
            equal += 1;
        }
    }
    assert_eq!(equal, 800);
}
