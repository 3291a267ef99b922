//! GGUF checkpoints in several files, as `gguf-split` of llama.cpp makes them.
//!
//! The parts are named `NAME-00001-of-00003.gguf` and so on. The first holds the metadata; each says its
//! number, the number of parts, and how many tensors there are in all. Any part stands for the whole.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use carat_tensor::Bytes;

use super::metadata::Metadata;
use super::read;
use crate::{GgufFile, MappedFile, TensorInfo, Weights, WeightsError};

/// Most parts; the format's numbers have five digits.
pub const MAX_PARTS: u32 = 99_999;

/// Reads the checkpoint whose part at `path` has been read already and says that there are `count` parts.
///
/// # Errors
/// If a part is missing, broken or of another split, or the parts' tensors aren't as many as they say.
pub(super) fn open(path: &Path, metadata: &Metadata, count: u32) -> Result<GgufFile, WeightsError> {
    let file = path.display().to_string();
    let index = metadata.u32("split.no")?;
    let Some(stem) = stem(path, index, count) else {
        return Err(WeightsError::Malformed {
            file,
            what: "the file name".into(),
            found: path.file_name().unwrap_or_default().display().to_string(),
            expected: format!("`…{}`, by which the other parts can be found", suffix(index, count)),
        });
    };
    let mut joining = Joining::new(metadata, count)?;
    let mut files = Vec::new();
    for i in 0..count {
        let part = part_path(path, stem, i, count);
        let mapped = MappedFile::open(&part).map_err(|error| match error {
            WeightsError::Io { source, .. } if source.kind() == ErrorKind::NotFound => WeightsError::NotACheckpoint {
                file: path.display().to_string(),
                found: format!("no part {} of {count} beside it, `{}`", i + 1, part.display()),
                expected: "all parts in one directory, under the names they were published with".into(),
            },
            other => other,
        })?;
        joining.add(&part.display().to_string(), &mapped.bytes())?;
        files.push(mapped);
    }
    let GgufFile { metadata, tensors } = joining.finish()?;
    Ok(GgufFile { metadata, tensors: tensors.in_files(files) })
}

/// Reads the parts of a checkpoint that are in memory, in order. `file` is the name of the whole for messages.
///
/// # Errors
/// As for parts on disk.
pub fn from_bytes(file: &str, parts: &[Bytes]) -> Result<GgufFile, WeightsError> {
    let Some(first) = parts.first() else {
        return Err(WeightsError::NotACheckpoint {
            file: file.into(),
            found: "no parts".into(),
            expected: "one at least".into(),
        });
    };
    let name = |i: usize| format!("{file}, part {}", i + 1);
    let (metadata, _) = read(&name(0), first)?;
    let mut joining = Joining::new(&metadata, u32::try_from(parts.len()).unwrap_or(u32::MAX))?;
    for (i, part) in parts.iter().enumerate() {
        joining.add(&name(i), part)?;
    }
    joining.finish()
}

/// Parts being put together, in order.
struct Joining {
    /// The part that says what the others must say.
    file: String,
    count: u32,
    total: u32,
    next: u32,
    whole: Option<Metadata>,
    tensors: Vec<TensorInfo>,
}

impl Joining {
    fn new(metadata: &Metadata, count: u32) -> Result<Self, WeightsError> {
        let total = metadata.u32("split.tensors.count")?;
        Ok(Joining { file: metadata.file().into(), count, total, next: 0, whole: None, tensors: Vec::new() })
    }

    fn add(&mut self, part_file: &str, bytes: &Bytes) -> Result<(), WeightsError> {
        let (metadata, tensors) = read(part_file, bytes)?;
        for (key, expected) in
            [("split.no", self.next), ("split.count", self.count), ("split.tensors.count", self.total)]
        {
            let found = metadata.u32(key)?;
            if found != expected {
                return Err(WeightsError::WrongValue {
                    file: part_file.into(),
                    key: key.into(),
                    found: found.to_string(),
                    expected: format!("{expected}, to go with `{}`", self.file),
                });
            }
        }
        self.next += 1;
        self.tensors.extend(tensors);
        self.whole.get_or_insert(metadata);
        Ok(())
    }

    fn finish(self) -> Result<GgufFile, WeightsError> {
        let Joining { file, count, total, tensors, .. } = self;
        if tensors.len() as u64 != u64::from(total) {
            return Err(WeightsError::Malformed {
                file,
                what: format!("the tensors of all {count} parts"),
                found: tensors.len().to_string(),
                expected: format!("{total}, as split.tensors.count says"),
            });
        }
        let metadata = self.whole.expect("a split has a first part, whose metadata is that of the whole");
        let source = metadata.file().to_owned();
        Ok(GgufFile { metadata, tensors: Weights::new(source, tensors)? })
    }
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
