//! The output parser: any sequence of ids.
//!
//! An input's control characters stand for control tokens, the rest is text, so that inputs can be read. The same
//! text in other tokens must give the same events, and text outside of calls appears once and in order.

use carat_chat::parser::{Event, Parser};
use carat_tensor::TokenId;

use crate::tokenizer::test_tokenizer;

/// Longest channel name, which is dropped.
const MAX_CHANNEL_NAME: usize = 32;

/// An answer: bytes below 32 but tab and newline are control tokens in order of their ids, others are text.
pub fn output_parser(data: &[u8]) {
    let tokenizer = test_tokenizer();
    let all = (0..tokenizer.vocab_size() as u32).map(TokenId);
    let controls: Vec<TokenId> = all.filter(|&id| tokenizer.is_control(id)).collect();
    let (mut merged, mut bytewise) = (Vec::new(), Vec::new());
    let mut text = String::new();
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
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    let events = parse(&merged);
    assert_eq!(joined(&events), joined(&parse(&bytewise)), "the same text in other tokens");
    check_text(&events, &merged, &text);
    Parser::after_prompt(tokenizer, &merged);
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

/// What is said is what came, up to the stop: all of it where there are neither channels nor calls; without calls
/// all but names of channels and white space.
fn check_text(events: &[Event], ids: &[TokenId], text: &str) {
    let special = test_tokenizer().special();
    let count = |id: Option<TokenId>| ids.iter().filter(|&&other| Some(other) == id).count();
    if count(special.tool_call_open) > 0 || events.last() == Some(&Event::Stop) {
        return;
    }
    let mut shown = String::new();
    for event in events {
        if let Event::Text(more) | Event::Thought(more) = event {
            shown.push_str(more);
        }
    }
    let channels = count(special.channel_open);
    if channels == 0 {
        assert_eq!(shown, text);
    }
    let came = text.chars().filter(|c| !c.is_whitespace());
    let mut left = shown.chars().filter(|c| !c.is_whitespace()).peekable();
    let missing = came.filter(|c| left.next_if_eq(c).is_none()).count();
    assert_eq!(left.next(), None, "{shown:?} says more than {text:?}");
    assert!(missing <= MAX_CHANNEL_NAME * channels, "{shown:?} says less than {text:?}");
}
