//! Which chat template a model is spoken to with.
//!
//! The template in the model's files decides: an official one is rendered by our own renderer, any other as it is
//! written. Files without one get the official template of their kind of model, told by the architecture: the
//! models with per-layer inputs are the small ones.

use carat_chat::message::Conversation;
use carat_chat::template::{ChatTemplate, Prompt, Variant};

use crate::{Error, ModelFiles};

/// The way from conversations to prompts.
pub struct ChatFormat {
    template: ChatTemplate,
}

impl ChatFormat {
    /// The official template.
    pub fn official(variant: Variant) -> Self {
        ChatFormat { template: ChatTemplate::Official(variant) }
    }

    /// The template of the model in `files`.
    ///
    /// # Errors
    /// If the files bring a template that is no Jinja.
    pub fn of(files: &ModelFiles) -> Result<Self, Error> {
        if let Some(source) = files.chat_template()? {
            return Ok(ChatFormat { template: ChatTemplate::from_source(source)? });
        }
        let variant = if files.config()?.per_layer.is_some() { Variant::Small } else { Variant::Large };
        Ok(ChatFormat::official(variant))
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// If the model's own template refuses the conversation or fails on it.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Prompt, Error> {
        Ok(self.template.render(conversation)?)
    }
}
