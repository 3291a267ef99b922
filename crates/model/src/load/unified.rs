//! Tensors of models that see and hear without a tower: names → fields, shapes checked.
//!
//! GGUF files hold a block's values colour by colour and the embeddings of all columns before those of rows. Neither is
//! rearranged here: [`Order`] says how they are used. Source: llama.cpp `conversion/gemma.py`.

use carat_tensor::{Backend, Tensor};
use carat_weights::Checkpoint;

use super::names::*;
use super::source::{Source, values};
use crate::ModelError;
use crate::config::{BLOCK_VALUES, BlocksConfig, FramesConfig};
use crate::unified::{BlockWeights, FrameWeights, LayerNormWeights, Order};

/// Finds tensors by the names that files have, the published ones first.
struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
    source: Source<'a>,
}

impl<B: Backend> Loader<'_, B> {
    fn order(&self) -> Order {
        match self.checkpoint {
            Checkpoint::HfDir(_) => Order::Published,
            Checkpoint::Gguf(_) => Order::Gguf,
        }
    }

    /// The tensor under the first of the names that the file has.
    fn take(&self, names: Names, end: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        if self.order() == Order::Gguf {
            return self.source.take_named(&format!("{}{end}", names.gguf), shape);
        }
        let all = || {
            let prefixed = |name| TOWER_PREFIXES.into_iter().map(move |prefix| format!("{prefix}{name}{end}"));
            names.hf.iter().flat_map(prefixed)
        };
        let found = all().find(|name| self.checkpoint.tensors().contains(name));
        self.source.take_named(&found.or_else(|| all().next()).unwrap_or_default(), shape)
    }

    fn matrix(&mut self, names: Names, end: &str, shape: &[usize]) -> Result<B::Matrix, ModelError> {
        let tensor = self.take(names, end, shape)?;
        Ok(self.backend.matrix(&tensor)?)
    }

    fn vector(&mut self, names: Names, end: &str, len: usize) -> Result<B::Vector, ModelError> {
        let values = values(&self.take(names, end, &[len])?)?;
        Ok(self.backend.vector(&values)?)
    }

    fn norm(&mut self, names: Names, len: usize) -> Result<LayerNormWeights<B>, ModelError> {
        Ok(LayerNormWeights { weight: self.vector(names, WEIGHT_END, len)?, bias: self.vector(names, BIAS_END, len)? })
    }

    /// Refuses tensors of `parts` that nobody took; in a GGUF file of `gguf` but not of `others`.
    fn finish(self, parts: &[&str], gguf: &[Name], others: &[Name]) -> Result<(), ModelError> {
        if self.order() == Order::Gguf {
            let spelt = |names: &[Name]| names.iter().map(|name| name.gguf.to_owned()).collect::<Vec<_>>();
            return self.source.finish_parts(&spelt(gguf), &spelt(others));
        }
        let starts = |prefix| parts.iter().map(move |part| format!("{prefix}{part}"));
        self.source.finish_parts(&TOWER_PREFIXES.into_iter().flat_map(starts).collect::<Vec<_>>(), &[])
    }
}

/// What blocks of pixels need.
pub(crate) fn blocks<B: Backend>(
    backend: &mut B,
    checkpoint: &Checkpoint,
    config: &BlocksConfig,
) -> Result<BlockWeights<B>, ModelError> {
    let BlocksConfig { d_model: d, n_positions, d_text, .. } = *config;
    let mut l = Loader { backend, checkpoint, source: Source::new(checkpoint)? };
    let order = l.order();
    let places = match order {
        Order::Published => [n_positions, 2, d],
        Order::Gguf => [2, n_positions, d],
    };
    let mut bias = l.take(BLOCK_PROJECTION, BIAS_END, &[d])?;
    bias.shape = vec![1, d];
    let weights = BlockWeights {
        order,
        pixel_norm: l.norm(PIXEL_NORM, BLOCK_VALUES)?,
        blocks: l.matrix(BLOCK_PROJECTION, WEIGHT_END, &[d, BLOCK_VALUES])?,
        bias: l.backend.matrix(&bias)?,
        block_norm: l.norm(BLOCK_NORM, d)?,
        positions: l.matrix(BLOCK_POSITIONS, "", &places)?,
        position_norm: l.norm(POSITION_NORM, d)?,
        ones: l.backend.vector(&vec![1.0; d])?,
        soft_tokens: l.matrix(BLOCK_SOFT_TOKENS, WEIGHT_END, &[d_text, d])?,
    };
    l.finish(&BLOCK_PARTS, &VISION_PARTS, &AUDIO_PARTS)?;
    Ok(weights)
}

/// What frames of sound need.
pub(crate) fn frames<B: Backend>(
    backend: &mut B,
    checkpoint: &Checkpoint,
    config: &FramesConfig,
) -> Result<FrameWeights<B>, ModelError> {
    let mut l = Loader { backend, checkpoint, source: Source::new(checkpoint)? };
    let weights = FrameWeights {
        ones: l.backend.vector(&vec![1.0; config.samples])?,
        soft_tokens: l.matrix(FRAME_SOFT_TOKENS, WEIGHT_END, &[config.d_text, config.samples])?,
    };
    l.finish(&FRAME_PARTS, &AUDIO_PARTS, &[])?;
    Ok(weights)
}
