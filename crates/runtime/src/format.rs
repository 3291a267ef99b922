//! Which chat template a model is spoken to with.
//!
//! The official one comes in two variants, told apart by the architecture: the models with per-layer inputs are
//! the small ones.

use carat_chat::message::Conversation;
use carat_chat::template::{Prompt, Variant, render};

use crate::{Error, ModelFiles};

/// The way from conversations to prompts.
pub struct ChatFormat {
    variant: Variant,
}

impl ChatFormat {
    /// The official template.
    pub fn official(variant: Variant) -> Self {
        ChatFormat { variant }
    }

    /// The template of the model in `files`.
    pub fn of(files: &ModelFiles) -> Result<Self, Error> {
        let variant = if files.config()?.per_layer.is_some() { Variant::Small } else { Variant::Large };
        Ok(ChatFormat::official(variant))
    }

    /// The prompt of a conversation.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Prompt, Error> {
        Ok(render(conversation, self.variant))
    }
}
