//! Importance matrices of llama.cpp: how much each column of a matrix's input was used, on some text.
//!
//! Two formats are in circulation. GGUF: for every matrix `NAME.in_sum2`, sums of squares of the input, and
//! `NAME.counts`, of how many rows; experts follow each other. The older `.dat`: a count of entries, and for each its
//! name, a number of calls and values.
//!
//! Source: llama.cpp `common/imatrix-loader.cpp`, `tools/imatrix/imatrix.cpp`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use carat_tensor::DType;
use carat_weights::{GgufFile, StoredType, TensorInfo, gguf, map_file};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// Most entries of a `.dat` file.
const MAX_ENTRIES: i32 = 1 << 20;
/// Unused columns weigh this share of the mean, so that their weights aren't arbitrary.
const FLOOR: f32 = 1e-4;

/// Weights of columns by the GGUF name of the matrix.
#[derive(Debug, Default)]
pub struct Importance(HashMap<String, Vec<f32>>);

impl Importance {
    /// Reads a file of either format.
    ///
    /// # Errors
    /// If it is neither, or broken.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = map_file(path)?;
        let what = || format!("`{}` is not an importance matrix", path.display());
        if bytes.starts_with(&gguf::MAGIC) {
            let file = GgufFile::open(path)?;
            let infos: HashMap<&str, &TensorInfo> = file.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
            return from_gguf(&infos).with_context(what);
        }
        from_dat(&bytes).with_context(what)
    }

    /// The weights of a matrix: one for each of `cols`, or as many for each of `experts`.
    ///
    /// # Errors
    /// If the file has another number of them.
    pub fn of(&self, name: &str, cols: usize, experts: usize) -> anyhow::Result<Option<&[f32]>> {
        let Some(weights) = self.0.get(name) else { return Ok(None) };
        if weights.len() != cols && weights.len() != cols * experts {
            bail!(
                "the importance matrix has {} values for `{name}`; expected {cols} for each of {experts}",
                weights.len()
            );
        }
        Ok(Some(weights))
    }

    /// Number of matrices.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, name: String, mut values: Vec<f32>, experts: usize) -> anyhow::Result<()> {
        if values.iter().any(|v| !v.is_finite() || *v < 0.0) {
            bail!("`{name}` has values that are no sums of squares");
        }
        let cols = values.len() / experts.max(1);
        for expert in values.chunks_mut(cols.max(1)) {
            let mean = expert.iter().sum::<f32>() / expert.len() as f32;
            // An expert that no row chose says nothing: all columns weigh the same.
            let (floor, default) = (FLOOR * mean, if mean > 0.0 { 0.0 } else { 1.0 });
            expert.iter_mut().for_each(|v| *v = v.max(floor) + default);
        }
        self.0.insert(name, values);
        Ok(())
    }
}

fn from_gguf(infos: &HashMap<&str, &TensorInfo>) -> anyhow::Result<Importance> {
    let floats = |info: &TensorInfo| -> anyhow::Result<Vec<f32>> {
        if info.dtype != StoredType::Known(DType::F32) {
            bail!("`{}` is {}, expected F32", info.name, info.dtype);
        }
        Ok(info.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let mut importance = Importance::default();
    for (name, info) in infos {
        let Some(stem) = name.strip_suffix(SUMS) else { continue };
        let counts = infos.get(format!("{stem}{COUNTS}").as_str());
        let counts = floats(counts.with_context(|| format!("`{stem}{COUNTS}` is missing"))?)?;
        let mut values = floats(info)?;
        if counts.is_empty() || !values.len().is_multiple_of(counts.len()) {
            bail!("`{name}` has {} values for {} counts", values.len(), counts.len());
        }
        let cols = values.len() / counts.len();
        for (values, count) in values.chunks_mut(cols.max(1)).zip(&counts) {
            values.iter_mut().for_each(|v| *v = if *count > 0.0 { *v / count } else { 0.0 });
        }
        importance.add(stem.into(), values, counts.len())?;
    }
    if importance.len() == 0 {
        bail!("no tensor's name ends with `{SUMS}`");
    }
    Ok(importance)
}

fn from_dat(bytes: &[u8]) -> anyhow::Result<Importance> {
    let mut rest = bytes;
    let mut take = |n: usize| -> anyhow::Result<&[u8]> {
        let (taken, after) = rest.split_at_checked(n).context("it ends too early")?;
        rest = after;
        Ok(taken)
    };
    let int = |b: &[u8]| -> anyhow::Result<i32> { Ok(i32::from_le_bytes(b.try_into()?)) };
    let size = |v: i32, what: &str| usize::try_from(v).with_context(|| format!("{v} {what}"));
    let entries = int(take(4)?)?;
    if !(1..=MAX_ENTRIES).contains(&entries) {
        bail!("it has {entries} entries");
    }
    let mut importance = Importance::default();
    for _ in 0..entries {
        let len = size(int(take(4)?)?, "bytes of a name")?;
        let name = std::str::from_utf8(take(len)?).context("a name is no text")?.to_owned();
        take(4)?;
        let n = size(int(take(4)?)?, "values")?;
        let values = take(n.checked_mul(4).context("too many values")?)?.as_chunks().0;
        // The sums are those of every call alike: divided by their number or not, they weigh the same.
        importance.add(name, values.iter().map(|b| f32::from_le_bytes(*b)).collect(), 1)?;
    }
    Ok(importance)
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

    #[test]
    fn the_old_format_is_read_and_cut_files_are_refused() {
        let file = dat(&[("blk.0.attn_q.weight", &[4.0, 0.0]), ("b", &[0.0, 0.0])]);
        let read = from_dat(&file).unwrap();
        assert_eq!(read.of("blk.0.attn_q.weight", 2, 1).unwrap().unwrap(), [4.0, 2.0 * FLOOR]);
        assert_eq!(read.of("b", 2, 1).unwrap().unwrap(), [1.0, 1.0]);
        assert!(read.of("c", 2, 1).unwrap().is_none());
        assert!(read.of("b", 3, 2).unwrap_err().to_string().contains("2 values for `b`"));
        for len in 0..file.len() {
            assert!(from_dat(&file[..len]).is_err(), "{len}");
        }
        assert!(from_dat(&dat(&[("a", &[-1.0])])).unwrap_err().to_string().contains("sums of squares"));
    }
}
