//! Models that are here: found by name, listed, removed; whichever tool brought them.
//!
//! A snapshot counts as a model if all its weights are there. Links say which bytes belong to which file, so that a
//! blob goes only when no link leads to it any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::cache::{self, Cache, RepoCache, entries};
use crate::choice::{self, Gguf, Weights};
use crate::names::{ModelName, RepoId};
use crate::{Error, Revision};

/// The deepest directory of a snapshot that is looked into.
const DEEPEST: usize = 8;

/// A model that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// What it is called; GGUF models have a quantisation.
    pub name: ModelName,
    /// Its directory, or the first of its GGUF files.
    pub path: PathBuf,
    /// How its weights are stored, e.g. `BF16` or `Q4_0`. `None` if its config doesn't say.
    pub dtype: Option<String>,
    /// Whether it only drafts for another model.
    pub is_drafter: bool,
    /// Bytes of its files.
    pub bytes: u64,
    /// When any of its weights was last read, as far as the file system notes that.
    pub last_used: Option<SystemTime>,
}

/// All models, in the order of their names. A repository that can't be read has none; [`find`] says why.
pub fn list(cache: &Cache) -> Result<Vec<Installed>, Error> {
    let mut found: Vec<Installed> = Vec::new();
    for repo in cache.repos()? {
        for snapshot in Snapshot::all(&cache.repo(&repo)).unwrap_or_default() {
            for name in snapshot.names(&repo) {
                if found.iter().all(|model| model.name != name) {
                    found.extend(snapshot.model(&name).ok());
                }
            }
        }
    }
    Ok(found)
}

/// The model of this name; what was pulled last, where there are several versions of it.
///
/// # Errors
/// If the repository has several quantisations here, none is named, and none is the usual one.
pub fn find(cache: &Cache, name: &ModelName) -> Result<Option<Installed>, Error> {
    let mut undecided = None;
    for snapshot in Snapshot::all(&cache.repo(&name.repo))? {
        match snapshot.model(name) {
            Ok(model) => return Ok(Some(model)),
            Err(error @ Error::WhichQuant { .. }) => undecided = undecided.or(Some(error)),
            Err(_) => {}
        }
    }
    undecided.map_or(Ok(None), Err)
}

/// The model of this name at one revision, as that was last pulled.
///
/// # Errors
/// As [`find`].
pub fn find_at(cache: &Cache, name: &ModelName, revision: &Revision) -> Result<Option<Installed>, Error> {
    let repo = cache.repo(&name.repo);
    let Some(commit) = repo.commit(revision) else { return Ok(None) };
    match Snapshot::of(repo.snapshot(&commit))?.model(name) {
        Ok(model) => Ok(Some(model)),
        Err(error @ Error::WhichQuant { .. }) => Err(error),
        Err(_) => Ok(None),
    }
}

/// What would be removed.
#[derive(Debug)]
pub struct Removal {
    /// What it is called.
    pub name: ModelName,
    /// Bytes that become free.
    pub bytes: u64,
    repo: RepoCache,
    what: What,
}

#[derive(Debug)]
enum What {
    Repository,
    /// Links of snapshots, and blobs that only they lead to.
    Files {
        links: Vec<PathBuf>,
        blobs: BTreeSet<PathBuf>,
    },
}

/// What removing `name` takes: one quantisation if there are others, else everything of its repository.
pub fn removal(cache: &Cache, name: &ModelName) -> Result<Removal, Error> {
    let repo = cache.repo(&name.repo);
    if !repo.dir().is_dir() {
        return Err(Error::NotHere { name: name.to_string() });
    }
    let what = match &name.quant {
        None => What::Repository,
        Some(quant) => removal_of(&repo, name, quant)?,
    };
    let bytes = match &what {
        What::Repository => tree_bytes(repo.dir(), 0),
        What::Files { links, blobs } => {
            let own = |path: &&PathBuf| !path.is_symlink();
            blobs.iter().chain(links.iter().filter(own)).map(|path| size(path)).sum()
        }
    };
    Ok(Removal { name: name.clone(), bytes, repo, what })
}

/// The drafter that came along with what goes and that no other model here has use for.
pub fn drafter_of(cache: &Cache, removal: &Removal) -> Result<Option<Removal>, Error> {
    let gone = &removal.name.repo;
    let Some(drafter) = gone.drafter().filter(|_| matches!(removal.what, What::Repository)) else { return Ok(None) };
    let repos = cache.repos()?;
    let needed = repos.iter().any(|repo| repo != gone && repo.drafter().as_ref() == Some(&drafter));
    if needed || !repos.contains(&drafter) {
        return Ok(None);
    }
    self::removal(cache, &ModelName { repo: drafter, quant: None }).map(Some)
}

impl Removal {
    /// Does it, unless somebody is pulling into the same repository.
    pub fn apply(&self) -> Result<(), Error> {
        self.repo.check_idle()?;
        match &self.what {
            What::Repository => self.repo.remove(),
            What::Files { links, blobs } => {
                for path in links.iter().chain(blobs) {
                    fs::remove_file(path).map_err(Error::io(path))?;
                }
                Ok(())
            }
        }
    }
}

fn removal_of(repo: &RepoCache, name: &ModelName, quant: &str) -> Result<What, Error> {
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    let mut others = false;
    for snapshot in Snapshot::all(repo)? {
        let models = choice::gguf_models(&snapshot.files);
        let is_it = |model: &Gguf| model.quant.eq_ignore_ascii_case(quant);
        others |= !models.iter().all(is_it) || snapshot.has_safetensors();
        let parts: Vec<&String> = models.iter().filter(|model| is_it(model)).flat_map(|model| &model.parts).collect();
        for file in &snapshot.files {
            let of = file.strip_suffix(TILES).unwrap_or(file);
            let into = if parts.iter().any(|part| *part == of) { &mut going } else { &mut staying };
            into.push(snapshot.dir.join(file));
        }
    }
    if going.is_empty() {
        return Err(Error::NotHere { name: name.to_string() });
    }
    if !others {
        return Ok(What::Repository);
    }
    let blobs =
        |links: &[PathBuf]| -> BTreeSet<PathBuf> { links.iter().filter_map(|link| blob_of(repo, link)).collect() };
    let kept = blobs(&staying);
    let blobs = blobs(&going).into_iter().filter(|blob| !kept.contains(blob)).collect();
    Ok(What::Files { links: going, blobs })
}

/// The blob of this repository that a link names. Copies and links to elsewhere have none.
fn blob_of(repo: &RepoCache, link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok()?;
    let blob = repo.blob(target.file_name()?.to_str()?);
    let is_ours = target.parent()?.ends_with("blobs") && fs::symlink_metadata(&blob).is_ok();
    is_ours.then_some(blob)
}

/// Ends the name of what this program keeps beside a model's file and can make again.
const TILES: &str = ".tiles";

/// The files of one commit.
struct Snapshot {
    dir: PathBuf,
    files: Vec<String>,
}

impl Snapshot {
    /// Those of a repository, the last one pulled first.
    fn all(repo: &RepoCache) -> Result<Vec<Snapshot>, Error> {
        let current = repo.commit(&Revision::main());
        let mut dirs: Vec<(bool, Option<SystemTime>, PathBuf)> = Vec::new();
        for entry in entries(&repo.dir().join("snapshots"))? {
            // Systems leave files of their own: `.DS_Store`, `.nfs0000…`.
            if !entry.path().is_dir() {
                continue;
            }
            let is_current = current.as_deref().is_some_and(|commit| entry.file_name() == commit);
            dirs.push((is_current, entry.metadata().and_then(|m| m.modified()).ok(), entry.path()));
        }
        dirs.sort();
        let mut snapshots = Vec::new();
        for (.., dir) in dirs.into_iter().rev() {
            snapshots.push(Snapshot::of(dir)?);
        }
        Ok(snapshots)
    }

    /// That in `dir`.
    fn of(dir: PathBuf) -> Result<Snapshot, Error> {
        let mut files = Vec::new();
        walk(&dir, "", 0, &mut files)?;
        files.sort();
        Ok(Snapshot { dir, files })
    }

    fn has_safetensors(&self) -> bool {
        self.files.iter().any(|file| file == choice::SINGLE || file == choice::INDEX)
    }

    /// What its models may be called; whether they are whole, [`Snapshot::model`] says.
    fn names(&self, repo: &RepoId) -> Vec<ModelName> {
        let name = |quant| ModelName { repo: repo.clone(), quant };
        let safetensors = self.has_safetensors().then(|| name(None));
        let ggufs = choice::gguf_models(&self.files).into_iter().map(|gguf| name(Some(gguf.quant)));
        safetensors.into_iter().chain(ggufs).collect()
    }

    /// The model of this name, if it is whole.
    fn model(&self, name: &ModelName) -> Result<Installed, Error> {
        let choice = choice::choose(name, &self.files)?;
        let weights = self.weights(name, &choice.weights)?;
        let config = self.json("config.json");
        let (name, path, dtype) = match &choice.weights {
            Weights::Gguf(gguf) => {
                let name = ModelName { repo: name.repo.clone(), quant: Some(gguf.quant.clone()) };
                (name, self.dir.join(&gguf.parts[0]), Some(gguf.quant.clone()))
            }
            _ => (name.clone(), self.dir.clone(), config.as_ref().and_then(dtype)),
        };
        let paths: Vec<PathBuf> = weights.iter().map(|file| self.dir.join(file)).collect();
        let beside = choice.beside.iter().chain(&choice.encoder).map(|file| size(&self.dir.join(file)));
        let model_type = config.as_ref().and_then(|config| config["model_type"].as_str().map(str::to_owned));
        Ok(Installed {
            is_drafter: choice::is_drafter(&weights[0]) || model_type.is_some_and(|t| t.contains("assistant")),
            bytes: paths.iter().map(|path| size(path)).chain(beside).sum(),
            last_used: paths.iter().filter_map(|path| fs::metadata(path).ok()?.accessed().ok()).max(),
            name,
            path,
            dtype,
        })
    }

    /// The files of the weights; an error if one is missing.
    fn weights(&self, name: &ModelName, weights: &Weights) -> Result<Vec<String>, Error> {
        let lacks = |file: &str| Error::Incomplete { repo: name.repo.to_string(), file: file.into() };
        let files = match weights {
            Weights::Single => vec![choice::SINGLE.to_owned()],
            Weights::Gguf(gguf) => gguf.parts.clone(),
            Weights::Indexed => {
                self.json(choice::INDEX).and_then(|json| choice::shards(&json)).ok_or_else(|| lacks(choice::INDEX))?
            }
        };
        let needed =
            files.iter().map(String::as_str).chain((!matches!(weights, Weights::Gguf(_))).then_some("config.json"));
        for file in needed {
            if !self.files.iter().any(|f| f == file) {
                return Err(lacks(file));
            }
        }
        Ok(files)
    }

    fn json(&self, file: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.dir.join(file)).ok()?).ok()
    }
}

/// Paths below `dir` that lead to bytes.
fn walk(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) -> Result<(), Error> {
    for entry in entries(dir)? {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A link under way, or left when a pull was killed: it keeps no bytes.
        if cache::is_unfinished(&name) {
            continue;
        }
        // Follows links: one that leads nowhere is a file that isn't there.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        let path = format!("{prefix}{name}");
        if metadata.is_file() {
            files.push(path);
        } else if metadata.is_dir() && depth < DEEPEST {
            walk(&entry.path(), &format!("{path}/"), depth + 1, files)?;
        }
    }
    Ok(())
}

/// Bytes of a file, wherever it is; 0 if it can't be told.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Bytes of the files below `dir`, each once: links are not followed.
fn tree_bytes(dir: &Path, depth: usize) -> u64 {
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(metadata) if metadata.is_dir() && depth < DEEPEST => tree_bytes(&entry.path(), depth + 1),
        _ => 0,
    };
    entries(dir).unwrap_or_default().into_iter().map(of).sum()
}

/// How a config says the weights are stored.
fn dtype(config: &Value) -> Option<String> {
    let places = [config, &config["text_config"]];
    let name = places.iter().find_map(|place| place["dtype"].as_str().or_else(|| place["torch_dtype"].as_str()))?;
    Some(match name {
        "bfloat16" => "BF16".into(),
        "float16" => "F16".into(),
        "float32" => "F32".into(),
        other => other.to_owned(),
    })
}
