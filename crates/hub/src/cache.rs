//! The cache's layout, shared with other tools.
//!
//! ```text
//! models--ORG--NAME/blobs/HASH                    the bytes of a file, named by its hash
//! models--ORG--NAME/refs/main                     the commit that was last pulled
//! models--ORG--NAME/snapshots/COMMIT/config.json  -> ../../blobs/HASH
//! .locks/models--ORG--NAME/HASH.lock              held while the blob is written
//! ```
//!
//! Source: `huggingface_hub/file_download.py`, 2.4.0. A snapshot's link and a branch's commit are each replaced in one
//! step, so that a reader sees the old one or the new one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, RepoId, Revision};

/// The directory with all repositories.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Cache { root }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes that may still be written. `None` where the system doesn't say.
    pub fn free_space(&self) -> Option<u64> {
        let existing = self.root.ancestors().find(|dir| dir.exists())?;
        fs4::available_space(existing).ok()
    }

    /// The repositories that are here, in the order of their names.
    pub fn repos(&self) -> Result<Vec<RepoId>, Error> {
        let mut repos = Vec::new();
        for entry in entries(&self.root)? {
            repos.extend(RepoId::of_directory(&entry.file_name().to_string_lossy()));
        }
        repos.sort();
        Ok(repos)
    }

    /// The place of a repository.
    pub fn repo(&self, repo: &RepoId) -> RepoCache {
        RepoCache {
            dir: self.root.join(repo.directory()),
            locks: self.root.join(".locks").join(repo.directory()),
            repo: repo.clone(),
        }
    }
}

/// One repository's directory.
#[derive(Clone, Debug)]
pub struct RepoCache {
    dir: PathBuf,
    locks: PathBuf,
    repo: RepoId,
}

/// Held while a blob is written; other tools respect it as well.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file lets go of the lock")] File);

impl RepoCache {
    /// The repository.
    pub fn repo(&self) -> &RepoId {
        &self.repo
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bytes of the file with this hash.
    pub fn blob(&self, hash: &str) -> PathBuf {
        self.dir.join("blobs").join(hash)
    }

    /// Whether the blob of this hash is here with all its bytes: what was cut short counts for nothing.
    pub fn has(&self, hash: &str, bytes: u64) -> bool {
        fs::metadata(self.blob(hash)).is_ok_and(|blob| blob.len() == bytes)
    }

    /// The files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// The commit of `revision`: for a branch or tag, as it was last pulled.
    pub fn commit(&self, revision: &Revision) -> Option<String> {
        if revision.is_commit() {
            return Some(revision.to_string());
        }
        let text = fs::read_to_string(self.dir.join("refs").join(revision.as_str())).ok()?;
        let commit = text.trim();
        crate::api::is_inside(commit).then(|| commit.to_owned()).filter(|commit| !commit.contains('/'))
    }

    /// Notes that `commit` is now `revision`. The name of a commit needs no note.
    pub fn set_commit(&self, revision: &Revision, commit: &str) -> Result<(), Error> {
        if revision.as_str() == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision.as_str());
        let refs = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(refs).map_err(Error::io(refs))?;
        let new = refs.join(unused(path.file_name().and_then(|name| name.to_str()).unwrap_or_default()));
        fs::write(&new, commit).and_then(|()| fs::rename(&new, &path)).map_err(|error| {
            let _ = fs::remove_file(&new);
            Error::io(&path)(error)
        })
    }

    /// Waits until nobody else writes the blob of this hash; `waiting` is called if somebody does.
    pub fn lock(&self, hash: &str, waiting: impl FnOnce()) -> Result<Lock, Error> {
        fs::create_dir_all(&self.locks).map_err(Error::io(&self.locks))?;
        let path = self.locks.join(format!("{hash}.lock"));
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let locked = match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
        };
        match locked {
            // Without locks, two writers put the same bytes in the same places, and the hash is checked at the end.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(Error::io(&path)(error)),
            _ => Ok(Lock(file)),
        }
    }

    /// An error if somebody writes a blob of this repository.
    pub fn check_idle(&self) -> Result<(), Error> {
        for entry in entries(&self.locks)? {
            let path = entry.path();
            let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
            if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                return Err(Error::Busy { repo: self.repo.to_string() });
            }
        }
        Ok(())
    }

    /// Makes `file` of the snapshot the blob of this hash.
    pub fn link(&self, commit: &str, file: &str, hash: &str) -> Result<(), Error> {
        let path = self.snapshot(commit).join(file);
        let dir = path.parent().unwrap_or(&path);
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let up = "../".repeat(file.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{hash}"));
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let new = dir.join(unused(hash));
        let made = symlink(&target, &new, &self.blob(hash)).and_then(|()| fs::rename(&new, &path));
        made.map_err(|error| {
            let _ = fs::remove_file(&new);
            Error::io(&path)(error)
        })
    }

    /// Removes everything of this repository.
    pub fn remove(&self) -> Result<(), Error> {
        for dir in [&self.dir, &self.locks] {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(dir)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What is in a directory; nothing if it doesn't exist.
pub(crate) fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(dir)(error)),
        Ok(entries) => entries.collect::<io::Result<_>>().map_err(Error::io(dir)),
    }
}

/// A name that no other writer has, on any machine that shares the cache.
fn unused(name: &str) -> String {
    // The standard library's only source of randomness: each state has its own keys.
    format!(".{name}.carat-{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Whether a file has a name of [`unused`].
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.contains(".carat-")
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path, _blob: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need rights there; other tools copy as well.
#[cfg(not(unix))]
fn symlink(_target: &Path, link: &Path, blob: &Path) -> io::Result<()> {
    fs::copy(blob, link).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn repo(name: &str) -> (Scratch, RepoCache) {
        let dir = std::env::temp_dir().join(format!("carat-cache-{name}-{}", std::process::id()));
        let cache = Cache::new(dir.clone()).repo(&"a/b".parse().unwrap());
        (Scratch(dir), cache)
    }

    #[test]
    fn links_are_relative_and_lead_to_the_blob() {
        let (_scratch, repo) = repo("link");
        fs::create_dir_all(repo.dir().join("blobs")).unwrap();
        fs::write(repo.blob("h1"), "one").unwrap();
        fs::write(repo.blob("h2"), "two").unwrap();
        for (file, hash, text) in [("x", "h1", "one"), ("d/e/x", "h1", "one"), ("x", "h2", "two"), ("x", "h2", "two")] {
            repo.link("c", file, hash).unwrap();
            assert_eq!(fs::read_to_string(repo.snapshot("c").join(file)).unwrap(), text);
        }
        assert_eq!(fs::read_link(repo.snapshot("c").join("d/e/x")).unwrap(), Path::new("../../../../blobs/h1"));
        assert_eq!(entries(&repo.snapshot("c")).unwrap().len(), 2);
    }

    #[test]
    fn a_branch_is_its_last_commit() {
        let (_scratch, repo) = repo("refs");
        assert_eq!(repo.commit(&Revision::main()), None);
        repo.set_commit(&Revision::main(), "abc").unwrap();
        repo.set_commit(&Revision::main(), "def").unwrap();
        assert_eq!(repo.commit(&Revision::main()).as_deref(), Some("def"));
        fs::write(repo.dir().join("refs/main"), "../../x").unwrap();
        assert_eq!(repo.commit(&Revision::main()), None);
    }

    #[test]
    fn many_writers_of_one_link_and_branch_do_not_meet() {
        let (_scratch, repo) = repo("many");
        fs::create_dir_all(repo.dir().join("blobs")).unwrap();
        fs::write(repo.blob("h"), "bytes").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for commit in ["a", "b", "c", "d"] {
                        repo.link(commit, "x", "h").unwrap();
                        repo.set_commit(&Revision::main(), commit).unwrap();
                    }
                });
            }
        });
        assert_eq!(entries(&repo.snapshot("a")).unwrap().len(), 1);
        assert_eq!(entries(&repo.dir().join("refs")).unwrap().len(), 1);
        assert_eq!(fs::read_to_string(repo.snapshot("d").join("x")).unwrap(), "bytes");
    }

    #[test]
    fn a_lock_is_waited_for_and_seen() {
        let (_scratch, repo) = repo("lock");
        repo.check_idle().unwrap();
        let held = repo.lock("h", || panic!("nobody holds it")).unwrap();
        assert!(matches!(repo.check_idle(), Err(Error::Busy { .. })));
        let other = repo.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || other.lock("h", || tell.send(()).unwrap()).map(drop));
        told.recv().unwrap();
        drop(held);
        waiter.join().unwrap().unwrap();
        repo.check_idle().unwrap();
    }
}
