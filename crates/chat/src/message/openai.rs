//! Conversations in the OpenAI shape: `{"messages", "tools", "enable_thinking", …}`.
//!
//! Reading is forgiving about what is absent and strict about what is there: a field of the wrong kind is an error
//! that names it. Writing gives what a chat template expects to find, so arguments are objects, not strings.

use serde_json::{Map, Value, json};

use super::{Content, Conversation, ConversationError, Message, Part, Role, ToolCall, ToolResponse, ToolSpec};

type Result<T> = std::result::Result<T, ConversationError>;

impl Conversation {
    /// Reads `{"messages", "tools", "enable_thinking", "preserve_thinking", "add_generation_prompt"}`. Only
    /// `messages` must be there; the generation prompt is on unless it says otherwise.
    pub fn from_openai(value: &Value) -> Result<Self> {
        let root = Node { value, at: String::new() };
        root.object()?;
        let messages = root.required("messages", "a list of messages")?.list()?;
        let tools = root.get("tools").map_or(Ok(Vec::new()), |tools| tools.list())?;
        Ok(Conversation {
            messages: messages.iter().map(message).collect::<Result<_>>()?,
            tools: tools.iter().map(tool).collect::<Result<_>>()?,
            enable_thinking: root.flag("enable_thinking", false)?,
            preserve_thinking: root.flag("preserve_thinking", false)?,
            add_generation_prompt: root.flag("add_generation_prompt", true)?,
        })
    }
}

impl Message {
    /// The message as templates expect it.
    pub fn to_openai(&self) -> Value {
        let mut out = Map::new();
        out.insert("role".into(), self.role.name().into());
        let content = match &self.content {
            Content::Empty => Value::Null,
            Content::Text(text) => text.as_str().into(),
            Content::Parts(parts) => parts.iter().map(Part::to_openai).collect(),
            Content::Object(fields) => fields.clone().into(),
        };
        out.insert("content".into(), content);
        if let Some(reasoning) = &self.reasoning {
            out.insert("reasoning".into(), reasoning.as_str().into());
            out.insert("reasoning_content".into(), reasoning.as_str().into());
        }
        if !self.tool_calls.is_empty() {
            out.insert("tool_calls".into(), self.tool_calls.iter().map(ToolCall::to_openai).collect());
        }
        if !self.tool_responses.is_empty() {
            let all = self.tool_responses.iter();
            out.insert("tool_responses".into(), all.map(|r| json!({"name": r.name, "response": r.response})).collect());
        }
        for (key, field) in [("tool_call_id", &self.tool_call_id), ("name", &self.name)] {
            if let Some(text) = field {
                out.insert(key.into(), text.as_str().into());
            }
        }
        out.into()
    }
}

impl Part {
    fn to_openai(&self) -> Value {
        match self {
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Image => json!({"type": "image"}),
            Part::Audio => json!({"type": "audio"}),
            Part::Video => json!({"type": "video"}),
        }
    }
}

impl ToolCall {
    fn to_openai(&self) -> Value {
        let mut out = Map::new();
        if let Some(id) = &self.id {
            out.insert("id".into(), id.as_str().into());
        }
        out.insert("type".into(), "function".into());
        out.insert("function".into(), json!({"name": self.name, "arguments": self.arguments}));
        out.into()
    }
}

impl ToolSpec {
    /// The declaration as templates expect it.
    pub fn to_openai(&self) -> Value {
        let mut function = Map::new();
        function.insert("name".into(), self.name.as_str().into());
        function.insert("description".into(), self.description.as_deref().unwrap_or_default().into());
        if !self.parameters.is_null() {
            function.insert("parameters".into(), self.parameters.clone());
        }
        if let Some(response) = &self.response {
            function.insert("response".into(), response.clone());
        }
        json!({"type": "function", "function": function})
    }
}

fn message(node: &Node<'_>) -> Result<Message> {
    let role = Role::from_name(node.required("role", "a string")?.string()?);
    let reasoning = match node.text("reasoning")? {
        Some(text) if !text.is_empty() => Some(text),
        _ => node.text("reasoning_content")?,
    };
    let content = node.get("content").map_or(Ok(Content::Empty), |content| self::content(&content, &role))?;
    Ok(Message {
        role,
        content,
        reasoning: reasoning.filter(|text| !text.is_empty()),
        tool_calls: node.items("tool_calls")?.iter().map(tool_call).collect::<Result<_>>()?,
        tool_call_id: node.text("tool_call_id")?,
        name: node.text("name")?,
        tool_responses: node.items("tool_responses")?.iter().map(tool_response).collect::<Result<_>>()?,
    })
}

fn content(node: &Node<'_>, role: &Role) -> Result<Content> {
    match node.value {
        Value::String(text) => Ok(Content::Text(text.clone())),
        Value::Object(fields) if *role == Role::Tool => Ok(Content::Object(fields.clone())),
        Value::Array(_) => Ok(Content::Parts(node.list()?.iter().map(part).collect::<Result<_>>()?)),
        _ if *role == Role::Tool => Err(node.wrong("a string, a list of parts, an object or null")),
        _ => Err(node.wrong("a string, a list of parts or null")),
    }
}

fn part(node: &Node<'_>) -> Result<Part> {
    let kind = node.required("type", "a string")?;
    match kind.string()? {
        "text" => Ok(Part::Text(node.text("text")?.unwrap_or_default())),
        "image" | "image_url" => Ok(Part::Image),
        "audio" | "input_audio" | "audio_url" => Ok(Part::Audio),
        "video" | "video_url" => Ok(Part::Video),
        other => Err(ConversationError::UnknownPart { at: kind.at.clone(), found: other.to_owned() }),
    }
}

fn tool_call(node: &Node<'_>) -> Result<ToolCall> {
    let function = node.required("function", "an object")?;
    let arguments = match function.get("arguments") {
        None => Map::new(),
        Some(arguments) => match arguments.value {
            Value::Object(fields) => fields.clone(),
            Value::String(text) if text.trim().is_empty() => Map::new(),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(fields) => fields,
                Err(e) => {
                    return Err(ConversationError::BadArguments { at: arguments.at, reason: e.to_string() });
                }
            },
            _ => return Err(arguments.wrong("an object or the JSON text of one")),
        },
    };
    let name = function.required("name", "a string")?.string()?.to_owned();
    Ok(ToolCall { id: node.text("id")?, name, arguments })
}

fn tool_response(node: &Node<'_>) -> Result<ToolResponse> {
    node.object()?;
    let response = node.value.get("response").cloned().unwrap_or(Value::Null);
    Ok(ToolResponse { name: node.text("name")?, response })
}

fn tool(node: &Node<'_>) -> Result<ToolSpec> {
    node.object()?;
    let function = node.get("function").unwrap_or_else(|| Node { value: node.value, at: node.at.clone() });
    let parameters = match function.get("parameters") {
        None => Value::Null,
        Some(parameters) => parameters.object()?.clone().into(),
    };
    let response = match function.get("response") {
        None => None,
        Some(response) => Some(response.object()?.clone().into()),
    };
    let name = function.required("name", "a string")?.string()?.to_owned();
    Ok(ToolSpec { name, description: function.text("description")?, parameters, response })
}

/// A value and where it is.
struct Node<'a> {
    value: &'a Value,
    at: String,
}

impl<'a> Node<'a> {
    fn wrong(&self, expected: &'static str) -> ConversationError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let at = if self.at.is_empty() { "the conversation".to_owned() } else { self.at.clone() };
        ConversationError::WrongType { at, found, expected }
    }

    fn child(&self, key: &str, value: &'a Value) -> Node<'a> {
        let at = if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) };
        Node { value, at }
    }

    /// The field; `None` when absent or null.
    fn get(&self, key: &str) -> Option<Node<'a>> {
        self.value.get(key).filter(|value| !value.is_null()).map(|value| self.child(key, value))
    }

    fn required(&self, key: &str, expected: &'static str) -> Result<Node<'a>> {
        self.object()?;
        self.get(key).ok_or_else(|| self.child(key, &Value::Null).wrong(expected))
    }

    fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.wrong("an object"))
    }

    fn string(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    fn list(&self) -> Result<Vec<Node<'a>>> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list"))?.iter().enumerate();
        Ok(items.map(|(i, value)| Node { value, at: format!("{}[{i}]", self.at) }).collect())
    }

    fn items(&self, key: &str) -> Result<Vec<Node<'a>>> {
        self.get(key).map_or(Ok(Vec::new()), |node| node.list())
    }

    fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key).map(|node| Ok(node.string()?.to_owned())).transpose()
    }

    fn flag(&self, key: &str, absent: bool) -> Result<bool> {
        let Some(node) = self.get(key) else { return Ok(absent) };
        node.value.as_bool().ok_or_else(|| node.wrong("true or false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(value: Value, expected: &str) {
        assert_eq!(Conversation::from_openai(&value).unwrap_err().to_string(), expected);
    }

    #[test]
    fn errors_name_the_place_what_is_there_and_what_should_be() {
        check_error(json!([]), "`the conversation` is a list; expected an object");
        check_error(json!({}), "`messages` is null; expected a list of messages");
        check_error(json!({"messages": [3]}), "`messages[0]` is a number; expected an object");
        check_error(json!({"messages": [{"role": 1}]}), "`messages[0].role` is a number; expected a string");
        check_error(
            json!({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}),
            "`messages[0].content[0].type` is `smell`; expected `text`, `image`, `audio` or `video`",
        );
        check_error(
            json!({"messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}]}),
            "`messages[0].content` is an object; expected a string, a list of parts or null",
        );
        check_error(
            json!({"messages": [], "enable_thinking": 1}),
            "`enable_thinking` is a number; expected true or false",
        );
    }

    #[test]
    fn arguments_may_be_the_text_of_an_object() {
        let call = |arguments: Value| {
            let calls = json!([{"function": {"name": "f", "arguments": arguments}}]);
            let value = json!({"messages": [{"role": "assistant", "tool_calls": calls}]});
            Conversation::from_openai(&value).map(|c| Value::from(c.messages[0].tool_calls[0].arguments.clone()))
        };
        assert_eq!(call(json!("{\"b\":1,\"a\":2}")).unwrap().to_string(), "{\"b\":1,\"a\":2}");
        assert_eq!(call(json!("")).unwrap(), json!({}));
        assert_eq!(call(json!(null)).unwrap(), json!({}));
        let error = call(json!("[1]")).unwrap_err().to_string();
        assert!(error.starts_with("`messages[0].tool_calls[0].function.arguments` is not a JSON object"), "{error}");
    }

    #[test]
    fn a_conversation_survives_writing_and_reading() {
        let value = json!({
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]},
                {"role": "assistant", "content": null, "reasoning": "r", "tool_calls":
                    [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1.0}}}]},
                {"role": "tool", "tool_call_id": "1", "name": "f", "content": {"y": 2}},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        });
        let first = Conversation::from_openai(&value).unwrap();
        let again = json!({
            "messages": first.messages.iter().map(Message::to_openai).collect::<Vec<_>>(),
            "tools": first.tools.iter().map(ToolSpec::to_openai).collect::<Vec<_>>(),
        });
        let mut second = Conversation::from_openai(&again).unwrap();
        second.tools[0].description = None;
        assert_eq!(first, second);
    }
}
