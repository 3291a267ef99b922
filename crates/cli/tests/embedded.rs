//! The embedded model through the real interface: answers, events, logits, reports.

mod program;

use program::{Scratch, carat, done, fed};
use serde_json::Value;

/// The events of `carat run --json` with these arguments.
#[track_caller]
fn events(args: &[&str]) -> Vec<Value> {
    let mut all = vec!["run", "--json"];
    all.extend_from_slice(args);
    let out = String::from_utf8(done(carat(&all).output().expect("the program starts"))).expect("JSON is UTF-8");
    out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn text(events: &[Value], kind: &str) -> String {
    events.iter().filter(|e| e["event"] == kind).filter_map(|e| e["text"].as_str()).collect()
}

#[test]
fn one_prompt_gives_one_answer_on_standard_output() {
    let argument = done(carat(&["run", "Who are you?", "--temperature", "0"]).output().unwrap());
    let piped = done(fed(&["run", "--temperature", "0"], b"Who are you?\n"));
    assert!(!argument.trim_ascii().is_empty());
    assert!(argument.ends_with(b"\n"));
    assert_eq!(argument, piped);
}

#[test]
fn memory_is_announced_before_the_answer() {
    let output = carat(&["run", "Hi", "--max-tokens", "1"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("memory: "), "{stderr}");
    assert_eq!(events(&["Hi", "--max-tokens", "1"])[0]["event"], "memory");
}

#[test]
fn events_add_up_to_the_message() {
    let events = events(&["What can you do?", "--temperature", "0", "--max-tokens", "60"]);
    let end = events.last().unwrap();
    assert_eq!(end["event"], "done");
    assert_eq!(end["message"]["content"].as_str().unwrap_or_default(), text(&events, "text"));
    assert!(["stop", "length", "loop", "tool_calls"].contains(&end["finish_reason"].as_str().unwrap()));
    assert!(end["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
}

#[test]
fn equal_seeds_give_equal_answers() {
    let warm = |seed| {
        let args = ["Tell me a story.", "--temperature", "3", "--top-k", "0", "--max-tokens", "30", "--seed", seed];
        let events = events(&args);
        assert_eq!(events.last().unwrap()["seed"].to_string(), seed);
        text(&events, "text")
    };
    assert_eq!(warm("7"), warm("7"));
    assert_ne!(warm("7"), warm("8"));
}

#[test]
fn length_stop_strings_and_bias_end_answers() {
    let events_of = |extra: &[&str]| {
        let mut args = vec!["Say something.", "--temperature", "0", "--logit-bias", "100=-100"];
        args.extend_from_slice(extra);
        events(&args)
    };
    let short = events_of(&["--max-tokens", "2"]);
    assert_eq!(short.last().unwrap()["usage"]["completion_tokens"], 2);
    assert_eq!(short.last().unwrap()["finish_reason"], "length");
    // A token that must come, over and over: the guard ends it, unless it may not.
    let letter = String::from_utf8(done(fed(&["tokenize"], b"e"))).unwrap();
    let bias = format!("{}=1000", letter.trim());
    let looped = events_of(&["--logit-bias", &bias, "--max-tokens", "300"]);
    assert_eq!(looped.last().unwrap()["finish_reason"], "loop");
    let allowed = events_of(&["--logit-bias", &bias, "--max-tokens", "300", "--no-loop-guard"]);
    assert_eq!(allowed.last().unwrap()["finish_reason"], "length");
    let stopped = events_of(&["--logit-bias", &bias, "--stop", "eee", "--max-tokens", "300"]);
    assert_eq!(stopped.last().unwrap()["stop_string"], "eee");
    assert_eq!(text(&stopped, "text"), "");
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let events = events(&["Hi", "--temperature", "0", "--max-tokens", "1", "--logprobs", "3"]);
    let token = events.iter().find(|e| e["event"] == "token").unwrap();
    let top = token["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    assert_eq!(top[0]["id"], token["id"]);
    assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
}

#[test]
fn a_spent_thinking_budget_leads_to_an_answer() {
    let events =
        events(&["What is 12 + 7?", "--think", "--think-budget", "4", "--temperature", "0", "--max-tokens", "200"]);
    let usage = &events.last().unwrap()["usage"];
    assert!(usage["thought_tokens"].as_u64().unwrap() <= 4, "{usage}");
    assert!(!text(&events, "text").contains("<channel|>"));
}

#[test]
fn logits_do_not_depend_on_the_chunk() {
    let tokens = "2,105,107,300,301,302,303,304,305,106,107";
    let file = |chunk: &str| {
        let out = Scratch::new(&format!("logits-{chunk}.safetensors"));
        done(
            carat(&[
                "logits",
                "--tokens",
                tokens,
                "--out",
                out.arg(),
                "--precision",
                "f32",
                "--hidden",
                "--greedy",
                "4",
                "--chunk",
                chunk,
            ])
            .output()
            .unwrap(),
        );
        let bytes = carat_tensor::Bytes::from_vec(std::fs::read(&out.0).unwrap());
        carat_weights::safetensors::read("logits", &bytes).unwrap()
    };
    let (whole, cut) = (file("64"), file("3"));
    assert_eq!(whole.len(), cut.len());
    let values =
        |data: &[u8]| -> Vec<f32> { data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect() };
    for (a, b) in whole.iter().zip(&cut) {
        assert_eq!((&a.name, &a.shape), (&b.name, &b.shape));
        if a.name == "greedy" {
            assert_eq!(a.data[..], b.data[..]);
            continue;
        }
        assert_eq!(a.shape[0], 11);
        let (x, y) = (values(&a.data), values(&b.data));
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
        let error = norm(&mut x.iter().zip(&y).map(|(x, y)| x - y)) / norm(&mut x.iter().copied());
        // The bound the model's own golden tests have for every stage in f32.
        assert!(error < 1e-4, "{}: {error}", a.name);
    }
}

#[test]
fn reports_are_json_where_asked_for() {
    let inspected: Value = serde_json::from_slice(&done(carat(&["inspect", "--json"]).output().unwrap())).unwrap();
    assert_eq!(inspected["vocab_size"], inspected["tokenizer"]["vocab_size"]);
    assert!(inspected["layers"].as_array().unwrap().iter().any(|l| !l["reads_kv_of"].is_null()));
    let bench =
        done(carat(&["bench", "-p", "16", "-n", "4", "-d", "0,8", "-r", "2", "-t", "1", "--json"]).output().unwrap());
    let bench: Value = serde_json::from_slice(&bench).unwrap();
    assert_eq!(bench["results"][0]["tests"].as_array().unwrap().len(), 4);
    let file = Scratch::new("text.txt");
    std::fs::write(&file.0, "The cat sat. The dog ran. ".repeat(20)).unwrap();
    let report = |option: &str, value: &str| -> Value {
        let args = ["perplexity", file.arg(), "--ctx", "64", option, value, "--json"];
        serde_json::from_slice(&done(carat(&args).output().unwrap())).unwrap()
    };
    let close = report("--stride", "16");
    assert!(close["perplexity"].as_f64().unwrap() > 1.0);
    assert_eq!(close["tokens"], report("--stride", "63")["tokens"]);
    let apart = report("--windows", "apart");
    assert!(apart["perplexity"].as_f64().unwrap() > 1.0);
    let whole = (close["tokens"].as_u64().unwrap() + 1) / 64;
    assert_eq!(apart["tokens"].as_u64().unwrap(), whole * 31, "what 32 or more tokens of a window come before");
}

/// At the 70 soft tokens that the model was trained with, which its files name.
#[test]
fn pictures_and_sounds_are_understood_without_a_model_path() {
    let media = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/media");
    let asked = [
        ("--image", "picture-00.png", "Describe what you see.", "A green cross.\n"),
        ("--image", "printed-number-02.png", "What number is it?", "891\n"),
        ("--audio", "spoken-digit-00.flac", "What digit do you hear?", "5\n"),
    ];
    for (flag, file, question, answer) in asked {
        let file = format!("{media}/{file}");
        let said = done(carat(&["run", flag, &file, question, "--temperature", "0"]).output().unwrap());
        assert_eq!(String::from_utf8(said).unwrap(), answer, "{file}");
    }
    let picture = format!("{media}/picture-00.png");
    let used = |extra: &[&str]| {
        let events = events(&[&["--image", &picture, "What is it?", "--max-tokens", "1"], extra].concat());
        events.last().unwrap()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    assert_eq!(used(&[]), used(&["--image-tokens", "70"]));
    assert!(used(&["--image-tokens", "280"]) > used(&[]) + 100);
}
