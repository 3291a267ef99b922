//! Outputs that are there whole or not at all: written beside their place under another name, then renamed.
//!
//! What is written is locked until then. A killed process leaves its part behind without a lock, which is how the next one
//! for the same output knows it, and takes it away. A device or a pipe is written to as it is.

use std::cell::RefCell;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use carat_runtime::{ModelFiles, ModelSource};

use crate::args::{Interrupted, UsageError};
use crate::{interrupt, output};

/// What an output is to be.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// One file.
    File,
    /// A directory with a model's files.
    Directory,
}

/// An output being written. Dropped before [`Pending::commit`], it leaves nothing behind, unless it is one that is [`Pending::growing`].
pub struct Pending {
    part: PathBuf,
    target: PathBuf,
    /// Says that somebody writes it.
    lock: RefCell<Option<File>>,
    /// Whether the part is an output's own name already, or never was another.
    committed: bool,
}

impl Pending {
    /// Prepares for a file or directory at `target`, made of the model at `input`.
    ///
    /// # Errors
    /// If something else than `kind` is there, or the same and `force` isn't given, or if it is a part of the input.
    pub fn new(kind: Kind, target: &Path, input: &Path, force: bool) -> anyhow::Result<Self> {
        refuse_input(target, input)?;
        if is_there(kind, target)? && !force {
            bail!("`{}` is there already; --force replaces it", target.display());
        }
        Pending::at(target)
    }

    /// Prepares for a file at `target` that may replace another, but none of those that are read: a model's, and `inputs`.
    ///
    /// # Errors
    /// If it is, or if a directory is there.
    pub fn replacing<'a>(
        target: &Path,
        files: Option<&'a ModelFiles>,
        inputs: impl Iterator<Item = &'a PathBuf>,
    ) -> anyhow::Result<Self> {
        is_there(Kind::File, target)?;
        let mapped = files.into_iter().flat_map(|files| files.checkpoint().tensors().files());
        let encoders = files.and_then(ModelFiles::encoders);
        let read = mapped.map(|file| file.path()).chain(encoders).chain(inputs.map(PathBuf::as_path));
        let mut read = read.map(Path::to_owned).chain(files.map(texts).into_iter().flatten());
        if let Ok(found) = fs::canonicalize(target)
            && read.any(|input| fs::canonicalize(input).is_ok_and(|input| input == found))
        {
            bail!(UsageError(format!("the output `{}` is read here: choose another place", target.display())));
        }
        Pending::at(target)
    }

    fn at(target: &Path) -> anyhow::Result<Self> {
        let Some(name) = target.file_name() else {
            bail!(UsageError(format!("`{}` is no name for an output", target.display())));
        };
        let direct = target.exists() && !target.is_file() && !target.is_dir();
        let part = match direct {
            true => target.into(),
            false => target.with_file_name(format!(".{}.{}{PART}", name.display(), std::process::id())),
        };
        remove_leftovers(target, PART);
        Ok(Pending { part, target: target.into(), lock: RefCell::default(), committed: direct })
    }

    /// The same for a file that is of use before it is whole: where there is nothing yet it grows in its place, and what is written
    /// stays, whatever happens to the process.
    #[must_use]
    pub fn growing(mut self) -> Self {
        if !self.target.exists() {
            self.part.clone_from(&self.target);
        }
        self
    }

    /// What it will be called.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A file to write to.
    pub fn create_file(&self) -> anyhow::Result<BufWriter<File>> {
        let mut how = File::options();
        how.write(true).truncate(true);
        if self.grows_in_place() {
            how.create_new(true)
        } else {
            how.create(true)
        };
        let file = how.open(&self.part).with_context(|| format!("cannot write beside `{}`", self.target.display()))?;
        self.lock()?;
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    /// A directory to write in.
    pub fn create_dir(&self) -> anyhow::Result<&Path> {
        fs::create_dir(&self.part).with_context(|| format!("cannot write beside `{}`", self.target.display()))?;
        self.lock()?;
        Ok(&self.part)
    }

    fn grows_in_place(&self) -> bool {
        !self.committed && self.part == self.target
    }

    /// Locks the part, where its file system can.
    fn lock(&self) -> anyhow::Result<()> {
        if self.committed {
            return Ok(());
        }
        let Ok(file) = File::open(&self.part) else { return Ok(()) };
        lock(&file, format_args!("`{}`", self.target.display()))?;
        *self.lock.borrow_mut() = Some(file);
        Ok(())
    }

    /// Puts the whole output in its place.
    pub fn commit(mut self) -> anyhow::Result<()> {
        if self.committed {
            return Ok(());
        }
        let what = || format!("cannot put `{}` in its place", self.target.display());
        if self.part.is_file() {
            File::open(&self.part).and_then(|file| file.sync_all()).with_context(what)?;
        }
        if self.part.is_dir() && self.target.is_dir() {
            // A directory can't be renamed over another: the old one goes aside first.
            let old = self.part.with_extension(&OLD[1..]);
            fs::rename(&self.target, &old).with_context(what)?;
            if let Err(error) = fs::rename(&self.part, &self.target) {
                let back = fs::rename(&old, &self.target);
                let left =
                    back.map_or_else(|_| format!("; what was there is `{}` now", old.display()), |()| String::new());
                return Err(error).with_context(|| what() + &left);
            }
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove `{}`", old.display()))?;
        } else {
            fs::rename(&self.part, &self.target).with_context(what)?;
        }
        self.committed = true;
        remove_leftovers(&self.target, OLD);
        Ok(())
    }
}

/// Says that this process writes a file, where its file system can and as long as the file is open.
///
/// # Errors
/// If another one does.
pub fn lock(file: &File, name: impl std::fmt::Display) -> anyhow::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("{name} is being written by another process"),
        _ => Ok(()),
    }
}

/// Whether there is something at `target` that an output of `kind` may take the place of.
///
/// # Errors
/// If something is there that it may not.
fn is_there(kind: Kind, target: &Path) -> anyhow::Result<bool> {
    let refuse = |found: &str, expected: &str| {
        Err(UsageError(format!("`{}` is {found}; expected {expected}", target.display())).into())
    };
    match (kind, target.is_dir()) {
        (Kind::File, true) => refuse("a directory", "a name for a file"),
        (Kind::Directory, false) if target.exists() => refuse("no directory", "a name for one"),
        (Kind::Directory, true) => match foreign(target)? {
            Some(name) => {
                refuse(&format!("a directory with `{name}` in it"), "one with a model's files alone, or none")
            }
            None => Ok(true),
        },
        _ => Ok(target.is_file()),
    }
}

/// Ends of the names of what a directory with a model in it may hold.
const MODEL_FILES: [&str; 8] =
    [".json", ".safetensors", ".jinja", ".model", ".tiles", ".md", "LICENSE", ".gitattributes"];

/// What is read of a model beside its tensors, whether it is there or not.
fn texts(files: &ModelFiles) -> Vec<PathBuf> {
    const NAMES: [&str; 5] =
        ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    let ModelSource::Path(model) = files.source() else { return Vec::new() };
    let dir = if model.is_dir() { model } else { model.parent().unwrap_or(model) };
    NAMES.iter().map(|name| dir.join(name)).collect()
}

/// Something in a directory that belongs to no model.
fn foreign(dir: &Path) -> anyhow::Result<Option<String>> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry.with_context(|| dir.display().to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() || !MODEL_FILES.iter().any(|end| name.ends_with(end)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
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
        let stays = self.grows_in_place() && fs::metadata(&self.part).is_ok_and(|found| found.len() > 0);
        if !self.committed && !stays {
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
        format!("`{}` needs {} and the disk is full; nothing was left there", target.display(), output::bytes(bytes))
    } else {
        format!("cannot write `{}`", target.display())
    };
    anyhow::Error::from(error).context(what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
        drop(Pending::new(Kind::File, &dir.join("out.gguf"), &dir.join("in.gguf"), false).unwrap());
        let entries = fs::read_dir(&dir).unwrap();
        let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, [".other.gguf.14.part", ".out.gguf.13.part", ".out.gguf.x.part", "in.gguf"]);
    }

    #[test]
    fn only_what_is_of_the_same_kind_is_replaced() {
        let dir = std::env::temp_dir().join(format!("carat-kinds-{}", std::process::id()));
        fs::create_dir_all(dir.join("work/sub")).unwrap();
        fs::create_dir_all(dir.join("model")).unwrap();
        for name in ["in.gguf", "out.gguf", "work/notes.txt", "model/config.json", "model/model.safetensors"] {
            fs::write(dir.join(name), name).unwrap();
        }
        let input = dir.join("in.gguf");
        let made = |kind, name: &str| Pending::new(kind, &dir.join(name), &input, true).map(drop);
        for (kind, name, expected) in [
            (Kind::File, "work", "is a directory; expected a name for a file"),
            (Kind::Directory, "out.gguf", "is no directory"),
            (Kind::Directory, "work", "in it; expected one with a model's files alone"),
            (Kind::File, "in.gguf", "is a part of the input"),
        ] {
            let error = made(kind, name).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains(expected), "{name}: {error}");
        }
        let read = Pending::replacing(&dir.join("in.gguf"), None, [&input].into_iter());
        assert!(read.err().unwrap().to_string().contains("is read here"));
        assert!(made(Kind::File, "out.gguf").is_ok() && made(Kind::Directory, "new").is_ok());

        let pending = Pending::new(Kind::Directory, &dir.join("model"), &input, true).unwrap();
        fs::write(pending.create_dir().unwrap().join("config.json"), "new").unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read_to_string(dir.join("model/config.json")).unwrap(), "new");
        assert!(!dir.join("model/model.safetensors").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_grows_in_its_place_stays_and_takes_no_other_s() {
        let path = std::env::temp_dir().join(format!("carat-growing-{}", std::process::id()));
        let growing = || Pending::replacing(&path, None, std::iter::empty()).unwrap().growing();
        let unused = growing();
        drop(unused.create_file().unwrap());
        drop(unused);
        assert!(!path.exists(), "an empty one is of no use");
        let pending = growing();
        let late = growing();
        pending.create_file().unwrap().write_all(b"half").unwrap();
        assert!(late.create_file().is_err(), "another process was first");
        drop(late);
        drop(pending);
        assert_eq!(fs::read(&path).unwrap(), b"half");
        let pending = growing();
        pending.create_file().unwrap().write_all(b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"half");
        pending.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        fs::remove_file(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_stays() {
        let null = Path::new("/dev/null");
        let pending = Pending::replacing(null, None, std::iter::empty()).unwrap();
        pending.create_file().unwrap().write_all(b"text").unwrap();
        pending.commit().unwrap();
        drop(Pending::replacing(null, None, std::iter::empty()).unwrap());
        assert!(null.exists() && !null.is_file());
    }

    #[test]
    fn parts_of_a_checkpoint_share_a_stem() {
        let stem = |name| stem(Path::new(name)).map(str::to_owned);
        assert_eq!(stem("/a/model-00001-of-00003.gguf"), stem("/b/model-00002-of-00003.gguf"));
        assert_eq!(stem("/a/model.gguf"), None);
    }
}
