//! Tensors by their place in the model, from either kind of file, with shapes checked.
//!
//! Tensors stay where the file is mapped, except those that must be rearranged: weights whose scales lie apart
//! ([`super::scaled`]) and experts that lie one by one ([`super::experts`]).

use carat_tensor::{DType, Tensor};
use carat_weights::{Checkpoint, StoredType, TensorInfo, Weights, release};

use super::names::{
    EMBEDDING, EXPERT_DOWN, EXPERT_GATE, EXPERT_UP, EXPERTS_DOWN, FINAL_NORM, HEADS, K, K_NORM, Name, ROPE_DIVISORS, V,
    V_NORM,
};
use super::quantization::Quantization;
use super::scaled::{PACKED, Scaled};
use super::{IgnoredTensor, LoadReport, nvfp4, scaled};
use crate::{ModelConfig, ModelError};

/// Prefixes of the text model in Hugging Face files, the published one first.
pub(super) const PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", ""];
/// Parts of a checkpoint that the text model has no use for, after an optional `model.`.
const OTHER_PARTS: [(&str, &str); 6] = [
    ("vision_tower.", "picture encoder"),
    ("embed_vision.", "picture encoder"),
    ("vision_embedder.", "picture encoder"),
    ("audio_tower.", "sound encoder"),
    ("embed_audio.", "sound encoder"),
    ("multi_modal_projector.", "picture encoder"),
];
/// Ends of the names of what quantised checkpoints hold for activations and caches.
const ACTIVATION_SCALES: [&str; 9] = [
    ".input_scale",
    ".input_global_scale",
    ".input_zero_point",
    ".output_scale",
    ".output_zero_point",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".activation_scale",
];
/// How many names an error lists.
const NAMES_SHOWN: usize = 8;

/// Which file's names are meant.
#[derive(Clone, Copy)]
enum Spelling {
    HuggingFace { prefix: &'static str },
    Gguf,
}

/// A copy of a tensor that loading makes.
pub(super) struct Copied {
    pub values: usize,
    pub dtype: DType,
    /// Those that it is brought together with, all in one type: the name without the expert's number.
    pub experts: Option<String>,
}

/// A checkpoint's tensors.
pub(super) struct Source<'a> {
    tensors: &'a Weights,
    spelling: Spelling,
    quantization: Quantization,
}

impl<'a> Source<'a> {
    /// # Errors
    /// If the checkpoint is quantised in a way that isn't known here.
    pub fn new(checkpoint: &'a Checkpoint) -> Result<Self, ModelError> {
        let tensors = checkpoint.tensors();
        let (spelling, quantization) = match checkpoint {
            Checkpoint::Gguf(_) => (Spelling::Gguf, Quantization::default()),
            Checkpoint::HfDir(dir) => {
                let has = |prefix: &str, name: Name| holds(tensors, &format!("{prefix}{}", name.hf));
                let found = |name: Name| PREFIXES.into_iter().find(|prefix| has(prefix, name));
                // One may be missing. Where both are, the published prefix is named in the error.
                let prefix = found(EMBEDDING).or_else(|| found(FINAL_NORM)).unwrap_or(PREFIXES[0]);
                (Spelling::HuggingFace { prefix }, Quantization::read(&dir.config)?)
            }
        };
        Ok(Source { tensors, spelling, quantization })
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

    /// The name of one expert's matrix, `{}` in `name` standing for the expert.
    pub fn spell_expert(&self, name: Name, layer: usize, expert: usize) -> String {
        self.spell(name, Some(layer)).replace("{}", &expert.to_string())
    }

    /// Whether the file has one expert's matrix by itself.
    pub fn has_expert(&self, name: Name, layer: usize, expert: usize) -> bool {
        holds(self.tensors, &self.spell_expert(name, layer, expert))
    }

    /// Whether the file has it.
    pub fn has(&self, name: Name, layer: Option<usize>) -> bool {
        holds(self.tensors, &self.spell(name, layer))
    }

    /// The tensor as the file has it, if it does and loading makes no copy.
    pub fn mapped(&self, name: Name, layer: Option<usize>) -> Option<&TensorInfo> {
        self.tensors.get(&self.spell(name, layer)).filter(|tensor| self.copied(tensor).is_none())
    }

    /// The copy that loading makes of a tensor; `None` where it stays in the map.
    pub fn copied(&self, tensor: &TensorInfo) -> Option<Copied> {
        let (name, experts) = (&tensor.name, experts_of(&tensor.name));
        let (values, dtype) = match (self.spelling, tensor.dtype) {
            (Spelling::Gguf, StoredType::Known(DType::Nvfp4)) if !name.ends_with(EXPERTS_DOWN.gguf) => {
                nvfp4::becomes(self.tensors, name, tensor.data.len())?
            }
            (_, StoredType::Known(dtype)) => {
                experts.as_ref()?;
                (tensor.shape.iter().product(), dtype)
            }
            (_, StoredType::Other(_)) => scaled::becomes(self.tensors, tensor, &self.quantization)?,
        };
        Some(Copied { values, dtype, experts })
    }

    /// Says that what was copied will not be read again. Reading one tensor maps pages of its neighbours too, so this comes
    /// after all were read.
    pub fn release_copied(&self) {
        for tensor in self.tensors.iter() {
            let is_copied = matches!(tensor.dtype, StoredType::Other(_)) || experts_of(&tensor.name).is_some();
            if is_copied || self.belongs_to_codes(&tensor.name) {
                release(&tensor.data);
            }
        }
    }

    /// Whether a tensor is a scale or what else lies beside a matrix of codes.
    pub fn belongs_to_codes(&self, name: &str) -> bool {
        matches!(self.spelling, Spelling::HuggingFace { .. }) && scaled::is_companion(self.tensors, name)
    }

    /// The tensor, which must have this shape.
    pub fn take(&self, name: Name, layer: Option<usize>, expected: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = self.take_named(&self.spell(name, layer), expected)?;
        // The second scale of the experts' last matrices is where `router.per_expert_scale` is, and applied as that.
        if tensor.dtype == DType::Nvfp4 && name != EXPERTS_DOWN {
            return nvfp4::with_second_scale(self.tensors, tensor);
        }
        Ok(tensor)
    }

    /// The matrix `name`, if the file holds it as codes and scales.
    pub fn scaled(&self, name: &str, expected: &[usize]) -> Result<Option<Scaled<'a>>, ModelError> {
        match self.spelling {
            Spelling::HuggingFace { .. } => Scaled::find(self.tensors, name, expected, &self.quantization),
            Spelling::Gguf => Ok(None),
        }
    }

    /// As [`Source::take`] by the name in the file.
    pub fn take_named(&self, name: &str, expected: &[usize]) -> Result<Tensor, ModelError> {
        if let Some(scaled) = self.scaled(name, expected)? {
            return scaled.tensor(scaled.dtype());
        }
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
        names.iter().copied().find(|name| holds(self.tensors, name))
    }

    /// What says why the text model of this config leaves a tensor alone, where it does. A matrix goes with all that lies beside
    /// it and is named after it.
    pub fn unneeded(&self, config: &ModelConfig) -> impl Fn(&str) -> Option<&'static str> + use<> {
        let of_layer = |layer| [K, V, K_NORM, V_NORM].map(|name| self.spell(name, Some(layer)));
        let shared = (config.first_shared()..config.layers.len()).flat_map(of_layer);
        let shared = shared.map(|name| (name, "the layer reads another layer's keys and values"));
        let heads = HEADS.into_iter().filter(|_| config.tied_head);
        let heads = heads.map(|name| (name.to_owned(), "the head is tied to the embedding"));
        let starts: Vec<_> =
            shared.chain(heads).map(|(name, reason)| (name.trim_end_matches("weight").to_owned(), reason)).collect();
        move |name| {
            let start = || starts.iter().find(|(start, _)| name.starts_with(start)).map(|(_, reason)| *reason);
            let scale = || is_activation_scale(name).then_some("scale of activations");
            other_part(name).or_else(scale).or_else(start)
        }
    }

    /// Accounts for every tensor that was not taken. Those of other parts stay unused, for whoever loads these parts.
    pub fn finish(&self, config: &ModelConfig) -> Result<LoadReport, ModelError> {
        let (unneeded, mut ignored, mut unknown) = (self.unneeded(config), Vec::new(), Vec::new());
        // The divisors were read with the config.
        for name in self.tensors.unused().into_iter().filter(|name| name != ROPE_DIVISORS) {
            match unneeded(&name) {
                Some(reason) => ignored.push(IgnoredTensor { name, reason }),
                None => unknown.push(name),
            }
        }
        refuse(unknown)?;
        Ok(LoadReport { ignored })
    }

    /// Refuses tensors whose names start as one of `parts`, and as none of `others`, that nobody has taken or ignored.
    pub fn finish_parts(&self, parts: &[String], others: &[String]) -> Result<(), ModelError> {
        let starts = |name: &str, starts: &[String]| starts.iter().any(|start| name.starts_with(start));
        let of_parts = |name: &String| starts(name, parts) && !starts(name, others) && !is_activation_scale(name);
        refuse(self.tensors.unused().into_iter().filter(of_parts).collect())
    }

    /// A tensor by its name in the file, if the file has it.
    pub fn take_optional(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        Ok(self.tensors.take_optional(name)?)
    }
}

/// An error if there are unknown names.
fn refuse(mut unknown: Vec<String>) -> Result<(), ModelError> {
    if unknown.is_empty() {
        return Ok(());
    }
    let count = unknown.len();
    unknown.truncate(NAMES_SHOWN);
    let more = if count > NAMES_SHOWN { ", …" } else { "" };
    Err(ModelError::UnknownTensors { count, names: unknown.join(", ") + more })
}

/// Whether the file has the tensor, plain or packed.
fn holds(tensors: &Weights, name: &str) -> bool {
    tensors.contains(name) || tensors.contains(&format!("{name}{PACKED}"))
}

/// For a matrix of one expert, plain or packed, the name without the expert's number.
fn experts_of(name: &str) -> Option<String> {
    let name = name.strip_suffix(PACKED).unwrap_or(name);
    let parts = [EXPERT_GATE, EXPERT_UP, EXPERT_DOWN].into_iter().flat_map(|name| [name.hf, name.gguf]);
    parts.filter_map(|part| part.split_once("{}")).find_map(|(before, after)| {
        let rest = name.strip_suffix(after)?;
        let stem = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        (stem.len() < rest.len() && stem.ends_with(before)).then(|| format!("{stem}{after}"))
    })
}

/// Whether a tensor only says how a quantised checkpoint's activations or caches may be rounded.
fn is_activation_scale(name: &str) -> bool {
    ACTIVATION_SCALES.iter().any(|end| name.ends_with(end))
}

/// Which other part of the checkpoint a tensor belongs to.
fn other_part(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    OTHER_PARTS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// A parameter's values in f32, all of them finite.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let values = numbers(tensor)?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(ModelError::NotFinite { name: tensor.name.clone(), index, found: values[index] }),
        None => Ok(values),
    }
}

/// A parameter's values in f32.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let words = || tensor.data.as_chunks::<2>().0.iter();
    Ok(match tensor.dtype {
        DType::F32 => tensor.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        DType::F16 => words().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        DType::BF16 => words().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        found => return Err(ModelError::ParameterType { name: tensor.name.clone(), found }),
    })
}
