//! The picture encoder's tensors: names → fields, shapes checked.
//!
//! A checkpoint without its text model is enough, and the text model's loader leaves these tensors alone.

use carat_tensor::backend::Clip;
use carat_tensor::{Backend, Tensor};
use carat_weights::Checkpoint;

use super::names::*;
use super::source::{Source, numbers, values};
use crate::ModelError;
use crate::config::{PATCH_VALUES, VisionConfig};
use crate::vision::{Linear, Standard, TowerLayer, TowerWeights};

/// Finds everything.
pub(crate) fn load<B: Backend>(
    backend: &mut B,
    checkpoint: &Checkpoint,
    config: &VisionConfig,
) -> Result<TowerWeights<B>, ModelError> {
    let source = Source::new(checkpoint)?;
    let tensors = checkpoint.tensors();
    let has = |prefix: &&str| tensors.contains(&format!("{prefix}{PATCH_PROJECTION}"));
    let prefix = TOWER_PREFIXES.into_iter().find(has).unwrap_or(TOWER_PREFIXES[0]);
    let mut loader = Loader { backend, source, prefix, config };
    let weights = loader.tower()?;
    loader.source.finish_parts(prefix, &TOWER_PARTS)?;
    Ok(weights)
}

struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    source: Source<'a>,
    prefix: &'static str,
    config: &'a VisionConfig,
}

impl<B: Backend> Loader<'_, B> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.source.take_named(&format!("{}{name}", self.prefix), shape)
    }

    fn matrix(&mut self, name: &str, shape: &[usize]) -> Result<B::Matrix, ModelError> {
        let tensor = self.take(name, shape)?;
        Ok(self.backend.matrix(&tensor)?)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<B::Vector, ModelError> {
        let values = values(&self.take(name, &[len])?)?;
        Ok(self.backend.vector(&values)?)
    }

    fn tower(&mut self) -> Result<TowerWeights<B>, ModelError> {
        let VisionConfig { d_model: d, n_positions, d_text, n_layers, .. } = *self.config;
        Ok(TowerWeights {
            patches: self.matrix(PATCH_PROJECTION, &[d, PATCH_VALUES])?,
            positions: self.matrix(PATCH_POSITIONS, &[2, n_positions, d])?,
            layers: (0..n_layers).map(|l| self.layer(l)).collect::<Result<_, _>>()?,
            standard: match self.config.standardised {
                true => Some(Standard { bias: self.vector(STANDARD_BIAS, d)?, scale: self.vector(STANDARD_SCALE, d)? }),
                false => None,
            },
            ones: self.backend.vector(&vec![1.0; d])?,
            soft_tokens: self.matrix(SOFT_TOKENS, &[d_text, d])?,
        })
    }

    fn layer(&mut self, l: usize) -> Result<TowerLayer<B>, ModelError> {
        let VisionConfig { d_model: d, head_dim, ffn_width: ff, .. } = *self.config;
        let (heads, layer) = (self.config.heads_width(), TOWER_LAYER.replace("{}", &l.to_string()));
        let norm = |name: Name| format!("{layer}{}", name.hf);
        Ok(TowerLayer {
            attention_norm: self.vector(&norm(ATTENTION_NORM), d)?,
            q: self.linear(&layer, TOWER_Q, &[heads, d])?,
            k: self.linear(&layer, TOWER_K, &[heads, d])?,
            v: self.linear(&layer, TOWER_V, &[heads, d])?,
            q_norm: self.vector(&norm(Q_NORM), head_dim)?,
            k_norm: self.vector(&norm(K_NORM), head_dim)?,
            o: self.linear(&layer, TOWER_O, &[d, heads])?,
            post_attention_norm: self.vector(&norm(POST_ATTENTION_NORM), d)?,
            ffn_norm: self.vector(&norm(FFN_NORM), d)?,
            gate: self.linear(&layer, TOWER_GATE, &[ff, d])?,
            up: self.linear(&layer, TOWER_UP, &[ff, d])?,
            down: self.linear(&layer, TOWER_DOWN, &[d, ff])?,
            post_ffn_norm: self.vector(&norm(POST_FFN_NORM), d)?,
        })
    }

    fn linear(&mut self, layer: &str, name: &str, shape: &[usize]) -> Result<Linear<B>, ModelError> {
        let matrix = self.matrix(&format!("{layer}{name}{TOWER_MATRIX}"), shape)?;
        if !self.config.clipped {
            return Ok(Linear { matrix, clip: Clip::NONE });
        }
        let [a, b, c, d] = TOWER_BOUNDS.map(|end| format!("{}{layer}{name}{end}", self.prefix));
        let (input, output) = (self.bounds(&a, &b)?, self.bounds(&c, &d)?);
        Ok(Linear { matrix, clip: Clip { input, output } })
    }

    /// A lower and an upper bound; what the file leaves out is infinite, as in the reference.
    fn bounds(&self, low: &str, high: &str) -> Result<[f32; 2], ModelError> {
        let bound = |name: &str, absent: f32| match self.source.take_optional(name)? {
            None => Ok(absent),
            Some(tensor) if tensor.len() == 1 => Ok(numbers(&tensor)?[0]),
            Some(tensor) => {
                let (name, found) = (tensor.name, tensor.shape);
                Err(ModelError::WrongShape { name, found, expected: Vec::new() })
            }
        };
        let bounds = [bound(low, f32::NEG_INFINITY)?, bound(high, f32::INFINITY)?];
        if bounds[0] <= bounds[1] {
            return Ok(bounds);
        }
        Err(ModelError::Bound { name: high.into(), found: bounds[1], expected: format!("not below {}", bounds[0]) })
    }
}
