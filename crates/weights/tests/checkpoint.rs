//! Checkpoints on disk: what is recognised, what is refused and how.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use carat_tensor::DType;
use carat_weights::{Checkpoint, GgufWriter, HfDir, Weights, WeightsError, open};

/// An empty directory of this test's own.
fn dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A safetensors file of f32 vectors, each holding `value`.
fn tensors(names: &[&str], value: f32) -> Vec<u8> {
    let entries: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, n)| format!(r#""{n}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4))
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    names.iter().for_each(|_| out.extend(value.to_le_bytes()));
    out
}

fn open_dir(path: &Path) -> Result<HfDir, WeightsError> {
    open(path).map(|c| match c {
        Checkpoint::HfDir(dir) => dir,
        Checkpoint::Gguf(_) => panic!("a GGUF file"),
    })
}

/// The names of the files that hold the data.
fn files(tensors: &Weights) -> Vec<&str> {
    tensors.files().iter().map(|file| file.path().file_name().unwrap().to_str().unwrap()).collect()
}

#[track_caller]
fn check_refused(path: &Path, parts: &[&str]) {
    let error = open(path).map(drop).expect_err("no checkpoint").to_string();
    let file = path.display().to_string();
    for part in parts.iter().chain(&[file.as_str()]) {
        assert!(error.contains(part), "`{error}` doesn't say `{part}`");
    }
}

#[test]
fn a_directory_with_all_its_files_is_read() {
    let dir = dir("whole");
    fs::write(dir.join("config.json"), r#"{"model_type":"gemma4"}"#).unwrap();
    fs::write(dir.join("generation_config.json"), r#"{"top_k":64}"#).unwrap();
    fs::write(dir.join("tokenizer.json"), "{\"version\":\"1.0\"}").unwrap();
    fs::write(dir.join("tokenizer_config.json"), r#"{"chat_template":"from config"}"#).unwrap();
    fs::write(dir.join("chat_template.jinja"), "from jinja").unwrap();
    fs::write(dir.join("model.safetensors"), tensors(&["a", "b"], 1.0)).unwrap();
    for path in [dir.clone(), dir.join("model.safetensors")] {
        let hf = open_dir(&path).unwrap();
        assert_eq!(hf.config["model_type"], "gemma4");
        assert_eq!(hf.generation_config.unwrap()["top_k"], 64);
        assert_eq!(&*hf.tokenizer_json.unwrap(), b"{\"version\":\"1.0\"}");
        assert_eq!(hf.chat_template.unwrap(), "from jinja");
        assert_eq!(hf.tensors.names().collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[test]
fn the_chat_template_is_found_in_every_place_it_is_published() {
    let dir = dir("templates");
    fs::write(dir.join("config.json"), "{}").unwrap();
    fs::write(dir.join("model.safetensors"), tensors(&["a"], 1.0)).unwrap();
    let template = || open_dir(&dir).unwrap().chat_template;
    assert_eq!(template(), None);
    fs::write(dir.join("tokenizer_config.json"), r#"{"chat_template":"one"}"#).unwrap();
    assert_eq!(template().unwrap(), "one");
    let named = r#"{"chat_template":[{"name":"rag","template":"r"},{"name":"default","template":"d"}]}"#;
    fs::write(dir.join("tokenizer_config.json"), named).unwrap();
    assert_eq!(template().unwrap(), "d");
    fs::write(dir.join("chat_template.json"), r#"{"chat_template":"own"}"#).unwrap();
    assert_eq!(template().unwrap(), "own");
    fs::write(dir.join("chat_template.jinja"), "jinja").unwrap();
    assert_eq!(template().unwrap(), "jinja");
}

/// A sharded checkpoint with `a` in one and `b` in the other shard, under the given index.
fn sharded(name: &str, index: &str) -> PathBuf {
    let dir = dir(name);
    fs::write(dir.join("config.json"), "{}").unwrap();
    fs::write(dir.join("model-1.safetensors"), tensors(&["a"], 1.0)).unwrap();
    fs::write(dir.join("model-2.safetensors"), tensors(&["b"], 2.0)).unwrap();
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    dir
}

const INDEX: &str =
    r#"{"metadata":{"total_size":8},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;

#[test]
fn shards_are_joined() {
    let dir = sharded("shards", INDEX);
    for path in [dir.clone(), dir.join("model-2.safetensors")] {
        let hf = open_dir(&path).unwrap();
        assert_eq!(*hf.tensors.take("a").unwrap().data, 1f32.to_le_bytes());
        assert_eq!(*hf.tensors.take("b").unwrap().data, 2f32.to_le_bytes());
        assert!(hf.tensors.unused().is_empty());
        assert_eq!(files(&hf.tensors), ["model-1.safetensors", "model-2.safetensors"]);
    }
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_refused() {
    let check = |name: &str, index: &str, parts: &[&str]| {
        check_refused(&sharded(name, index), parts);
    };
    check("no-map", "{}", &["the shard index", "weight_map"]);
    let missing = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-2.safetensors"}}"#;
    check("missing", missing, &["`c`", "no such tensor in `model-2.safetensors`"]);
    let swapped = r#"{"weight_map":{"b":"model-1.safetensors","a":"model-2.safetensors"}}"#;
    check("swapped", swapped, &["`a`", "model-1.safetensors", "it in `model-2.safetensors`"]);
    let absent = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-3.safetensors"}}"#;
    check("absent", absent, &["model-3.safetensors", "cannot read"]);
    for (name, outside) in [("up", "../model-1.safetensors"), ("root", "/etc/passwd"), ("dots", "..")] {
        check(name, &format!(r#"{{"weight_map":{{"a":"{outside}"}}}}"#), &[outside, "plain file name"]);
    }
}

#[test]
fn a_tensor_that_the_index_does_not_name_is_refused() {
    let dir = sharded("extra", INDEX);
    fs::write(dir.join("model-2.safetensors"), tensors(&["b", "x"], 2.0)).unwrap();
    check_refused(&dir, &["`x`", "model-2.safetensors", "the index doesn't name it"]);
}

#[test]
fn a_gguf_file_is_told_by_its_first_bytes() {
    let path = dir("gguf").join("model.bin");
    let mut w = GgufWriter::new();
    w.str("general.architecture", "gemma4").tensor("a", DType::F32, &[1]);
    fs::write(&path, w.to_bytes(&[1f32.to_le_bytes()])).unwrap();
    let checkpoint = open(&path).unwrap();
    assert!(matches!(checkpoint, Checkpoint::Gguf(_)));
    assert_eq!(checkpoint.tensors().names().collect::<Vec<_>>(), ["a"]);
}

/// A GGUF checkpoint in two parts: `a` in the first, `b` in the second, both said to be of `total` tensors.
fn split(name: &str, total: u32) -> PathBuf {
    let dir = dir(name);
    for (i, tensor) in ["a", "b"].into_iter().enumerate() {
        let mut w = GgufWriter::new();
        w.u32("split.no", i as u32).u32("split.count", 2).u32("split.tensors.count", total);
        if i == 0 {
            w.str("general.architecture", "gemma4");
        }
        w.tensor(tensor, DType::F32, &[1]);
        fs::write(dir.join(format!("model-0000{}-of-00002.gguf", i + 1)), w.to_bytes(&[(i as f32).to_le_bytes()]))
            .unwrap();
    }
    dir
}

#[test]
fn a_gguf_checkpoint_in_parts_is_joined() {
    let dir = split("split", 2);
    let parts = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];
    for part in parts {
        let Checkpoint::Gguf(file) = open(&dir.join(part)).unwrap() else { panic!("a GGUF file") };
        assert_eq!(file.metadata.str("general.architecture").unwrap(), "gemma4");
        assert_eq!(file.tensors.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(*file.tensors.take("b").unwrap().data, 1f32.to_le_bytes());
        assert_eq!(files(&file.tensors), parts);
    }
}

#[test]
fn parts_that_are_not_of_one_whole_are_refused() {
    let first = "model-00001-of-00002.gguf";
    let second = "model-00002-of-00002.gguf";
    check_refused(&split("split-count", 3).join(first), &["the tensors of all 2 parts", "found 2", "expected 3"]);
    let dir = split("split-missing", 2);
    fs::rename(dir.join(first), dir.join("part.gguf")).unwrap();
    check_refused(&dir.join("part.gguf"), &["the file name", "-00001-of-00002.gguf"]);
    let error = open(&dir.join(second)).map(drop).unwrap_err().to_string();
    assert!(error.contains("no part 1 of 2") && error.contains(first), "{error}");
    fs::copy(dir.join(second), dir.join(first)).unwrap();
    check_refused(&dir.join(second), &["split.no", "found 1, expected 0"]);
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let dir = dir("no-checkpoint");
    check_refused(&dir.join("nothing"), &["cannot read"]);
    check_refused(&dir, &["a directory without config.json", "or a GGUF file"]);
    fs::write(dir.join("config.json"), "{}").unwrap();
    check_refused(&dir, &["without weights", "model.safetensors.index.json"]);
    fs::write(dir.join("empty"), "").unwrap();
    check_refused(&dir.join("empty"), &["an empty file"]);
    fs::write(dir.join("picture"), b"\x89PNG\r\n").unwrap();
    check_refused(&dir.join("picture"), &["starts with `\\x89PNG`"]);
    fs::write(dir.join("model.safetensors"), "").unwrap();
    check_refused(&dir, &["model.safetensors", "an empty file"]);
    fs::write(dir.join("model.safetensors"), "1234").unwrap();
    check_refused(&dir, &["truncated", "the header length", "get it again"]);
    fs::write(dir.join("model.safetensors"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    check_refused(&dir, &["model.safetensors", "a Git LFS pointer"]);
    fs::write(dir.join("model.safetensors"), tensors(&["a"], 1.0)).unwrap();
    fs::write(dir.join("config.json"), "[1]").unwrap();
    check_refused(&dir, &["config.json", "not an object"]);
    fs::write(dir.join("config.json"), "{").unwrap();
    check_refused(&dir, &["config.json", "line 1"]);
    fs::remove_file(dir.join("config.json")).unwrap();
    let error = open(&dir.join("model.safetensors")).map(drop).unwrap_err().to_string();
    assert!(error.contains("weights without `config.json`"), "{error}");
    fs::write(dir.join("adapter_config.json"), "{}").unwrap();
    check_refused(&dir, &["an adapter (LoRA)", "merge it"]);
}

#[test]
fn an_embedded_checkpoint_needs_no_files() {
    let safetensors: &'static [u8] = Box::leak(tensors(&["a"], 3.0).into_boxed_slice());
    let hf = HfDir::from_parts(br#"{"n":1}"#, b"{}", safetensors, Some(br#"{"top_k":1}"#)).unwrap();
    assert_eq!(hf.config["n"], 1);
    assert_eq!(hf.generation_config.unwrap()["top_k"], 1);
    assert_eq!(*hf.tensors.take("a").unwrap().data, 3f32.to_le_bytes());
    let error = HfDir::from_parts(b"no", b"{}", safetensors, None).map(drop).unwrap_err().to_string();
    assert!(error.contains("embedded config.json"), "{error}");
}
