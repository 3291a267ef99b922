//! The only file mapping, and with its signal handler the only unsafe code of the crate.
//!
//! Weights are used where the file is mapped: opening is instant and the page cache is shared between processes. What
//! a mapping shows follows the file, not its name. A file that is renamed, deleted or replaced by renaming another
//! over it stays whole as long as it is mapped; one that is written to or cut short does not. [`MappedFile::check`]
//! sees that before it is read, [`exit_on_lost_pages`] where it happens in the middle of reading.

mod lost;

use std::fs::{File, Metadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use carat_tensor::Bytes;
use memmap2::Mmap;

use crate::WeightsError;

pub use lost::exit_on_lost_pages;

/// A regular file, mapped read-only and kept open.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    modified: Option<SystemTime>,
    /// Dropped before the mapping it is about.
    _watched: Option<lost::Watched>,
    /// `None` for an empty file, which can't be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// If it isn't a regular file or can't be read.
    pub fn open(path: &Path) -> Result<Arc<Self>, WeightsError> {
        let io = |source| WeightsError::Io { file: path.display().to_string(), source };
        let (file, facts) = open_regular(path)?;
        let map = (facts.len() > 0).then(|| {
            // SAFETY: the mapping is private and read-only, and `Bytes` hands out shared slices only. That nobody
            // changes the file meanwhile is the documented duty of the user, as with every mapped file; `check` and
            // `exit_on_lost_pages` tell where it happens all the same.
            unsafe { Mmap::map(&file) }
        });
        let map = map.transpose().map_err(io)?;
        let watched = map.as_ref().map(|map| lost::Watched::new(path, map));
        Ok(Arc::new(MappedFile { path: path.into(), file, modified: facts.modified().ok(), _watched: watched, map }))
    }

    /// The path it was opened at. Another file may be there by now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All its bytes.
    pub fn bytes(self: &Arc<Self>) -> Bytes {
        let len = (**self).as_ref().len();
        Bytes::new(self.clone(), 0..len)
    }

    /// Bytes, and when it was last written to, where the system tells: what another file with other content hardly shares.
    pub fn stamp(&self) -> (usize, Option<SystemTime>) {
        ((*self).as_ref().len(), self.modified)
    }

    /// Whether the mapped file is as it was when it was opened.
    ///
    /// # Errors
    /// If it is shorter or longer, or has been written to.
    pub fn check(&self) -> Result<(), WeightsError> {
        let name = || self.path.display().to_string();
        let facts = self.file.metadata().map_err(|source| WeightsError::Io { file: name(), source })?;
        let changed = |found: String, expected: String| WeightsError::Changed { file: name(), found, expected };
        let (found, expected) = (facts.len(), self.as_ref().len() as u64);
        if found != expected {
            return Err(changed(format!("{found} bytes"), format!("the {expected} bytes it had when it was opened")));
        }
        if facts.modified().ok() != self.modified {
            return Err(changed("that it was written to".into(), "it as it was when it was opened".into()));
        }
        Ok(())
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

/// The bytes of the regular file at `path`, mapped read-only.
pub fn map_file(path: &Path) -> Result<Bytes, WeightsError> {
    Ok(MappedFile::open(path)?.bytes())
}

/// Says that `bytes` will not be read again soon. Where they are mapped from a file, the process gives back the pages that
/// are theirs alone; reading them all the same brings them back. Other bytes stay as they are.
pub fn release(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    if lost::holds(bytes) {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1);
        let start = (bytes.as_ptr() as usize).next_multiple_of(page);
        let end = (bytes.as_ptr() as usize + bytes.len()) / page * page;
        if start < end {
            // SAFETY: the pages lie in a read-only mapping of a file, which the reference to `bytes` keeps; of such a one
            // this changes nothing that can be read. Advice that fails is no loss.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Opens the file at `path`, which must be a regular one: a pipe or a device could be read without end.
pub(crate) fn open_regular(path: &Path) -> Result<(File, Metadata), WeightsError> {
    let io = |source| WeightsError::Io { file: path.display().to_string(), source };
    let refuse = |found: String| WeightsError::NotACheckpoint {
        file: path.display().to_string(),
        found,
        expected: "a regular file".into(),
    };
    let file = match not_waiting().open(path) {
        Ok(file) => file,
        Err(source) => {
            // The system's reason doesn't say that there is a link, nor where it leads.
            let target = std::fs::read_link(path).ok();
            return Err(target.map_or_else(
                || io(source),
                |target| refuse(format!("a link to `{}`, which can't be opened", target.display())),
            ));
        }
    };
    let facts = file.metadata().map_err(io)?;
    match facts.file_type() {
        kind if kind.is_file() => Ok((file, facts)),
        kind if kind.is_dir() => Err(refuse("a directory".into())),
        _ => Err(refuse("a pipe, socket or device".into())),
    }
}

/// Whether there is something at `path`, be it a link that leads nowhere: opening that tells what is wrong.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Opening a pipe for reading waits for a writer unless it is told not to.
fn not_waiting() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options
}
