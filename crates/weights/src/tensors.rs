//! The named tensors of a checkpoint, and which of them have been used.
//!
//! Both file formats end here. A loader takes what it needs; what is left at the end in [`Weights::unused`]
//! was not understood, and strict loading makes that an error. Taking is by shared reference, so loading can
//! be spread over threads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carat_tensor::{Bytes, DType, Tensor};

use crate::{MappedFile, WeightsError};

/// Element type as stored: one we compute with, or one known by name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// A type tensors can have.
    Known(DType),
    /// A type of the file format that no tensor here can have, e.g. `I64`.
    Other(&'static str),
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredType::Known(dtype) => dtype.fmt(f),
            StoredType::Other(name) => f.write_str(name),
        }
    }
}

/// One tensor's entry: everything about it without taking it.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Element type as stored.
    pub dtype: StoredType,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    /// Its data; the length agrees with type and shape.
    pub data: Bytes,
}

/// Named tensors of a checkpoint and the record of which were used.
pub struct Weights {
    source: String,
    entries: Vec<(TensorInfo, AtomicBool)>,
    by_name: HashMap<String, usize>,
    /// The files that hold the data.
    files: Vec<Arc<MappedFile>>,
}

impl Weights {
    /// The tensors of `source`, a file or directory name for messages.
    ///
    /// # Errors
    /// If two tensors have one name.
    pub fn new(source: String, tensors: Vec<TensorInfo>) -> Result<Self, WeightsError> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            match by_name.entry(tensor.name.clone()) {
                Entry::Vacant(free) => free.insert(index),
                Entry::Occupied(_) => {
                    return Err(WeightsError::BadTensor {
                        file: source,
                        name: tensor.name.clone(),
                        found: "a second tensor of this name".into(),
                        expected: "unique names".into(),
                    });
                }
            };
        }
        let entries = tensors.into_iter().map(|t| (t, AtomicBool::new(false))).collect();
        Ok(Weights { source, entries, by_name, files: Vec::new() })
    }

    /// The same tensors, whose data lies in `files`.
    pub(crate) fn in_files(self, files: Vec<Arc<MappedFile>>) -> Self {
        Weights { files, ..self }
    }

    /// The mapped files that hold the data; none for data in memory.
    pub fn files(&self) -> &[Arc<MappedFile>] {
        &self.files
    }

    /// The tensor `name`, now used.
    ///
    /// # Errors
    /// If there is none, or its stored type is one that tensors can't have. A tensor may be taken twice.
    pub fn take(&self, name: &str) -> Result<Tensor, WeightsError> {
        self.take_optional(name)?
            .ok_or_else(|| WeightsError::MissingTensor { file: self.source.clone(), name: name.into() })
    }

    /// As [`Weights::take`] for a tensor that a checkpoint may lack.
    pub fn take_optional(&self, name: &str) -> Result<Option<Tensor>, WeightsError> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        let (info, used) = &self.entries[index];
        let StoredType::Known(dtype) = info.dtype else {
            let known: Vec<_> = DType::ALL.iter().filter(|t| t.ggml_id().is_some()).map(|t| t.name()).collect();
            return Err(WeightsError::BadTensor {
                file: self.source.clone(),
                name: name.into(),
                found: format!("element type {}", info.dtype),
                expected: format!("one of {}", known.join(", ")),
            });
        };
        used.store(true, Ordering::Relaxed);
        Ok(Some(Tensor { name: info.name.clone(), dtype, shape: info.shape.clone(), data: info.data.clone() }))
    }

    /// The entry of tensor `name`, without using it.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.entries[index].0)
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Marks `name` as knowingly not needed; says whether it exists.
    pub fn ignore(&self, name: &str) -> bool {
        let index = self.by_name.get(name);
        if let Some(&index) = index {
            self.entries[index].1.store(true, Ordering::Relaxed);
        }
        index.is_some()
    }

    /// All entries, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.entries.iter().map(|(info, _)| info)
    }

    /// All names, in the file's order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.iter().map(|info| info.name.as_str())
    }

    /// Names that were neither taken nor ignored, in the file's order.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.entries.iter().filter(|(_, used)| !used.load(Ordering::Relaxed));
        unused.map(|(info, _)| info.name.clone()).collect()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor, as in a vocabulary-only file.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file or directory they come from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({}, {} tensors)", self.source, self.len())
    }
}

/// A tensor's place in its file while it is being checked: byte range within the data section.
pub(crate) struct Span {
    pub name: String,
    pub start: u64,
    pub end: u64,
}

/// Sorts `spans` by place and refuses overlaps. Empty tensors overlap nothing.
pub(crate) fn refuse_overlaps(file: &str, spans: &mut [Span]) -> Result<(), WeightsError> {
    spans.sort_by_key(|s| (s.start, s.end));
    let mut last: Option<&Span> = None;
    for span in spans.iter().filter(|s| s.start < s.end) {
        if let Some(last) = last
            && span.start < last.end
        {
            return Err(WeightsError::BadTensor {
                file: file.into(),
                name: span.name.clone(),
                found: format!(
                    "data at bytes {}..{}, which overlaps `{}` at {}..{}",
                    span.start, span.end, last.name, last.start, last.end
                ),
                expected: "data of its own".into(),
            });
        }
        last = Some(span);
    }
    Ok(())
}

/// Whether the product of any of these sizes can be counted: a size of nothing must not hide what the others come to.
pub(crate) fn are_countable(sizes: &[u64]) -> bool {
    let product = sizes.iter().try_fold(1u64, |n, &size| n.checked_mul(size.max(1)));
    product.is_some_and(|n| usize::try_from(n).is_ok())
}
