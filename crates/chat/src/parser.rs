//! Token ids → thoughts, text and tool calls, as they come.
//!
//! A state machine over ids, not over text: control tokens are single ids, so a delimiter is never cut in two and
//! never confused with what it looks like. It starts in the state in which the prompt's tail leaves the model, which
//! may be inside a thought. Text comes out as soon as it is certain: whole characters, and white space only once it
//! is known not to be trimmed. Output that breaks the format is passed on as well as can be, with a diagnostic.
//!
//! Dropped on purpose: control tokens, channel names, white space at a thought's end, right after it, and between
//! calls. Everything else appears once.

mod call;

use carat_tensor::TokenId;

use crate::message::ToolCall;
use crate::tokenizer::Tokenizer;
use call::Symbol;

/// What the model said.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More of a thought.
    Thought(String),
    /// More of the answer.
    Text(String),
    /// A whole call. Its id is unique among one parser's calls.
    ToolCall(ToolCall),
    /// The output broke the format; what was made of it.
    Diagnostic(String),
    /// The model ended its turn, or waits for the results of its calls.
    Stop,
}

/// Names of channels are short words; anything else after `<|channel>` is the thought itself.
const MAX_CHANNEL_NAME: usize = 32;

/// The state between two tokens.
#[derive(Clone, Debug)]
pub struct Parser {
    state: State,
    /// Bytes of a character that isn't whole yet.
    partial: Vec<u8>,
    /// White space that may have to be dropped.
    held: String,
    n_calls: usize,
    stopped: bool,
}

#[derive(Clone, Debug)]
enum State {
    Content(Lead),
    /// After `<|channel>`: the name so far.
    ChannelName(String),
    Thought,
    Call(Vec<Symbol>),
}

/// What becomes of white space before the next text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// It is text.
    Keep,
    /// It is dropped: a thought has just ended.
    Drop,
    /// It is text if text follows, and dropped if a call does: a call has just ended.
    Hold,
}

impl Default for Parser {
    fn default() -> Self {
        Parser::new()
    }
}

impl Parser {
    /// At the start of an answer.
    pub fn new() -> Self {
        let state = State::Content(Lead::Keep);
        Parser { state, partial: Vec::new(), held: String::new(), n_calls: 0, stopped: false }
    }

    /// Where a prompt leaves the model: what its last turn holds is read and forgotten.
    pub fn after_prompt(tokenizer: &Tokenizer, prompt: &[TokenId]) -> Self {
        let special = tokenizer.special();
        let start = prompt.iter().rposition(|&id| Some(id) == special.turn_open).map_or(0, |at| at + 1);
        let mut parser = Parser::new();
        let mut forgotten = Vec::new();
        let mut in_results = false;
        for &id in &prompt[start..] {
            if Some(id) == special.tool_response_open {
                parser = Parser::new();
                in_results = true;
            } else if Some(id) == special.tool_response_close {
                in_results = false;
            } else if !in_results {
                parser.push(tokenizer, id, &mut forgotten);
            }
            forgotten.clear();
        }
        if parser.stopped {
            return Parser::new();
        }
        parser.n_calls = 0;
        parser
    }

    /// Whether the model is thinking.
    pub fn in_thought(&self) -> bool {
        matches!(self.state, State::ChannelName(_) | State::Thought)
    }

    /// How many calls were read.
    pub fn n_calls(&self) -> usize {
        self.n_calls
    }

    /// Takes one token; appends what it makes certain. Tokens after [`Event::Stop`] are ignored.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId, events: &mut Vec<Event>) {
        if self.stopped {
            return;
        }
        if tokenizer.is_control(id) || Some(id) == tokenizer.special().eos {
            self.flush_partial(events);
            self.control(tokenizer, id, events);
            return;
        }
        self.partial.extend_from_slice(tokenizer.bytes(id));
        let bytes = std::mem::take(&mut self.partial);
        let mut rest = bytes.as_slice();
        let mut text = String::new();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break;
                }
                Err(e) => {
                    let (valid, after) = rest.split_at(e.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = e.error_len() else {
                        self.partial = after.to_vec();
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
        self.text(&text, events);
    }

    /// The output is over: appends what was held back. A call that is cut off here is text: what it lacks may be what
    /// it was about.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        if !self.stopped {
            self.flush_partial(events);
            match &mut self.state {
                State::Call(symbols) => {
                    let symbols = std::mem::take(symbols);
                    diagnose(events, "a tool call was cut off and is shown as text");
                    self.show_call(&symbols, events);
                }
                _ => self.leave(events),
            }
            self.stopped = true;
        }
    }

    fn flush_partial(&mut self, events: &mut Vec<Event>) {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.text("\u{fffd}", events);
        }
    }

    fn text(&mut self, text: &str, events: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        match &mut self.state {
            State::Content(lead) => {
                let start = text.trim_start();
                match lead {
                    Lead::Keep => events.push(Event::Text(text.to_owned())),
                    Lead::Drop if start.is_empty() => {}
                    Lead::Drop => {
                        *lead = Lead::Keep;
                        events.push(Event::Text(start.to_owned()));
                    }
                    Lead::Hold if start.is_empty() => self.held.push_str(text),
                    Lead::Hold => {
                        *lead = Lead::Keep;
                        events.push(Event::Text(std::mem::take(&mut self.held) + text));
                    }
                }
            }
            State::ChannelName(name) => {
                let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let end = text.find(|c| !in_name(c)).unwrap_or(text.len());
                if end == text.len() && name.len() + end <= MAX_CHANNEL_NAME {
                    name.push_str(text);
                    return;
                }
                let name = std::mem::take(name);
                self.state = State::Thought;
                match text[end..].strip_prefix('\n') {
                    Some(thought) if name.len() + end <= MAX_CHANNEL_NAME => self.text(thought, events),
                    _ => {
                        events.push(Event::Diagnostic("a thought began without its channel's name".to_owned()));
                        self.text(&(name + text), events);
                    }
                }
            }
            State::Thought => {
                let end = text.trim_end().len();
                if end > 0 {
                    events.push(Event::Thought(std::mem::take(&mut self.held) + &text[..end]));
                }
                self.held.push_str(&text[end..]);
            }
            State::Call(symbols) => symbols.extend(text.chars().map(Symbol::Char)),
        }
    }

    fn control(&mut self, tokenizer: &Tokenizer, id: TokenId, events: &mut Vec<Event>) {
        let special = tokenizer.special();
        let id = Some(id);
        if id == special.turn_close || id == special.eos || id == special.tool_response_open {
            self.leave(events);
            self.stopped = true;
            events.push(Event::Stop);
        } else if id == special.channel_open {
            self.leave(events);
            self.state = State::ChannelName(String::new());
        } else if id == special.channel_close {
            match self.state {
                State::ChannelName(_) | State::Thought => self.end_thought(events),
                State::Content(_) | State::Call(_) => diagnose(events, "dropped the end of a thought that wasn't open"),
            }
        } else if id == special.tool_call_open {
            self.leave(events);
            self.state = State::Call(Vec::new());
        } else if id == special.tool_call_close {
            if let State::Call(symbols) = &mut self.state {
                let symbols = std::mem::take(symbols);
                self.end_call(&symbols, events);
            }
        } else {
            match &mut self.state {
                State::Call(symbols) if id == special.quote => symbols.push(Symbol::Quote),
                _ => {
                    let piece = id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
                    events.push(Event::Diagnostic(format!("dropped `{piece}`, which means nothing here")));
                }
            }
        }
    }

    /// Ends what is open, to be content again. The model has gone on without closing it, so a call is read as far as it
    /// goes.
    fn leave(&mut self, events: &mut Vec<Event>) {
        match &mut self.state {
            State::Content(_) => self.held.clear(),
            State::ChannelName(_) | State::Thought => {
                diagnose(events, "a thought was not closed");
                self.end_thought(events);
            }
            State::Call(symbols) => {
                let symbols = std::mem::take(symbols);
                diagnose(events, "a tool call was not closed");
                self.end_call(&symbols, events);
            }
        }
    }

    fn end_thought(&mut self, events: &mut Vec<Event>) {
        if let State::ChannelName(name) = &self.state
            && !name.is_empty()
            && name != "thought"
        {
            diagnose(events, "a thought began without its channel's name");
            events.push(Event::Thought(name.clone()));
        }
        self.held.clear();
        self.state = State::Content(Lead::Drop);
    }

    fn end_call(&mut self, symbols: &[Symbol], events: &mut Vec<Event>) {
        self.state = State::Content(Lead::Hold);
        match call::parse(symbols) {
            Some(parsed) => {
                if !parsed.repairs.is_empty() {
                    let repairs = parsed.repairs.join(", ");
                    events.push(Event::Diagnostic(format!("tool call `{}` was repaired: {repairs}", parsed.name)));
                }
                let id = Some(format!("call_{}", self.n_calls));
                self.n_calls += 1;
                events.push(Event::ToolCall(ToolCall { id, name: parsed.name, arguments: parsed.arguments }));
            }
            None => {
                diagnose(events, "a tool call could not be read and is shown as text");
                self.show_call(symbols, events);
            }
        }
    }

    fn show_call(&mut self, symbols: &[Symbol], events: &mut Vec<Event>) {
        let text = call::as_text(symbols);
        if !text.trim().is_empty() {
            self.state = State::Content(Lead::Keep);
            events.push(Event::Text(text));
        }
    }
}

fn diagnose(events: &mut Vec<Event>, text: &str) {
    events.push(Event::Diagnostic(text.to_owned()));
}
