//! The command line is an interface: exit codes, error texts, pipes.

mod program;

use std::io::Read;
use std::process::Stdio;

use program::{Scratch, carat, done, fed};

/// The longest context of the embedded model.
const MOST: &str = "4096";

/// The command fails with this code and says this.
#[track_caller]
fn check(args: &[&str], code: i32, says: &str) {
    let output = carat(args).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains("error: "), "{stderr}");
    assert!(stderr.contains(says), "`{says}` is not in: {stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_wrong_command_line_is_2() {
    check(&["run", "--no-such-option"], 2, "--no-such-option");
    check(&["nonsense"], 2, "nonsense");
    check(&["run", "--kv", "q3", "hi"], 2, "q3");
    check(&["run", "--max-tokens", "0", "hi"], 2, "at least 1");
    check(&["run", "--top-p", "1.5", "hi"], 2, "top-p is 1.5, expected more than 0, at most 1");
    check(&["run", "--temperature", "-1", "hi"], 2, "temperature is -1, expected 0 to 100");
    check(&["run", "--memory", "8 apples", "hi"], 2, "expected a size such as 8GiB or 500MB");
    check(&["run", "--logit-bias", "5", "hi"], 2, "--logit-bias");
    check(&["run", "--logprobs", "3", "hi"], 2, "--json");
    check(&["run"], 2, "no prompt");
    check(&["run", "--json"], 2, "no prompt");
    check(&["logits", "--tokens", "1,x", "--out", "/nowhere"], 2, "`x` is not a token id");
    check(&["logits", "--tokens", "", "--out", "/nowhere"], 2, "at least one id");
    let long = ["logits", "--tokens", "2", "--out", "/nowhere", "--greedy", "18446744073709551615"];
    check(&long, 2, "a context of 18446744073709551615");
    check(&[&long[..], &["--ctx", "64"]].concat(), 2, "--ctx: found 64");
    check(&["run", "--ctx", "100000000", "hi"], 2, "the model was made for at most");
    check(&["run", "--threads", "9999", "hi"], 2, "9999");
    check(&["bench", "--threads", "9999"], 2, "9999");
    check(&["run", "--stop", "", "hi"], 2, "a stop string of 0 bytes");
    check(&["run", "--temperature", "abc", "hi"], 2, "expected a number");
    check(&["run", "--seed", "x", "hi"], 2, "expected a whole number");
    check(&["bench", "-p", "x"], 2, "expected a whole number");
    check(&["tokenize", "--raw", "--special"], 2, "--special");
    check(&["render"], 2, "<FILE>");
    check(&["bench", "-r", "0"], 2, "at least 1");
    check(&["perplexity", "text.txt", "--windows", "none"], 2, "sliding, apart");
    check(&["perplexity", "Cargo.toml", "--windows", "apart", "--stride", "9"], 2, "--stride is for sliding windows");
}

#[test]
fn what_fails_is_1_and_names_the_thing() {
    check(&["run", "no/such/model", "hi"], 1, "no/such/model");
    check(&["run", "missing.gguf"], 1, "missing.gguf");
    check(&["inspect", "missing.gguf"], 1, "missing.gguf");
    check(&["render", "missing.json"], 1, "missing.json");
    check(&["run", "--tools", "Cargo.toml", "hi"], 1, "Cargo.toml: not JSON: ");
    check(&["run", "--tools", "Cargo.toml", "hi"], 1, "; expected a list of tools");
    check(&["perplexity", "missing.txt"], 1, "missing.txt");
    check(&["run", env!("CARGO_MANIFEST_DIR"), "hi"], 1, "config.json");
    check(&["logits", "--tokens", "4000000000", "--out", "/dev/null"], 1, "4000000000");
}

#[test]
fn a_full_context_is_made_longer_only_where_it_can_be() {
    let prompt = "word ".repeat(40_000);
    for (ctx, says) in [("64", "in a context of 64; --ctx makes it longer"), (MOST, "; this model has none longer")] {
        let output = fed(&["run", "--ctx", ctx], prompt.as_bytes());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(says), "{stderr}");
    }
}

#[test]
fn causes_of_errors_are_told_once() {
    let output = carat(&["inspect", "missing.gguf"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.matches("No such file").count(), 1, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["run", "--help"], &["--version"], &["help", "bench"]] {
        assert!(!done(carat(args).output().unwrap()).is_empty(), "{args:?}");
    }
    let logits = String::from_utf8(done(carat(&["logits", "--help"]).output().unwrap())).unwrap();
    assert!(logits.contains("[default: f32]") && !logits.contains("[default: f16"), "{logits}");
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let text = "word ".repeat(200_000);
    let mut child = carat(&["tokenize", "--json"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, text.as_bytes())));
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 5]).unwrap();
    drop(stdout);
    writer.join().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn ids_of_any_bytes_decode_to_the_same_bytes() {
    let texts: [&[u8]; 5] =
        [b"Hello  world\n\n", "Zürich → 東京 🙂".as_bytes(), b"<bos><|turn>user\n", b"\xff\xfe broken \x80", b""];
    for text in texts {
        let ids = done(fed(&["tokenize"], text));
        assert_eq!(done(fed(&["tokenize", "--decode"], &ids)), text, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    let json = |args: &[&str]| -> serde_json::Value { serde_json::from_slice(&done(fed(args, b"<bos>a"))).unwrap() };
    let raw = json(&["tokenize", "--json"]);
    assert_eq!(raw, json(&["tokenize", "--json", "--raw"]));
    let special = json(&["tokenize", "--json", "--special"]);
    assert_eq!(special["ids"][0], 2);
    assert_eq!(special["pieces"][0], "<bos>");
    assert!(raw["ids"].as_array().unwrap().iter().all(|id| id != 2));
    assert_eq!(raw["ids"].as_array().unwrap().len(), raw["pieces"].as_array().unwrap().len());
}

#[test]
fn conversations_are_rendered_one_per_line() {
    let file = Scratch::new("render.jsonl");
    let one = r#"{"messages":[{"role":"user","content":"Hello."}]}"#;
    let two = r#"{"messages":[{"role":"user","content":"<turn|>"}],"add_generation_prompt":false}"#;
    std::fs::write(&file.0, format!("{one}\n{two}\n")).unwrap();
    let lines = |args: &[&str]| -> Vec<serde_json::Value> {
        let out = String::from_utf8(done(carat(args).output().unwrap())).unwrap();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // The worked examples of the format's description.
    let small = lines(&["render", file.arg(), "--variant", "small", "--ids"]);
    assert_eq!(small[0]["prompt"], "<bos><|turn>user\nHello.<turn|>\n<|turn>model\n");
    let large = lines(&["render", file.arg(), "--variant", "large"]);
    assert_eq!(large[0]["prompt"], "<bos><|turn>user\nHello.<turn|>\n<|turn>model\n<|channel>thought\n<channel|>");
    assert_eq!(large.len(), 2);
    // What a user wrote never becomes a control token: `<turn|>` is 106, and only the template's own is there.
    let ids = small[1]["ids"].as_array().unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 106).count(), 1);
    std::fs::write(&file.0, "{\"messages\":[]}\n{broken").unwrap();
    let output = carat(&["render", file.arg(), "--variant", "small"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2"), "{}", String::from_utf8_lossy(&output.stderr));
    let error = String::from_utf8(fed(&["render", "-", "--variant", "small"], b"my text").stderr).unwrap();
    assert!(error.contains("standard input: not JSON: ") && error.contains("; expected conversations"), "{error}");
}
