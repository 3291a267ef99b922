//! Tensors by their place in the model, from either kind of file, with shapes checked.

use carat_tensor::{DType, Tensor};
use carat_weights::{Checkpoint, Weights};

use super::{IgnoredTensor, LoadReport, Name};
use crate::ModelError;

/// Prefixes of the text model in Hugging Face files, the published one first.
const PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", ""];
/// Parts of a checkpoint that the text model has no use for, after an optional `model.`.
const OTHER_PARTS: [(&str, &str); 6] = [
    ("vision_tower.", "picture encoder"),
    ("embed_vision.", "picture encoder"),
    ("vision_embedder.", "picture encoder"),
    ("audio_tower.", "sound encoder"),
    ("embed_audio.", "sound encoder"),
    ("multi_modal_projector.", "picture encoder"),
];
/// How many names an error lists.
const NAMES_SHOWN: usize = 8;

/// Which file's names are meant.
#[derive(Clone, Copy)]
enum Spelling {
    HuggingFace { prefix: &'static str },
    Gguf,
}

/// A checkpoint's tensors.
pub(super) struct Source<'a> {
    tensors: &'a Weights,
    spelling: Spelling,
    ignored: Vec<IgnoredTensor>,
}

impl<'a> Source<'a> {
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        let tensors = checkpoint.tensors();
        let spelling = match checkpoint {
            Checkpoint::Gguf(_) => Spelling::Gguf,
            Checkpoint::HfDir(_) => {
                let has = |prefix: &&str| tensors.contains(&format!("{prefix}{}", super::EMBEDDING.hf));
                // Where none is found the published one is named in the error.
                Spelling::HuggingFace { prefix: PREFIXES.into_iter().find(has).unwrap_or(PREFIXES[0]) }
            }
        };
        Source { tensors, spelling, ignored: Vec::new() }
    }

    /// The name in this file, of the model or of a layer.
    pub fn spell(&self, name: Name, layer: Option<usize>) -> String {
        match (self.spelling, layer) {
            (Spelling::HuggingFace { prefix }, None) => format!("{prefix}{}", name.hf),
            (Spelling::HuggingFace { prefix }, Some(l)) => format!("{prefix}layers.{l}.{}", name.hf),
            (Spelling::Gguf, None) => name.gguf.into(),
            (Spelling::Gguf, Some(l)) => format!("blk.{l}.{}", name.gguf),
        }
    }

    /// Whether the file has it.
    pub fn has(&self, name: Name, layer: Option<usize>) -> bool {
        self.tensors.contains(&self.spell(name, layer))
    }

    /// The tensor, which must have this shape.
    pub fn take(&self, name: Name, layer: Option<usize>, expected: &[usize]) -> Result<Tensor, ModelError> {
        self.take_named(&self.spell(name, layer), expected)
    }

    /// As [`Source::take`] by the name in the file.
    pub fn take_named(&self, name: &str, expected: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = self.tensors.take_optional(name)?;
        let tensor =
            tensor.ok_or_else(|| ModelError::MissingTensor { name: name.into(), expected: expected.to_vec() })?;
        if tensor.shape == expected || (tensor.shape.is_empty() && expected == [1]) {
            return Ok(tensor);
        }
        Err(ModelError::WrongShape { name: name.into(), found: tensor.shape, expected: expected.to_vec() })
    }

    /// The values of a parameter vector.
    pub fn values(&self, name: Name, layer: Option<usize>, len: usize) -> Result<Vec<f32>, ModelError> {
        values(&self.take(name, layer, &[len])?)
    }

    /// The first of `names` that the file has, spelt in full: for tensors outside the text model's prefix.
    pub fn find(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.tensors.contains(name))
    }

    /// Marks a tensor as knowingly not needed, if it is there.
    pub fn ignore(&mut self, name: &str, reason: &'static str) {
        if self.tensors.ignore(name) {
            self.ignored.push(IgnoredTensor { name: name.into(), reason });
        }
    }

    /// Accounts for every tensor that was not taken.
    pub fn finish(mut self) -> Result<LoadReport, ModelError> {
        let mut unknown = Vec::new();
        for name in self.tensors.unused() {
            match other_part(&name) {
                Some(reason) => self.ignore(&name, reason),
                None => unknown.push(name),
            }
        }
        if unknown.is_empty() {
            return Ok(LoadReport { ignored: self.ignored });
        }
        let count = unknown.len();
        unknown.truncate(NAMES_SHOWN);
        let more = if count > NAMES_SHOWN { ", …" } else { "" };
        Err(ModelError::UnknownTensors { count, names: unknown.join(", ") + more })
    }
}

/// Which other part of the checkpoint a tensor belongs to.
pub(super) fn other_part(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    OTHER_PARTS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// A parameter's values in f32.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let words = || tensor.data.as_chunks::<2>().0.iter();
    match tensor.dtype {
        DType::F32 => Ok(tensor.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::F16 => Ok(words().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()),
        DType::BF16 => Ok(words().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()),
        found => Err(ModelError::ParameterType { name: tensor.name.clone(), found }),
    }
}
