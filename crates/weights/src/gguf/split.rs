//! GGUF checkpoints in several files, as `gguf-split` of llama.cpp makes them.
//!
//! The parts are named `NAME-00001-of-00003.gguf` and so on. The first holds the metadata; each says its
//! number, the number of parts, and how many tensors there are in all. Any part stands for the whole.

use std::path::{Path, PathBuf};

use super::metadata::Metadata;
use super::read;
use crate::{GgufFile, Weights, WeightsError, map_file};

/// Most parts; the format's numbers have five digits.
pub const MAX_PARTS: u32 = 99_999;

/// Reads the checkpoint whose part at `path` has been read already and says that there are `count` parts.
///
/// # Errors
/// If a part is missing, broken or of another split, or the parts' tensors aren't as many as they say.
pub(super) fn open(path: &Path, metadata: &Metadata, count: u32) -> Result<GgufFile, WeightsError> {
    let file = path.display().to_string();
    let index = metadata.u32("split.no")?;
    let total = metadata.u32("split.tensors.count")?;
    let Some(stem) = stem(path, index, count) else {
        return Err(WeightsError::Malformed {
            file,
            what: "the file name".into(),
            found: path.file_name().unwrap_or_default().display().to_string(),
            expected: format!("`…{}`, by which the other parts can be found", suffix(index, count)),
        });
    };
    let mut whole = None;
    let mut tensors = Vec::new();
    for i in 0..count {
        let part = part_path(path, stem, i, count);
        let part_file = part.display().to_string();
        let (metadata, its_tensors) = read(&part_file, &map_file(&part)?)?;
        for (key, expected) in [("split.no", i), ("split.count", count), ("split.tensors.count", total)] {
            let found = metadata.u32(key)?;
            if found != expected {
                return Err(WeightsError::WrongValue {
                    file: part_file,
                    key: key.into(),
                    found: found.to_string(),
                    expected: format!("{expected}, to go with `{file}`"),
                });
            }
        }
        tensors.extend(its_tensors);
        whole.get_or_insert(metadata);
    }
    let metadata = whole.unwrap_or_else(|| metadata.clone());
    if tensors.len() as u64 != u64::from(total) {
        return Err(WeightsError::Malformed {
            file,
            what: format!("the tensors of all {count} parts"),
            found: tensors.len().to_string(),
            expected: format!("{total}, as split.tensors.count says"),
        });
    }
    let source = metadata.file().to_owned();
    Ok(GgufFile { metadata, tensors: Weights::new(source, tensors)? })
}

/// The end of the name of part `index`, counted from 0.
fn suffix(index: u32, count: u32) -> String {
    format!("-{:05}-of-{count:05}.gguf", u64::from(index) + 1)
}

/// What the names of all parts begin with, if `path` is named as part `index`.
fn stem(path: &Path, index: u32, count: u32) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(suffix(index, count).as_str())
}

fn part_path(path: &Path, stem: &str, index: u32, count: u32) -> PathBuf {
    path.with_file_name(format!("{stem}{}", suffix(index, count)))
}
