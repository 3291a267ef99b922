//! Branches, tags and commits, and where the cache keeps them.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod scratch;
mod stand_in;

use std::fs;

use carat_hub::{Error, Extras, Pulled, Settings, installed};
use scratch::{Scratch, hub};
use stand_in::{COMMIT, StandIn, commit_of};

const REPO: &str = "org/m";

/// A repository whose main branch, tag and pull request have weights of other sizes.
fn server() -> StandIn {
    let server = StandIn::new();
    for (repo, size) in [(REPO, 3000), ("org/m@v1.0", 2000), ("org/m@refs/pr/7", 1500)] {
        server.add(repo, "config.json", "{}").add(repo, "model.safetensors", vec![1; size]);
    }
    server
}

fn pull_at(settings: &Settings, revision: &str) -> Result<Pulled, Error> {
    let extras = Extras { encoder: true, drafter: true };
    hub(settings).pull_at(&REPO.parse().unwrap(), &revision.parse().unwrap(), extras, &|_| {})
}

#[test]
fn a_tag_is_noted_beside_the_branch_and_neither_takes_the_other_s_place() {
    let (server, scratch) = (server(), Scratch::new());
    let settings = scratch.settings(&server);
    let tag = commit_of("org/m@v1.0");
    let pulled = pull_at(&settings, "v1.0").unwrap();
    assert!(pulled.path.ends_with(format!("models--org--m/snapshots/{tag}")), "{}", pulled.path.display());
    assert_eq!(fs::metadata(pulled.path.join("model.safetensors")).unwrap().len(), 2000);
    scratch.pull(&server, REPO).unwrap();
    let note = |name: &str| fs::read_to_string(scratch.0.join("models--org--m/refs").join(name)).unwrap();
    assert_eq!((note("v1.0"), note("main")), (tag, COMMIT.to_owned()));
    let main = installed::find(&scratch.cache(), &REPO.parse().unwrap()).unwrap().unwrap();
    assert!(main.path.ends_with(COMMIT), "the main branch is what the name alone means");
}

/// The hub is asked for `refs%2Fpr%2F7`, and the note is in directories, as `huggingface_hub` does both.
#[test]
fn a_revision_with_slashes_is_one_name() {
    let (server, scratch) = (server(), Scratch::new());
    pull_at(&scratch.settings(&server), "refs/pr/7").unwrap();
    assert_eq!(server.requests("GET /api/models/org/m/revision/refs%2Fpr%2F7").len(), 1);
    let note = fs::read_to_string(scratch.0.join("models--org--m/refs/refs/pr/7")).unwrap();
    assert_eq!(note, commit_of("org/m@refs/pr/7"));
}

#[test]
fn a_commit_needs_no_note() {
    let (server, scratch) = (server(), Scratch::new());
    let commit = commit_of("org/m@v1.0");
    let pulled = pull_at(&scratch.settings(&server), &commit).unwrap();
    assert!(pulled.path.ends_with(format!("snapshots/{commit}")));
    assert!(!scratch.0.join("models--org--m/refs").exists());
}

#[test]
fn offline_a_revision_is_what_was_pulled_of_it() {
    let (server, scratch) = (server(), Scratch::new());
    let online = pull_at(&scratch.settings(&server), "v1.0").unwrap();
    let settings = Settings { offline: true, ..scratch.settings(&server) };
    server.reset();
    assert_eq!(pull_at(&settings, "v1.0").unwrap().path, online.path);
    assert_eq!(pull_at(&settings, &commit_of("org/m@v1.0")).unwrap().path, online.path);
    let error = |revision| pull_at(&settings, revision).unwrap_err().to_string();
    assert!(error("main").starts_with("org/m is not on this machine"), "{}", error("main"));
    assert!(error("v2").starts_with("revision v2 of org/m is not on this machine"), "{}", error("v2"));
    assert!(server.requests("").is_empty());
}

#[test]
fn a_revision_that_is_not_there_is_named() {
    let (server, scratch) = (server(), Scratch::new());
    let error = pull_at(&scratch.settings(&server), "v9").unwrap_err().to_string();
    assert!(error.contains("revision v9 of org/m: the hub has nothing by that name"), "{error}");
    assert!(scratch.files().is_empty());
}
