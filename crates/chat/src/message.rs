//! A conversation as the program sees it: who said what, which tools there are, what was called and answered.
//!
//! These are the domain's own types; nothing here knows a wire format. The OpenAI shape, which scripts, servers
//! and fine-tunes' templates use, is read and written in `message/openai.rs` alone.

mod openai;

use serde_json::{Map, Value};

/// Everything a prompt is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// In order; a first `system` or `developer` message opens the prompt.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<ToolSpec>,
    /// Asks the model to think before it answers.
    pub enable_thinking: bool,
    /// Keeps thoughts that came before tool calls of earlier rounds.
    pub preserve_thinking: bool,
    /// Ends the prompt where the model's answer begins.
    pub add_generation_prompt: bool,
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; in a `tool` message, what the tool returned.
    pub content: Content,
    /// The thought before an assistant's answer.
    pub reasoning: Option<String>,
    /// What an assistant called.
    pub tool_calls: Vec<ToolCall>,
    /// In a `tool` message: the call it answers.
    pub tool_call_id: Option<String>,
    /// In a `tool` message: the tool's name, used where the id names no call.
    pub name: Option<String>,
    /// Results carried by the calling message itself, Gemma's native form. When there are any, following `tool`
    /// messages are not looked at.
    pub tool_responses: Vec<ToolResponse>,
}

impl Message {
    /// A message that is only text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Message::new(role, Content::Text(text.into()))
    }

    /// What the user says and shows.
    pub fn user(parts: Vec<Part>) -> Self {
        Message::new(Role::User, Content::Parts(parts))
    }

    fn new(role: Role, content: Content) -> Self {
        Message {
            role,
            content,
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            tool_responses: Vec::new(),
        }
    }
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one who set the conversation up.
    System,
    /// The same under its newer name.
    Developer,
    /// The person.
    User,
    /// The model; `model` in the prompt.
    Assistant,
    /// A tool, answering a call.
    Tool,
    /// Any other name, written to the prompt as it is.
    Other(String),
}

impl Role {
    /// The role a name stands for.
    pub fn from_name(name: &str) -> Self {
        match name {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => Role::Other(other.to_owned()),
        }
    }

    /// Whether the model speaks: prompts call it `model`, and so do some who write messages.
    pub fn is_model(&self) -> bool {
        matches!(self.name(), "assistant" | "model")
    }

    /// The name in the OpenAI shape.
    pub fn name(&self) -> &str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::Other(name) => name,
        }
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// Text.
    Text(String),
    /// Text and media in order.
    Parts(Vec<Part>),
    /// Fields that a tool returned.
    Object(Map<String, Value>),
}

/// One piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// The place of an image.
    Image,
    /// The place of a sound.
    Audio,
    /// The place of a video.
    Video,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// By which a result refers to it.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Its arguments, in the order given.
    pub arguments: Map<String, Value>,
}

/// A result carried by the message that made the call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResponse {
    /// The tool.
    pub name: Option<String>,
    /// What it returned.
    pub response: Value,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSpec {
    /// How it is called.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments; null when it takes none.
    pub parameters: Value,
    /// JSON Schema of what it returns.
    pub response: Option<Value>,
}

/// Why a value is not a conversation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConversationError {
    /// A field holds another kind of value than it should.
    #[error("`{at}` is {found}; expected {expected}")]
    WrongType {
        /// Where, as a path.
        at: String,
        /// What is there.
        found: &'static str,
        /// What may be there.
        expected: &'static str,
    },
    /// A part's `type` isn't known.
    #[error("`{at}` is `{found}`; expected `text`, `image`, `audio` or `video`")]
    UnknownPart {
        /// Where, as a path.
        at: String,
        /// The type found.
        found: String,
    },
    /// A call's arguments are a string that isn't a JSON object.
    #[error("`{at}` is not a JSON object: {reason}")]
    BadArguments {
        /// Where, as a path.
        at: String,
        /// What the JSON reader says.
        reason: String,
    },
}
