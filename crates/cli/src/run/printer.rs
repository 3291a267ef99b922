//! Shows an answer as it comes: for people, or as one JSON object per event.
//!
//! In a terminal thoughts are dimmed (with `NO_COLOR` they stand between marks); elsewhere only the answer itself
//! is written, so that a pipe gets just that.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use carat_chat::message::ToolCall;
use carat_chat::tokenizer::Tokenizer;
use carat_runtime::FinishReason;
use carat_runtime::loop_guard::Loop;
use carat_runtime::session::{Answer, Event, TokenInfo};
use serde_json::{Value, json};

use crate::{interrupt, output};

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One JSON object per event; tokens too where log-probabilities are asked for.
    Json,
    /// The answer alone.
    Plain,
    /// Thoughts between marks, then the answer.
    Marked,
    /// Dimmed thoughts, then the answer.
    Dimmed,
}

impl Style {
    /// For standard output as it is.
    pub fn of_stdout() -> Self {
        match (io::stdout().is_terminal(), std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())) {
            (false, _) => Style::Plain,
            (true, true) => Style::Marked,
            (true, false) => Style::Dimmed,
        }
    }

    /// What surrounds thoughts, if they are shown.
    fn thought_marks(self) -> Option<(&'static str, &'static str)> {
        match self {
            Style::Json | Style::Plain => None,
            Style::Marked => Some(("[thinking] ", " [answer]\n")),
            Style::Dimmed => Some(("\x1b[2m", "\x1b[0m\n\n")),
        }
    }
}

/// Writes the events of one answer.
pub struct Printer<'a, W> {
    out: &'a mut W,
    style: Style,
    tokenizer: Option<&'a Tokenizer>,
    in_thought: bool,
    /// Whether the last thing written ended its line.
    at_line_start: bool,
    error: Option<io::Error>,
}

impl<'a, W: Write> Printer<'a, W> {
    /// A printer; with a tokenizer it shows single tokens.
    pub fn new(out: &'a mut W, style: Style, tokenizer: Option<&'a Tokenizer>) -> Self {
        Printer { out, style, tokenizer, in_thought: false, at_line_start: true, error: None }
    }

    /// Writes an event; breaks after Ctrl-C and when nobody reads on.
    pub fn event(&mut self, event: &Event) -> ControlFlow<()> {
        let written = if self.style == Style::Json { self.json(event) } else { self.text(event) };
        if let Err(error) = written.and_then(|()| self.out.flush()) {
            self.error = Some(error);
            return ControlFlow::Break(());
        }
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn json(&mut self, event: &Event) -> io::Result<()> {
        let value = match event {
            Event::Prompt { done, total } => json!({"event": "prompt", "done": done, "total": total}),
            Event::Thought(text) => json!({"event": "thought", "text": text}),
            Event::Text(text) => json!({"event": "text", "text": text}),
            Event::ToolCall(call) => {
                json!({"event": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments})
            }
            Event::Diagnostic(message) => json!({"event": "diagnostic", "message": message}),
            Event::Token(token) => match self.tokenizer {
                Some(tokenizer) => token_json(token, tokenizer),
                None => return Ok(()),
            },
        };
        output::json_line(self.out, &value)
    }

    fn text(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Thought(text) => {
                let Some((open, _)) = self.style.thought_marks() else { return Ok(()) };
                if !std::mem::replace(&mut self.in_thought, true) {
                    self.write(open)?;
                }
                self.write(text)
            }
            Event::Text(text) => {
                self.leave_thought()?;
                self.write(text)
            }
            Event::ToolCall(call) => {
                self.leave_thought()?;
                self.end_line()?;
                self.write(&call_text(call))?;
                self.end_line()
            }
            Event::Diagnostic(message) => {
                let _ = writeln!(io::stderr(), "note: {message}");
                Ok(())
            }
            Event::Prompt { .. } | Event::Token(_) => Ok(()),
        }
    }

    /// Ends the answer, and says why it ended where that is not plain to see; `longer` is what there is to say of a full
    /// context.
    pub fn finish(mut self, answer: &Answer, longer: &str) -> io::Result<()> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.style == Style::Json {
            output::json_line(self.out, &done_json(answer))?;
            return self.out.flush();
        }
        self.leave_thought()?;
        self.end_line()?;
        self.out.flush()?;
        if let Some(reason) = reason(answer.finish, longer) {
            let _ = writeln!(io::stderr(), "[{reason}]");
        }
        Ok(())
    }

    fn leave_thought(&mut self) -> io::Result<()> {
        match self.style.thought_marks() {
            Some((_, close)) if std::mem::replace(&mut self.in_thought, false) => self.write(close),
            _ => Ok(()),
        }
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.at_line_start { Ok(()) } else { self.write("\n") }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if !text.is_empty() {
            self.at_line_start = text.ends_with('\n');
        }
        self.out.write_all(text.as_bytes())
    }
}

fn call_text(call: &ToolCall) -> String {
    format!("{} {}", call.name, Value::Object(call.arguments.clone()))
}

fn token_json(token: &TokenInfo, tokenizer: &Tokenizer) -> Value {
    let piece = |id| tokenizer.piece(id).unwrap_or_default();
    let mut value = json!({"event": "token", "id": token.id.0, "piece": piece(token.id)});
    if let Some(logprobs) = &token.logprobs {
        value["logprob"] = logprobs.chosen.into();
        value["top"] =
            logprobs.top.iter().map(|&(id, p)| json!({"id": id.0, "piece": piece(id), "logprob": p})).collect();
    }
    value
}

fn done_json(answer: &Answer) -> Value {
    let u = &answer.usage;
    json!({
        "event": "done",
        "finish_reason": answer.finish.name(),
        "stop_string": answer.stop_string,
        "message": answer.message.to_openai(),
        "usage": {"prompt_tokens": u.prompt, "cached_tokens": u.cached, "completion_tokens": u.answer, "thought_tokens": u.thought},
        "seed": answer.seed,
        "prompt_ms": answer.prompt_time.as_secs_f64() * 1e3,
        "answer_ms": answer.answer_time.as_secs_f64() * 1e3,
    })
}

fn reason(finish: FinishReason, longer: &str) -> Option<String> {
    match finish {
        FinishReason::Stop | FinishReason::ToolCalls => None,
        FinishReason::Length => Some("stopped: --max-tokens reached".into()),
        FinishReason::Context => Some(format!("stopped: the context is full; {longer}")),
        FinishReason::Cancelled => Some("stopped".into()),
        FinishReason::Loop(Loop { period, repeats }) => Some(format!(
            "stopped: the last {period} tokens came {repeats} times in a row; --no-loop-guard allows that"
        )),
    }
}
