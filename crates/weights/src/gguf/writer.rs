//! Writes GGUF version 3.
//!
//! Metadata and tensors are collected in order and laid out at the end. This is for converted checkpoints
//! and for tests; it checks what a caller can get wrong and leaves the rest to the reader.

use std::io::{self, Write};

use carat_tensor::DType;

use super::array::ValueType;
use super::{DEFAULT_ALIGNMENT, MAGIC};

/// A GGUF file being put together.
#[derive(Default)]
pub struct GgufWriter {
    n_metadata: u64,
    metadata: Vec<u8>,
    tensors: Vec<Pending>,
}

struct Pending {
    name: String,
    type_id: u32,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    fn entry(&mut self, key: &str, ty: ValueType) {
        self.n_metadata += 1;
        put_str(&mut self.metadata, key.as_bytes());
        self.metadata.extend((ty as u32).to_le_bytes());
    }

    fn array_entry(&mut self, key: &str, element: ValueType, len: usize) {
        self.entry(key, ValueType::Array);
        self.metadata.extend((element as u32).to_le_bytes());
        self.metadata.extend((len as u64).to_le_bytes());
    }

    /// Adds a string.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.entry(key, ValueType::Str);
        put_str(&mut self.metadata, value.as_bytes());
        self
    }

    /// Adds an integer.
    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.entry(key, ValueType::U32);
        self.metadata.extend(value.to_le_bytes());
        self
    }

    /// Adds a float.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.entry(key, ValueType::F32);
        self.metadata.extend(value.to_le_bytes());
        self
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.entry(key, ValueType::Bool);
        self.metadata.push(value.into());
        self
    }

    /// Adds an array of strings; the format allows any bytes.
    pub fn strings<S: AsRef<[u8]>>(&mut self, key: &str, values: &[S]) -> &mut Self {
        self.array_entry(key, ValueType::Str, values.len());
        for value in values {
            put_str(&mut self.metadata, value.as_ref());
        }
        self
    }

    /// Adds an array of integers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        self.array_entry(key, ValueType::I32, values.len());
        self.metadata.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Adds an array of floats.
    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        self.array_entry(key, ValueType::F32, values.len());
        self.metadata.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Adds an array of truth values.
    pub fn bools(&mut self, key: &str, values: &[bool]) -> &mut Self {
        self.array_entry(key, ValueType::Bool, values.len());
        self.metadata.extend(values.iter().map(|&v| u8::from(v)));
        self
    }

    /// Adds a tensor; `shape` is outermost first.
    ///
    /// # Panics
    /// If `data` isn't as long as type and shape say, or the type is one that exists in memory only.
    pub fn tensor(&mut self, name: &str, dtype: DType, shape: &[usize], data: Vec<u8>) -> &mut Self {
        let cols = shape.last().copied().unwrap_or(1);
        let rows: usize = shape.iter().rev().skip(1).product();
        let expected = dtype.row_bytes(cols).map(|row| row * rows);
        assert_eq!(Some(data.len()), expected, "bytes of tensor `{name}`, {dtype} {shape:?}");
        let Some(type_id) = dtype.ggml_id() else { panic!("tensor `{name}`: {dtype} exists in memory only") };
        self.tensors.push(Pending { name: name.into(), type_id, shape: shape.into(), data });
        self
    }

    /// Writes the file.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut head = Vec::new();
        head.extend(MAGIC);
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend(self.n_metadata.to_le_bytes());
        head.extend(&self.metadata);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_str(&mut head, tensor.name.as_bytes());
            head.extend((tensor.shape.len() as u32).to_le_bytes());
            for &dim in tensor.shape.iter().rev() {
                head.extend((dim as u64).to_le_bytes());
            }
            head.extend(tensor.type_id.to_le_bytes());
            head.extend(offset.to_le_bytes());
            offset += (tensor.data.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        out.write_all(&head)?;
        pad(out, head.len())?;
        for tensor in &self.tensors {
            out.write_all(&tensor.data)?;
            pad(out, tensor.data.len())?;
        }
        Ok(())
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out).expect("writing to memory doesn't fail");
        out
    }
}

fn put_str(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// Zeros from `len` to the next aligned byte.
fn pad(out: &mut impl Write, len: usize) -> io::Result<()> {
    let alignment = DEFAULT_ALIGNMENT as usize;
    out.write_all(&vec![0; len.next_multiple_of(alignment) - len])
}
