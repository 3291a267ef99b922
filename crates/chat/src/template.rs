//! Conversation → prompt, in the official chat format of Gemma 4.
//!
//! The authority is Google's template of 2026-07-09, whose rules `template/official.rs` follows byte for byte. The
//! prompt keeps control tokens apart from text ([`Prompt`]), so what a user wrote never becomes one. A model that
//! ships another template is rendered with it ([`ChatTemplate::Jinja`]).

mod declaration;
mod official;
mod prompt;

pub use official::render;
pub use prompt::{Prompt, Segment};

/// The two official templates. They differ in what opens an answer when thinking is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// 12B, 26B-A4B and 31B: an answer without thinking starts after an empty thought.
    Large,
    /// E2B and E4B: it starts at once.
    Small,
}
