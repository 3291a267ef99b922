//! Tokens of an answer to events, and to the message that goes into the conversation.
//!
//! Joins the parser of `carat-chat` with stop strings, which look at the answer's text only, not at thoughts and
//! tool calls. A thought that was not asked for is dropped.

use std::ops::ControlFlow;

use carat_chat::message::{Content, Conversation, Message, Role, ToolCall};
use carat_chat::parser::{self, Parser};
use carat_chat::tokenizer::Tokenizer;
use carat_tensor::TokenId;

use crate::sampler::Logprobs;
use crate::sequence::Drawn;
use crate::stop::StopStrings;

/// What happens while an answer is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// So many tokens of the prompt are done.
    Prompt {
        /// Tokens done, those found in the cache included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was drawn; comes before whatever text it completes.
    Token(TokenInfo),
    /// More of a thought.
    Thought(String),
    /// More of the answer.
    Text(String),
    /// A whole tool call.
    ToolCall(ToolCall),
    /// The model broke the format; what was made of it.
    Diagnostic(String),
}

/// One token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// Log-probabilities, if asked for.
    pub logprobs: Option<Logprobs>,
}

type OnEvent<'a> = &'a mut dyn FnMut(Event) -> ControlFlow<()>;

/// Whether thoughts are part of the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thoughts {
    Kept,
    Dropped,
}

/// Reads one answer.
pub(crate) struct Reader {
    parser: Parser,
    thoughts: Thoughts,
    stop: StopStrings,
    message: Message,
    text: String,
    /// What a token made certain; empty between tokens.
    events: Vec<parser::Event>,
    ended: bool,
}

impl Reader {
    /// A reader of what follows `prompt`, made from `conversation`.
    pub fn new(tokenizer: &Tokenizer, prompt: &[TokenId], conversation: &Conversation, stop: StopStrings) -> Self {
        Reader {
            parser: Parser::after_prompt(tokenizer, prompt),
            thoughts: if conversation.enable_thinking { Thoughts::Kept } else { Thoughts::Dropped },
            stop,
            message: Message::text(Role::Assistant, ""),
            text: String::new(),
            events: Vec::new(),
            ended: false,
        }
    }

    /// Takes a token; breaks when `on_event` does.
    pub fn push(&mut self, tokenizer: &Tokenizer, drawn: Drawn, on_event: OnEvent<'_>) -> ControlFlow<()> {
        on_event(Event::Token(TokenInfo { id: drawn.token, logprobs: drawn.logprobs }))?;
        self.parser.push(tokenizer, drawn.token, &mut self.events);
        self.pass_on(on_event)
    }

    /// Whether the text reached a stop string or the parser an end.
    pub fn ended(&self) -> bool {
        self.ended || self.stop.hit().is_some()
    }

    /// Ends the answer: passes on what was held back, and gives the message, and the stop string that the text reached.
    pub fn finish(mut self, on_event: OnEvent<'_>) -> (Message, Option<String>) {
        self.parser.finish(&mut self.events);
        // Nobody is left to be stopped by a break here.
        let _ = self.pass_on(on_event);
        let rest = self.stop.finish();
        let _ = self.say(rest, on_event);
        self.message.content = if self.text.is_empty() { Content::Empty } else { Content::Text(self.text) };
        (self.message, self.stop.hit().map(str::to_owned))
    }

    fn pass_on(&mut self, on_event: OnEvent<'_>) -> ControlFlow<()> {
        let mut events = std::mem::take(&mut self.events);
        let mut flow = ControlFlow::Continue(());
        for event in events.drain(..) {
            let passed = self.take(event, on_event);
            if flow.is_continue() {
                flow = passed;
            }
        }
        self.events = events;
        flow
    }

    fn take(&mut self, event: parser::Event, on_event: OnEvent<'_>) -> ControlFlow<()> {
        if self.stop.hit().is_some() {
            return ControlFlow::Continue(());
        }
        match event {
            parser::Event::Thought(_) if self.thoughts == Thoughts::Dropped => ControlFlow::Continue(()),
            parser::Event::Thought(text) => {
                self.message.reasoning.get_or_insert_default().push_str(&text);
                on_event(Event::Thought(text))
            }
            parser::Event::Text(text) => {
                let certain = self.stop.push(&text);
                self.say(certain, on_event)
            }
            parser::Event::ToolCall(call) => {
                let before = self.stop.finish();
                // A call is there whether or not somebody stops the answer before it.
                self.message.tool_calls.push(call.clone());
                self.say(before, on_event)?;
                on_event(Event::ToolCall(call))
            }
            parser::Event::Diagnostic(message) => on_event(Event::Diagnostic(message)),
            parser::Event::Stop => {
                self.ended = true;
                ControlFlow::Continue(())
            }
        }
    }

    fn say(&mut self, text: String, on_event: OnEvent<'_>) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.text.push_str(&text);
        on_event(Event::Text(text))
    }
}
