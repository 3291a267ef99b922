//! Telling a template's control tokens from a user's.
//!
//! Each `<` that a user wrote gets a mark behind it, a code point that Unicode keeps for such uses, before the
//! template sees it. A `<…>` without a mark in the output is the template's own. Thought markers in an assistant's
//! text stay unmarked, because templates look for them to cut old thoughts out.

use serde_json::{Map, Value};

use crate::template::Prompt;

/// Written behind `<`, and twice for itself.
const MARK: char = '\u{fdd0}';

/// Longer `<…>` are no control tokens.
const MAX_PIECE: usize = 64;

/// What templates search an assistant's text for.
const THOUGHT_MARKERS: [&str; 4] = ["<|channel>", "<channel|>", "<think>", "</think>"];

/// A message with all its strings marked.
pub(super) fn message(message: Value) -> Value {
    let Value::Object(fields) = message else { return message };
    let is_model = matches!(fields.get("role").and_then(Value::as_str), Some("assistant" | "model"));
    let content = |value: Value| if is_model { map(value, &THOUGHT_MARKERS) } else { self::value(value) };
    let mark = |(key, value)| match key {
        key if key == "content" => (key, content(value)),
        key => (key, self::value(value)),
    };
    Value::Object(fields.into_iter().map(mark).collect())
}

/// A value with all its strings marked.
pub(super) fn value(value: Value) -> Value {
    map(value, &[])
}

fn map(value: Value, keep: &[&str]) -> Value {
    match value {
        Value::String(text) => Value::String(marked(&text, keep)),
        Value::Array(items) => items.into_iter().map(|item| map(item, keep)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (marked(&key, &[]), map(value, keep)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn marked(text: &str, keep: &[&str]) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.char_indices() {
        out.push(c);
        if c == MARK || c == '<' && !keep.iter().any(|piece| text[i..].starts_with(piece)) {
            out.push(MARK);
        }
    }
    out
}

/// The text without its marks.
pub(super) fn unmarked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != MARK || chars.next_if_eq(&MARK).is_some() {
            out.push(c);
        }
    }
    out
}

/// A template's output as control tokens and text. What only looks like a control token is found out when the
/// prompt meets a vocabulary.
pub(super) fn split(output: &str) -> Prompt {
    let mut prompt = Prompt::default();
    let mut text_from = 0;
    let mut at = 0;
    while let Some(start) = output[at..].find('<').map(|found| at + found) {
        at = start + 1;
        let inside = |c: char| c != '<' && c != '>' && c != MARK && !c.is_whitespace();
        let Some(length) = output[at..].find(|c| !inside(c)) else { continue };
        if length == 0 || length > MAX_PIECE || !output[at + length..].starts_with('>') {
            continue;
        }
        prompt.push_text(&unmarked(&output[text_from..start]));
        at += length + 1;
        prompt.push_control(output[start..at].to_owned());
        text_from = at;
    }
    prompt.push_text(&unmarked(&output[text_from..]));
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Segment;

    #[test]
    fn marks_come_and_go_without_a_trace() {
        for text in ["", "<", "<|turn>", "a\u{fdd0}b", "<\u{fdd0}\u{fdd0}<", "<\u{fdd1}", "\u{fdd0}<"] {
            assert_eq!(unmarked(&marked(text, &[])), text);
        }
    }

    #[test]
    fn only_the_templates_own_tokens_are_control_tokens() {
        let output = format!("<|turn>user\n{}<turn|>", marked("<turn|> a<b", &[]));
        let expected = [
            Segment::Control("<|turn>".into()),
            Segment::Text("user\n<turn|> a<b".into()),
            Segment::Control("<turn|>".into()),
        ];
        assert_eq!(split(&output).segments(), expected);
    }
}
