//! The only file mapping, and the only unsafe code of the crate.
//!
//! Weights are used where the file is mapped: opening is instant and the page cache is shared between
//! processes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use carat_tensor::Bytes;
use memmap2::Mmap;

use crate::WeightsError;

/// The bytes of the regular file at `path`, mapped read-only.
///
/// The file must not be shortened while it is in use: reading a page that no longer exists ends the process.
pub fn map_file(path: &Path) -> Result<Bytes, WeightsError> {
    let io = |source| WeightsError::Io { file: path.display().to_string(), source };
    let file = File::open(path).map_err(io)?;
    let facts = file.metadata().map_err(io)?;
    if !facts.is_file() {
        return Err(WeightsError::NotACheckpoint {
            file: path.display().to_string(),
            found: "something that is not a regular file".into(),
            expected: "a regular file".into(),
        });
    }
    if facts.len() == 0 {
        return Ok(Bytes::from_vec(Vec::new()));
    }
    // SAFETY: the mapping is private and read-only, and `Bytes` hands out shared slices only. That nobody
    // changes the file meanwhile is the documented duty of the user, as with every mapped file.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let len = map.len();
    Ok(Bytes::new(Arc::new(map), 0..len))
}
