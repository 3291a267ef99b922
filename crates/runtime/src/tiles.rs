//! A model's weights once more, their rows interleaved by 16 as this machine's kernels like them, in a file beside the model's.
//!
//! The file is made once ([`Packing`]), mapped at every load, and may be removed at any time. It is a safetensors file: for
//! each tensor its bytes in the order of [`interleave`], and under [`IDENTITY`] what model files it was made of, by
//! size and time, and the version of the order. A file made of others, or in another order, is not used.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use carat_model::load::ModelTensors;
use carat_tensor::{Bytes, Tensor};
use carat_weights::{MappedFile, safetensors};
use serde_json::{Map, json};

use crate::device::{Device, GROUP_ROWS, interleave};
use crate::{Error, ModelFiles, ModelSource};

/// The tensor that says what the others were made of.
pub const IDENTITY: &str = "carat.tiles";
/// What a file's name has after the model's.
const EXTENSION: &str = ".tiles";
/// Of the layout.
const VERSION: u32 = 3;
/// The format wants data at a multiple of 8; this is a cache line.
const ALIGNMENT: usize = 64;
/// Bytes interleaved at a time.
const PIECE: usize = 1 << 20;

/// Where the interleaved weights of a model are, if they are anywhere: beside its file, or in its directory.
pub fn path(model: &Path) -> PathBuf {
    let mut name = if model.is_dir() { model.join("model") } else { model.to_owned() }.into_os_string();
    name.push(EXTENSION);
    name.into()
}

/// Whether something is there; without reading it.
pub fn are_there(files: &ModelFiles) -> bool {
    matches!(files.source(), ModelSource::Path(model) if path(model).exists())
}

/// What there is beside a model's file.
pub enum Tiles {
    /// They would be of no use: another kind of file, or kernels that read it as it is.
    NotWanted,
    /// Nothing.
    Absent,
    /// Something made of another file or by another version, or broken.
    Stale,
    /// Those of tensors.
    Found(Found),
}

/// Interleaved rows.
pub struct Found {
    /// What they lie in.
    file: Arc<MappedFile>,
    /// By the tensors' names.
    rows: HashMap<String, Bytes>,
}

impl Tiles {
    /// The file that they lie in.
    pub fn file(&self) -> Option<&Arc<MappedFile>> {
        let Tiles::Found(found) = self else { return None };
        Some(&found.file)
    }

    /// Whether `carat pack` would make the model faster.
    pub fn are_wanted(&self) -> bool {
        matches!(self, Tiles::Absent | Tiles::Stale)
    }

    /// Those of a tensor.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        let Tiles::Found(found) = self else { return None };
        found.rows.get(name)
    }

    /// Bytes that products read less of interleaved rows than of the model's files, in tensors of some names.
    pub fn saved(&self, files: &ModelFiles, counts: impl Fn(&str) -> bool) -> usize {
        let tensors = files.checkpoint().tensors().iter().filter(|tensor| counts(&tensor.name));
        tensors.filter_map(|tensor| Some(tensor.data.len().saturating_sub(self.get(&tensor.name)?.len()))).sum()
    }
}

/// Looks for the interleaved weights of a model.
///
/// # Errors
/// If the model's tensors can't be listed.
pub fn find(files: &ModelFiles, device: &Device) -> Result<Tiles, Error> {
    let Some(packing) = Packing::new(files, device)? else { return Ok(Tiles::NotWanted) };
    if !packing.path.exists() {
        return Ok(Tiles::Absent);
    }
    Ok(read(&packing).map_or(Tiles::Stale, Tiles::Found))
}

/// The tensors of a file that was made of the same model; `None` for any other.
fn read(packing: &Packing) -> Option<Found> {
    let file = MappedFile::open(&packing.path).ok()?;
    let tensors = safetensors::read(&packing.path.display().to_string(), &file.bytes()).ok()?;
    let mut rows: HashMap<String, Bytes> = tensors.into_iter().map(|tensor| (tensor.name, tensor.data)).collect();
    let identity = rows.remove(IDENTITY)?;
    (*identity == *packing.identity.as_bytes()).then_some(Found { file, rows })
}

/// A file of interleaved weights that can be written.
pub struct Packing {
    path: PathBuf,
    identity: String,
    /// With the bytes of their interleaved rows.
    tensors: Vec<(Tensor, usize)>,
}

impl Packing {
    /// What would be written for a model; `None` where that would be of no use.
    ///
    /// # Errors
    /// If the model's tensors can't be listed.
    pub fn new(files: &ModelFiles, device: &Device) -> Result<Option<Self>, Error> {
        let ModelSource::Path(model) = files.source() else { return Ok(None) };
        let of_files = |error| Error::of_files(files.source(), error);
        let tensors = ModelTensors::new(files.checkpoint()).and_then(|list| list.products()).map_err(of_files)?;
        let with_bytes = |tensor: Tensor| device.tiles_bytes(&tensor).map(|bytes| (tensor, bytes));
        let tensors: Vec<_> = tensors.into_iter().filter_map(with_bytes).collect();
        if tensors.is_empty() {
            return Ok(None);
        }
        let mut identity = format!("carat tiles {VERSION}\n");
        for file in files.checkpoint().tensors().files() {
            let (len, modified) = file.stamp();
            let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            identity += &format!("{len} {}.{:09}\n", modified.as_secs(), modified.subsec_nanos());
        }
        Ok(Some(Packing { path: path(model), identity, tensors }))
    }

    /// Where it belongs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, but for its header.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|&(_, bytes)| bytes as u64).sum()
    }

    /// Writes the file; `wrote` is told of bytes as they go, and of the tensor they are of.
    ///
    /// # Errors
    /// Of `out` and of `wrote`.
    pub fn write(&self, out: &mut dyn Write, wrote: &mut dyn FnMut(&str, usize) -> io::Result<()>) -> io::Result<()> {
        out.write_all(&self.header())?;
        out.write_all(self.identity.as_bytes())?;
        let mut tiles = Vec::new();
        for (Tensor { name, dtype, data, shape }, _) in &self.tensors {
            let rows: usize = shape[..shape.len() - 1].iter().product();
            let row_bytes = data.len() / rows;
            let group = GROUP_ROWS * row_bytes;
            let piece = (PIECE / group).max(1) * group;
            for rows in data.chunks(piece) {
                interleave(*dtype, rows, row_bytes, &mut tiles);
                out.write_all(&tiles)?;
                wrote(name, tiles.len())?;
            }
        }
        out.flush()
    }

    fn header(&self) -> Vec<u8> {
        let (mut header, mut at) = (Map::new(), 0);
        let lens = self.tensors.iter().map(|(tensor, bytes)| (tensor.name.as_str(), *bytes));
        for (name, len) in std::iter::once((IDENTITY, self.identity.len())).chain(lens) {
            header.insert(name.into(), json!({"dtype": "U8", "shape": [len], "data_offsets": [at, at + len]}));
            at += len;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        // So that the first tensor begins with a cache line.
        let before = 8 + header.len() + self.identity.len();
        header.push_str(&" ".repeat(before.next_multiple_of(ALIGNMENT) - before));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    }
}
