//! Outputs that are there whole or not at all: written beside their place under another name, then renamed.
//!
//! What is written is locked until then. A killed process leaves its part behind without a lock, which is how the next one
//! for the same output knows it, and takes it away.

use std::cell::RefCell;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::args::{Interrupted, UsageError};
use crate::interrupt;

/// An output being written. Dropped before [`Pending::commit`], it leaves nothing behind.
pub struct Pending {
    part: PathBuf,
    target: PathBuf,
    /// Says that somebody writes it.
    lock: RefCell<Option<File>>,
    committed: bool,
}

impl Pending {
    /// Prepares for a file or directory at `target`, made from what lies at `input`.
    ///
    /// # Errors
    /// If `target` is there and `force` isn't given, or is a part of the input.
    pub fn new(target: &Path, input: &Path, force: bool) -> anyhow::Result<Self> {
        let Some(name) = target.file_name() else {
            bail!(UsageError(format!("`{}` is no name for an output", target.display())));
        };
        refuse_input(target, input)?;
        if target.exists() && !force {
            bail!("`{}` is there already; --force replaces it", target.display());
        }
        remove_leftovers(target, PART);
        let part = target.with_file_name(format!(".{}.{}{PART}", name.display(), std::process::id()));
        Ok(Pending { part, target: target.into(), lock: RefCell::default(), committed: false })
    }

    /// A file to write to.
    pub fn create_file(&self) -> anyhow::Result<BufWriter<File>> {
        let file =
            File::create(&self.part).with_context(|| format!("cannot write beside `{}`", self.target.display()))?;
        self.lock()?;
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    /// A directory to write in.
    pub fn create_dir(&self) -> anyhow::Result<&Path> {
        fs::create_dir(&self.part).with_context(|| format!("cannot write beside `{}`", self.target.display()))?;
        self.lock()?;
        Ok(&self.part)
    }

    /// Locks the part, where its file system can.
    fn lock(&self) -> anyhow::Result<()> {
        let Ok(file) = File::open(&self.part) else { return Ok(()) };
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("`{}` is being written by another process", self.target.display());
        }
        *self.lock.borrow_mut() = Some(file);
        Ok(())
    }

    /// Puts the whole output in its place.
    pub fn commit(mut self) -> anyhow::Result<()> {
        let what = || format!("cannot put `{}` in its place", self.target.display());
        if self.part.is_file() {
            File::open(&self.part).and_then(|file| file.sync_all()).with_context(what)?;
        }
        if self.target.is_dir() {
            // A directory can't be renamed over another: the old one goes aside first.
            let old = self.part.with_extension(&OLD[1..]);
            fs::rename(&self.target, &old).with_context(what)?;
            fs::rename(&self.part, &self.target).with_context(what)?;
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove `{}`", old.display()))?;
        } else {
            fs::rename(&self.part, &self.target).with_context(what)?;
        }
        self.committed = true;
        remove_leftovers(&self.target, OLD);
        Ok(())
    }
}

/// Ends of the names of an output being written, and of one that goes aside for another.
const PART: &str = ".part";
const OLD: &str = ".old";

/// Removes what killed processes left of the same output: `.NAME.PID.part` and `.NAME.PID.old` that nobody has locked. One
/// that can't be removed is in nobody's way.
fn remove_leftovers(target: &Path, end: &str) {
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Some(name), Ok(entries)) = (target.file_name().and_then(|name| name.to_str()), fs::read_dir(dir)) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let found = path.file_name().and_then(|found| found.to_str()).unwrap_or_default();
        let pid = found.strip_prefix(&format!(".{name}.")).and_then(|rest| rest.strip_suffix(end));
        if pid.is_some_and(|pid| !pid.is_empty() && pid.chars().all(|c| c.is_ascii_digit())) && !is_locked(&path) {
            remove(&path);
        }
    }
}

/// Whether somebody writes it, or that can't be told.
fn is_locked(path: &Path) -> bool {
    !File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Whatever makes us remove it is being told; that nothing is left behind is a courtesy.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            remove(&self.part);
        }
    }
}

/// Refuses outputs that would take the place of something that is read: the input itself, a file in its directory, or
/// another part of a checkpoint in several files.
fn refuse_input(target: &Path, input: &Path) -> anyhow::Result<()> {
    let (Ok(input), Ok(target)) = (fs::canonicalize(input), fs::canonicalize(target)) else { return Ok(()) };
    let inside = input.is_dir() && target.starts_with(&input);
    let beside =
        input.is_file() && target.parent() == input.parent() && stem(&input).is_some_and(|s| stem(&target) == Some(s));
    if input == target || inside || beside || input.starts_with(&target) {
        bail!(UsageError(format!(
            "the output `{}` is a part of the input `{}`: choose another place",
            target.display(),
            input.display()
        )));
    }
    Ok(())
}

/// What the names of all parts of a checkpoint in several files begin with.
fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.contains("-of-").then(|| name.split_once("-0").map_or(name, |(stem, _)| stem))
}

/// An error once Ctrl-C was pressed: what is written piece by piece asks for it before each.
pub fn go_on() -> io::Result<()> {
    if interrupt::asked() { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(()) }
}

/// Says what an error while writing means for an output of `bytes`.
pub fn explain(error: io::Error, target: &Path, bytes: u64) -> anyhow::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return Interrupted.into();
    }
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let what = if full {
        format!(
            "`{}` needs {} and the disk is full; nothing was left there",
            target.display(),
            crate::output::bytes(bytes)
        )
    } else {
        format!("cannot write `{}`", target.display())
    };
    anyhow::Error::from(error).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_what_is_needed() {
        let error = explain(io::ErrorKind::StorageFull.into(), Path::new("out.gguf"), 3 << 30);
        assert!(error.to_string().contains("`out.gguf` needs 3.00 GiB and the disk is full"), "{error}");
        assert!(explain(io::ErrorKind::Interrupted.into(), Path::new("x"), 1).is::<Interrupted>());
    }

    #[test]
    fn leftovers_go_and_what_is_being_written_stays() {
        let dir = std::env::temp_dir().join(format!("carat-leftovers-{}", std::process::id()));
        fs::create_dir_all(dir.join(".out.gguf.11.part")).unwrap();
        for name in [".out.gguf.12.part", ".out.gguf.13.part", ".out.gguf.x.part", ".other.gguf.14.part", "in.gguf"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let writing = File::open(dir.join(".out.gguf.13.part")).unwrap();
        writing.try_lock().unwrap();
        drop(Pending::new(&dir.join("out.gguf"), &dir.join("in.gguf"), false).unwrap());
        let entries = fs::read_dir(&dir).unwrap();
        let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, [".other.gguf.14.part", ".out.gguf.13.part", ".out.gguf.x.part", "in.gguf"]);
    }

    #[test]
    fn parts_of_a_checkpoint_share_a_stem() {
        let stem = |name| stem(Path::new(name)).map(str::to_owned);
        assert_eq!(stem("/a/model-00001-of-00003.gguf"), stem("/b/model-00002-of-00003.gguf"));
        assert_eq!(stem("/a/model.gguf"), None);
    }
}
