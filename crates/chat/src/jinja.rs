//! Prompts of models that ship a template of their own, rendered with minijinja.
//!
//! The environment is the one that Hugging Face gives templates: Python's methods on strings, lists and
//! dictionaries, `tojson` as Python writes JSON, `raise_exception`, `strftime_now`, blocks trimmed, `generation`
//! blocks around what the model says. A template sees one string per text, so what users wrote is marked on the way in
//! (`jinja/marks.rs`) and found again in the output: control tokens that the template wrote are control tokens, those
//! that users wrote are text.

mod clock;
mod json;
mod marks;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context};

use crate::message::{Conversation, Message, ToolSpec};
use crate::template::Prompt;
use crate::value::float;

/// How many steps a template may take: it comes with the model and may be wrong. This bounds time, not memory: one that
/// doubles a text some forty times fills all there is.
const FUEL: u64 = 20_000_000;

/// Why a template of its own gave no prompt.
#[derive(Debug, thiserror::Error)]
pub enum JinjaError {
    /// The template isn't Jinja.
    #[error("the chat template cannot be read: {0}")]
    Syntax(String),
    /// The template refused the conversation or failed on it.
    #[error("the chat template failed: {0}")]
    Render(String),
}

/// A chat template, ready to render.
#[derive(Debug)]
pub struct JinjaTemplate {
    environment: Environment<'static>,
}

const NAME: &str = "chat_template";

impl JinjaTemplate {
    /// Reads the text of a `chat_template.jinja`.
    pub fn new(source: &str) -> Result<Self, JinjaError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(format);
        environment.add_filter("tojson", json::tojson);
        environment.add_filter("indent", json::indent);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", clock::strftime_now);
        environment.set_fuel(Some(FUEL));
        let syntax = |e: Error| JinjaError::Syntax(chain(&e));
        environment.add_template_owned(NAME, without_generation(source)).map_err(syntax)?;
        Ok(JinjaTemplate { environment })
    }

    /// The prompt of a conversation.
    pub fn render(&self, conversation: &Conversation) -> Result<Prompt, JinjaError> {
        let failed = |e: Error| JinjaError::Render(chain(&e));
        let messages: Vec<_> = conversation.messages.iter().map(Message::to_openai).map(marks::message).collect();
        let tools: Vec<_> = conversation.tools.iter().map(ToolSpec::to_openai).map(marks::value).collect();
        let context = context! {
            messages => messages,
            tools => if tools.is_empty() { Value::from(()) } else { Value::from_serialize(&tools) },
            enable_thinking => conversation.enable_thinking,
            preserve_thinking => conversation.preserve_thinking,
            add_generation_prompt => conversation.add_generation_prompt,
            bos_token => "<bos>",
            eos_token => "<eos>",
        };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        Ok(marks::split(&template.render(context).map_err(failed)?))
    }
}

/// The template with `with` for `generation`, which prints its body and, like it, keeps what is set in there to itself.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%").map(|at| at + 2) {
        let start = rest.len() - rest[start..].trim_start_matches(blank).len();
        let end = rest.len() - rest[start..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let is_whole = rest[end..].trim_start_matches(blank).starts_with("%}");
        out.push_str(&rest[..start]);
        out.push_str(match &rest[start..end] {
            "generation" if is_whole => "with",
            "endgeneration" if is_whole => "endwith",
            other => other,
        });
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// What may stand between a tag's word and its ends.
fn blank(c: char) -> bool {
    c.is_whitespace() || c == '-' || c == '+'
}

/// An error and what it comes from, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Prints what Python prints otherwise than minijinja.
fn format(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(x) => float(x),
            Err(_) => return minijinja::escape_formatter(out, state, value),
        },
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(&text).map_err(Error::from)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, marks::unmarked(&message)))
}
