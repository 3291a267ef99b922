//! Which chat template a model is spoken to with.
//!
//! The template in the model's files decides: an official one is rendered by our own renderer, any other as it is
//! written. Files without one get the official template of their kind of model, told by the architecture: Gemma 3 has
//! its own, and of the others the models with per-layer inputs are the small ones.

use carat_chat::message::Conversation;
use carat_chat::template::{ChatTemplate, Prompt, Variant};
use carat_model::ModelConfig;
use carat_model::config::Family;

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

    /// Gemma 3's.
    pub fn gemma3() -> Self {
        ChatFormat { template: ChatTemplate::Gemma3 }
    }

    /// The official template of models like this.
    fn of_kind(config: &ModelConfig) -> Self {
        match (config.family, config.per_layer) {
            (Family::Gemma3, _) => ChatFormat::gemma3(),
            (Family::Gemma4, Some(_)) => ChatFormat::official(Variant::Small),
            (Family::Gemma4, None) => ChatFormat::official(Variant::Large),
        }
    }

    /// The template of the model in `files`.
    ///
    /// # Errors
    /// If the files bring a template that is no Jinja.
    pub fn of(files: &ModelFiles) -> Result<Self, Error> {
        if let Some(source) = files.chat_template()? {
            let wrong = |reason| Error::ChatTemplate { model: files.source().to_string(), reason };
            return Ok(ChatFormat { template: ChatTemplate::from_source(source).map_err(wrong)? });
        }
        Ok(ChatFormat::of_kind(&files.config()?))
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// If the model's own template refuses the conversation or fails on it, or its format can't say it.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Prompt, Error> {
        Ok(self.template.render(conversation)?)
    }
}
