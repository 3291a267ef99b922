//! Models whose files are broken, of another model, or taken away while they are in use: the program says which file and
//! what is wrong with it, and ends with exit code 1.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod program;
mod synthetic;

use std::fs;
use std::path::Path;

use carat_tensor::DType;
use carat_weights::GgufWriter;
use program::{Scratch, carat, done, fed};
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A directory with the embedded model's files, and `change`d.
fn nano(name: &str, change: impl FnOnce(&Path)) -> Scratch {
    let model = Scratch::new(&format!("hostile-{name}"));
    fs::create_dir(&model.0).unwrap();
    for file in ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"] {
        fs::copy(format!("{REPOSITORY}/nano/checkpoint/{file}"), model.0.join(file)).unwrap();
    }
    change(&model.0);
    model
}

/// Running the command must fail with exit code 1 and an error that says every text.
#[track_caller]
fn refused(args: &[&str], says: &[&str]) {
    let output = fed(args, b"Hi");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(stderr.contains("error: "), "{stderr}");
    for text in says {
        assert!(stderr.contains(text), "`{text}` is not in: {stderr}");
    }
}

/// As [`refused`] for `carat run` on a changed model, whose path the error names.
#[track_caller]
fn refused_run(name: &str, change: impl FnOnce(&Path), says: &[&str]) {
    let model = nano(name, change);
    refused(&["run", model.arg()], &[says, &[model.arg()]].concat());
}

/// Changes a JSON file of the model.
fn edit(dir: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(dir.join(file)).unwrap()).unwrap();
    change(&mut json);
    fs::write(dir.join(file), json.to_string()).unwrap();
}

/// Overwrites the first values of a tensor with `value`.
fn overwrite(dir: &Path, tensor: &str, value: u16, count: usize) {
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let entry = &header[tensor];
    assert_eq!(entry["dtype"], "BF16", "{tensor}");
    let at = data + entry["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 2 * count].copy_from_slice(&value.to_le_bytes().repeat(count));
    fs::write(path, bytes).unwrap();
}

const NAN: u16 = 0x7fc0;
const INFINITY: u16 = 0x7f80;
const NORM: &str = "model.language_model.layers.1.input_layernorm.weight";
const MATRIX: &str = "model.language_model.layers.1.mlp.up_proj.weight";

#[test]
fn another_architecture_is_named() {
    let llama = |dir: &Path| edit(dir, "config.json", |c| c["text_config"]["model_type"] = json!("llama"));
    refused_run("llama", llama, &["model_type", "llama", "gemma4"]);
    let gguf = Scratch::new("llama.gguf");
    let bytes = fs::read(format!("{REPOSITORY}/fuzz/corpus/gguf/merges")).unwrap();
    let at = bytes.windows(6).position(|w| w == b"gemma4").unwrap();
    fs::write(&gguf.0, [&bytes[..at], b"llama4", &bytes[at + 6..]].concat()).unwrap();
    refused(&["run", gguf.arg(), "Hi"], &["general.architecture", "llama4", "gemma4", gguf.arg()]);
}

/// Before anything else is looked at: such files have no vocabulary.
#[test]
fn what_goes_with_a_model_is_no_model() {
    for (kind, architecture, says) in [
        ("mmproj", "clip", "an encoder of pictures or sound"),
        ("model", "gemma4-assistant", "a drafter"),
        ("adapter", "gemma4", "merge an adapter"),
        ("model", "gemma2", "expected gemma4 or gemma3"),
    ] {
        let file = Scratch::new(&format!("{architecture}.gguf"));
        let mut writer = GgufWriter::new();
        writer.str("general.architecture", architecture).str("general.type", kind);
        fs::write(&file.0, writer.tensor("a", DType::F32, &[1]).to_bytes(&[1f32.to_le_bytes()])).unwrap();
        refused(&["run", file.arg(), "Hi"], &[says, file.arg()]);
    }
}

#[test]
fn a_link_to_itself_and_nothing_at_all_are_told_apart() {
    let link = Scratch::new("loop.gguf");
    std::os::unix::fs::symlink(&link.0, &link.0).unwrap();
    refused(&["run", link.arg(), "Hi"], &[link.arg(), "symbolic links"]);
    fs::remove_file(&link.0).unwrap();
    refused(&["run", link.arg(), "Hi"], &[link.arg(), "there is no such model", "carat list"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let exchange = |dir: &Path| {
        for file in ["config.json", "model.safetensors"] {
            fs::copy(format!("{REPOSITORY}/fixtures/e2b/{file}"), dir.join(file)).unwrap();
        }
    };
    let says = ["the tokenizer has 1280 entries", "the embedding has 288 rows", "of different models"];
    refused_run("vocabulary", exchange, &says);
}

#[test]
fn a_broken_tokenizer_is_refused() {
    let put = |bytes: Vec<u8>| move |dir: &Path| fs::write(dir.join("tokenizer.json"), bytes).unwrap();
    refused_run("no-vocabulary", put(b"{}".to_vec()), &[]);
    refused_run("nested", put(b"[".repeat(1 << 20)), &[]);
    let whole = fs::read(format!("{REPOSITORY}/nano/checkpoint/tokenizer.json")).unwrap();
    for part in 1..4 {
        refused_run("cut-vocabulary", put(whole[..whole.len() * part / 4].to_vec()), &[]);
    }
}

#[test]
fn impossible_sampling_options_in_the_files_are_refused() {
    let set =
        |key: &'static str, value: Value| move |dir: &Path| edit(dir, "generation_config.json", |g| g[key] = value);
    refused_run("temperature", set("temperature", json!(-1)), &["generation config", "temperature is -1", "0 to 100"]);
    refused_run("top-p", set("top_p", json!(1e300)), &["generation config", "top-p is inf"]);
}

#[test]
fn a_template_without_end_runs_out_of_fuel() {
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}";
    let model = nano("fuel", |dir| fs::write(dir.join("chat_template.jinja"), endless).unwrap());
    refused(&["run", model.arg()], &["template"]);
}

#[test]
fn a_parameter_that_is_no_number_is_named() {
    refused_run("nan-norm", |dir| overwrite(dir, NORM, NAN, 1), &[NORM, "value 0 is NaN", "finite"]);
    refused_run("inf-norm", |dir| overwrite(dir, NORM, INFINITY, 1), &[NORM, "value 0 is inf", "finite"]);
}

#[test]
fn nothing_is_drawn_from_logits_that_are_no_numbers_and_a_check_finds_the_weights() {
    let model = nano("nan-matrix", |dir| overwrite(dir, MATRIX, NAN, 3));
    let says = ["the model computed values that are not finite", "NaN", "carat inspect MODEL --check"];
    for temperature in ["0", "1"] {
        refused(&["run", model.arg(), "--temperature", temperature], &says);
    }
    let text = Scratch::new("hostile-text");
    fs::write(&text.0, "Some words.").unwrap();
    refused(&["perplexity", model.arg(), text.arg()], &says);
    let out = Scratch::new("hostile-logits");
    refused(&["logits", model.arg(), "--tokens", "2,20", "--greedy", "2", "--out", out.arg()], &says);
    let found = ["1 of ", MATRIX, "(value 0: NaN)", model.arg()];
    refused(&["inspect", model.arg(), "--check"], &found);
    refused(&["inspect", model.arg(), "--check", "--json"], &found);
    let sound = nano("sound", |_| {});
    let report = String::from_utf8(done(carat(&["inspect", sound.arg(), "--check"]).output().unwrap())).unwrap();
    assert!(report.contains("tensors: all values are finite"), "{report}");
}

#[cfg(unix)]
#[test]
fn a_device_or_a_pipe_is_no_model() {
    let link = Scratch::new("zero.gguf");
    std::os::unix::fs::symlink("/dev/zero", &link.0).unwrap();
    refused(&["inspect", link.arg()], &[link.arg(), "neither a file nor a directory"]);
    fs::remove_file(&link.0).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&link.0).status().unwrap().success());
    refused(&["inspect", link.arg()], &[link.arg(), "neither a file nor a directory"]);
}

/// In every matrix, plain or in blocks: rounding to integers and softmax make numbers of what is none.
#[test]
fn a_matrix_that_is_broken_anywhere_is_noticed() {
    let of_layer = |name: &str| format!("model.language_model.layers.0.{name}.weight");
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"] {
        let model = nano(name, |dir| overwrite(dir, &of_layer(name), NAN, 1));
        refused(&["run", model.arg()], &["the model computed values that are not finite"]);
    }
    let sound = Scratch::new("sound-blocks.gguf");
    let nano = format!("{REPOSITORY}/nano/checkpoint");
    done(carat(&["quantize", &nano, sound.arg(), "--type", "q8_0"]).output().unwrap());
    let bytes = fs::read(&sound.0).unwrap();
    let file = carat_weights::GgufFile::open(&sound.0).unwrap();
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "inp_gate"] {
        let tensor = file.tensors.get(&format!("blk.0.{name}.weight")).unwrap();
        assert_eq!(tensor.dtype.to_string(), "Q8_0", "{name}");
        let at = bytes.windows(64).position(|w| w == &tensor.data[..64]).unwrap();
        let broken = Scratch::new(&format!("broken-{name}.gguf"));
        // The first block's scale is NaN.
        fs::write(&broken.0, [&bytes[..at], &0x7e00_u16.to_le_bytes(), &bytes[at + 2..]].concat()).unwrap();
        refused(&["run", broken.arg(), "Hi"], &["the model computed values that are not finite"]);
        refused(&["inspect", broken.arg(), "--check"], &[&tensor.name, "(value 0: NaN)", broken.arg()]);
    }
}

/// The file is cut between the announcement of its memory and the first answer, while its weights are read.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_named() {
    use std::io::{BufRead, BufReader, Read};

    use carat_tensor::DType;

    let file = Scratch::new("cut-while-read.gguf");
    let wide = [("intermediate_size", json!(8192)), ("max_position_embeddings", json!(8192))];
    synthetic::write_gguf(&file.0, synthetic::config(&wide), DType::Q8_0);
    let prompt = "a ".repeat(3000);
    let mut child = carat(&["run", file.arg(), &prompt, "--json", "--threads", "2"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["event"], "memory");
    fs::OpenOptions::new().write(true).open(&file.0).unwrap().set_len(4096).unwrap();
    let answer: Vec<String> = lines.map_while(Result::ok).filter(|line| line.contains("\"text\"")).collect();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{stderr}");
    assert!(answer.is_empty(), "{answer:?}");
    let line = format!("error: `{}` was cut short", file.arg());
    assert!(stderr.contains(&line), "{stderr}");
}
