//! Writing a `.safetensors` file piece by piece: the header first, then the data in the order it names.
//!
//! Logits of a long prompt are gigabytes; they go to the file as they are computed.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

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
        write_header(&mut out, entries)?;
        Ok(Writer { out, left: entries.iter().map(Entry::bytes).sum() })
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

/// A file whose entries are filled side by side: what is computed of one picture after another belongs to several.
pub struct Sections<W> {
    out: W,
    /// Of each entry, what is left to fill.
    left: Vec<Range<u64>>,
}

impl<W: Write + Seek> Sections<W> {
    /// Writes the header for `entries`.
    pub fn new(mut out: W, entries: &[Entry]) -> io::Result<Self> {
        let mut at = write_header(&mut out, entries)?;
        let section = |entry: &Entry| {
            let start = at;
            at += entry.bytes() as u64;
            start..at
        };
        Ok(Sections { left: entries.iter().map(section).collect(), out })
    }

    /// Appends f32 values to an entry.
    ///
    /// # Panics
    /// If they are more than it takes.
    pub fn f32s(&mut self, entry: usize, values: &[f32]) -> io::Result<()> {
        self.append(entry, values.iter().map(|v| v.to_le_bytes()))
    }

    /// Appends i64 values to an entry.
    ///
    /// # Panics
    /// If they are more than it takes.
    pub fn i64s(&mut self, entry: usize, values: impl ExactSizeIterator<Item = i64>) -> io::Result<()> {
        self.append(entry, values.map(i64::to_le_bytes))
    }

    fn append<const N: usize>(
        &mut self,
        entry: usize,
        values: impl ExactSizeIterator<Item = [u8; N]>,
    ) -> io::Result<()> {
        let left = &mut self.left[entry];
        self.out.seek(SeekFrom::Start(left.start))?;
        left.start += (values.len() * N) as u64;
        assert!(left.start <= left.end, "more data than the header names");
        values.into_iter().try_for_each(|value| self.out.write_all(&value))
    }

    /// Ends the file.
    ///
    /// # Panics
    /// If less was written than the header says.
    pub fn finish(mut self) -> io::Result<()> {
        assert!(self.left.iter().all(Range::is_empty), "bytes missing of those the header names");
        self.out.flush()
    }
}

/// Writes the header for `entries`; how long it is.
fn write_header(out: &mut impl Write, entries: &[Entry]) -> io::Result<u64> {
    // What transformers asks of files it reads.
    let mut header = Map::from_iter([("__metadata__".into(), json!({"format": "pt"}))]);
    let mut at = 0;
    for entry in entries {
        let end = at + entry.bytes();
        header
            .insert(entry.name.clone(), json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    // The format wants the data at a multiple of 8; spaces may fill the header.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    Ok(8 + header.len() as u64)
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

    #[test]
    fn entries_filled_side_by_side_read_back() {
        let mut file = std::io::Cursor::new(Vec::new());
        let entries = [Entry::f32("a", &[2, 2]), Entry::i64("b", &[2])];
        let mut sections = Sections::new(&mut file, &entries).unwrap();
        for i in 0..2 {
            sections.f32s(0, &[i as f32, 7.0]).unwrap();
            sections.i64s(1, [i].into_iter()).unwrap();
        }
        sections.finish().unwrap();
        let bytes = carat_tensor::Bytes::from_vec(file.into_inner());
        let read = carat_weights::safetensors::read("test", &bytes).unwrap();
        let data = |name: &str| read.iter().find(|t| t.name == name).unwrap().data.to_vec();
        assert_eq!(data("a"), [0.0f32, 7.0, 1.0, 7.0].map(f32::to_le_bytes).concat());
        assert_eq!(data("b"), [0i64, 1].map(i64::to_le_bytes).concat());
    }
}
