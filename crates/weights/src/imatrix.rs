//! Importance matrices of llama.cpp: how much each column of a matrix's input was used, on some text.
//!
//! Two formats are in circulation. GGUF: for every matrix `NAME.in_sum2`, sums of squares of the input, and
//! `NAME.counts`, of how many rows; experts follow each other. The older `.dat`: a count of entries, and for each its
//! name, a number of calls and values.
//!
//! Source: llama.cpp `common/imatrix-loader.cpp`, `tools/imatrix/imatrix.cpp`.

use std::collections::HashMap;
use std::path::Path;

use carat_tensor::{Bytes, DType};

use crate::error::text;
use crate::{GgufFile, StoredType, TensorInfo, WeightsError, gguf, map_file};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// Most entries of a `.dat` file.
const MAX_ENTRIES: i32 = 1 << 20;
/// Unused columns weigh this share of the mean, so that their weights aren't arbitrary.
const FLOOR: f32 = 1e-4;

/// Weights of columns by the GGUF name of the matrix.
#[derive(Debug)]
pub struct Importance {
    file: String,
    by_name: HashMap<String, Vec<f32>>,
}

impl Importance {
    /// Reads a file of either format.
    ///
    /// # Errors
    /// If it is neither, or broken.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::from_bytes(&path.display().to_string(), &map_file(path)?)
    }

    /// Reads a file that is in memory. `file` is its name for messages.
    ///
    /// # Errors
    /// As [`Importance::open`].
    pub fn from_bytes(file: &str, bytes: &Bytes) -> Result<Self, WeightsError> {
        let mut importance = Importance { file: file.into(), by_name: HashMap::new() };
        if bytes.starts_with(&gguf::MAGIC) {
            importance.read_gguf(&GgufFile::from_bytes(file, bytes.clone())?)?;
        } else {
            importance.read_dat(bytes)?;
        }
        Ok(importance)
    }

    /// The weights of a matrix: one for each of `cols`, or as many for each of `experts`.
    ///
    /// # Errors
    /// If the file has another number of them.
    pub fn of(&self, name: &str, cols: usize, experts: usize) -> Result<Option<&[f32]>, WeightsError> {
        let Some(weights) = self.by_name.get(name) else { return Ok(None) };
        if weights.len() != cols && Some(weights.len()) != cols.checked_mul(experts) {
            let expected = format!("{cols} for each of {experts}");
            return Err(self.wrong(&format!("matrix `{name}`"), format!("{} values", weights.len()), &expected));
        }
        Ok(Some(weights))
    }

    /// Number of matrices.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no matrix.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Names of the matrices and their weights.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[f32])> {
        self.by_name.iter().map(|(name, weights)| (name.as_str(), weights.as_slice()))
    }

    fn wrong(&self, what: &str, found: String, expected: &str) -> WeightsError {
        let what = format!("importance matrix: {what}");
        WeightsError::Malformed { file: self.file.clone(), what, found, expected: expected.into() }
    }

    fn add(&mut self, name: &str, mut values: Vec<f32>, experts: usize) -> Result<(), WeightsError> {
        if let Some(value) = values.iter().find(|v| !v.is_finite() || **v < 0.0) {
            return Err(self.wrong(&format!("matrix `{name}`"), value.to_string(), "sums of squares"));
        }
        let cols = values.len() / experts.max(1);
        for expert in values.chunks_mut(cols.max(1)) {
            // Divided first: the sum of finite values may not be finite.
            let n = expert.len() as f32;
            let mean = expert.iter().map(|v| v / n).sum::<f32>();
            // An expert that no row chose says nothing: all columns weigh the same.
            let (floor, default) = (FLOOR * mean, if mean > 0.0 { 0.0 } else { 1.0 });
            expert.iter_mut().for_each(|v| *v = v.max(floor) + default);
        }
        self.by_name.insert(name.into(), values);
        Ok(())
    }

    fn read_gguf(&mut self, file: &GgufFile) -> Result<(), WeightsError> {
        for sums in file.tensors.iter() {
            let Some(stem) = sums.name.strip_suffix(SUMS) else { continue };
            let name = format!("{stem}{COUNTS}");
            let counts = file.tensors.get(&name);
            let counts = counts.ok_or_else(|| WeightsError::MissingTensor { file: self.file.clone(), name })?;
            let (counts, mut values) = (self.floats(counts)?, self.floats(sums)?);
            if counts.is_empty() || !values.len().is_multiple_of(counts.len()) {
                let found = format!("{} values for {} counts", values.len(), counts.len());
                return Err(self.wrong(&format!("tensor `{}`", sums.name), found, "as many values for each count"));
            }
            let cols = values.len() / counts.len();
            for (values, count) in values.chunks_mut(cols.max(1)).zip(&counts) {
                values.iter_mut().for_each(|v| *v = if *count > 0.0 { *v / count } else { 0.0 });
            }
            self.add(stem, values, counts.len())?;
        }
        if self.is_empty() {
            return Err(self.wrong("the tensors", format!("none named `…{SUMS}`"), "one for each matrix"));
        }
        Ok(())
    }

    fn floats(&self, info: &TensorInfo) -> Result<Vec<f32>, WeightsError> {
        if info.dtype != StoredType::Known(DType::F32) {
            return Err(self.wrong(&format!("tensor `{}`", info.name), info.dtype.to_string(), "F32"));
        }
        Ok(info.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn read_dat(&mut self, bytes: &[u8]) -> Result<(), WeightsError> {
        let mut rest = bytes;
        let entries = self.int(&mut rest, "the number of entries", MAX_ENTRIES)?;
        if entries == 0 {
            return Err(self.wrong("the number of entries", "0".into(), "at least 1"));
        }
        for index in 0..entries {
            let what = |part: &str| format!("the {part} of entry {index}");
            let len = self.int(&mut rest, &what("length of the name"), i32::MAX)?;
            let name = self.take(&mut rest, len, &what("name"))?;
            let name = text(name).map_err(|found| self.wrong(&what("name"), found, "UTF-8"))?;
            self.take(&mut rest, 4, &what("number of calls"))?;
            let values = self.int(&mut rest, &what("number of values"), i32::MAX)?;
            let values = self.take(&mut rest, values.saturating_mul(4), &what("values"))?.as_chunks().0;
            // The sums are those of every call alike: divided by their number or not, they weigh the same.
            self.add(name, values.iter().map(|b| f32::from_le_bytes(*b)).collect(), 1)?;
        }
        Ok(())
    }

    /// A size of at most `most`.
    fn int(&self, rest: &mut &[u8], what: &str, most: i32) -> Result<usize, WeightsError> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(rest, 4, what)?);
        let value = i32::from_le_bytes(word);
        let size = usize::try_from(value).ok().filter(|_| value <= most);
        size.ok_or_else(|| self.wrong(what, value.to_string(), &format!("0 to {most}, or a GGUF file")))
    }

    fn take<'a>(&self, rest: &mut &'a [u8], n: usize, what: &str) -> Result<&'a [u8], WeightsError> {
        let Some((taken, after)) = rest.split_at_checked(n) else {
            return Err(self.wrong(what, format!("{} bytes to the end of the file", rest.len()), &format!("{n}")));
        };
        *rest = after;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dat(entries: &[(&str, &[f32])]) -> Vec<u8> {
        let mut out = (entries.len() as i32).to_le_bytes().to_vec();
        for (name, values) in entries {
            out.extend((name.len() as i32).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend(7i32.to_le_bytes());
            out.extend((values.len() as i32).to_le_bytes());
            values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }
        out
    }

    fn from_dat(file: &[u8]) -> Result<Importance, WeightsError> {
        Importance::from_bytes("test.dat", &Bytes::from_vec(file.to_vec()))
    }

    #[test]
    fn the_old_format_is_read_and_cut_files_are_refused() {
        let file = dat(&[("blk.0.attn_q.weight", &[4.0, 0.0]), ("b", &[0.0, 0.0])]);
        let read = from_dat(&file).unwrap();
        assert_eq!(read.of("blk.0.attn_q.weight", 2, 1).unwrap().unwrap(), [4.0, 2.0 * FLOOR]);
        assert_eq!(read.of("b", 2, 1).unwrap().unwrap(), [1.0, 1.0]);
        assert!(read.of("c", 2, 1).unwrap().is_none());
        assert!(
            read.of("b", 3, 2)
                .unwrap_err()
                .to_string()
                .contains("matrix `b`: found 2 values, expected 3 for each of 2")
        );
        for len in 0..file.len() {
            assert!(from_dat(&file[..len]).is_err(), "{len}");
        }
        assert!(from_dat(&dat(&[("a", &[-1.0])])).unwrap_err().to_string().contains("sums of squares"));
    }
}
