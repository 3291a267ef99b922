//! The official template's rules: turns, thoughts, calls, results, media, the generation prompt.
//!
//! Source: the `chat_template.jinja` of the Gemma 4 models as of 2026-07-09. Its quirks are kept, because models
//! were trained on what it prints: an assistant's text comes after the results of its calls; calls and results at
//! the end leave the turn open; a `tool` message that follows no call is dropped.

use serde_json::Value;

use super::{Prompt, Variant, declaration};
use crate::message::{Content, Conversation, Message, Part, Role, ToolCall};
use crate::value::{Keys, strip, write_fields, write_value};

/// Renders a conversation in the official format.
pub fn render(conversation: &Conversation, variant: Variant) -> Prompt {
    let mut out = Prompt::default();
    out.push_control("<bos>");
    let history = system_turn(&mut out, conversation);
    let last_user = history.iter().rposition(|message| message.role == Role::User);
    let mut end = TurnEnd::Said;
    for (i, message) in history.iter().enumerate().filter(|(_, message)| message.role != Role::Tool) {
        let round_is_over = last_user.is_some_and(|user| i <= user);
        let keep_thought = !round_is_over || (conversation.preserve_thinking && !message.tool_calls.is_empty());
        end = turn(&mut out, history, i, keep_thought);
    }
    if conversation.add_generation_prompt {
        generation_prompt(&mut out, conversation, variant, end);
    }
    out
}

/// What a message ended with, which decides how the prompt goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TurnEnd {
    Said,
    Called,
    Answered,
}

/// Writes the system turn if there is one; returns the messages that it didn't take.
fn system_turn<'a>(out: &mut Prompt, conversation: &'a Conversation) -> &'a [Message] {
    let (system, history) = match conversation.messages.split_first() {
        Some((first, rest)) if matches!(first.role, Role::System | Role::Developer) => (Some(first), rest),
        _ => (None, conversation.messages.as_slice()),
    };
    if system.is_none() && !conversation.enable_thinking && conversation.tools.is_empty() {
        return history;
    }
    out.push_control("<|turn>");
    out.push_text("system\n");
    if conversation.enable_thinking {
        out.push_control("<|think|>");
        out.push_text("\n");
    }
    match system.map(|message| &message.content) {
        Some(Content::Text(text)) => out.push_text(strip(text)),
        Some(Content::Parts(parts)) => {
            for part in parts {
                if let Part::Text(text) = part {
                    out.push_text(strip(text));
                }
                out.push_text(" ");
            }
        }
        Some(Content::Empty | Content::Object(_)) | None => {}
    }
    for tool in &conversation.tools {
        declaration::write(out, tool);
    }
    out.push_control("<turn|>");
    out.push_text("\n");
    history
}

fn turn(out: &mut Prompt, history: &[Message], i: usize, keep_thought: bool) -> TurnEnd {
    let message = &history[i];
    let is_model = message.role.is_model();
    let said = |message: &&Message| message.role != Role::Tool;
    let previous = history[..i].iter().rfind(said);
    let next = history[i + 1..].iter().find(said);

    if !(is_model && previous.is_some_and(|message| message.role == Role::Assistant)) {
        out.push_control("<|turn>");
        out.push_text(if is_model { "model" } else { message.role.name() });
        out.push_text("\n");
    }
    if let Some(thought) = message.reasoning.as_deref().filter(|thought| keep_thought && !thought.is_empty()) {
        out.push_control("<|channel>");
        out.push_text("thought\n");
        out.push_text(thought);
        out.push_text("\n");
        out.push_control("<channel|>");
    }
    for call in &message.tool_calls {
        write_call(out, call);
    }
    let answered = write_results(out, message, &history[i + 1..]);
    let content = content(message, is_model);
    let silent = strip(&content.text()).is_empty();
    out.append(content);

    let has_calls = !message.tool_calls.is_empty();
    if has_calls && !answered {
        out.push_control("<|tool_response>");
    } else if is_model && next.is_some_and(|message| message.role == Role::Assistant) && (!has_calls || answered) {
        // The next message goes on in the same turn.
    } else if !(answered && silent && next.is_none()) {
        out.push_control("<turn|>");
        out.push_text("\n");
    }
    match (has_calls, answered) {
        (_, true) => TurnEnd::Answered,
        (true, false) => TurnEnd::Called,
        (false, false) => TurnEnd::Said,
    }
}

/// Writes `call:name{…}` between its control tokens.
pub(crate) fn write_call(out: &mut Prompt, call: &ToolCall) {
    out.push_control("<|tool_call>");
    out.push_text("call:");
    out.push_text(&call.name);
    out.push_text("{");
    write_fields(out, &call.arguments, Keys::Bare);
    out.push_text("}");
    out.push_control("<tool_call|>");
}

/// Writes the results of a message's calls; whether there were any.
fn write_results(out: &mut Prompt, message: &Message, rest: &[Message]) -> bool {
    if !message.tool_responses.is_empty() {
        for result in &message.tool_responses {
            write_result(out, result.name.as_deref().unwrap_or("unknown"), &result.response);
        }
        return true;
    }
    if message.tool_calls.is_empty() {
        return false;
    }
    let results = rest.iter().take_while(|message| message.role == Role::Tool);
    results.map(|result| write_tool_message(out, called_name(message, result), &result.content)).count() > 0
}

/// The tool that a result belongs to: that of the last call with its id, and a result without one belongs to the last
/// call without one. Its own name counts where there's no such call.
fn called_name<'a>(message: &'a Message, result: &'a Message) -> &'a str {
    let called = message.tool_calls.iter().rfind(|call| call.id == result.tool_call_id);
    called.map(|call| call.name.as_str()).or(result.name.as_deref()).unwrap_or("unknown")
}

fn write_tool_message(out: &mut Prompt, name: &str, content: &Content) {
    match content {
        Content::Empty => write_result(out, name, &Value::Null),
        Content::Text(text) => write_result(out, name, &Value::from(text.as_str())),
        Content::Object(fields) => write_result(out, name, &Value::Object(fields.clone())),
        Content::Parts(parts) => {
            let texts =
                parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None });
            write_result(out, name, &Value::from(texts.collect::<String>()));
            parts.iter().for_each(|part| write_media(out, part));
        }
    }
}

fn write_result(out: &mut Prompt, name: &str, response: &Value) {
    out.push_control("<|tool_response>");
    out.push_text("response:");
    out.push_text(name);
    out.push_text("{");
    match response {
        Value::Object(fields) => write_fields(out, fields, Keys::Bare),
        other => {
            out.push_text("value:");
            write_value(out, other, Keys::Bare);
        }
    }
    out.push_text("}");
    out.push_control("<tool_response|>");
}

fn write_media(out: &mut Prompt, part: &Part) {
    match part {
        Part::Text(_) => {}
        Part::Image => out.push_control("<|image|>"),
        Part::Audio => out.push_control("<|audio|>"),
        Part::Video => out.push_control("<|video|>"),
    }
}

fn content(message: &Message, is_model: bool) -> Prompt {
    let mut out = Prompt::default();
    let write_text = |out: &mut Prompt, text: &str| match is_model {
        true => out.push_text(strip(&without_thoughts(text))),
        false => out.push_text(strip(text)),
    };
    match &message.content {
        Content::Empty | Content::Object(_) => {}
        Content::Text(text) => write_text(&mut out, text),
        Content::Parts(parts) => {
            for part in parts {
                match part {
                    Part::Text(text) => write_text(&mut out, text),
                    media => write_media(&mut out, media),
                }
            }
        }
    }
    out
}

/// An assistant's text without the thoughts that a client left in it.
fn without_thoughts(text: &str) -> String {
    text.split("<channel|>").map(|piece| piece.split("<|channel>").next().unwrap_or(piece)).collect()
}

fn generation_prompt(out: &mut Prompt, conversation: &Conversation, variant: Variant, end: TurnEnd) {
    match end {
        TurnEnd::Said => {
            out.push_control("<|turn>");
            out.push_text("model\n");
            if variant == Variant::Large && !conversation.enable_thinking {
                out.push_control("<|channel>");
                out.push_text("thought\n");
                out.push_control("<channel|>");
            }
        }
        TurnEnd::Answered if conversation.enable_thinking => {
            out.push_control("<|channel>");
            out.push_text("thought\n");
        }
        TurnEnd::Answered | TurnEnd::Called => {}
    }
}
