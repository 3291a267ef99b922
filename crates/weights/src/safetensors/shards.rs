//! Checkpoints in several safetensors files, under an index that says which tensor is in which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::read;
use crate::{MappedFile, TensorInfo, Weights, WeightsError, map_file};

/// Largest shard index.
pub const MAX_INDEX_BYTES: u64 = 100_000_000;

/// The tensors of a sharded checkpoint, from its `model.safetensors.index.json`.
///
/// # Errors
/// If a shard is missing or broken, a tensor isn't in the shard the index names, a shard holds a tensor the
/// index doesn't name, or a shard's name leads out of the directory.
pub fn open_sharded(index: &Path) -> Result<Weights, WeightsError> {
    let file = index.display().to_string();
    let mut missing = read_index(&file, &map_file(index)?)?;
    let dir = index.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<String> = missing.values().cloned().collect();
    let mut tensors = Vec::with_capacity(missing.len());
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let (mapped, its_tensors) = open_shard(&dir.join(&shard), &shard, &mut missing)?;
        tensors.extend(its_tensors);
        files.push(mapped);
    }
    if let Some((name, shard)) = missing.into_iter().next() {
        return Err(WeightsError::BadTensor {
            file,
            name,
            found: format!("no such tensor in `{shard}`"),
            expected: "it there, as the index says".into(),
        });
    }
    Ok(Weights::new(dir.display().to_string(), tensors)?.in_files(files))
}

/// The shard of every tensor, from the index `bytes`. `file` is its name for messages.
///
/// # Errors
/// If it is too large or no index, or a shard's name leads out of the directory.
pub fn read_index(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, String>, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(WeightsError::Limit {
            file: file.into(),
            what: "bytes of shard index".into(),
            found: bytes.len() as u64,
            limit: MAX_INDEX_BYTES,
        });
    }
    let Index { weight_map } = serde_json::from_slice(bytes).map_err(|e| WeightsError::Json {
        file: file.into(),
        what: "the shard index",
        reason: e.to_string(),
    })?;
    let leads_out = weight_map.values().find(|shard| Path::new(shard).file_name() != Some(shard.as_ref()));
    match leads_out {
        None => Ok(weight_map),
        Some(shard) => Err(WeightsError::Malformed {
            file: file.into(),
            what: "weight_map".into(),
            found: format!("file `{shard}`"),
            expected: "a plain file name beside the index".into(),
        }),
    }
}

/// Reads the shard at `path` and strikes its tensors off those that are missing.
fn open_shard(
    path: &Path,
    shard: &str,
    missing: &mut BTreeMap<String, String>,
) -> Result<(Arc<MappedFile>, Vec<TensorInfo>), WeightsError> {
    let file = path.display().to_string();
    let mapped = MappedFile::open(path)?;
    let tensors = read(&file, &mapped.bytes())?;
    for tensor in &tensors {
        let named = missing.remove(&tensor.name);
        if named.as_deref() != Some(shard) {
            return Err(WeightsError::BadTensor {
                file,
                name: tensor.name.clone(),
                found: "the tensor in this shard".into(),
                expected: named
                    .map_or("no such tensor: the index doesn't name it, or another shard has it".into(), |other| {
                        format!("it in `{other}`, which the index names")
                    }),
            });
        }
    }
    Ok((mapped, tensors))
}
