//! The picture encoder's tensors: names → fields, shapes checked.

use carat_tensor::{Backend, Bytes, Tensor};
use carat_weights::Checkpoint;

use super::names::*;
use super::tower::TowerSource;
use crate::ModelError;
use crate::config::{PATCH_SIDE, PATCH_VALUES, VisionConfig};
use crate::vision::{Standard, TowerLayer, TowerWeights};

/// Finds everything.
pub(crate) fn load<B: Backend>(
    backend: &mut B,
    checkpoint: &Checkpoint,
    config: &VisionConfig,
) -> Result<TowerWeights<B>, ModelError> {
    let mut source = TowerSource::new(backend, checkpoint, PATCH_PROJECTION, config.clipped)?;
    let VisionConfig { d_model: d, n_positions, d_text, n_layers, .. } = *config;
    let weights = TowerWeights {
        patches: patches(&mut source, d)?,
        positions: source.matrix(None, PATCH_POSITIONS, &[2, n_positions, d])?,
        layers: (0..n_layers).map(|l| layer(&mut source, config, l)).collect::<Result<_, _>>()?,
        standard: match config.standardised {
            true => Some(Standard {
                bias: source.vector(None, STANDARD_BIAS, &[d])?,
                scale: source.vector(None, STANDARD_SCALE, &[d])?,
            }),
            false => None,
        },
        ones: source.backend.vector(&vec![1.0; d])?,
        soft_tokens: source.matrix(None, VISION_SOFT_TOKENS, &[d_text, d])?,
    };
    source.finish(&VISION_PARTS, &AUDIO_PARTS)?;
    Ok(weights)
}

/// The projection of patches. A GGUF file has the colours of a patch apart, `[d, 3, 16, 16]`; here they are together pixel by
/// pixel.
fn patches<B: Backend>(source: &mut TowerSource<'_, B>, d: usize) -> Result<B::Matrix, ModelError> {
    if !source.is_gguf() {
        return source.matrix(None, PATCH_PROJECTION, &[d, PATCH_VALUES]);
    }
    const COLOURS: usize = 3;
    let pixels = PATCH_SIDE * PATCH_SIDE;
    let apart = source.take(None, PATCH_PROJECTION, &[d, COLOURS, PATCH_SIDE, PATCH_SIDE])?;
    if apart.dtype.block_len() != 1 {
        return Err(ModelError::ParameterType { name: apart.name, found: apart.dtype });
    }
    let bytes = apart.dtype.block_bytes();
    let mut data = Vec::with_capacity(apart.data.len());
    for filter in apart.data.chunks_exact(PATCH_VALUES * bytes) {
        for pixel in 0..pixels {
            (0..COLOURS).for_each(|c| data.extend(&filter[(c * pixels + pixel) * bytes..][..bytes]));
        }
    }
    Ok(source.backend.matrix(&Tensor { shape: vec![d, PATCH_VALUES], data: Bytes::from_vec(data), ..apart })?)
}

fn layer<B: Backend>(
    source: &mut TowerSource<'_, B>,
    config: &VisionConfig,
    l: usize,
) -> Result<TowerLayer<B>, ModelError> {
    let VisionConfig { d_model: d, head_dim, ffn_width: ff, .. } = *config;
    let (heads, at) = (config.heads_width(), source.layer(VISION_LAYER, l));
    let [attention_norm, post_attention_norm, ffn_norm, post_ffn_norm] = VISION_NORMS;
    Ok(TowerLayer {
        attention_norm: source.vector(Some(&at), attention_norm, &[d])?,
        q: source.linear(&at, VISION_Q, &[heads, d])?,
        k: source.linear(&at, VISION_K, &[heads, d])?,
        v: source.linear(&at, VISION_V, &[heads, d])?,
        q_norm: source.vector(Some(&at), Q_NORM, &[head_dim])?,
        k_norm: source.vector(Some(&at), K_NORM, &[head_dim])?,
        o: source.linear(&at, VISION_O, &[d, heads])?,
        post_attention_norm: source.vector(Some(&at), post_attention_norm, &[d])?,
        ffn_norm: source.vector(Some(&at), ffn_norm, &[d])?,
        gate: source.linear(&at, VISION_GATE, &[ff, d])?,
        up: source.linear(&at, VISION_UP, &[ff, d])?,
        down: source.linear(&at, VISION_DOWN, &[d, ff])?,
        post_ffn_norm: source.vector(Some(&at), post_ffn_norm, &[d])?,
    })
}
