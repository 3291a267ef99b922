//! Conversation → prompt, in the official chat format of Gemma 4 or of Gemma 3.
//!
//! The authority is Google's template of 2026-07-09, whose rules `template/official.rs` follows byte for byte. The
//! prompt keeps control tokens apart from text ([`Prompt`]), so what a user wrote never becomes one. A model that
//! ships another template is rendered with it ([`ChatTemplate::Jinja`]).

mod declaration;
pub mod gemma3;
mod media;
mod official;
mod probes;
mod prompt;

pub use media::{MediaText, VideoText};
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

/// Why a conversation has no prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model's own template.
    #[error(transparent)]
    Jinja(#[from] JinjaError),
    /// The conversation needs what the format doesn't have.
    #[error("the chat format of {format} has no {found}: leave that out, or give the model a template that has it")]
    NotInFormat {
        /// Whose format.
        format: &'static str,
        /// What was asked for.
        found: &'static str,
    },
    /// The media of a conversation are not those that its prompt shows.
    #[error(
        "place {place} of the prompt is for {expected}; found {found}: media must come in the order of the messages' parts, \
         and in messages whose media the chat format writes"
    )]
    Media {
        /// Which place, from 1.
        place: usize,
        /// What was given for it.
        found: &'static str,
        /// What the prompt has there.
        expected: &'static str,
    },
    /// Speakers don't take turns.
    #[error("message {} after the system message is by `{found}`; expected `{}`: users and the model must take turns",
        index + 1, if index.is_multiple_of(2) { "user" } else { "assistant" })]
    Order {
        /// Which message, the system's left out.
        index: usize,
        /// Whose it is.
        found: String,
    },
}

/// How a model wants its prompts.
#[derive(Debug)]
pub enum ChatTemplate {
    /// The official format.
    Official(Variant),
    /// That of Gemma 3.
    Gemma3,
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
    pub fn from_source(source: &str) -> Result<Self, TemplateError> {
        let template = JinjaTemplate::new(source)?;
        if agrees_with_gemma3(&template) {
            return Ok(ChatTemplate::Gemma3);
        }
        let variants = [Variant::Large, Variant::Small];
        match variants.into_iter().find(|&variant| agrees(&template, variant)) {
            Some(variant) => Ok(ChatTemplate::Official(variant)),
            None => Ok(ChatTemplate::Jinja(Box::new(template))),
        }
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// If a template of its own fails, or Gemma 3's format lacks what the conversation needs.
    pub fn render(&self, conversation: &Conversation) -> Result<Prompt, TemplateError> {
        match self {
            ChatTemplate::Official(variant) => Ok(render(conversation, *variant)),
            ChatTemplate::Gemma3 => gemma3::render(conversation),
            ChatTemplate::Jinja(template) => Ok(template.render(conversation)?),
        }
    }
}

/// Whether a template prints every probe as the official one does.
fn agrees(template: &JinjaTemplate, variant: Variant) -> bool {
    let same = |probe: &Conversation| template.render(probe).is_ok_and(|p| p.text() == render(probe, variant).text());
    probes::conversations().iter().all(same)
}

/// Whether a template prints every probe as Gemma 3's does, which takes no notice of tools and thinking: one that does
/// is another.
fn agrees_with_gemma3(template: &JinjaTemplate) -> bool {
    let same = |probe: &Conversation| {
        let plain = Conversation { tools: Vec::new(), enable_thinking: false, ..probe.clone() };
        let expected = gemma3::render(&plain).map(|prompt| prompt.text()).ok();
        template.render(probe).map(|prompt| prompt.text()).ok() == expected
    };
    probes::of_turns().iter().all(same)
}
