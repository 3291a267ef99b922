//! Writes GGUF version 3, the data as it comes.
//!
//! Metadata and the names, types and shapes of tensors are collected first ([`GgufWriter`]). Then the head is written
//! and the tensors' data follows in their order, in pieces of any size ([`GgufData`]): a checkpoint never is in memory
//! as a whole. This checks what a caller can get wrong and leaves the rest to the reader.

use std::collections::VecDeque;
use std::io::{self, Write};

use carat_tensor::DType;

use super::array::ValueType;
use super::metadata::Value;
use super::{DEFAULT_ALIGNMENT, MAGIC};

/// The head of a GGUF file being put together.
#[derive(Default)]
pub struct GgufWriter {
    n_metadata: u64,
    metadata: Vec<u8>,
    tensors: Vec<Declared>,
}

struct Declared {
    name: String,
    type_id: u32,
    shape: Vec<usize>,
    bytes: u64,
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

    /// Adds a value as another file has it.
    pub fn value(&mut self, key: &str, value: &Value) -> &mut Self {
        match value {
            Value::Str(text) => return self.str(key, text),
            Value::Bool(value) => return self.bool(key, *value),
            Value::Int(ty, value) => {
                self.entry(key, *ty);
                let size = ty.size().unwrap_or(0) as usize;
                self.metadata.extend(&value.to_le_bytes()[..size]);
            }
            Value::Float(ValueType::F64, value) => {
                self.entry(key, ValueType::F64);
                self.metadata.extend(value.to_le_bytes());
            }
            Value::Float(_, value) => return self.f32(key, *value as f32),
            Value::Array(array) => {
                self.array_entry(key, array.element(), array.len());
                self.metadata.extend(array.bytes());
            }
        }
        self
    }

    /// Adds a tensor, whose data will follow; `shape` is outermost first.
    ///
    /// # Panics
    /// If its rows can't be made of whole blocks, or its type is one that exists in memory only.
    pub fn tensor(&mut self, name: &str, dtype: DType, shape: &[usize]) -> &mut Self {
        let cols = shape.last().copied().unwrap_or(1);
        let rows: usize = shape.iter().rev().skip(1).product();
        let Some(row) = dtype.row_bytes(cols) else { panic!("tensor `{name}`: rows of {cols} values in {dtype}") };
        let Some(type_id) = dtype.ggml_id() else { panic!("tensor `{name}`: {dtype} exists in memory only") };
        self.tensors.push(Declared {
            name: name.into(),
            type_id,
            shape: shape.into(),
            bytes: row as u64 * rows as u64,
        });
        self
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        let data: u64 = self.tensors.iter().map(|t| t.bytes.next_multiple_of(DEFAULT_ALIGNMENT)).sum();
        (self.head().len() as u64).next_multiple_of(DEFAULT_ALIGNMENT) + data
    }

    fn head(&self) -> Vec<u8> {
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
            offset += tensor.bytes.next_multiple_of(DEFAULT_ALIGNMENT);
        }
        head
    }

    /// Writes the head. The data of all tensors must follow.
    pub fn begin<W: Write>(&self, mut out: W) -> io::Result<GgufData<W>> {
        let head = self.head();
        out.write_all(&head)?;
        pad(&mut out, head.len() as u64)?;
        let left = self.tensors.iter().map(|t| (t.name.clone(), t.bytes)).collect();
        let mut data = GgufData { out, left, written: 0 };
        data.step()?;
        Ok(data)
    }

    /// The file's bytes, with the data of its tensors.
    ///
    /// # Panics
    /// If the data isn't as long as types and shapes say.
    pub fn to_bytes<D: AsRef<[u8]>>(&self, tensors: &[D]) -> Vec<u8> {
        const MEMORY: &str = "writing to memory doesn't fail";
        assert_eq!(tensors.len(), self.tensors.len(), "data for every tensor");
        let mut data = self.begin(Vec::new()).expect(MEMORY);
        for (tensor, bytes) in self.tensors.iter().zip(tensors) {
            assert_eq!(bytes.as_ref().len() as u64, tensor.bytes, "bytes of tensor `{}`", tensor.name);
            data.write(bytes.as_ref()).expect(MEMORY);
        }
        data.finish().expect(MEMORY)
    }
}

/// A GGUF file whose head is written.
pub struct GgufData<W> {
    out: W,
    /// Names and lengths of the tensors that aren't complete.
    left: VecDeque<(String, u64)>,
    /// Bytes written of the first of them.
    written: u64,
}

impl<W: Write> GgufData<W> {
    /// Appends data of the first tensor that isn't complete.
    ///
    /// # Panics
    /// If it is more than the tensor has left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((name, len)) = self.left.front() else { panic!("{} bytes after the last tensor", bytes.len()) };
        assert!(self.written + bytes.len() as u64 <= *len, "more than the {len} bytes of tensor `{name}`");
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        self.step()
    }

    /// Goes on to the next tensor that has bytes to come.
    fn step(&mut self) -> io::Result<()> {
        while let Some(&(_, len)) = self.left.front()
            && len == self.written
        {
            pad(&mut self.out, len)?;
            self.left.pop_front();
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Panics
    /// If data is missing.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some((name, len)) = self.left.front() {
            panic!("tensor `{name}` has {} of its {len} bytes", self.written);
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn put_str(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// Zeros from `len` to the next aligned byte.
fn pad(out: &mut impl Write, len: u64) -> io::Result<()> {
    let zeros = len.next_multiple_of(DEFAULT_ALIGNMENT) - len;
    out.write_all(&[0; DEFAULT_ALIGNMENT as usize][..zeros as usize])
}
