//! The GGUF format, versions 2 and 3: metadata, tensor table, data.
//!
//! The file's dimensions run innermost first (`ne[0]` is the row length); shapes here run outermost first, as
//! everywhere else. Tensor offsets count from the first aligned byte after the table. A vocabulary-only file
//! has no tensors and may end without a data section.
//!
//! Source: ggml `docs/gguf.md` and `src/gguf.cpp`.

pub mod array;
pub mod metadata;
mod reader;
pub mod split;
pub mod writer;

use std::path::Path;

use carat_tensor::{Bytes, DType};

use crate::tensors::{Span, are_countable, refuse_overlaps};
use crate::{MappedFile, StoredType, TensorInfo, Weights, WeightsError};
use metadata::Metadata;
use reader::Reader;

/// First four bytes of every file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data where `general.alignment` doesn't say.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment accepted.
pub const MAX_ALIGNMENT: u64 = 1 << 16;
/// Most metadata entries.
pub const MAX_METADATA: u64 = 1 << 16;
/// Most tensors.
pub const MAX_TENSORS: u64 = 1 << 20;
/// Longest tensor name; ggml itself stops at 64.
pub const MAX_TENSOR_NAME_BYTES: u64 = 1024;
/// Most dimensions, as ggml.
pub const MAX_DIMS: u32 = 4;

/// Types that files may hold and tensors here can't have: id, name, values and bytes per block.
const OTHER_TYPES: &[(u32, &str, u64, u64)] = &[
    (9, "Q8_1", 32, 40),
    (15, "Q8_K", 256, 292),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
];

/// A GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its tensors.
    pub tensors: Weights,
}

impl GgufFile {
    /// Maps and reads the file at `path`; for one part of a split checkpoint, all of its parts.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = path.display().to_string();
        let mapped = MappedFile::open(path)?;
        let (metadata, tensors) = read(&file, &mapped.bytes())?;
        match metadata.opt_u32("split.count")?.unwrap_or(1) {
            0 | 1 => Ok(GgufFile { metadata, tensors: Weights::new(file, tensors)?.in_files(vec![mapped]) }),
            count if count <= split::MAX_PARTS => split::open(path, &metadata, count),
            count => Err(WeightsError::Limit {
                file,
                what: "parts of a split checkpoint".into(),
                found: count.into(),
                limit: split::MAX_PARTS.into(),
            }),
        }
    }

    /// Reads a file that is in memory. `file` is its name for messages.
    ///
    /// # Errors
    /// If the file is of another version, truncated or malformed, or a tensor's entry isn't sound.
    pub fn from_bytes(file: &str, bytes: Bytes) -> Result<Self, WeightsError> {
        let (metadata, tensors) = read(file, &bytes)?;
        Ok(GgufFile { metadata, tensors: Weights::new(file.into(), tensors)? })
    }
}

/// Reads one file: its metadata, and its tensors in the table's order.
fn read(file: &str, bytes: &Bytes) -> Result<(Metadata, Vec<TensorInfo>), WeightsError> {
    let mut r = Reader { file, bytes, pos: 0 };
    read_version(&mut r)?;
    let n_tensors = count(&mut r, "tensors", MAX_TENSORS)?;
    let n_metadata = count(&mut r, "metadata entries", MAX_METADATA)?;
    let metadata = Metadata::read(&mut r, bytes, n_metadata)?;
    let alignment = alignment(&metadata)?;
    let table: Vec<Entry> = (0..n_tensors).map(|index| Entry::read(&mut r, index)).collect::<Result<_, _>>()?;

    let data_start = (r.pos as u64).next_multiple_of(alignment);
    let mut spans = Vec::with_capacity(table.len());
    let mut tensors = Vec::with_capacity(table.len());
    for entry in table {
        let (tensor, span) = entry.resolve(file, bytes, data_start, alignment)?;
        tensors.push(tensor);
        spans.push(span);
    }
    refuse_overlaps(file, &mut spans)?;
    Ok((metadata, tensors))
}

/// Checks magic and version.
fn read_version(r: &mut Reader<'_>) -> Result<(), WeightsError> {
    let malformed = |what: &str, found: String, expected: &str| WeightsError::Malformed {
        file: r.file.into(),
        what: what.into(),
        found,
        expected: expected.into(),
    };
    let expected = "GGUF version 2 or 3, little-endian";
    if r.bytes.len() >= 4 && !r.bytes.starts_with(&MAGIC) {
        let found = format!("`{}`", r.bytes[..4].escape_ascii());
        return Err(malformed("the first four bytes", found, "`GGUF`"));
    }
    let version = match r.bytes.get(4..8) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => return r.take(8, &|| "the magic and version".into()).map(drop),
    };
    if !(2..=3).contains(&version) {
        let big_endian = (2..=3).contains(&version.swap_bytes());
        let found = if big_endian { "a big-endian file".into() } else { version.to_string() };
        return Err(malformed("the version", found, expected));
    }
    r.pos = 8;
    Ok(())
}

/// Reads a number of things in the file's head.
fn count(r: &mut Reader<'_>, what: &str, limit: u64) -> Result<u64, WeightsError> {
    let found = r.u64(&|| format!("the number of {what}"))?;
    if found > limit {
        return Err(WeightsError::Limit { file: r.file.into(), what: what.into(), found, limit });
    }
    Ok(found)
}

/// `general.alignment`: a power of two.
fn alignment(metadata: &Metadata) -> Result<u64, WeightsError> {
    let key = "general.alignment";
    let Some(alignment) = metadata.opt_u32(key)?.map(u64::from) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(WeightsError::WrongValue {
            file: metadata.file().into(),
            key: key.into(),
            found: alignment.to_string(),
            expected: format!("a power of two up to {MAX_ALIGNMENT}"),
        });
    }
    Ok(alignment)
}

/// One line of the tensor table.
struct Entry {
    name: String,
    /// Innermost first.
    ne: Vec<u64>,
    type_id: u32,
    offset: u64,
}

impl Entry {
    fn read(r: &mut Reader<'_>, index: u64) -> Result<Self, WeightsError> {
        let name = r.string(MAX_TENSOR_NAME_BYTES, &|| format!("the name of tensor {index}"))?.to_owned();
        let what = || format!("the entry of tensor `{name}`");
        let n_dims = r.u32(&what)?;
        if n_dims > MAX_DIMS {
            return Err(WeightsError::Limit {
                file: r.file.into(),
                what: format!("dimensions of tensor `{name}`"),
                found: n_dims.into(),
                limit: MAX_DIMS.into(),
            });
        }
        let ne = (0..n_dims).map(|_| r.u64(&what)).collect::<Result<_, _>>()?;
        let type_id = r.u32(&what)?;
        let offset = r.u64(&what)?;
        Ok(Entry { name, ne, type_id, offset })
    }

    /// Checks the entry against the file and cuts the tensor's bytes out.
    fn resolve(
        self,
        file: &str,
        bytes: &Bytes,
        data_start: u64,
        alignment: u64,
    ) -> Result<(TensorInfo, Span), WeightsError> {
        let bad = |found: String, expected: String| WeightsError::BadTensor {
            file: file.into(),
            name: self.name.clone(),
            found,
            expected,
        };
        let Some((dtype, block_len, block_bytes)) = stored_type(self.type_id) else {
            return Err(bad(format!("type id {}", self.type_id), "a type that ggml defines".into()));
        };
        let row = self.ne.first().copied().unwrap_or(1);
        if !row.is_multiple_of(block_len) {
            return Err(bad(
                format!("rows of {row} values"),
                format!("a multiple of {block_len}, the block of {dtype}"),
            ));
        }
        let rows = self.ne.iter().skip(1).try_fold(1u64, |n, &d| n.checked_mul(d));
        let len = rows.and_then(|rows| (row / block_len).checked_mul(rows)?.checked_mul(block_bytes));
        let shape = self.ne.iter().rev().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let (Some(len), Ok(shape), true) = (len, shape, are_countable(&self.ne)) else {
            return Err(bad(format!("dimensions {:?}", self.ne), "a size that can be counted".into()));
        };
        if !self.offset.is_multiple_of(alignment) {
            return Err(bad(format!("offset {}", self.offset), format!("a multiple of {alignment}")));
        }
        let start = data_start.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(len));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(bad(format!("offset {}", self.offset), "an offset within the file".into()));
        };
        if end > bytes.len() as u64 {
            return Err(bad(
                format!("{len} bytes of data at byte {start}, in a file of {}", bytes.len()),
                format!("a file of at least {end} bytes: this one was cut short, get it again"),
            ));
        }
        // Both are at most the file's length here, which is a `usize`.
        let data = bytes.slice(start as usize..end as usize);
        let span = Span { name: self.name.clone(), start, end };
        Ok((TensorInfo { name: self.name, dtype, shape, data }, span))
    }
}

/// Type, values and bytes per block for a type id.
fn stored_type(id: u32) -> Option<(StoredType, u64, u64)> {
    if let Some(dtype) = DType::from_ggml(id) {
        return Some((StoredType::Known(dtype), dtype.block_len() as u64, dtype.block_bytes() as u64));
    }
    let other = OTHER_TYPES.iter().find(|other| other.0 == id);
    other.map(|&(_, name, len, bytes)| (StoredType::Other(name), len, bytes))
}
