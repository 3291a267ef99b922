//! The embedded model answers its held-out prompts as the reference implementation does with the same weights:
//! `nano/scores.json` names the prompts that `nano/score.py` judged wrong; all others must be right here, and those wrong.
//! With `--nocapture` the scores are printed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use carat::session::GenerateOptions;
use carat::{ImageTokens, LoadOptions, Medium, ModelFiles, ModelSource, SamplingOptions, Session};
use carat_chat::message::{Content, Conversation, Message};
use carat_tensor::backend::KvType;
use serde_json::Value;

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano");

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

/// The pictures and sounds that a prompt's messages name, from the folder of the prompts.
fn media(prompt: &Value, folder: &Path) -> Vec<Medium> {
    let messages = prompt["messages"].as_array().into_iter().flatten();
    let parts = messages.filter_map(|message| message["content"].as_array()).flatten();
    let shown = parts.filter_map(|part| Some((part["type"].as_str()?, part["path"].as_str()?)));
    let read = |(kind, name): (&str, &str)| {
        let bytes = std::fs::read(folder.join(name)).expect("the prompt's file is in the repository");
        let name = name.to_owned();
        if kind == "image" { Medium::Image { name, bytes } } else { Medium::Audio { name, bytes } }
    };
    shown.map(read).collect()
}

/// Answers every prompt of a file under `nano/` and compares the verdicts with the reference's, those in `wrong`.
fn check(prompts: &str, wrong: &str, least: usize) {
    let file = Path::new(NANO).join(prompts);
    let folder = file.parent().expect("the file is in a folder");
    let scores = std::fs::read_to_string(Path::new(NANO).join("scores.json")).expect("scores are in the repository");
    let scores: Value = serde_json::from_str(&scores).expect("scores are JSON");
    let wrong: Vec<u64> = scores[wrong].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    let image_tokens = ModelFiles::open(&ModelSource::Embedded).expect("the embedded model opens").image_tokens();
    assert_eq!(image_tokens, "70".parse::<ImageTokens>().expect("a budget"), "that the model was trained with");
    // The reference's cache is f32; the f16 one of every day tips a choice or two between near equals.
    let kv = Some(KvType::F32);
    let load = LoadOptions { kv, image_tokens: Some(image_tokens), sounds: true, ..LoadOptions::default() };
    let mut session = Session::load(&ModelSource::Embedded, &load, &mut |_| {}).expect("the embedded model loads");
    let sampling =
        SamplingOptions { suppress: session.defaults().sampling.suppress.clone(), ..SamplingOptions::default() };
    let options =
        GenerateOptions { sampling, max_tokens: Some(150), ..GenerateOptions::from_defaults(session.defaults()) };
    let mut skills: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (i, line) in std::fs::read_to_string(&file).expect("prompts are in the repository").lines().enumerate() {
        let prompt: Value = serde_json::from_str(line).expect("each line is JSON");
        let conversation = Conversation::from_openai(&prompt).expect("prompts are conversations");
        let answer = session
            .generate_with(&conversation, &media(&prompt, folder), &options, &mut |_| ControlFlow::Continue(()))
            .expect("short prompts are answered");
        let right = is_right(&answer.message, &prompt["expect"]);
        assert_eq!(right, !wrong.contains(&(i as u64)), "prompt {i}: {prompt}\nanswered {:?}", answer.message);
        let (count, good) = skills.entry(prompt["skill"].to_string()).or_default();
        *count += 1;
        *good += usize::from(right);
    }
    assert!(skills.values().map(|(count, _)| count).sum::<usize>() >= least, "prompts are missing: {skills:?}");
    for (skill, (count, good)) in skills {
        println!("{skill:16} {good} of {count}");
    }
}

#[test]
fn held_out_prompts_are_answered_as_the_reference_answers_them() {
    check("heldout.jsonl", "wrong", 14 * 64);
}

#[test]
fn pictures_and_sounds_are_understood_as_the_reference_understands_them() {
    check("media/heldout.jsonl", "wrong_media", 8 * 64 + 6 * 32);
}
