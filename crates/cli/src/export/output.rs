//! Outputs that are there whole or not at all: written beside their place under another name, then renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::args::{Interrupted, UsageError};
use crate::interrupt;

/// An output being written. Dropped before [`Pending::commit`], it leaves nothing behind.
pub struct Pending {
    part: PathBuf,
    target: PathBuf,
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
        let part = target.with_file_name(format!(".{}.{}.part", name.display(), std::process::id()));
        Ok(Pending { part, target: target.into(), committed: false })
    }

    /// A file to write to.
    pub fn create_file(&self) -> anyhow::Result<BufWriter<File>> {
        let file =
            File::create(&self.part).with_context(|| format!("cannot write beside `{}`", self.target.display()))?;
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    /// A directory to write in.
    pub fn create_dir(&self) -> anyhow::Result<&Path> {
        fs::create_dir(&self.part).with_context(|| format!("cannot write beside `{}`", self.target.display()))?;
        Ok(&self.part)
    }

    /// Puts the whole output in its place.
    pub fn commit(mut self) -> anyhow::Result<()> {
        let what = || format!("cannot put `{}` in its place", self.target.display());
        if self.part.is_file() {
            File::open(&self.part).and_then(|file| file.sync_all()).with_context(what)?;
        }
        if self.target.is_dir() {
            // A directory can't be renamed over another: the old one goes aside first.
            let old = self.part.with_extension("old");
            fs::rename(&self.target, &old).with_context(what)?;
            fs::rename(&self.part, &self.target).with_context(what)?;
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove `{}`", old.display()))?;
        } else {
            fs::rename(&self.part, &self.target).with_context(what)?;
        }
        self.committed = true;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            // Whatever made us stop is being told; that nothing is left behind is a courtesy.
            let _ = if self.part.is_dir() { fs::remove_dir_all(&self.part) } else { fs::remove_file(&self.part) };
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
    fn parts_of_a_checkpoint_share_a_stem() {
        let stem = |name| stem(Path::new(name)).map(str::to_owned);
        assert_eq!(stem("/a/model-00001-of-00003.gguf"), stem("/b/model-00002-of-00003.gguf"));
        assert_eq!(stem("/a/model.gguf"), None);
    }
}
