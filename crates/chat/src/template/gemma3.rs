//! The chat format of Gemma 3: turns of users and the model, nothing else.
//!
//! Source: the `chat_template` of the `google/gemma-3-*-it` models, whose quirks are kept: a system message becomes
//! the beginning of the first turn, untrimmed, and of one in parts only the first is read. The format has no thoughts
//! and no tools; a conversation that asks for them is refused, where the official template leaves them out without a
//! word.

use super::{Prompt, TemplateError};
use crate::message::{Content, Conversation, Message, Part, Role};
use crate::value::strip;

/// Renders a conversation.
///
/// # Errors
/// If the conversation needs what the format doesn't have, or speakers don't take turns.
pub fn render(conversation: &Conversation) -> Result<Prompt, TemplateError> {
    check(conversation)?;
    let mut out = Prompt::default();
    out.push_control("<bos>");
    let (system, history) = match conversation.messages.split_first() {
        Some((first, rest)) if matches!(first.role, Role::System | Role::Developer) => (Some(first), rest),
        _ => (None, conversation.messages.as_slice()),
    };
    for (i, message) in history.iter().enumerate() {
        let in_turn = if i.is_multiple_of(2) { message.role == Role::User } else { message.role.is_model() };
        if !in_turn {
            return Err(TemplateError::Order { index: i, found: message.role.name().to_owned() });
        }
        out.push_control("<start_of_turn>");
        out.push_text(if message.role == Role::User { "user\n" } else { "model\n" });
        if let Some(system) = system.filter(|_| i == 0) {
            out.push_text(system_text(system));
            out.push_text("\n\n");
        }
        write_content(&mut out, &message.content)?;
        out.push_control("<end_of_turn>");
        out.push_text("\n");
    }
    if conversation.add_generation_prompt {
        out.push_control("<start_of_turn>");
        out.push_text("model\n");
    }
    Ok(out)
}

/// Refuses what the format has no words for.
fn check(conversation: &Conversation) -> Result<(), TemplateError> {
    let with_tools = |m: &Message| !m.tool_calls.is_empty() || !m.tool_responses.is_empty() || m.role == Role::Tool;
    let found = match conversation {
        c if !c.tools.is_empty() => "tools",
        c if c.messages.iter().any(with_tools) => "tool calls",
        c if c.enable_thinking => "thinking",
        _ => return Ok(()),
    };
    Err(TemplateError::NotInFormat { format: "Gemma 3", found })
}

fn system_text(message: &Message) -> &str {
    match &message.content {
        Content::Text(text) => text,
        Content::Parts(parts) => match parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        },
        Content::Empty | Content::Object(_) => "",
    }
}

fn write_content(out: &mut Prompt, content: &Content) -> Result<(), TemplateError> {
    let parts = match content {
        Content::Empty | Content::Object(_) => return Ok(()),
        Content::Text(text) => {
            out.push_text(strip(text));
            return Ok(());
        }
        Content::Parts(parts) => parts,
    };
    for part in parts {
        let found = match part {
            Part::Text(text) => {
                out.push_text(strip(text));
                continue;
            }
            Part::Image => {
                out.push_control("<start_of_image>");
                continue;
            }
            Part::Audio => "audio",
            Part::Video => "video",
        };
        return Err(TemplateError::NotInFormat { format: "Gemma 3", found });
    }
    Ok(())
}
