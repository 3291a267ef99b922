//! The embedded model answers its held-out prompts as the reference implementation does with the same weights:
//! `nano/scores.json` names the prompts that `nano/score.py` judged wrong; all others must be right here, and those wrong.
//! With `--nocapture` the scores are printed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use carat::session::GenerateOptions;
use carat::{LoadOptions, ModelSource, SamplingOptions, Session};
use carat_chat::message::{Content, Conversation, Message};
use carat_tensor::backend::KvType;
use serde_json::Value;

const PROMPTS: &str = include_str!("../../../nano/heldout.jsonl");
const SCORES: &str = include_str!("../../../nano/scores.json");

/// Whether the content and the calls are the expected ones; thoughts aren't judged.
fn is_right(message: &Message, expected: &Value) -> bool {
    let content = match &message.content {
        Content::Text(text) => text.trim(),
        _ => "",
    };
    let calls: Vec<_> =
        message.tool_calls.iter().map(|call| (call.name.as_str(), Value::from(call.arguments.clone()))).collect();
    let expected_calls: Vec<_> = expected["tool_calls"].as_array().into_iter().flatten().collect();
    content == expected["content"].as_str().unwrap_or("").trim()
        && calls.len() == expected_calls.len()
        && calls.iter().zip(expected_calls).all(|((name, arguments), call)| {
            *name == call["function"]["name"] && *arguments == call["function"]["arguments"]
        })
}

#[test]
fn held_out_prompts_are_answered_as_the_reference_answers_them() {
    let scores: Value = serde_json::from_str(SCORES).expect("scores are JSON");
    let wrong: Vec<u64> = scores["wrong"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    // The reference's cache is f32; the f16 one of every day tips a choice or two between near equals.
    let load = LoadOptions { kv: Some(KvType::F32), ..LoadOptions::default() };
    let mut session = Session::load(&ModelSource::Embedded, &load, &mut |_| {}).expect("the embedded model loads");
    let sampling =
        SamplingOptions { suppress: session.defaults().sampling.suppress.clone(), ..SamplingOptions::default() };
    let options =
        GenerateOptions { sampling, max_tokens: Some(150), ..GenerateOptions::from_defaults(session.defaults()) };
    let mut skills: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (i, line) in PROMPTS.lines().enumerate() {
        let prompt: Value = serde_json::from_str(line).expect("each line is JSON");
        let conversation = Conversation::from_openai(&prompt).expect("prompts are conversations");
        let answer = session
            .generate(&conversation, &options, &mut |_| ControlFlow::Continue(()))
            .expect("short prompts are answered");
        let right = is_right(&answer.message, &prompt["expect"]);
        assert_eq!(right, !wrong.contains(&(i as u64)), "prompt {i}: {prompt}\nanswered {:?}", answer.message);
        let (count, good) = skills.entry(prompt["skill"].to_string()).or_default();
        *count += 1;
        *good += usize::from(right);
    }
    for (skill, (count, good)) in skills {
        println!("{skill:16} {good} of {count}");
    }
}
