//! Conversations that tell the official templates, and that of Gemma 3, apart from all others.
//!
//! Together they reach every rule: each kind of message, schema and value, thoughts kept and dropped, every way a
//! prompt can end. A template that prints all of them as ours does may be taken for the official one.

use serde_json::{Value, json};

use crate::message::Conversation;

/// The probes. None holds control tokens in its text.
pub(super) fn conversations() -> Vec<Conversation> {
    let mut out = Vec::new();
    for case in cases() {
        for (enable, preserve, generate) in [(false, false, true), (true, false, true), (true, true, false)] {
            let mut conversation = Conversation::from_openai(&case).expect("the probes are conversations");
            conversation.enable_thinking = enable;
            conversation.preserve_thinking = preserve;
            conversation.add_generation_prompt = generate;
            out.push(conversation);
        }
    }
    out
}

/// The probes for a format of plain turns: some ask for more, two have speakers that don't take turns.
pub(super) fn of_turns() -> Vec<Conversation> {
    let user = json!({"role": "user", "content": " Hello. "});
    let answer = json!({"role": "assistant", "content": "\n It <is>. "});
    let system = json!({"role": "system", "content": " Be terse. "});
    let in_parts = json!({"role": "system", "content": [{"type": "text", "text": " a "}]});
    let media = json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "},
        {"type": "text", "text": "Say "}]});
    let cases = [
        json!({"messages": [user]}),
        json!({"messages": [system, user, answer, media, answer], "add_generation_prompt": false}),
        json!({"messages": [in_parts, media, answer, user]}),
        json!({"messages": [system, user], "tools": tools()}),
        json!({"messages": [user, answer, user], "enable_thinking": true}),
        json!({"messages": [user, user]}),
        json!({"messages": [answer]}),
    ];
    cases.iter().map(|case| Conversation::from_openai(case).expect("the probes are conversations")).collect()
}

fn cases() -> Vec<Value> {
    let user = json!({"role": "user", "content": " Hello. "});
    let arguments = json!({"b": "x, {y}\n", "A": [1, -2.5, 1e-5, true, null], "c": {"z": {}, "Y": []}});
    let calls = |id: &str| {
        json!([{"id": id, "type": "function", "function": {"name": "find", "arguments": arguments}},
            {"id": format!("{id}b"), "type": "function", "function": {"name": "stop", "arguments": {}}}])
    };
    let calling = json!({"role": "assistant", "content": "", "reasoning": " Why? ", "tool_calls": calls("1")});
    let talking =
        json!({"role": "assistant", "content": " So: ", "reasoning_content": "Since", "tool_calls": calls("2")});
    let answer =
        json!({"role": "assistant", "content": "<|channel>thought\nold<channel|> It is. ", "reasoning": "Thus"});
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "{\"t\": 1}"});
    let fields = json!({"role": "tool", "tool_call_id": "1b", "content": {"s": "clear", "T": 2.0}});
    let parts =
        json!({"role": "tool", "tool_call_id": "2b", "content": [{"type": "text", "text": " a "}, {"type": "image"}]});
    let media = json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "},
        {"type": "audio"}, {"type": "video"}, {"type": "text", "text": "Say "}]});
    let system = json!({"role": "system", "content": " Be terse. "});
    let developer =
        json!({"role": "developer", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": "b"}]});
    vec![
        json!({"messages": [user]}),
        json!({"messages": [system, user, answer, media, answer, answer]}),
        json!({"messages": [developer, user, system, user], "tools": tools()}),
        json!({"messages": [user, calling], "tools": tools()}),
        json!({"messages": [user, calling, result("1"), fields]}),
        json!({"messages": [user, calling, result("1"), fields, talking, result("2"), parts]}),
        json!({"messages": [user, calling, result("9"), answer, user, talking, parts, answer, user]}),
        json!({"messages": [user, answer, talking, result("2"), user, result("2")]}),
    ]
}

fn tools() -> Value {
    let nested =
        json!({"type": "object", "description": "o", "properties": {"k": {"type": "number"}}, "required": ["k"]});
    let items = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "title": "t"});
    json!([
        {"type": "function", "function": {"name": "find", "description": " Finds. ", "parameters": {
            "type": "object",
            "properties": {
                "unit": {"type": "string", "enum": ["c", "f"], "nullable": true},
                "Days": {"type": "integer", "description": "n", "enum": [1, 2]},
                "bare": {"type": "object", "x": {"type": "boolean", "description": "d"}},
                "nested": nested,
                "list": {"type": "array", "description": "l", "items": {"type": "string", "enum": ["a"]}},
                "rows": {"type": "array", "items": items},
            },
            "required": ["unit", "Days"]}}},
        {"type": "function", "function": {"name": "stop", "description": ""}},
        {"type": "function", "function": {"name": "wait", "description": "w", "parameters": {"type": "object", "properties": {}},
            "response": {"type": "object", "description": "r"}}},
    ])
}
