//! Which files of which repositories a pull brings, and how they are found, listed and removed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod scratch;
mod stand_in;

use std::fs;

use carat_hub::{Error, Event, Extras, installed};
use scratch::{Scratch, pull};
use stand_in::{COMMIT, Fault, StandIn, noise};

const ALL: Extras = Extras { encoder: true, drafter: true };

/// What `huggingface_hub` makes of the same files: `tests/data/make_layout.py`.
const LAYOUT: &str = include_str!("data/layout.txt");

/// Its lines as path and link target, without what is that tool's own.
fn layout() -> Vec<(&'static str, Option<&'static str>)> {
    let lines = LAYOUT.lines().filter(|line| !line.starts_with('#') && !line.contains("/trees/"));
    let lines = lines.filter(|line| *line != "CACHEDIR.TAG");
    lines.map(|line| line.split_once(" -> ").map_or((line, None), |(path, target)| (path, Some(target)))).collect()
}

#[cfg(unix)]
#[test]
fn the_cache_is_laid_out_as_other_tools_do() {
    let (server, scratch) = (StandIn::new(), Scratch::new());
    server.add("org/m", "Q4_0/m-Q4_0.gguf", vec![0; 5000]).add("org/m", "mmproj-F16.gguf", "encoder");
    scratch.pull(&server, "org/m").unwrap();
    let locks = fs::read_dir(scratch.0.join(".locks/models--org--m")).unwrap();
    let locks = locks.map(|e| format!(".locks/models--org--m/{}", e.unwrap().file_name().to_str().unwrap()));
    let mut found: Vec<String> = locks.chain(scratch.files()).collect();
    found.sort();
    let links: Vec<_> = found.iter().map(|file| (file.as_str(), fs::read_link(scratch.0.join(file)).ok())).collect();
    let links: Vec<_> = links.iter().map(|(file, link)| (*file, link.as_ref().and_then(|l| l.to_str()))).collect();
    assert_eq!(links, layout());
    assert_eq!(fs::read_to_string(scratch.0.join("models--org--m/refs/main")).unwrap(), COMMIT);
}

#[cfg(unix)]
#[test]
fn what_other_tools_brought_is_found() {
    let scratch = Scratch::new();
    for (file, target) in layout() {
        let path = scratch.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match target {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None if file.ends_with("refs/main") => fs::write(path, COMMIT).unwrap(),
            None => fs::write(path, "bytes").unwrap(),
        }
    }
    let found = installed::find(&scratch.cache(), &"org/m".parse().unwrap()).unwrap().unwrap();
    assert!(found.path.ends_with("Q4_0/m-Q4_0.gguf") && found.name.to_string() == "org/m:Q4_0");
    assert_eq!(fs::read_to_string(found.path).unwrap(), "bytes");
}

/// The files of a snapshot, in order.
fn snapshot(scratch: &Scratch, repo: &str) -> Vec<String> {
    let dir = format!("models--{}/snapshots/{COMMIT}/", repo.replace('/', "--"));
    scratch.files().iter().filter_map(|file| file.strip_prefix(&dir)).map(str::to_owned).collect()
}

/// A GGUF repository as they are published.
fn quants() -> StandIn {
    let server = StandIn::new();
    for (index, file) in
        ["m-Q4_0.gguf", "m-Q8_0.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf", "mtp-m.gguf"].iter().enumerate()
    {
        server.add("org/m-GGUF", file, noise(2000 + index));
    }
    server.add("org/m-GGUF", "README.md", "# m");
    server
}

#[test]
fn a_quantisation_brings_its_encoder_and_drafter() {
    let (server, scratch) = (quants(), Scratch::new());
    let pulled = scratch.pull(&server, "org/m-GGUF:q8_0").unwrap();
    assert_eq!(snapshot(&scratch, "org/m-GGUF"), ["m-Q8_0.gguf", "mmproj-BF16.gguf", "mtp-m.gguf"]);
    assert!(pulled.path.ends_with(format!("{COMMIT}/m-Q8_0.gguf")));
    assert_eq!(pulled.bytes, 2001 + 2003 + 2004);
    let scratch = Scratch::new();
    let none = Extras { encoder: false, drafter: false };
    scratch.hub(&server).pull(&"org/m-GGUF:q4_0".parse().unwrap(), none, &|_| {}).unwrap();
    assert_eq!(snapshot(&scratch, "org/m-GGUF"), ["m-Q4_0.gguf"]);
}

#[test]
fn a_quantisation_that_is_not_there_brings_nothing() {
    let (server, scratch) = (quants(), Scratch::new());
    let error = scratch.pull(&server, "org/m-GGUF:q5_k_m").unwrap_err().to_string();
    assert_eq!(error, "org/m-GGUF has no `q5_k_m`; it has: Q4_0, Q8_0");
    assert!(scratch.files().is_empty() && server.requests("HEAD").is_empty());
}

#[test]
fn an_index_brings_the_files_it_names() {
    let (server, scratch) = (StandIn::new(), Scratch::new());
    let index = r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    let repo = "org/m";
    server.add(repo, "model.safetensors.index.json", index).add(repo, "config.json", "{}");
    server.add(repo, "model-00001-of-00002.safetensors", noise(5000)).add(repo, "old.safetensors", noise(10));
    let error = scratch.pull(&server, repo).unwrap_err().to_string();
    assert!(error.contains("org/m lacks `model-00002-of-00002.safetensors`"), "{error}");
    server.add(repo, "model-00002-of-00002.safetensors", noise(6000));
    scratch.pull(&server, repo).unwrap();
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(snapshot(&scratch, repo), expected);
    server.add(repo, "model.safetensors.index.json", "[]");
    let error = Scratch::new().pull(&server, repo).unwrap_err().to_string();
    assert!(error.contains("expected the names of files as `weight_map`"), "{error}");
}

#[test]
fn files_in_directories_with_odd_names_are_linked_and_found() {
    let (server, scratch) = (StandIn::new(), Scratch::new());
    let parts = ["Q4_0/my model-Q4_0-00001-of-00002.gguf", "Q4_0/my model-Q4_0-00002-of-00002.gguf"];
    server.add("org/m", parts[0], noise(3000)).add("org/m", parts[1], noise(10));
    let pulled = scratch.pull(&server, "org/m").unwrap();
    assert_eq!(fs::read(&pulled.path).unwrap(), noise(3000));
    let found = installed::find(&scratch.cache(), &"org/m:q4_0".parse().unwrap()).unwrap().unwrap();
    assert_eq!((found.path, found.bytes), (pulled.path, 3010));
}

/// The published E2B in small.
fn published() -> StandIn {
    let server = StandIn::new();
    for repo in ["google/gemma-4-E2B-it", "google/gemma-4-E2B-it-assistant"] {
        let kind = if repo.ends_with("assistant") { "gemma4_assistant" } else { "gemma4" };
        server.add(repo, "config.json", format!(r#"{{"model_type":"{kind}","dtype":"bfloat16"}}"#));
        server.add(repo, "model.safetensors", noise(4000 + repo.len()));
    }
    server
}

#[test]
fn a_short_name_brings_the_published_model_and_its_drafter() {
    let (server, scratch) = (published(), Scratch::new());
    let pulled = scratch.pull(&server, "e2b").unwrap();
    assert!(pulled.path.ends_with(format!("models--google--gemma-4-E2B-it/snapshots/{COMMIT}")));
    let models = installed::list(&scratch.cache()).unwrap();
    let facts: Vec<_> = models.iter().map(|m| (m.name.to_string(), m.dtype.clone().unwrap(), m.is_drafter)).collect();
    let bf16 = || "BF16".to_owned();
    let expected = [
        ("google/gemma-4-E2B-it".to_owned(), bf16(), false),
        ("google/gemma-4-E2B-it-assistant".to_owned(), bf16(), true),
    ];
    assert_eq!(facts, expected);
    assert!(models.iter().all(|model| model.last_used.is_some()));
}

#[test]
fn a_drafter_that_cannot_be_had_is_left_out_and_named() {
    let status = |status: u16| (Fault::Status(status, vec![]), format!("answered {status}"));
    let large = Fault::Headers(vec![("X-Linked-Size", (1_u64 << 60).to_string())]);
    let other = (Fault::WrongByte, "expected JSON that describes a model".to_owned());
    for (fault, says) in [status(401), status(403), status(404), status(500), (large, "MiB are needed".into()), other] {
        let (server, scratch) = (published(), Scratch::new());
        server.fail("assistant", usize::MAX, fault);
        let skipped = std::sync::Mutex::new(Vec::new());
        let on = |event: Event<'_>| {
            if let Event::Skipped { repo, error } = event {
                skipped.lock().unwrap().push(format!("{repo}: {error}"));
            }
        };
        scratch.hub(&server).pull(&"e2b".parse().unwrap(), ALL, &on).unwrap();
        let skipped = skipped.into_inner().unwrap();
        assert!(skipped.len() == 1 && skipped[0].contains(&says), "`{says}` is not in {skipped:?}");
    }
}

#[test]
fn a_gated_model_opens_with_the_token() {
    let (server, scratch) = (StandIn::new(), Scratch::new());
    server.add("org/gated", "model.safetensors", noise(4000)).add("org/gated", "config.json", "{}").gate("hf_secret");
    scratch.pull(&server, "org/gated").unwrap();
    let settings = carat_hub::Settings { token: None, ..scratch.settings(&server) };
    assert!(matches!(pull(&scratch::hub(&settings), "org/gated"), Err(Error::Unauthorized { .. })));
}

#[test]
fn offline_only_what_is_here_counts() {
    let (server, scratch) = (quants(), Scratch::new());
    let online = scratch.pull(&server, "org/m-GGUF:q4_0").unwrap();
    server.reset();
    let settings = carat_hub::Settings { offline: true, ..scratch.settings(&server) };
    let offline = scratch::hub(&settings);
    assert_eq!(pull(&offline, "org/m-GGUF:Q4_0").unwrap().path, online.path);
    assert_eq!(pull(&offline, "org/m-GGUF").unwrap().path, online.path);
    let error = pull(&offline, "org/m-GGUF:q8_0").unwrap_err().to_string();
    assert!(error.contains("org/m-GGUF:q8_0 is not on this machine, and the network may not be used"), "{error}");
    assert!(server.requests("").is_empty());
}

#[test]
fn half_a_model_is_no_model() {
    let (server, scratch) = (published(), Scratch::new());
    let cache = scratch.cache();
    let name = "e2b".parse().unwrap();
    assert_eq!(installed::find(&cache, &name).unwrap(), None);
    server.fail("GET /bytes", usize::MAX, Fault::Status(500, vec![]));
    scratch.pull(&server, "e2b").unwrap_err();
    assert_eq!(installed::find(&cache, &name).unwrap(), None);
    assert!(installed::list(&cache).unwrap().is_empty());
    server.reset();
    let path = scratch.pull(&server, "e2b").unwrap().path;
    assert_eq!(installed::find(&cache, &name).unwrap().unwrap().path, path);
    // What other tools bring is less, at times: the config alone.
    fs::remove_file(path.join("model.safetensors")).unwrap();
    assert_eq!(installed::find(&cache, &name).unwrap(), None);
}

#[test]
fn of_several_quantisations_one_must_be_named() {
    let (server, scratch) = (StandIn::new(), Scratch::new());
    server.add("org/m", "m-Q5_0.gguf", noise(2000)).add("org/m", "m-Q6_K.gguf", noise(2000 + 1));
    for quant in ["q5_0", "q6_k"] {
        scratch.pull(&server, &format!("org/m:{quant}")).unwrap();
    }
    let error = installed::find(&scratch.cache(), &"org/m".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("name one of Q5_0, Q6_K"), "{error}");
}

fn names(scratch: &Scratch) -> Vec<String> {
    installed::list(&scratch.cache()).unwrap().iter().map(|model| model.name.to_string()).collect()
}

#[test]
fn what_is_no_model_hides_none() {
    let (server, scratch) = (quants(), Scratch::new());
    scratch.pull(&server, "org/m-GGUF:q4_0").unwrap();
    // Left by the system, and a repository that can't be read.
    fs::write(scratch.0.join("models--org--m-GGUF/snapshots/.DS_Store"), "x").unwrap();
    fs::create_dir(scratch.0.join("models--org--broken")).unwrap();
    fs::write(scratch.0.join("models--org--broken/snapshots"), "x").unwrap();
    assert_eq!(names(&scratch), ["org/m-GGUF:Q4_0"]);
    let find = |name: &str| installed::find(&scratch.cache(), &name.parse().unwrap());
    assert!(find("org/m-GGUF").unwrap().is_some());
    let error = find("org/broken").unwrap_err().to_string();
    assert!(error.contains("models--org--broken"), "{error}");
    installed::removal(&scratch.cache(), &"org/m-GGUF:q4_0".parse().unwrap()).unwrap().apply().unwrap();
    assert!(names(&scratch).is_empty());
}

#[cfg(unix)]
#[test]
fn removing_a_quantisation_leaves_what_others_need() {
    let (server, scratch) = (quants(), Scratch::new());
    // A second name for the bytes of Q4_0: one blob, two links.
    server.add("org/m-GGUF", "copy-Q5_0.gguf", noise(2000));
    for quant in ["q4_0", "q8_0", "q5_0"] {
        scratch.pull(&server, &format!("org/m-GGUF:{quant}")).unwrap();
    }
    // Left by a pull that was killed between the link and its name.
    let snapshot = scratch.0.join("models--org--m-GGUF/snapshots").join(COMMIT);
    let blob = fs::read_link(snapshot.join("m-Q8_0.gguf")).unwrap();
    std::os::unix::fs::symlink(blob, snapshot.join(".hash.carat-0123456789abcdef")).unwrap();
    // What `carat pack` makes.
    let tiles = snapshot.join("m-Q8_0.gguf.tiles");
    fs::write(&tiles, noise(500)).unwrap();
    let remove = |name: &str| {
        let removal = installed::removal(&scratch.cache(), &name.parse().unwrap()).unwrap();
        removal.apply().unwrap();
        removal.bytes
    };
    let count = || fs::read_dir(scratch.0.join("models--org--m-GGUF/blobs")).unwrap().count();
    let before = count();
    assert_eq!(remove("org/m-GGUF:q8_0"), 2001 + 500);
    assert_eq!(count(), before - 1);
    assert!(!tiles.exists());
    assert_eq!(remove("org/m-GGUF:Q4_0"), 0);
    assert_eq!(names(&scratch), ["org/m-GGUF:Q5_0"]);
    let left = installed::find(&scratch.cache(), &"org/m-GGUF:q5_0".parse().unwrap()).unwrap().unwrap();
    assert_eq!(fs::read(left.path).unwrap(), noise(2000));
    // With the last one goes everything.
    assert!(remove("org/m-GGUF:q5_0") > 2000 + 2003);
    assert!(scratch.files().is_empty(), "{:?}", scratch.files());
    let gone = installed::removal(&scratch.cache(), &"org/m-GGUF".parse().unwrap()).unwrap_err();
    assert!(gone.to_string().contains("org/m-GGUF is not on this machine"), "{gone}");
}

#[test]
fn removing_a_repository_leaves_the_others() {
    let (server, scratch) = (published(), Scratch::new());
    scratch.pull(&server, "e2b").unwrap();
    installed::removal(&scratch.cache(), &"e2b".parse().unwrap()).unwrap().apply().unwrap();
    assert_eq!(names(&scratch), ["google/gemma-4-E2B-it-assistant"]);
}

#[test]
fn what_is_being_pulled_is_not_removed() {
    let (server, scratch) = (published(), Scratch::new());
    scratch.pull(&server, "e2b").unwrap();
    let cache = scratch.cache();
    let removal = installed::removal(&cache, &"e2b".parse().unwrap()).unwrap();
    let lock = cache.repo(&"google/gemma-4-E2B-it".parse().unwrap()).lock("hash", || {}).unwrap();
    assert!(matches!(removal.apply(), Err(Error::Busy { .. })));
    drop(lock);
    removal.apply().unwrap();
}
