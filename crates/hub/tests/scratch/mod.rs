//! A directory that goes with its test, and a hub that keeps its files there.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carat_hub::settings::Token;
use carat_hub::{Cache, Error, Event, Extras, Hub, Patience, Pulled, Ranges, Settings};

use crate::stand_in::StandIn;

/// Bytes of a range in tests.
pub const RANGE: usize = 32 << 10;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// An empty directory of its own.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let unique = format!("carat-hub-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(unique);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn cache(&self) -> Cache {
        Cache::new(self.0.clone())
    }

    pub fn settings(&self, server: &StandIn) -> Settings {
        Settings {
            endpoint: server.url.clone(),
            token: Token::new("hf_secret", "HF_TOKEN"),
            cache: self.0.clone(),
            offline: false,
            certificates: None,
        }
    }

    pub fn hub(&self, server: &StandIn) -> Hub {
        hub(&self.settings(server))
    }

    pub fn pull(&self, server: &StandIn, name: &str) -> Result<Pulled, Error> {
        pull(&self.hub(server), name)
    }

    /// Every file below, in order, relative to it; `.locks` left out.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.0, &self.0, &mut files);
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A hub that loses patience quickly.
pub fn hub(settings: &Settings) -> Hub {
    hub_with(settings, Ranges { workers: 4, bytes: RANGE as u64 })
}

pub fn hub_with(settings: &Settings, ranges: Ranges) -> Hub {
    let patience = Patience {
        retries: 3,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_secs(5),
        connect: Duration::from_secs(2),
        silence: Duration::from_millis(400),
    };
    Hub::new(settings, patience, ranges).unwrap()
}

pub fn pull(hub: &Hub, name: &str) -> Result<Pulled, Error> {
    hub.pull(&name.parse().unwrap(), Extras { encoder: true, drafter: true }, &|_: Event<'_>| {})
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            if path.file_name().unwrap() != ".locks" {
                walk(root, &path, files);
            }
        } else {
            files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
