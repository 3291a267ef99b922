//! One door for every kind of checkpoint: looks at a path and reads what lies there.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::mmap::{is_there, open_regular};
use crate::{GgufFile, HfDir, Weights, WeightsError, foreign, gguf};

/// A checkpoint, by kind.
#[derive(Debug)]
pub enum Checkpoint {
    /// A Hugging Face directory.
    HfDir(HfDir),
    /// A GGUF file.
    Gguf(GgufFile),
}

impl Checkpoint {
    /// The tensors, whatever the kind.
    pub fn tensors(&self) -> &Weights {
        match self {
            Checkpoint::HfDir(dir) => &dir.tensors,
            Checkpoint::Gguf(file) => &file.tensors,
        }
    }
}

/// What a directory with an adapter's files is.
const ADAPTER: &str = "an adapter (LoRA) and no model: merge it into the model that it was made for";

/// Reads the checkpoint at `path`: a directory with `config.json`, a GGUF file (told by its first bytes, not
/// its name), or a `.safetensors` file beside its `config.json`.
///
/// # Errors
/// If it is none of these, with what was found there; otherwise whatever reading it meets.
pub fn open(path: &Path) -> Result<Checkpoint, WeightsError> {
    let io = |source| WeightsError::Io { file: path.display().to_string(), source };
    let refuse = |found: String| {
        Err(WeightsError::NotACheckpoint {
            file: path.display().to_string(),
            found,
            expected: "a directory with config.json and safetensors, a .safetensors file in one, or a GGUF file".into(),
        })
    };
    let facts = fs::metadata(path).map_err(io)?;
    if facts.is_dir() {
        return if is_there(&path.join("config.json")) {
            HfDir::open(path).map(Checkpoint::HfDir)
        } else {
            let is_adapter = is_there(&path.join("adapter_config.json"));
            refuse(if is_adapter { ADAPTER.into() } else { "a directory without config.json".into() })
        };
    }
    if !facts.is_file() {
        return refuse("neither a file nor a directory".into());
    }
    if path.extension().is_some_and(|e| e == "safetensors") {
        return HfDir::open_beside(path).map(Checkpoint::HfDir);
    }
    let mut start = Vec::new();
    open_regular(path)?.0.take(foreign::START as u64).read_to_end(&mut start).map_err(io)?;
    if start.starts_with(&gguf::MAGIC) {
        return GgufFile::open(path).map(Checkpoint::Gguf);
    }
    refuse(foreign::describe(&start))
}
