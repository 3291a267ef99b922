//! Models in files: what does not fit in memory is refused before it is taken.

mod program;

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
    let output = fed(args, b"Hi");
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

// Elsewhere the free memory is not known.
#[cfg(target_os = "linux")]
#[test]
fn more_memory_than_any_machine_has_is_refused_with_its_table() {
    let model = Scratch::new("large");
    std::fs::create_dir(&model.0).unwrap();
    // Layers like a 31B's with more heads and 16 million positions: the cache would take 2.5 TiB.
    let config = include_str!("../../../fuzz/corpus/config_json/31b");
    let mut config: Value = serde_json::from_str(config).unwrap();
    let text = config["text_config"].as_object_mut().unwrap();
    text.remove("per_layer_config");
    for (key, value) in [
        ("max_position_embeddings", 1 << 24),
        ("num_attention_heads", 64),
        ("num_key_value_heads", 64),
        ("head_dim", 512),
    ] {
        text.insert(key.to_owned(), value.into());
    }
    std::fs::write(model.0.join("config.json"), config.to_string()).unwrap();
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{NANO}/{name}"), model.0.join(name)).unwrap();
    }
    let refusal = refused(&["run", model.arg(), "--ctx", "16777216", "--kv", "f32"]);
    assert!(refusal.lines().next().unwrap().contains(" are free; --ctx "), "{refusal}");
    for line in ["1 full layers: 16777216 positions x 64 x 640 f32", "intermediates", "allocated and weights"] {
        assert!(refusal.contains(line), "`{line}` is not in: {refusal}");
    }
    assert!(offered(&refusal).parse::<usize>().unwrap() < 1 << 24, "{refusal}");
}

#[test]
fn the_longest_context_that_fits_what_is_allowed_is_offered_and_runs() {
    let memory = &inspected(&[])["memory"];
    assert_eq!((&memory["allowed"], &memory["longest_ctx"]), (&Value::Null, &memory["ctx"]));
    // A little less than the whole context takes.
    let allowed = memory["allocated"].as_u64().unwrap() + memory["weights"].as_u64().unwrap() - (300 << 10);
    let allowed = allowed.to_string();
    let refusal = refused(&["run", "--memory", &allowed]);
    assert!(refusal.contains("with its weights and ") && refusal.contains(" are allowed; "), "{refusal}");
    let ctx = offered(&refusal);
    done(fed(&["run", "--memory", &allowed, "--ctx", ctx, "--max-tokens", "1"], b"Hi"));
    let more = (ctx.parse::<usize>().unwrap() + 1024).to_string();
    assert_eq!(offered(&refused(&["run", "--memory", &allowed, "--ctx", &more])), ctx);
    let memory = &inspected(&["--memory", &allowed])["memory"];
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
