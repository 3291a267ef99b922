//! The output parser: any sequence of ids.
//!
//! An input's control characters stand for control tokens, the rest is text, so that inputs can be read. The same
//! text in other tokens must give the same events, text outside of calls appears once and in order, text of calls
//! that were read nowhere else, and calls that are written as the model writes them are read as the same calls.

use carat_chat::message::{Conversation, Message, Role, ToolCall};
use carat_chat::parser::{Event, Parser};
use carat_chat::template::{Variant, render};
use carat_tensor::TokenId;
use serde_json::{Map, Value};

use crate::tokenizer::test_tokenizer;

/// Longest channel name, which is dropped.
const MAX_CHANNEL_NAME: usize = 32;

/// An answer: bytes below 32 but tab and newline are control tokens in order of their ids, others are text.
pub fn output_parser(data: &[u8]) -> bool {
    let tokenizer = test_tokenizer();
    let all = (0..tokenizer.vocab_size() as u32).map(TokenId);
    let controls: Vec<TokenId> = all.filter(|&id| tokenizer.is_control(id)).collect();
    let (mut merged, mut bytewise) = (Vec::new(), Vec::new());
    for run in data.chunk_by(|&a, &b| !is_control(a) && !is_control(b)) {
        if let [byte] = *run
            && is_control(byte)
        {
            // 9 and 10 are text.
            let index = usize::from(if byte < 9 { byte } else { byte - 2 });
            let id = controls[index % controls.len()];
            merged.push(id);
            bytewise.push(id);
            continue;
        }
        let ids = tokenizer.encode_bytes(run);
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
        let byte_id = |byte: &u8| tokenizer.id(&format!("<0x{byte:02X}>")).expect("the vocabulary has all bytes");
        merged.extend(ids);
        bytewise.extend(bytes.iter().map(byte_id));
    }
    let events = parse(&merged);
    assert_eq!(joined(&events), joined(&parse(&bytewise)), "the same text in other tokens");
    check_text(&events, &merged);
    check_calls(&events);
    Parser::after_prompt(tokenizer, &merged);
    true
}

fn is_control(byte: u8) -> bool {
    byte < 32 && byte != b'\t' && byte != b'\n'
}

/// All events of an answer. Nothing follows a stop; calls have ids of their own.
fn parse(ids: &[TokenId]) -> Vec<Event> {
    let mut parser = Parser::new();
    let mut events = Vec::new();
    for &id in ids {
        parser.push(test_tokenizer(), id, &mut events);
    }
    parser.finish(&mut events);
    let stop = events.iter().position(|event| *event == Event::Stop);
    assert!(stop.is_none_or(|at| at + 1 == events.len()), "{events:?}");
    let calls = events.iter().filter_map(|event| if let Event::ToolCall(call) = event { Some(&call.id) } else { None });
    let mut calls: Vec<_> = calls.collect();
    assert_eq!(calls.len(), parser.n_calls());
    calls.sort();
    assert!(calls.windows(2).all(|pair| pair[0] != pair[1]), "{calls:?}");
    events
}

/// Events without diagnostics, neighbouring texts and thoughts as one.
fn joined(events: &[Event]) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), event) {
            (_, Event::Diagnostic(_)) => {}
            (Some(Event::Text(last)), Event::Text(more)) | (Some(Event::Thought(last)), Event::Thought(more)) => {
                last.push_str(more);
            }
            _ => out.push(event.clone()),
        }
    }
    out
}

/// What is said is what came, up to the stop: the text outside of calls and that of calls that can't be read, but for
/// names of channels and white space. A call is read as it would be alone.
fn check_text(events: &[Event], ids: &[TokenId]) {
    let special = test_tokenizer().special();
    let is = |id: TokenId, other: Option<TokenId>| Some(id) == other;
    let stops = |id: TokenId| is(id, special.eos) || is(id, special.turn_close) || is(id, special.tool_response_open);
    let stop = ids.iter().position(|&id| stops(id));
    let ids = &ids[..stop.unwrap_or(ids.len())];
    let (mut came, mut calls) = (String::new(), Vec::new());
    let mut rest = ids;
    while let Some((&first, after)) = rest.split_first() {
        let part = if is(first, special.tool_call_open) {
            // Up to its end, or to what ends it as well.
            let ends = |id: TokenId| is(id, special.tool_call_open) || is(id, special.channel_open);
            let end = after.iter().position(|&id| ends(id) || is(id, special.tool_call_close));
            let end = end.map_or(after.len(), |at| at + usize::from(is(after[at], special.tool_call_close)));
            1 + end
        } else {
            let end = after.iter().position(|&id| is(id, special.tool_call_open));
            1 + end.unwrap_or(after.len())
        };
        let (part, next) = rest.split_at(part);
        if is(first, special.tool_call_open) {
            // What follows ends a call, too.
            let end = special.turn_close.filter(|_| stop.is_some() || !next.is_empty());
            let part: Vec<TokenId> = part.iter().copied().chain(end).collect();
            for event in parse(&part) {
                match event {
                    Event::Text(text) => came.push_str(&text),
                    Event::ToolCall(call) => calls.push((call.name, call.arguments)),
                    _ => {}
                }
            }
        } else {
            came.push_str(&shown_text(part));
        }
        rest = next;
    }
    let read = events.iter().filter_map(|event| match event {
        Event::ToolCall(call) => Some((call.name.clone(), call.arguments.clone())),
        _ => None,
    });
    assert_eq!(read.collect::<Vec<_>>(), calls, "a call is read as it would be alone");
    let mut shown = String::new();
    for event in events {
        if let Event::Text(more) | Event::Thought(more) = event {
            shown.push_str(more);
        }
    }
    let channels = ids.iter().filter(|&&id| is(id, special.channel_open)).count();
    if channels == 0 && !ids.iter().any(|&id| is(id, special.tool_call_open)) {
        assert_eq!(shown, came);
    }
    let mut left = shown.chars().filter(|c| !c.is_whitespace()).peekable();
    let missing = came.chars().filter(|c| !c.is_whitespace()).filter(|c| left.next_if_eq(c).is_none()).count();
    assert_eq!(left.next(), None, "{shown:?} says more than {came:?}");
    assert!(missing <= MAX_CHANNEL_NAME * channels, "{shown:?} says less than {came:?}");
}

/// Text of ids; a character that a control token cuts off is broken.
fn shown_text(ids: &[TokenId]) -> String {
    let tokenizer = test_tokenizer();
    let runs = ids.split(|&id| tokenizer.is_control(id));
    let texts = runs.map(|run| {
        let bytes: Vec<u8> = run.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    texts.collect()
}

/// Calls that the format can write are the same calls when they are read from the prompt that repeats them.
fn check_calls(events: &[Event]) {
    let calls: Vec<ToolCall> = events
        .iter()
        .filter_map(|event| if let Event::ToolCall(call) = event { Some(call.clone()) } else { None })
        .filter(|call| is_plain(&call.name) && can_be_written(&call.arguments))
        .collect();
    let mut message = Message::text(Role::Assistant, "");
    message.tool_calls = calls.clone();
    let conversation =
        Conversation { messages: vec![Message::text(Role::User, "Hi"), message], ..Conversation::default() };
    let ids = render(&conversation, Variant::Small).encode(test_tokenizer());
    let special = test_tokenizer().special();
    let start = ids.iter().position(|&id| Some(id) == special.tool_call_open).unwrap_or(ids.len());
    let again = parse(&ids[start..]).into_iter().filter_map(|event| match event {
        Event::ToolCall(call) => Some((call.name, call.arguments)),
        Event::Diagnostic(what) => panic!("{what}: {calls:?}"),
        _ => None,
    });
    let calls: Vec<_> = calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
    assert_eq!(again.collect::<Vec<_>>(), calls);
}

/// Whether a name or key can be told from what stands around it: the format quotes neither.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || ":,{}[]\"\u{2581}".contains(c))
}

/// Whether all keys are plain, and no string has the mark that the vocabulary reads as a space.
fn can_be_written(fields: &Map<String, Value>) -> bool {
    fn value_can(value: &Value) -> bool {
        match value {
            Value::String(text) => !text.contains('\u{2581}'),
            Value::Array(items) => items.iter().all(value_can),
            Value::Object(fields) => can_be_written(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
        }
    }
    fields.iter().all(|(key, value)| is_plain(key) && value_can(value))
}
