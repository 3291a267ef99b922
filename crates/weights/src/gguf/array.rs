//! Types of GGUF metadata values, and arrays of them that stay in the file.
//!
//! An array is checked to be whole once, when the file is opened; after that it is decoded as it is walked. A
//! vocabulary has a quarter of a million tokens and half a million merges, and none of them should cost an
//! allocation.

use carat_tensor::Bytes;

use super::reader::Reader;
use crate::WeightsError;

/// How deep arrays may nest.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// Type of a metadata value; the discriminants are the format's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// Every type, indexed by its id.
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::Str,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// Bytes of a value; `None` for strings and arrays, whose length is in the file.
    pub(super) const fn size(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::Str | ValueType::Array => None,
        }
    }

    /// The format's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::Str => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

/// An array, walked in place. The walk stays in bounds: lengths were checked when the file was opened.
#[derive(Clone, Debug)]
pub struct Array {
    element: ValueType,
    len: usize,
    data: Bytes,
}

impl Array {
    /// Type of its elements.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of its elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Its elements as they lie in the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of an array of strings, as the bytes in the file; nothing for other arrays.
    pub fn strings(&self) -> Strings<'_> {
        let left = if self.element == ValueType::Str { self.len } else { 0 };
        Strings { rest: &self.data, left }
    }

    /// The elements of an array of integers, or `None` for other arrays.
    pub fn ints(&self) -> Option<impl ExactSizeIterator<Item = i128> + '_> {
        let size = match self.element {
            ValueType::F32 | ValueType::F64 | ValueType::Bool => return None,
            other => other.size()? as usize,
        };
        Some(self.data.chunks_exact(size).map(|b| int(self.element, b)))
    }

    /// The elements of an array of floats, or `None` for other arrays.
    pub fn floats(&self) -> Option<impl ExactSizeIterator<Item = f64> + '_> {
        let size = match self.element {
            ValueType::F32 => 4,
            ValueType::F64 => 8,
            _ => return None,
        };
        Some(self.data.chunks_exact(size).map(|b| float(self.element, b)))
    }

    /// The elements of an array of truth values, or `None` for other arrays.
    pub fn bools(&self) -> Option<impl ExactSizeIterator<Item = bool> + '_> {
        (self.element == ValueType::Bool).then(|| self.data.iter().map(|&b| b != 0))
    }
}

/// The strings of an array, in order.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.rest.split_first_chunk::<8>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        self.rest = rest;
        Some(text)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// The integer of type `ty` in `bytes`, which are as many as the type has.
pub(super) fn int(ty: ValueType, bytes: &[u8]) -> i128 {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let value = i128::from_le_bytes(wide);
    let signed = matches!(ty, ValueType::I8 | ValueType::I16 | ValueType::I32 | ValueType::I64);
    let unused_bits = 128 - 8 * bytes.len() as u32;
    if signed { value << unused_bits >> unused_bits } else { value }
}

/// The float of type `ty` in `bytes`, which are as many as the type has.
pub(super) fn float(ty: ValueType, bytes: &[u8]) -> f64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    if ty == ValueType::F32 { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) }
}

/// Reads `key`'s array: checks that all of it is there and leaves it in the file.
pub(super) fn read(r: &mut Reader<'_>, bytes: &Bytes, key: &str) -> Result<Array, WeightsError> {
    let element = value_type(r, key)?;
    let len = array_len(r, key)?;
    let start = r.pos;
    skip_elements(r, key, element, len, 1)?;
    // Each element takes at least a byte of the file, so the count fits.
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    Ok(Array { element, len, data: bytes.slice(start..r.pos) })
}

fn array_len(r: &mut Reader<'_>, key: &str) -> Result<u64, WeightsError> {
    r.u64(&|| format!("the array length of metadata key `{key}`"))
}

/// Steps over `len` elements; arrays at `depth`.
fn skip_elements(
    r: &mut Reader<'_>,
    key: &str,
    element: ValueType,
    len: u64,
    depth: usize,
) -> Result<(), WeightsError> {
    let what = || format!("the array of {len} {} at metadata key `{key}`", element.name());
    if let Some(size) = element.size() {
        return r.take(len.saturating_mul(size), &what).map(drop);
    }
    for _ in 0..len {
        if element == ValueType::Str {
            let bytes = r.u64(&what)?;
            r.take(bytes, &what)?;
            continue;
        }
        if depth == MAX_ARRAY_DEPTH {
            return Err(WeightsError::Limit {
                file: r.file.into(),
                what: format!("levels of arrays at metadata key `{key}`"),
                found: depth as u64 + 1,
                limit: MAX_ARRAY_DEPTH as u64,
            });
        }
        let inner = value_type(r, key)?;
        let inner_len = array_len(r, key)?;
        skip_elements(r, key, inner, inner_len, depth + 1)?;
    }
    Ok(())
}

/// Reads the type of `key`'s value or elements.
pub(super) fn value_type(r: &mut Reader<'_>, key: &str) -> Result<ValueType, WeightsError> {
    let id = r.u32(&|| format!("the type of metadata key `{key}`"))?;
    ValueType::ALL.get(id as usize).copied().ok_or_else(|| WeightsError::WrongValue {
        file: r.file.into(),
        key: key.into(),
        found: format!("value type {id}"),
        expected: "a type from 0 to 12".into(),
    })
}
