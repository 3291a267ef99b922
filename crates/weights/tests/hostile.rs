//! Files that are not what they should be, in every place where a checkpoint has a file.
//!
//! Each case puts something wrong in one place of a sound checkpoint. Opening it must fail within seconds, name the file
//! and say what was found there.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use carat_tensor::DType;
use carat_weights::hf::MAX_JSON_BYTES;
use carat_weights::{Checkpoint, GgufWriter, MappedFile, WeightsError, open};

/// An empty directory of this test's own.
fn dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A safetensors file with one f32.
fn tensor(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &1f32.to_le_bytes()].concat()
}

fn gguf_part(no: u32) -> Vec<u8> {
    let mut w = GgufWriter::new();
    w.str("general.architecture", "gemma4");
    w.u32("split.no", no).u32("split.count", 2).u32("split.tensors.count", 2);
    w.tensor(&format!("t{no}"), DType::F32, &[1]).to_bytes(&[1f32.to_le_bytes()])
}

/// Files of a checkpoint, and what is given to [`open`].
struct Sound {
    files: Vec<(&'static str, Vec<u8>)>,
    opened: &'static str,
}

fn single() -> Sound {
    let files = vec![
        ("config.json", b"{}".to_vec()),
        ("generation_config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("tokenizer_config.json", b"{}".to_vec()),
        ("chat_template.json", b"{}".to_vec()),
        ("model.safetensors", tensor("a")),
    ];
    Sound { files, opened: "" }
}

fn with_jinja() -> Sound {
    let mut sound = single();
    sound.files.push(("chat_template.jinja", b"hi".to_vec()));
    sound
}

fn sharded() -> Sound {
    let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;
    let files = vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-1.safetensors", tensor("a")),
        ("model-2.safetensors", tensor("b")),
    ];
    Sound { files, opened: "" }
}

fn split() -> Sound {
    let files = vec![("m-00001-of-00002.gguf", gguf_part(0)), ("m-00002-of-00002.gguf", gguf_part(1))];
    Sound { files, opened: "m-00001-of-00002.gguf" }
}

/// The place of a file: the sound whole, and the file in it.
type Place = (fn() -> Sound, &'static str);

/// Every place of a checkpoint.
fn places() -> Vec<Place> {
    let wholes: [fn() -> Sound; 4] = [single, with_jinja, sharded, split];
    let mut places: Vec<Place> = Vec::new();
    for whole in wholes {
        for (file, _) in whole().files {
            if !places.iter().any(|(_, known)| *known == file) {
                places.push((whole, file));
            }
        }
    }
    // With a template of its own the other places for one are not read.
    places.iter_mut().filter(|(_, file)| *file == "chat_template.json").for_each(|(whole, _)| *whole = single);
    places
}

fn write(sound: &Sound, dir: &Path) -> PathBuf {
    for (name, bytes) in &sound.files {
        fs::write(dir.join(name), bytes).unwrap();
    }
    if sound.opened.is_empty() { dir.to_path_buf() } else { dir.join(sound.opened) }
}

/// Opens a checkpoint; a test must not wait for ever for a pipe's writer or a device's end.
fn open_soon(path: &Path) -> Result<Checkpoint, WeightsError> {
    let (send, receive) = mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || drop(send.send(open(&path))));
    receive.recv_timeout(Duration::from_secs(20)).expect("opening ends")
}

/// Puts something wrong in every place; the error must name the file and say each of `says`.
#[track_caller]
fn check_places(name: &str, put: impl Fn(&Path), says: &[&str]) {
    for (whole, file) in places() {
        let dir = dir(&format!("{name}-{file}"));
        let opened = write(&whole(), &dir);
        assert!(open_soon(&opened).is_ok(), "{file}: the checkpoint is sound at first");
        let wrong = dir.join(file);
        fs::remove_file(&wrong).unwrap();
        put(&wrong);
        let error = open_soon(&opened).map(drop).expect_err(file).to_string();
        for text in says.iter().chain(&[file]) {
            assert!(error.contains(text), "{file}: `{text}` is not in `{error}`");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_directory_in_a_file_s_place_is_refused() {
    let put = |path: &Path| {
        fs::create_dir(path).unwrap();
    };
    check_places("directory", put, &["director"]);
}

#[test]
fn a_link_that_leads_nowhere_is_refused() {
    check_places("dangling", |path| symlink("no-such-blob", path).unwrap(), &[]);
}

#[test]
fn a_link_to_itself_is_refused() {
    check_places("loop", |path| symlink(path.file_name().unwrap(), path).unwrap(), &[]);
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let put = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    check_places("pipe", put, &["file"]);
}

#[test]
fn a_device_is_refused_and_not_read() {
    check_places("device", |path| symlink("/dev/zero", path).unwrap(), &["file"]);
}

#[test]
fn a_file_without_permission_is_refused_to_those_it_is_refused_to() {
    for (whole, file) in places() {
        let dir = dir(&format!("mode-{file}"));
        let opened = write(&whole(), &dir);
        fs::set_permissions(dir.join(file), fs::Permissions::from_mode(0o000)).unwrap();
        // Root may read it all the same.
        if fs::File::open(dir.join(file)).is_err() {
            let error = open(&opened).map(drop).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("denied"), "{error}");
        }
    }
}

#[test]
fn links_to_blobs_are_followed() {
    for whole in [with_jinja, sharded, split] {
        let (dir, blobs) = (dir("linked"), dir("blobs"));
        for (i, (name, bytes)) in whole().files.iter().enumerate() {
            fs::write(blobs.join(i.to_string()), bytes).unwrap();
            symlink(blobs.join(i.to_string()), dir.join(name)).unwrap();
        }
        let opened = dir.join(whole().opened);
        assert!(open(&opened).is_ok());
    }
}

/// JSON files of a checkpoint that are parsed when it is opened.
const JSON: [Place; 5] = [
    (single, "config.json"),
    (single, "generation_config.json"),
    (single, "tokenizer_config.json"),
    (single, "chat_template.json"),
    (sharded, "model.safetensors.index.json"),
];

#[test]
fn json_that_is_cut_nested_without_end_or_of_another_kind_is_refused() {
    let nested = [b"[".repeat(1 << 20), b"{\"a\":".repeat(1 << 20)];
    let broken: [&[u8]; 8] = [b"", b"{", b"{\"a\"", b"{\"a\":1e", b"[]", b"\"\xff\"", b"{\"a\":\"\xff\"}", b"{} {}"];
    for (whole, file) in JSON {
        let dir = dir(&format!("json-{file}"));
        let opened = write(&whole(), &dir);
        for content in broken.into_iter().chain(nested.iter().map(Vec::as_slice)) {
            fs::write(dir.join(file), content).unwrap();
            let error = open_soon(&opened).map(drop).expect_err(file).to_string();
            assert!(error.contains(file) && error.contains("JSON"), "{error}");
        }
    }
}

/// Sparse files: what they say they hold is not read into memory.
#[test]
fn files_too_large_to_be_what_they_should_be_are_refused() {
    let limit = MAX_JSON_BYTES.to_string();
    for file in ["config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"] {
        let dir = dir(&format!("large-{file}"));
        let opened = write(&with_jinja(), &dir);
        fs::File::create(dir.join(file)).unwrap().set_len(1 << 40).unwrap();
        let error = open_soon(&opened).map(drop).expect_err(file).to_string();
        assert!(error.contains(file) && error.contains(&limit) && error.contains("1099511627776"), "{error}");
    }
    let dir = dir("large-index");
    let opened = write(&sharded(), &dir);
    fs::File::create(dir.join("model.safetensors.index.json")).unwrap().set_len(1 << 40).unwrap();
    let error = open_soon(&opened).map(drop).unwrap_err().to_string();
    assert!(error.contains("index.json") && error.contains("limit is 100000000"), "{error}");
}

#[test]
fn a_file_that_is_cut_or_written_to_is_told_and_one_that_is_replaced_stays() {
    let dir = dir("changed");
    let path = dir.join("model.safetensors");
    fs::write(&path, tensor("a")).unwrap();
    let len = tensor("a").len();
    let mapped = MappedFile::open(&path).unwrap();
    mapped.check().unwrap();
    // Another file takes the name; the mapping shows the old one.
    fs::write(dir.join("new"), tensor("b")).unwrap();
    fs::rename(dir.join("new"), &path).unwrap();
    mapped.check().unwrap();
    assert_eq!(mapped.bytes()[..], tensor("a"));
    fs::remove_file(&path).unwrap();
    mapped.check().unwrap();
    assert_eq!(mapped.bytes()[..], tensor("a"));

    fs::write(&path, tensor("a")).unwrap();
    let mapped = MappedFile::open(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let check = |says: &str| {
        let error = mapped.check().unwrap_err().to_string();
        for text in ["model.safetensors", "while it was in use", "load the model again", says] {
            assert!(error.contains(text), "`{text}` is not in `{error}`");
        }
    };
    file.set_len(5).unwrap();
    check(&format!("found 5 bytes, expected the {len} bytes"));
    file.set_len(1 << 20).unwrap();
    check("found 1048576 bytes");
    file.set_len(len as u64).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(9)).unwrap();
    check("written to");
}
