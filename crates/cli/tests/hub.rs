//! `carat pull`, `list` and `rm` against a hub on this machine, as processes that can be killed and limited.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
#[path = "../../model/tests/mmproj_file/mod.rs"]
mod mmproj_file;
mod program;
#[path = "../../hub/tests/stand_in/mod.rs"]
mod stand_in;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use carat_tensor::DType;
use carat_weights::Checkpoint;
use files::bmp;
use program::{Scratch, carat, done};
use serde_json::Value;
use stand_in::{COMMIT, Fault, StandIn, noise, sha256};

/// A hub, and an empty cache for what comes from it.
struct Place {
    server: StandIn,
    home: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("carat-hub-cli-{}-{name}", std::process::id()));
        Place { server: StandIn::new(), home }
    }

    fn set(&self, command: &mut Command) {
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.server.url).env("HF_HOME", &self.home);
    }

    fn carat(&self, args: &[&str]) -> Command {
        let mut command = carat(args);
        self.set(&mut command);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.carat(args).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        String::from_utf8(done(self.run(args))).unwrap()
    }

    /// The command fails with this code and says this.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(says), "`{says}` is not in: {stderr}");
    }

    fn repo(&self, repo: &str) -> PathBuf {
        self.home.join("hub").join(format!("models--{}", repo.replace('/', "--")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

const BYTES: &str = "GET /bytes/model.safetensors";
/// Bytes of a range of the program.
const RANGE: usize = 16 << 20;

/// Waits for something that other processes bring about.
#[track_caller]
fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(10));
    }
}

fn whole_ranges(dir: &Path, hash: &str) -> usize {
    let journal = fs::read_to_string(dir.join(format!("blobs/{hash}.carat-ranges.incomplete")));
    journal.map_or(0, |text| text.lines().count().saturating_sub(1))
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let place = Place::new("killed");
    let size = 4 * RANGE;
    let bytes = noise(size);
    let hash = sha256(&bytes);
    place.server.add("org/m", "config.json", "{}").add("org/m", "model.safetensors", bytes);
    // Two ranges come at once; of the others, 256 KiB each second.
    place.server.fail_after(BYTES, 2, usize::MAX, Fault::Slow(1 << 18, 1000));
    let dir = place.repo("org/m");
    let mut child = place.carat(&["pull", "org/m"]).spawn().unwrap();
    wait_for("two ranges are whole", || whole_ranges(&dir, &hash) >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.join("refs").exists() && !dir.join("blobs").join(&hash).exists());
    assert!(place.done(&["list"]).starts_with("no models in "));
    place.server.reset();
    let said = place.done(&["pull", "org/m"]);
    assert!(said.starts_with("org/m: 64.0 MiB in "), "{said}");
    assert!(place.server.asked("model.safetensors") <= size - 2 * RANGE);
    let blob = fs::read(dir.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    assert_eq!(sha256(&blob), hash);
    let left = fs::read_dir(dir.join("blobs")).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some());
    assert_eq!(left.count(), 0, "nothing unfinished stays");
}

#[test]
fn two_programs_that_pull_the_same_fetch_it_once() {
    let place = Place::new("two");
    let size = 300_000;
    place.server.add("org/m", "config.json", "{}").add("org/m", "model.safetensors", noise(size));
    place.server.fail(BYTES, usize::MAX, Fault::Slow(30_000, 100));
    let first = place.carat(&["pull", "org/m"]).spawn().unwrap();
    wait_for("the first one is at it", || !place.server.requests(BYTES).is_empty());
    let second = place.carat(&["pull", "org/m"]).spawn().unwrap();
    for child in [first, second] {
        done(child.wait_with_output().unwrap());
    }
    assert_eq!(place.server.asked("model.safetensors"), size);
}

/// As a full disk: no file may grow as far as the weights must. The pull fails and no file has the weights' name.
#[cfg(unix)]
#[track_caller]
fn pull_fails_for_want_of_room(place: &Place) {
    let program = env!("CARGO_BIN_EXE_carat");
    let script = format!("trap '' XFSZ; ulimit -f 100; exec '{program}' pull org/m");
    let mut command = Command::new("sh");
    place.set(command.args(["-c", &script]));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(".carat.incomplete: File too large"), "{stderr}");
    let dir = place.repo("org/m");
    let blobs = fs::read_dir(dir.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let named = blobs.filter(|name| !name.ends_with(".incomplete")).count();
    assert!(named == 1 && !dir.join("refs").exists(), "the config alone has its name");
    assert!(place.done(&["list"]).starts_with("no models in "));
}

#[cfg(unix)]
#[test]
fn a_disk_that_takes_no_more_leaves_nothing_half_named() {
    let place = Place::new("full");
    place.server.add("org/m", "config.json", "{}").add("org/m", "model.safetensors", noise(300_000));
    pull_fails_for_want_of_room(&place);
    assert!(place.server.requests(BYTES).is_empty(), "room is taken before the download");
    // Room was taken by an earlier pull, and the disk refuses the bytes themselves.
    place.server.fail(BYTES, 1, Fault::Status(429, vec![("Retry-After", "7200".into())]));
    place.fails(&["pull", "org/m"], 1, "asks to wait 7200 s");
    pull_fails_for_want_of_room(&place);
    assert!(!place.server.requests(BYTES).is_empty());
    place.done(&["pull", "org/m"]);
}

/// The embedded model as a repository.
fn nano(place: &Place) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nano/checkpoint");
    for file in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        place.server.add("org/nano", file, fs::read(dir.join(file)).unwrap());
    }
}

#[test]
fn a_pulled_model_runs_by_its_name() {
    let place = Place::new("run");
    nano(&place);
    place.fails(&["run", "org/nano", "What is 2 + 2?"], 1, "get it with `carat pull org/nano`");
    let events = place.done(&["pull", "org/nano", "--json"]);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["plan", "file", "file", "file", "file", "pulled"]);
    let path = events[5]["path"].as_str().unwrap();
    assert!(place.done(&["list"]).contains("BF16"), "the type is read from the weights");
    let by_name = place.done(&["run", "org/nano", "What is 2 + 2?", "--temperature", "0"]);
    assert_eq!(by_name, place.done(&["run", path, "What is 2 + 2?", "--temperature", "0"]));
    let inspected = place.done(&["inspect", "org/nano", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&inspected).unwrap()["model"], path);
    assert_eq!(place.done(&["pull", "org/nano", "--offline"]), place.done(&["pull", "org/nano"]));
}

/// Of several files of encoders the best one comes along, and is found through the snapshot's links: beside the model, and beside
/// the folder that a quantisation has.
#[test]
fn a_pulled_gguf_model_sees_with_what_came_along() {
    let place = Place::new("mmproj");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nano/checkpoint");
    let (file, image) = (Scratch::new("pulled-BF16.gguf"), Scratch::new("pulled.bmp"));
    std::fs::write(&image.0, bmp(96, 96)).unwrap();
    done(carat(&["convert", checkpoint.to_str().unwrap(), file.arg()]).output().unwrap());
    let Checkpoint::HfDir(dir) = carat_weights::open(&checkpoint).unwrap() else { panic!("a file") };
    let ask = |model: &str| {
        place.done(&[
            "run",
            model,
            "--image",
            image.arg(),
            "--image-tokens",
            "70",
            "What shape is this?",
            "--temperature",
            "0",
        ])
    };
    let expected = ask(checkpoint.to_str().unwrap());
    for (repo, path) in [("org/flat-GGUF", "nano-BF16.gguf"), ("org/folders-GGUF", "BF16/nano-BF16.gguf")] {
        place.server.add(repo, path, fs::read(&file.0).unwrap());
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            place.server.add(repo, &format!("mmproj-{}.gguf", dtype.name()), mmproj_file::write(&dir, dtype));
        }
        place.done(&["pull", repo]);
        let snapshot = place.repo(repo).join("snapshots").join(COMMIT);
        let encoders: Vec<String> = fs::read_dir(&snapshot)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("mmproj"))
            .collect();
        assert_eq!(encoders, ["mmproj-BF16.gguf"], "{repo}");
        #[cfg(unix)]
        assert!(snapshot.join("mmproj-BF16.gguf").is_symlink());
        assert_eq!(ask(repo), expected, "{repo}");
        assert_eq!(ask(snapshot.join(path).to_str().unwrap()), expected, "{repo}");
    }
}

#[test]
fn a_model_that_is_not_here_is_pulled_after_asking_only() {
    let place = Place::new("ask");
    let get = |name: &str| format!("get it with `carat pull {name}`");
    place.fails(&["run", "e2b"], 1, &get("e2b"));
    place.fails(&["run", "e2b:q4_0", "hi"], 1, "google/gemma-4-E2B-it-qat-q4_0-gguf:Q4_0 is not on this machine");
    place.fails(&["inspect", "31b"], 1, &get("31b"));
    let mut offline = place.carat(&["run", "e2b"]);
    let output = offline.env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("the network may not be used"));
    assert!(place.server.requests("").is_empty() && !place.home.exists());
}

#[test]
fn models_are_listed_and_removed() {
    let place = Place::new("list");
    for (file, size) in [("m-Q4_0.gguf", 2000), ("m-Q8_0.gguf", 4000)] {
        place.server.add("org/m-GGUF", file, noise(size));
    }
    for quant in ["q4_0", "q8_0"] {
        place.done(&["pull", &format!("org/m-GGUF:{quant}")]);
    }
    let table = place.done(&["list"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["name", "size", "type", "last", "used"]);
    assert_eq!(rows[1][..4], ["org/m-GGUF:Q4_0", "1.95", "KiB", "Q4_0"]);
    assert_eq!(rows[2][..4], ["org/m-GGUF:Q8_0", "3.91", "KiB", "Q8_0"]);
    let json = place.done(&["list", "--json"]);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["name"], &first["bytes"]), (&"org/m-GGUF:Q4_0".into(), &2000.into()));
    place.fails(&["rm", "org/m-GGUF:q4_0"], 2, "expected --yes");
    place.fails(&["rm", "-y", "org/m-GGUF:q4_0", "org/other"], 1, "org/other is not on this machine");
    assert_eq!(place.done(&["rm", "-y", "org/m-GGUF:q4_0"]), "removed org/m-GGUF:q4_0 (1.95 KiB)\n");
    assert!(place.done(&["list"]).contains("Q8_0") && !place.done(&["list"]).contains("Q4_0"));
    place.done(&["rm", "-y", "org/m-GGUF"]);
    assert!(!place.repo("org/m-GGUF").exists());
}

#[test]
fn a_drafter_goes_with_the_last_model_that_has_use_for_it() {
    let place = Place::new("drafter");
    let (model, files) = ("google/gemma-4-E2B-it-qat-q4_0-unquantized", "google/gemma-4-E2B-it-qat-q4_0-gguf");
    let drafter = format!("{model}-assistant");
    for repo in [model, &drafter] {
        place.server.add(repo, "config.json", "{}").add(repo, "model.safetensors", noise(2000));
    }
    place.server.add(files, "gemma-4-E2B-it-Q4_0.gguf", noise(2000));
    place.done(&["pull", model, "--no-drafter"]);
    assert!(!place.repo(&drafter).exists(), "it was to be left out");
    place.done(&["pull", model]);
    place.done(&["pull", files]);
    assert!(!place.done(&["rm", "-y", files]).contains("assistant"));
    assert!(place.repo(&drafter).exists());
    assert!(place.done(&["rm", "-y", model]).contains(&format!("removed {drafter} (")));
    assert!(!place.repo(&drafter).exists() && !place.repo(model).exists());
}

#[test]
fn a_model_that_packing_makes_faster_says_so_once_it_is_here() {
    let place = Place::new("pack");
    let (file, source) = (Scratch::new("pulled-Q4_0.gguf"), concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/e2b"));
    done(carat(&["quantize", source, file.arg(), "--type", "q4_0"]).output().unwrap());
    place.server.add("org/m-GGUF", "m-Q4_0.gguf", fs::read(&file.0).unwrap());
    let says = |args: &[&str]| {
        let output = place.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        stderr.contains("`carat pack org/m-GGUF` would make answers faster")
    };
    let before = says(&["pull", "org/m-GGUF"]);
    assert!(!says(&["pull", "org/m-GGUF", "--json"]));
    assert_eq!(before, !place.done(&["pack", "org/m-GGUF"]).contains("nothing to do"));
    assert!(!says(&["pull", "org/m-GGUF", "--offline"]));
    place.done(&["pack", "org/m-GGUF", "--remove"]);
    let packed = |args: &[&str]| place.done(args).contains("m-Q4_0.gguf.tiles");
    assert_eq!(packed(&["pull", "org/m-GGUF", "--pack", "--json"]), before);
    assert!(!packed(&["pull", "org/m-GGUF", "--pack"]), "there is nothing left to do");
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let place = Place::new("why");
    place
        .server
        .add("org/m", "m-Q4_0.gguf", noise(2000))
        .add("org/gated", "model.safetensors", noise(2000))
        .gate("hf_x");
    place.fails(&["pull", "7b"], 2, "expected ORG/NAME, ORG/NAME:QUANT, or one of e2b, e4b, 12b, 26b, 31b");
    place.fails(&["pull", "org/m:q8_0"], 1, "org/m has no `q8_0`; it has: Q4_0");
    place.fails(&["pull", "org/nothing"], 1, "the hub has nothing by that name");
    place.fails(&["pull", "org/gated"], 1, "then set HF_TOKEN or log in with `hf auth login`");
    fs::create_dir_all(&place.home).unwrap();
    fs::write(place.home.join("token"), "hf_x\n").unwrap();
    place.done(&["pull", "org/gated"]);
    place.fails(&["pull", "org/m", "--offline"], 1, "org/m is not on this machine, and the network may not be used");
}

#[test]
fn the_doctor_tells_of_machine_cache_and_models() {
    let place = Place::new("doctor");
    nano(&place);
    let facts = |args: &[&str]| -> Value { serde_json::from_str(&place.done(args)).unwrap() };
    let before = facts(&["doctor", "--json", "--no-measure"]);
    assert!(before["threads"].as_u64() >= Some(1) && before["kernels"].as_array().unwrap().contains(&"scalar".into()));
    assert!(before["advice"].to_string().contains("carat pull e2b:q4_0") && before["bandwidth"].is_null());
    place.done(&["pull", "org/nano"]);
    let after = facts(&["doctor", "--json", "--no-measure"]);
    assert_eq!(after["models"][0]["name"], "org/nano");
    assert!(!after["advice"].to_string().contains("carat pull"));
    // All kernels but the scalar ones have an order of their own.
    let packable = after["kernels"][0] != "scalar";
    assert_eq!(after["models"][0]["packable"], packable);
    assert_eq!(after["advice"].to_string().contains("`carat pack org/nano`"), packable);
    place.done(&["pack", "org/nano"]);
    let packed = facts(&["doctor", "--json", "--no-measure"]);
    assert_eq!(packed["models"][0]["packable"], false);
    assert!(!packed["advice"].to_string().contains("carat pack"));
    let text = place.done(&["doctor", "--no-measure"]);
    assert!(text.contains("\nmodel        org/nano, ") && text.contains(place.home.to_str().unwrap()), "{text}");
}

#[test]
fn a_revision_is_pulled_by_name_and_kept_under_it() {
    let place = Place::new("revision");
    for repo in ["org/m", "org/m@v1"] {
        place.server.add(repo, "config.json", "{}").add(repo, "model.safetensors", noise(repo.len() * 300));
    }
    let text = place.done(&["pull", "org/m", "--revision", "v1"]);
    let commit = stand_in::commit_of("org/m@v1");
    assert!(text.contains(&format!("snapshots/{commit}")), "{text}");
    assert_eq!(fs::read_to_string(place.repo("org/m").join("refs/v1")).unwrap(), commit);
    assert!(!place.repo("org/m").join("refs/main").exists());
    place.done(&["pull", "org/m", "--revision", "v1", "--offline"]);
    place.fails(&["pull", "org/m", "--revision", "v2"], 1, "revision v2 of org/m: the hub has nothing by that name");
    place.fails(&["pull", "org/m", "--revision", "../x"], 2, "expected the name of a branch, tag or commit");
}
