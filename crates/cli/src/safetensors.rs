//! Writing a `.safetensors` file piece by piece: the header first, then the data in the order it names.
//!
//! Logits of a long prompt are gigabytes; they go to the file as they are computed.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

/// A tensor to be written.
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Element type, by the format's name, e.g. `F32`.
    pub dtype: &'static str,
    /// Bytes per value.
    pub value_bytes: usize,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
}

impl Entry {
    /// An f32 tensor.
    pub fn f32(name: impl Into<String>, shape: &[usize]) -> Self {
        Entry { name: name.into(), dtype: "F32", value_bytes: 4, shape: shape.to_vec() }
    }

    /// An i64 tensor.
    pub fn i64(name: impl Into<String>, shape: &[usize]) -> Self {
        Entry { name: name.into(), dtype: "I64", value_bytes: 8, shape: shape.to_vec() }
    }

    /// Bytes of its data.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.value_bytes
    }
}

/// A file whose header is written.
pub struct Writer<W> {
    out: W,
    left: usize,
}

impl<W: Write> Writer<W> {
    /// Writes the header for `entries`, whose data must follow in their order.
    pub fn new(mut out: W, entries: &[Entry]) -> io::Result<Self> {
        // What transformers asks of files it reads.
        let mut header = Map::from_iter([("__metadata__".into(), json!({"format": "pt"}))]);
        let mut at = 0;
        for entry in entries {
            let end = at + entry.bytes();
            header.insert(
                entry.name.clone(),
                json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, end]}),
            );
            at = end;
        }
        let mut header = Value::Object(header).to_string();
        // The format wants the data at a multiple of 8; spaces may fill the header.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        Ok(Writer { out, left: at })
    }

    /// Appends f32 values.
    pub fn f32s(&mut self, values: &[f32]) -> io::Result<()> {
        self.left -= values.len() * 4;
        values.iter().try_for_each(|v| self.out.write_all(&v.to_le_bytes()))
    }

    /// Appends data as it is stored.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left -= bytes.len();
        self.out.write_all(bytes)
    }

    /// Appends i64 values.
    pub fn i64s(&mut self, values: impl Iterator<Item = i64>) -> io::Result<()> {
        for v in values {
            self.left -= 8;
            self.out.write_all(&v.to_le_bytes())?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Panics
    /// If less was written than the header says.
    pub fn finish(mut self) -> io::Result<()> {
        assert_eq!(self.left, 0, "bytes missing of those the header names");
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_reads_back() {
        let mut file = Vec::new();
        let entries = [Entry::f32("logits", &[2, 3]), Entry::i64("greedy", &[2])];
        let mut writer = Writer::new(&mut file, &entries).unwrap();
        writer.f32s(&[1.0, 2.0, 3.0]).unwrap();
        writer.f32s(&[4.0, 5.0, f32::MIN]).unwrap();
        writer.i64s([7, -1].into_iter()).unwrap();
        writer.finish().unwrap();
        let read = carat_weights::safetensors::read("test", &carat_tensor::Bytes::from_vec(file)).unwrap();
        let logits = read.iter().find(|t| t.name == "logits").unwrap();
        assert_eq!(logits.shape, [2, 3]);
        assert_eq!(logits.data[20..24], f32::MIN.to_le_bytes());
        let greedy = read.iter().find(|t| t.name == "greedy").unwrap();
        assert_eq!(greedy.data[8..16], (-1i64).to_le_bytes());
    }
}
