//! Read-only tensors: shared bytes with a name, an element type and a shape.
//!
//! Weights are used where the file is mapped, so a tensor holds a counted reference to its owner (a
//! mapping, an array in the binary) and a range of it; cloning never copies data.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::DType;

/// Shared read-only bytes: an owner and a range of it.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// `range` of `owner`'s bytes. The caller has checked the range.
    ///
    /// # Panics
    /// If the range is not within the owner's bytes.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Self {
        let len = (*owner).as_ref().len();
        assert!(range.start <= range.end && range.end <= len, "range {range:?} of {len} bytes");
        Bytes { owner, range }
    }

    /// All of `bytes`.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        let len = bytes.len();
        Bytes::new(Arc::new(bytes), 0..len)
    }

    /// All of `bytes`.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Bytes::new(Arc::new(bytes), 0..len)
    }

    /// A part of these bytes.
    ///
    /// # Panics
    /// If the range is not within them.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "range {range:?} of {} bytes", self.len());
        Bytes { owner: self.owner.clone(), range: self.range.start + range.start..self.range.start + range.end }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}

/// A named tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major, outermost first: a matrix is `[rows, cols]`.
    pub shape: Vec<usize>,
    /// Its data; the length agrees with type and shape.
    pub data: Bytes,
}

impl Tensor {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the innermost dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// All dimensions but the innermost, as one.
    pub fn rows(&self) -> usize {
        self.len().checked_div(self.cols()).unwrap_or(0)
    }
}
