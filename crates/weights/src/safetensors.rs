//! The safetensors format: one file, or shards under an index.
//!
//! A file is a little-endian `u64` header length, a JSON object from names to `dtype`, `shape` and
//! `data_offsets`, and the data. As in the reference implementation the data section must be covered exactly:
//! no hole, no overlap, nothing left over. Header keys that occur twice are refused.
//!
//! Source: <https://github.com/huggingface/safetensors> (README, "Format").

mod shards;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;

use carat_tensor::{Bytes, DType};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::foreign;
use crate::tensors::{Span, are_countable, refuse_overlaps};
use crate::{MappedFile, StoredType, TensorInfo, Weights, WeightsError};

pub use shards::{open_sharded, read_index};

/// Longest JSON header, the reference implementation's limit.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// Element types of the format with whole bytes per value: name, bytes, what we make of it.
const DTYPES: &[(&str, u64, StoredType)] = &[
    ("F32", 4, StoredType::Known(DType::F32)),
    ("F16", 2, StoredType::Known(DType::F16)),
    ("BF16", 2, StoredType::Known(DType::BF16)),
    ("F64", 8, StoredType::Other("F64")),
    ("F8_E4M3", 1, StoredType::Other("F8_E4M3")),
    ("F8_E5M2", 1, StoredType::Other("F8_E5M2")),
    ("F8_E8M0", 1, StoredType::Other("F8_E8M0")),
    ("I64", 8, StoredType::Other("I64")),
    ("I32", 4, StoredType::Other("I32")),
    ("I16", 2, StoredType::Other("I16")),
    ("I8", 1, StoredType::Other("I8")),
    ("U64", 8, StoredType::Other("U64")),
    ("U32", 4, StoredType::Other("U32")),
    ("U16", 2, StoredType::Other("U16")),
    ("U8", 1, StoredType::Other("U8")),
    ("BOOL", 1, StoredType::Other("BOOL")),
];

/// One tensor's entry in the header.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's tensors in its order, proven free of repeated keys.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tensor names to their entries")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut seen = BTreeSet::new();
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("key `{key}` occurs twice")));
                    }
                    if key == "__metadata__" {
                        map.next_value::<HashMap<String, String>>()?;
                    } else {
                        entries.push((key, map.next_value::<Entry>()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The tensors of one safetensors file. `file` is its name for messages.
///
/// # Errors
/// For anything that breaks the format; see the module's description.
pub fn read(file: &str, bytes: &Bytes) -> Result<Vec<TensorInfo>, WeightsError> {
    let truncated = |what: &str, expected: u64| WeightsError::Truncated {
        file: file.into(),
        what: what.into(),
        found: bytes.len() as u64,
        expected,
    };
    if let Some(found) = foreign::known(&bytes[..bytes.len().min(foreign::START)]) {
        let expected = "a safetensors file".into();
        return Err(WeightsError::NotACheckpoint { file: file.into(), found: found.into(), expected });
    }
    let Some(prefix) = bytes.first_chunk::<8>() else {
        return Err(truncated("the header length", 8));
    };
    let header_len = u64::from_le_bytes(*prefix);
    if header_len > MAX_HEADER_BYTES {
        return Err(WeightsError::Limit {
            file: file.into(),
            what: "bytes of safetensors header".into(),
            found: header_len,
            limit: MAX_HEADER_BYTES,
        });
    }
    // At most 100 MB: fits every `usize` we run on.
    let data_start = 8 + header_len as usize;
    let Some(header) = bytes.get(8..data_start) else {
        return Err(truncated("the header", data_start as u64));
    };
    let Header(entries) = serde_json::from_slice(header).map_err(|e| WeightsError::Json {
        file: file.into(),
        what: "the safetensors header",
        reason: e.to_string(),
    })?;

    let data = bytes.slice(data_start..bytes.len());
    let mut spans = Vec::with_capacity(entries.len());
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (start, end) = entry.data_offsets;
        tensors.push(tensor(file, &name, entry, &data)?);
        spans.push(Span { name, start, end });
    }
    refuse_overlaps(file, &mut spans)?;
    refuse_holes(file, &spans, data.len() as u64)?;
    Ok(tensors)
}

/// Checks one entry against the data section and cuts its bytes out.
fn tensor(file: &str, name: &str, entry: Entry, data: &Bytes) -> Result<TensorInfo, WeightsError> {
    let bad = |found: String, expected: String| WeightsError::BadTensor {
        file: file.into(),
        name: name.into(),
        found,
        expected,
    };
    let Some(&(_, size, dtype)) = DTYPES.iter().find(|(known, ..)| *known == entry.dtype) else {
        let known: Vec<_> = DTYPES.iter().map(|d| d.0).collect();
        return Err(bad(format!("dtype `{}`", entry.dtype), format!("one of {}", known.join(", "))));
    };
    if entry.shape.len() > MAX_DIMS {
        return Err(bad(format!("{} dimensions", entry.shape.len()), format!("at most {MAX_DIMS}")));
    }
    let bytes = entry.shape.iter().try_fold(size, |n, &d| n.checked_mul(d)).filter(|_| are_countable(&entry.shape));
    let (start, end) = entry.data_offsets;
    if bytes.is_none() || end.checked_sub(start) != bytes {
        let needed = bytes.map_or("more bytes than can be counted".into(), |n| format!("{n} bytes"));
        return Err(bad(
            format!("data_offsets {start}..{end}"),
            format!("{needed} for {} {:?}", entry.dtype, entry.shape),
        ));
    }
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let Some((start, end)) = range.filter(|&(_, end)| end <= data.len()) else {
        return Err(bad(
            format!("data_offsets {start}..{end}"),
            format!("offsets within the {} bytes of data in the file", data.len()),
        ));
    };
    let shape = entry.shape.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
    let Ok(shape) = shape else {
        return Err(bad(format!("shape {:?}", entry.shape), "dimensions that fit memory".into()));
    };
    Ok(TensorInfo { name: name.into(), dtype, shape, data: data.slice(start..end) })
}

/// Refuses bytes of the data section that belong to no tensor. `spans` are sorted and don't overlap.
fn refuse_holes(file: &str, spans: &[Span], data_len: u64) -> Result<(), WeightsError> {
    let mut covered = 0;
    for span in spans.iter().filter(|s| s.start < s.end) {
        if span.start != covered {
            return Err(WeightsError::BadTensor {
                file: file.into(),
                name: span.name.clone(),
                found: format!("data from byte {}", span.start),
                expected: format!("data from byte {covered}, where the tensor before it ends"),
            });
        }
        covered = span.end;
    }
    if covered != data_len {
        return Err(WeightsError::Malformed {
            file: file.into(),
            what: "data section".into(),
            found: format!("{data_len} bytes"),
            expected: format!("the {covered} bytes that the tensors take"),
        });
    }
    Ok(())
}

/// The tensors of the safetensors file at `path`.
pub fn open_file(path: &Path) -> Result<Weights, WeightsError> {
    let file = path.display().to_string();
    let mapped = MappedFile::open(path)?;
    let tensors = read(&file, &mapped.bytes())?;
    Ok(Weights::new(file, tensors)?.in_files(vec![mapped]))
}
