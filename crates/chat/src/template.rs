//! Conversation → prompt, in the official chat format of Gemma 4.
//!
//! The authority is Google's template of 2026-07-09, whose rules `template/official.rs` follows byte for byte. The
//! prompt keeps control tokens apart from text ([`Prompt`]), so what a user wrote never becomes one. A model that
//! ships another template is rendered with it ([`ChatTemplate::Jinja`]).

mod declaration;
mod official;
mod probes;
mod prompt;

pub use official::render;
pub use prompt::{Prompt, Segment};

use crate::jinja::{JinjaError, JinjaTemplate};
use crate::message::Conversation;

/// The two official templates. They differ in what opens an answer when thinking is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// 12B, 26B-A4B and 31B: an answer without thinking starts after an empty thought.
    Large,
    /// E2B and E4B: it starts at once.
    Small,
}

/// How a model wants its prompts.
#[derive(Debug)]
pub enum ChatTemplate {
    /// The official format.
    Official(Variant),
    /// A template of its own.
    Jinja(Box<JinjaTemplate>),
}

impl ChatTemplate {
    /// Chooses for a model that ships `source`: the official renderer if the template renders a set of probe
    /// conversations as it does, else the template itself.
    ///
    /// Comparing what templates print, and not their text, recognises copies that differ in white space or
    /// comments, and keeps templates apart that differ in a rule. Official templates of before July 2026 differ in
    /// rules, and so are rendered as they are.
    pub fn from_source(source: &str) -> Result<Self, JinjaError> {
        let template = JinjaTemplate::new(source)?;
        let variants = [Variant::Large, Variant::Small];
        match variants.into_iter().find(|&variant| agrees(&template, variant)) {
            Some(variant) => Ok(ChatTemplate::Official(variant)),
            None => Ok(ChatTemplate::Jinja(Box::new(template))),
        }
    }

    /// The prompt of a conversation. Only a template of its own can fail.
    pub fn render(&self, conversation: &Conversation) -> Result<Prompt, JinjaError> {
        match self {
            ChatTemplate::Official(variant) => Ok(render(conversation, *variant)),
            ChatTemplate::Jinja(template) => template.render(conversation),
        }
    }
}

/// Whether a template prints every probe as the official one does.
fn agrees(template: &JinjaTemplate, variant: Variant) -> bool {
    let same = |probe: &Conversation| template.render(probe).is_ok_and(|p| p.text() == render(probe, variant).text());
    probes::conversations().iter().all(same)
}
