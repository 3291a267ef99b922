//! Whole models in two GGUF files, text and encoders, against what the reference computed from the directories that they were
//! written from (`fixtures/make_media_models.py`).
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
#[path = "../../model/tests/mmproj_file/mod.rs"]
mod mmproj_file;
mod program;

use std::path::{Path, PathBuf};

use carat_tensor::DType;
use carat_weights::Checkpoint;
use files::{assert_close, bmp, floats, tensors, wav};
use program::{Scratch, carat, done};
use serde_json::json;

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");
/// What a GGUF file's vocabulary calls the places that the fixtures' config names by id.
const PLACES: [(u32, &str); 3] = [(7, "<|image|>"), (10, "<|audio|>"), (11, "<|video|>")];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/multimodal")).join(name)
}

/// The integers of a tensor of a fixture's expectations.
fn integers(name: &str, tensor: &str) -> Vec<u32> {
    let data = tensors(&fixture(name).join("expected.safetensors")).get(tensor).unwrap().data.clone();
    data.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

/// A directory with files in it, and their paths.
struct Dir(Scratch);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = Scratch::new(&format!("mmproj-{name}"));
        std::fs::create_dir(&dir.0).unwrap();
        Dir(dir)
    }

    fn path(&self, file: &str) -> String {
        self.0.0.join(file).to_str().unwrap().to_owned()
    }

    fn write(&self, file: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(file), bytes).unwrap();
        self.path(file)
    }
}

/// The encoders of a checkpoint's directory as a file.
fn encoders(checkpoint: &Path, matrices: DType) -> Vec<u8> {
    let Checkpoint::HfDir(dir) = carat_weights::open(checkpoint).unwrap() else { panic!("a file") };
    mmproj_file::write(&dir, matrices)
}

/// A fixture's text model as `convert` writes it: `model.gguf` in `dir`. Its vocabulary is made up but for the places.
fn text(dir: &Dir, name: &str) -> String {
    let checkpoint = Dir::new(&format!("{name}-text"));
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(name).join(file), checkpoint.path(file)).unwrap();
    }
    let of_id = |id: u32| PLACES.iter().find(|p| p.0 == id).map_or(format!("w{id}"), |(_, place)| (*place).into());
    let vocab: serde_json::Map<_, _> = (0..96).map(|id| (of_id(id), json!(id))).collect();
    let tokenizer = json!({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": []});
    checkpoint.write("tokenizer.json", tokenizer.to_string().as_bytes());
    let file = dir.path("model.gguf");
    done(carat(&["convert", checkpoint.0.arg(), &file]).output().unwrap());
    file
}

/// Logits of the fixture's whole sequence, at the recorded positions, from the model in `file`.
#[track_caller]
fn logits_agree(name: &str, dir: &Dir, file: &str, more: &[&str]) {
    let mut args: Vec<String> =
        ["logits", file, "--precision", "f32", "--image-tokens", "70", "--chunk", "50"].map(str::to_owned).into();
    let mut give = |flag: &str, path: String| args.extend([flag.to_owned(), path]);
    let film = dir.path("film");
    std::fs::create_dir_all(&film).unwrap();
    for (i, &[kind, width, height, _]) in integers(name, "media").as_chunks::<4>().0.iter().enumerate() {
        let picture = || bmp(width as usize, height as usize);
        match kind {
            1 => give("--image", dir.write(&format!("{i}.bmp"), &picture())),
            2 => _ = dir.write(&format!("film/{i}.bmp"), &picture()),
            _ => {
                let wave = |i: u32| (0.5 * (f64::from(i) / 7.0).sin() + 0.25 * (f64::from(i) / 3.1).sin()) as f32;
                give("--audio", dir.write("sound.wav", &wav(&(0..width).map(wave).collect::<Vec<_>>())));
            }
        }
    }
    give("--video", film);
    let ids: Vec<String> = integers(name, "ids").iter().map(u32::to_string).collect();
    give("--tokens", ids.join(","));
    let out = dir.path("logits.safetensors");
    give("--out", out.clone());
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    done(carat(&args.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap());
    let found = tensors(Path::new(&out)).get("logits").unwrap().clone();
    let (all, vocab) = (floats(&found.data), found.shape[1]);
    let rows = integers(name, "positions").into_iter().map(|row| row as usize);
    let found: Vec<f32> = rows.flat_map(|row| all[row * vocab..(row + 1) * vocab].to_vec()).collect();
    let expected = tensors(&fixture(name).join("expected.safetensors")).get("logits").unwrap().clone();
    assert_close(&found, &floats(&expected.data), name);
}

/// Weights of the fixtures are of bf16, and so are the files': nothing is lost on the way, and the bound is that of directories.
#[test]
fn pairs_of_files_have_the_reference_s_logits() {
    for name in ["e2b", "31b", "12b"] {
        let dir = Dir::new(name);
        let file = text(&dir, name);
        dir.write("mmproj-model-bf16.gguf", &encoders(&fixture(name), DType::BF16));
        logits_agree(name, &dir, &file, &[]);
    }
}

#[test]
fn the_file_that_is_named_is_taken() {
    let dir = Dir::new("named");
    let file = text(&dir, "31b");
    // Of another width: who takes the one beside the model fails.
    dir.write("mmproj-model-bf16.gguf", &encoders(Path::new(NANO), DType::BF16));
    let elsewhere = Dir::new("elsewhere");
    let named = elsewhere.write("eyes.gguf", &encoders(&fixture("31b"), DType::F32));
    logits_agree("31b", &dir, &file, &["--mmproj", &named]);
}

#[test]
fn a_check_reads_the_encoders_too() {
    let dir = Dir::new("check");
    let file = dir.path("nano.gguf");
    done(carat(&["convert", NANO, &file]).output().unwrap());
    let mut bytes = encoders(Path::new(NANO), DType::F32);
    dir.write("mmproj-nano.gguf", &bytes);
    let check = || carat(&["inspect", &file, "--check"]).output().unwrap();
    let text = String::from_utf8(done(check())).unwrap();
    assert!(text.contains("all values are finite"), "{text}");
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    let eyes = dir.write("mmproj-nano.gguf", &bytes);
    let output = check();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains(&eyes) && error.contains("1 of "), "{error}");
}

/// What the embedded model says of a picture and of a sound, from a directory and from two files.
#[test]
fn answers_are_the_directory_s() {
    let dir = Dir::new("answers");
    let file = dir.path("nano.gguf");
    done(carat(&["convert", NANO, &file]).output().unwrap());
    let elsewhere = Dir::new("answers-eyes");
    let named = elsewhere.write("ears-and-eyes.gguf", &encoders(Path::new(NANO), DType::F32));
    let picture = dir.write("a.bmp", &bmp(96, 96));
    let sound = dir.write("a.wav", &wav(&(0..16_000).map(|i| (i as f32 / 7.0).sin() / 2.0).collect::<Vec<_>>()));
    for (flag, shown, prompt) in
        [("--image", &picture, "What shape is this?"), ("--audio", &sound, "What sound is this?")]
    {
        let ask = |model: &str, more: &[&str]| {
            let args = ["run", model, flag, shown, prompt, "--temperature", "0", "--image-tokens", "70"];
            done(carat(&[&args[..], more].concat()).output().unwrap())
        };
        let answer = ask(&file, &["--mmproj", &named]);
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(&ask(NANO, &[])));
        assert!(!answer.is_empty());
    }
}
