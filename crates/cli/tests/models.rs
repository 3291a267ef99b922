//! Models in files: what does not fit in memory is refused before it is taken, and `inspect` says which chat
//! template is used and why.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;

use std::process::Output;

use files::{bmp, wav};
use program::{Scratch, carat, done, fed};
use serde_json::Value;

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");

/// `carat inspect --json` with these arguments.
#[track_caller]
fn inspected(args: &[&str]) -> Value {
    let mut all = vec!["inspect", "--json"];
    all.extend_from_slice(args);
    serde_json::from_slice(&done(carat(&all).output().expect("the program starts"))).expect("it prints JSON")
}

/// Standard error of a command that must fail with exit code 1 and print nothing.
#[track_caller]
fn refused(args: &[&str]) -> String {
    refusal_of(fed(args, b"Hi"))
}

#[track_caller]
fn refusal_of(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).expect("errors are UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && output.stdout.is_empty(), "{stderr}");
    stderr
}

/// The context that a refusal offers.
#[track_caller]
fn offered(refusal: &str) -> &str {
    let offer = refusal.split_once("--ctx ").and_then(|(_, rest)| rest.split_once(" is the longest that fits"));
    offer.unwrap_or_else(|| panic!("nothing is offered: {refusal}")).0
}

/// A tiny model without per-layer inputs, as the large ones are.
fn large_config() -> Value {
    serde_json::from_str(include_str!("../../../fuzz/corpus/config_json/31b")).expect("it is JSON")
}

/// A directory with the embedded model's tensors and tokenizer under another config.
fn directory(name: &str, config: &Value) -> Scratch {
    let model = Scratch::new(name);
    std::fs::create_dir(&model.0).expect("nothing is in the way");
    std::fs::write(model.0.join("config.json"), config.to_string()).expect("the directory takes files");
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{NANO}/{name}"), model.0.join(name)).expect("the model is in the repository");
    }
    model
}

// Elsewhere the free memory is not known.
#[cfg(target_os = "linux")]
#[test]
fn more_memory_than_any_machine_has_is_refused_with_its_table() {
    // Layers like a 31B's with more heads and 16 million positions: the cache would take 2.5 TiB.
    let mut config = large_config();
    let text = config["text_config"].as_object_mut().unwrap();
    text.remove("per_layer_config");
    for (key, value) in [
        ("max_position_embeddings", 1 << 24),
        ("num_attention_heads", 64),
        ("num_key_value_heads", 64),
        ("head_dim", 512),
        ("vocab_size", 1280),
    ] {
        text.insert(key.to_owned(), value.into());
    }
    let model = directory("large", &config);
    let refusal = refused(&["run", model.arg(), "--ctx", "16777216", "--kv", "f32"]);
    assert!(refusal.lines().next().unwrap().contains(" are free; --ctx "), "{refusal}");
    for line in ["1 full layers: 16777216 positions x 64 x 640 f32", "intermediates", "allocated and weights"] {
        assert!(refusal.contains(line), "`{line}` is not in: {refusal}");
    }
    assert!(offered(&refusal).parse::<usize>().unwrap() < 1 << 24, "{refusal}");
}

#[test]
fn the_longest_context_that_fits_what_is_allowed_is_offered_and_runs() {
    let mut deaf_and_blind: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{NANO}/config.json")).unwrap()).unwrap();
    for encoder in ["vision_config", "audio_config"] {
        deaf_and_blind.as_object_mut().unwrap().remove(encoder);
    }
    let [picture, sound] = [("offered.bmp", bmp(60, 60)), ("offered.wav", wav(&[0.5; 16_000]))].map(|(name, bytes)| {
        let file = Scratch::new(name);
        std::fs::write(&file.0, bytes).unwrap();
        file
    });
    check_offer(directory("deaf-and-blind", &deaf_and_blind).arg(), &[]);
    check_offer(NANO, &["--image", picture.arg(), "--audio", sound.arg()]);
}

/// Allows a little less than the whole context takes with what is shown.
#[track_caller]
fn check_offer(model: &str, shown: &[&str]) {
    let bytes = |memory: &Value, of: &str| memory[of].as_u64().unwrap();
    let memory = &inspected(&[model])["memory"];
    assert_eq!((&memory["allowed"], &memory["longest_ctx"]), (&Value::Null, &memory["ctx"]));
    let needed: u64 = ["allocated", "weights", "encoder_weights"].iter().map(|of| bytes(memory, of)).sum();
    let allowed = (needed - (300 << 10)).to_string();
    let run = |more: &[&str]| fed(&[&["run", model, "--memory", &allowed], shown, more].concat(), b"Hi");
    let refusal = refusal_of(run(&[]));
    assert!(refusal.contains("with its weights and ") && refusal.contains(" are allowed; "), "{refusal}");
    let ctx = offered(&refusal);
    done(run(&["--ctx", ctx, "--max-tokens", "1"]));
    let more = (ctx.parse::<usize>().unwrap() + 1024).to_string();
    assert_eq!(offered(&refusal_of(run(&["--ctx", &more]))), ctx);
    let memory = &inspected(&[model, "--memory", &allowed])["memory"];
    assert_eq!(memory["longest_ctx"].to_string(), ctx);
    assert_eq!(memory["allowed"].to_string(), allowed);
}

#[test]
fn a_model_that_no_context_makes_small_enough_is_refused() {
    let refusal = refused(&["run", "--memory", "1MiB"]);
    assert!(refusal.contains("1.0 MiB are allowed; no context fits"), "{refusal}");
    assert_eq!(inspected(&["--memory", "1MiB"])["memory"]["longest_ctx"], Value::Null);
    assert!(
        refused(&["logits", "--tokens", "2", "--out", "unwritten", "--memory", "1MiB"]).contains("no context fits")
    );
}

/// What `inspect` says of a model's template, as JSON and in words.
#[track_caller]
fn check_template(model: &str, used: &str, why: &str, template: Option<&str>) {
    let json = inspected(&[model]);
    assert_eq!((&json["template"], &json["template_bytes"]), (&used.into(), &template.map(str::len).into()));
    assert!(json["template_why"].as_str().is_some_and(|said| said.starts_with(why)), "{}", json["template_why"]);
    let text = String::from_utf8(done(carat(&["inspect", model]).output().expect("the program starts")));
    let text = text.expect("text is UTF-8");
    let bytes = template.map_or(String::new(), |t| format!(" ({} bytes)", t.len()));
    let line = text.lines().find_map(|line| line.strip_prefix("template    ")).expect("a line says it");
    assert!(line.starts_with(&format!("{used}: {why}")) && line.ends_with(&bytes), "{line}");
}

const OFFICIAL: &str = include_str!("../../chat/tests/data/official.jinja");
const OWN: &str = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";

#[test]
fn inspect_says_which_template_a_directory_is_spoken_to_with() {
    let config = std::fs::read_to_string(format!("{NANO}/config.json")).unwrap();
    let small = directory("small", &serde_json::from_str(&config).unwrap());
    check_template(small.arg(), "official, small", "the files bring none, and the model has per-layer inputs", None);
    let large = directory("large-template", &large_config());
    check_template(large.arg(), "official, large", "the files bring none, and the model has no per-layer", None);
    // The template decides, not the architecture.
    let same = "the files' template prints what the official one does";
    let with = |template: &str, used: &str, why: &str| {
        std::fs::write(small.0.join("chat_template.jinja"), template).unwrap();
        check_template(small.arg(), used, why, Some(template));
    };
    with(OFFICIAL, "official, large", same);
    with(&OFFICIAL.replace("is_large = true", "is_large = false"), "official, small", same);
    with(OWN, "its own", "the files' template differs from the official ones");
    with("{% for %}", "none", "prompts can't be made: the chat template cannot be read: ");
    let error = refused(&["run", small.arg()]);
    assert!(error.contains(&format!("{}: the chat template cannot be read", small.arg())), "{error}");
}

#[test]
fn inspect_says_which_template_a_gguf_is_spoken_to_with() {
    let file = Scratch::new("template.gguf");
    let bare = include_bytes!("../../../fuzz/corpus/gguf/merges");
    std::fs::write(&file.0, bare).unwrap();
    check_template(file.arg(), "official, large", "the files bring none, and the model has no per-layer", None);
    for (template, used) in [(OFFICIAL, "official, large"), (OWN, "its own")] {
        std::fs::write(&file.0, with_template(bare, template)).unwrap();
        check_template(file.arg(), used, "the files' template ", Some(template));
    }
}

/// A GGUF file with a chat template put before its other metadata.
fn with_template(gguf: &[u8], template: &str) -> Vec<u8> {
    // The key's length and text, 8 for a string, its length and text.
    let entry = |key: &str, value: &str| {
        let length = |text: &str| (text.len() as u64).to_le_bytes();
        [&length(key)[..], key.as_bytes(), &8_u32.to_le_bytes(), &length(value), value.as_bytes()].concat()
    };
    let mut added = entry("tokenizer.chat_template", template);
    // Tensors stay where they are relative to a multiple of 32.
    let unpadded = added.len() + entry("general.description", "").len();
    added.extend(entry("general.description", &" ".repeat(unpadded.next_multiple_of(32) - unpadded)));
    let count = gguf[16..24].try_into().map(u64::from_le_bytes).expect("a header is longer") + 2;
    [&gguf[..16], &count.to_le_bytes(), &added, &gguf[24..]].concat()
}
