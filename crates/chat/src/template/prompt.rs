//! A prompt: control tokens and the text between them.
//!
//! Keeping the two apart until they are ids is what makes control tokens unforgeable: `<turn|>` typed by a user is
//! text here and stays text. Neighbouring texts are one span, whoever wrote them, because byte-pair merges cross
//! the seams (`user\n` + `Hello`) just as they do in the reference.

use std::borrow::Cow;

use carat_tensor::TokenId;

use crate::tokenizer::Tokenizer;

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One control token, as the vocabulary spells it. Only templates make these.
    Control(Cow<'static, str>),
    /// Text, which may be the template's or the user's, and holds no control token whatever it looks like.
    Text(String),
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    segments: Vec<Segment>,
}

impl Prompt {
    /// Appends a control token.
    pub(crate) fn push_control(&mut self, piece: impl Into<Cow<'static, str>>) {
        self.segments.push(Segment::Control(piece.into()));
    }

    /// Appends text.
    pub(crate) fn push_text(&mut self, text: &str) {
        match self.segments.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Text(last)) => last.push_str(text),
            _ => self.segments.push(Segment::Text(text.to_owned())),
        }
    }

    /// Appends another prompt.
    pub(crate) fn append(&mut self, other: Prompt) {
        other.segments.into_iter().for_each(|segment| self.push(segment));
    }

    /// Appends a piece.
    pub(crate) fn push(&mut self, segment: Segment) {
        match segment {
            Segment::Control(piece) => self.push_control(piece),
            Segment::Text(text) => self.push_text(&text),
        }
    }

    /// The pieces, to make another prompt of.
    pub(crate) fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    /// The pieces; two texts are never neighbours.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The prompt as the reference prints it.
    pub fn text(&self) -> String {
        self.segments.iter().map(Segment::as_str).collect()
    }

    /// The prompt's ids. A control token that the vocabulary lacks is written as text.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let mut ids = Vec::new();
        let mut span = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Control(piece) => match tokenizer.id(piece).filter(|&id| tokenizer.is_control(id)) {
                    Some(id) => {
                        tokenizer.encode_into(&span, &mut ids);
                        span.clear();
                        ids.push(id);
                    }
                    None => span.push_str(piece),
                },
                Segment::Text(text) => span.push_str(text),
            }
        }
        tokenizer.encode_into(&span, &mut ids);
        ids
    }
}

impl Segment {
    fn as_str(&self) -> &str {
        match self {
            Segment::Control(piece) => piece,
            Segment::Text(text) => text,
        }
    }
}
