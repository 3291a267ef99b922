//! What of a checkpoint is an encoder's, counted without loading it.

use carat_tensor::DType;
use carat_weights::{Checkpoint, StoredType};

use super::names::*;
use super::scaled::PACKED;
use super::source::Source;
use crate::ModelError;

/// Which of a model's encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    Pictures,
    Sounds,
}

/// The tensors of an encoder, whichever kind it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EncoderTensors {
    /// Of those that stay in the map.
    pub bytes: usize,
    /// Of copies that loading makes of the others.
    pub copied: usize,
    /// Of the projection of patches, which is rearranged where it comes from a GGUF file.
    pub patch_bytes: usize,
    /// Matrices that rows are multiplied with.
    pub matrices: Vec<EncoderMatrix>,
}

/// A matrix of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EncoderMatrix {
    /// Width of the output.
    pub rows: usize,
    /// Width of the input.
    pub cols: usize,
    pub dtype: DType,
    /// Whether it is of a tower's layers or projects its patches: these products are between bounds.
    pub bounded: bool,
}

impl EncoderTensors {
    /// Finds them.
    ///
    /// # Errors
    /// If the checkpoint is quantised in a way that isn't known here.
    pub fn of(checkpoint: &Checkpoint, encoder: Encoder) -> Result<Self, ModelError> {
        let source = Source::new(checkpoint)?;
        let is_gguf = matches!(checkpoint, Checkpoint::Gguf(_));
        let spell = |name: Name| if is_gguf { name.gguf } else { name.hf };
        let starts = |name: &str, parts: &[Name]| parts.iter().any(|part| name.starts_with(spell(*part)));
        let is_ours = |name: &str| {
            // What follows `mm.` in a GGUF file may be of either encoder.
            let sounds = starts(name, &AUDIO_PARTS);
            let pictures = starts(name, &VISION_PARTS) || !is_gguf && BLOCK_PARTS.iter().any(|p| name.starts_with(p));
            match encoder {
                Encoder::Sounds => sounds,
                Encoder::Pictures => pictures && !sounds,
            }
        };
        let layers = [VISION_LAYER, AUDIO_LAYER].map(|name| spell(name).split('{').next().unwrap_or_default());
        let projections = [VISION_SOFT_TOKENS, SUBSAMPLED, AUDIO_OUT, AUDIO_SOFT_TOKENS];
        let of_blocks = [BLOCK_PROJECTION, BLOCK_SOFT_TOKENS];
        let projects = |name: &str| {
            let stem = name.strip_suffix(WEIGHT_END).unwrap_or_default();
            let is_of_blocks = |names: &Names| names.gguf == stem || names.hf.contains(&stem);
            projections.iter().any(|p| spell(*p) == name) || of_blocks.iter().any(is_of_blocks)
        };
        let mut found = EncoderTensors::default();
        for tensor in checkpoint.tensors().iter() {
            let name = &*tensor.name;
            let name = TOWER_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
            let name = name.strip_suffix(PACKED).unwrap_or(name);
            if !is_ours(name) || source.belongs_to_codes(&tensor.name) {
                continue;
            }
            let (mut stored, mut values) = (tensor.dtype, tensor.shape.iter().product());
            match source.copied(tensor) {
                None => found.bytes += tensor.data.len(),
                Some(copy) => {
                    found.copied += copy.dtype.row_bytes(copy.values).unwrap_or(0);
                    (stored, values) = (StoredType::Known(copy.dtype), copy.values);
                }
            }
            let patches = name == spell(PATCH_PROJECTION);
            let in_layer = tensor.shape.len() == 2 && layers.iter().any(|layer| name.starts_with(layer));
            if patches {
                found.patch_bytes = tensor.data.len();
            }
            if let (StoredType::Known(dtype), true) = (stored, in_layer || patches || projects(name)) {
                let rows = tensor.shape.first().map_or(1, |rows| (*rows).max(1));
                let cols = values / rows;
                found.matrices.push(EncoderMatrix { rows, cols, dtype, bounded: in_layer || patches });
            }
        }
        Ok(found)
    }
}
