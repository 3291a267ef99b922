//! A whole model: which files, whether there is room, and each of them in turn.
//!
//! The branch or tag is noted last. Until then the files are only reachable by their commit, and no reader takes half a model
//! for a whole one.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::{self, Listing, Metadata};
use crate::cache::{Cache, RepoCache};
use crate::choice::{self, Choice, Weights};
use crate::download::{Download, Ranges};
use crate::http::Client;
use crate::installed::Installed;
use crate::names::{ModelName, RepoId};
use crate::retry::{Attempts, Failure, Patience};
use crate::{Error, Revision, Settings, installed, partial};

/// What happens during a pull.
#[derive(Debug)]
pub enum Event<'a> {
    /// A repository's files are known.
    Plan {
        /// The repository.
        repo: &'a RepoId,
        /// How many files.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// A file is next.
    File {
        /// Its path in the repository.
        file: &'a str,
        /// Its bytes.
        size: u64,
    },
    /// So many more bytes are here; those of earlier pulls count when their file is next.
    Bytes(u64),
    /// So many bytes that had been reported are worth nothing.
    Lost(u64),
    /// Another process is writing this file.
    Waiting {
        /// Its path in the repository.
        file: &'a str,
    },
    /// All bytes are here and are being hashed.
    Checking {
        /// Its path in the repository.
        file: &'a str,
    },
    /// Something failed and will be tried again.
    Retry {
        /// What happened.
        reason: &'a str,
        /// After which time.
        wait: Duration,
    },
    /// The model works without it, and it could not be had.
    Skipped {
        /// Its repository.
        repo: &'a RepoId,
        /// Why.
        error: &'a Error,
    },
}

/// Hears what happens, from several threads.
pub type Observer<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// What is brought besides the text model, where there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// The encoder of images and sound of a GGUF model; safetensors contain theirs.
    pub encoder: bool,
    /// The drafter.
    pub drafter: bool,
}

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its directory, or the first of its GGUF files.
    pub path: PathBuf,
    /// The bytes of its files.
    pub bytes: u64,
}

/// A hub, and the cache for what comes from it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    cache: Cache,
    offline: bool,
    ranges: Ranges,
}

impl Hub {
    /// The hub and cache of `settings`.
    pub fn new(settings: &Settings, patience: Patience, ranges: Ranges) -> Result<Self, Error> {
        Ok(Hub {
            client: Client::new(settings, patience)?,
            cache: Cache::new(settings.cache.clone()),
            offline: settings.offline,
            ranges,
        })
    }

    /// Makes sure that the model is here as the hub's main branch has it now. Offline: as it was pulled before.
    pub fn pull(&self, name: &ModelName, extras: Extras, on: Observer<'_>) -> Result<Pulled, Error> {
        if self.offline {
            return Self::here(name.to_string(), installed::find(&self.cache, name)?);
        }
        self.pull_at(name, &Revision::main(), extras, on)
    }

    /// As [`Hub::pull`], of any revision. The drafter, which is a repository of its own, comes from its main branch.
    pub fn pull_at(
        &self,
        name: &ModelName,
        revision: &Revision,
        extras: Extras,
        on: Observer<'_>,
    ) -> Result<Pulled, Error> {
        if self.offline {
            return Self::here(revision.of(name), installed::find_at(&self.cache, name, revision)?);
        }
        let (pulled, has_drafter) = self.pull_repo(name, revision, extras, on)?;
        if let Some(repo) = name.repo.drafter().filter(|_| extras.drafter && !has_drafter) {
            let drafter = ModelName { repo, quant: None };
            match self.pull_repo(&drafter, &Revision::main(), extras, on) {
                Ok(_) => {}
                // What is wrong with the cache's files is not the drafter's.
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => on(Event::Skipped { repo: &drafter.repo, error: &error }),
            }
        }
        Ok(pulled)
    }

    /// Of what was found in the cache as `name`.
    fn here(name: String, found: Option<Installed>) -> Result<Pulled, Error> {
        let here = found.ok_or(Error::Offline { name })?;
        Ok(Pulled { path: here.path, bytes: here.bytes })
    }

    /// The model, and whether a drafter was among its files.
    fn pull_repo(
        &self,
        name: &ModelName,
        revision: &Revision,
        extras: Extras,
        on: Observer<'_>,
    ) -> Result<(Pulled, bool), Error> {
        let listing = self.patiently(on, || api::listing(&self.client, &name.repo, revision))?;
        let mut choice = choice::choose(name, &listing.files)?;
        choice.encoder = choice.encoder.filter(|_| extras.encoder);
        choice.drafter = choice.drafter.filter(|_| extras.drafter);
        let fetch = Fetch { hub: self, cache: self.cache.repo(&name.repo), listing: &listing, on };
        let weights = fetch.weights(&choice.weights)?;
        let first = weights[0].clone();
        let files = all_files(&choice, weights);
        let files: Vec<Metadata> = files.iter().map(|file| fetch.metadata(file)).collect::<Result<_, _>>()?;
        let bytes = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        fetch.check_room(&files)?;
        on(Event::Plan { repo: &name.repo, files: files.len(), bytes });
        for file in &files {
            fetch.file(file)?;
        }
        fetch.cache.set_commit(revision, &listing.commit)?;
        let snapshot = fetch.cache.snapshot(&listing.commit);
        let path = if let Weights::Gguf(_) = choice.weights { snapshot.join(first) } else { snapshot };
        Ok((Pulled { path, bytes }, choice.drafter.is_some()))
    }

    /// Repeats `request` while that is worthwhile.
    fn patiently<T>(&self, on: Observer<'_>, request: impl Fn() -> Result<T, Failure>) -> Result<T, Error> {
        let mut attempts = Attempts::new(self.client.patience());
        loop {
            match request() {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    let pause = attempts.failed(failure)?;
                    on(Event::Retry { reason: &pause.reason, wait: pause.wait });
                    std::thread::sleep(pause.wait);
                }
            }
        }
    }
}

/// Small files first, so that what is wrong with them is known before the large ones.
fn all_files(choice: &Choice, weights: Vec<String>) -> Vec<String> {
    let drafter = choice.drafter.iter().flat_map(|gguf| gguf.parts.clone());
    choice.beside.iter().cloned().chain(choice.encoder.clone()).chain(drafter).chain(weights).collect()
}

/// One repository's files on their way.
struct Fetch<'a> {
    hub: &'a Hub,
    cache: RepoCache,
    listing: &'a Listing,
    on: Observer<'a>,
}

impl Fetch<'_> {
    /// The files of the weights; of several, the index comes first, and is here afterwards.
    fn weights(&self, weights: &Weights) -> Result<Vec<String>, Error> {
        match weights {
            Weights::Single => Ok(vec![choice::SINGLE.to_owned()]),
            Weights::Gguf(gguf) => Ok(gguf.parts.clone()),
            Weights::Indexed => {
                let shards = self.shards()?;
                if let Some(file) = shards.iter().find(|shard| !self.listing.files.contains(shard)) {
                    return Err(Error::Incomplete { repo: self.cache.repo().to_string(), file: file.clone() });
                }
                Ok(std::iter::once(choice::INDEX.to_owned()).chain(shards).collect())
            }
        }
    }

    fn shards(&self) -> Result<Vec<String>, Error> {
        let index = self.metadata(choice::INDEX)?;
        self.file(&index)?;
        let path = self.cache.blob(index.etag.as_str());
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        let shards = serde_json::from_slice(&text).ok().and_then(|json| choice::shards(&json));
        shards.ok_or_else(|| Error::Answer {
            url: api::file_url(&self.hub.client, self.cache.repo(), &self.listing.commit, choice::INDEX),
            why: "expected the names of files as `weight_map`".into(),
        })
    }

    fn metadata(&self, file: &str) -> Result<Metadata, Error> {
        let request = || api::metadata(&self.hub.client, self.cache.repo(), &self.listing.commit, file);
        self.hub.patiently(self.on, request)
    }

    /// An error if the disk can't take what isn't here yet.
    fn check_room(&self, files: &[Metadata]) -> Result<(), Error> {
        let missing = |file: &Metadata| {
            let hash = file.etag.as_str();
            let there = || partial::allocated(&self.cache.blob(hash));
            if self.cache.has(hash, file.size) { 0 } else { file.size.saturating_sub(there()) }
        };
        let needed = files.iter().map(missing).fold(0, u64::saturating_add);
        match self.hub.cache.free_space() {
            Some(available) if needed > available => {
                Err(Error::Space { dir: self.hub.cache.root().into(), needed, available })
            }
            _ => Ok(()),
        }
    }

    /// One file, whole and under its name.
    fn file(&self, file: &Metadata) -> Result<(), Error> {
        (self.on)(Event::File { file: &file.file, size: file.size });
        let commit = &self.listing.commit;
        let client = &self.hub.client;
        Download { client, cache: &self.cache, commit, file, ranges: self.hub.ranges, on: self.on }.run()?;
        self.cache.link(commit, &file.file, file.etag.as_str())
    }
}
