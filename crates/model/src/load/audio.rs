//! The sound encoder's tensors: names → fields, shapes checked, constants folded.
//!
//! What scales queries and keys becomes one vector, and the embeddings of distances, which no input changes, are computed
//! here. Source: transformers `modeling_gemma4.Gemma4AudioAttention`, `Gemma4AudioRelPositionalEncoding`.

use carat_tensor::Backend;
use carat_tensor::backend::Projection;
use carat_weights::Checkpoint;

use super::names::*;
use super::tower::{Layer, TowerSource};
use crate::ModelError;
use crate::audio::{AudioLayer, AudioWeights, FeedForward, Subsampler};
use crate::config::AudioConfig;

/// Finds everything.
pub(crate) fn load<B: Backend>(
    backend: &mut B,
    checkpoint: &Checkpoint,
    config: &AudioConfig,
) -> Result<AudioWeights<B>, ModelError> {
    let mut source = TowerSource::new(backend, checkpoint, SUBSAMPLED, config.clipped)?;
    let AudioConfig { d_model: d, n_layers, d_out, d_text, .. } = *config;
    let weights = AudioWeights {
        subsamplers: [subsampler(&mut source, config, 0)?, subsampler(&mut source, config, 1)?],
        subsampled: source.matrix(None, SUBSAMPLED, &[d, config.subsampled()])?,
        layers: (0..n_layers).map(|l| layer(&mut source, config, l)).collect::<Result<_, _>>()?,
        out: source.matrix(None, AUDIO_OUT, &[d_out, d])?,
        out_bias: source.vector(None, AUDIO_OUT_BIAS, &[d_out])?,
        ones: source.backend.vector(&vec![1.0; d_out])?,
        soft_tokens: source.matrix(None, AUDIO_SOFT_TOKENS, &[d_text, d_out])?,
    };
    source.finish(&AUDIO_PARTS, &[])?;
    Ok(weights)
}

fn subsampler<B: Backend>(
    source: &mut TowerSource<'_, B>,
    config: &AudioConfig,
    i: usize,
) -> Result<Subsampler<B>, ModelError> {
    let ([filters, norm], n) = (SUBSAMPLING[i], config.filters[i]);
    let channels = if i == 0 { 1 } else { config.filters[0] };
    Ok(Subsampler {
        filters: source.vector(None, filters, &[n, channels, 3, 3])?,
        norm: source.vector(None, norm, &[n])?,
    })
}

fn layer<B: Backend>(
    source: &mut TowerSource<'_, B>,
    config: &AudioConfig,
    l: usize,
) -> Result<AudioLayer<B>, ModelError> {
    let (d, at) = (config.d_model, source.layer(AUDIO_LAYER, l));
    // A GGUF file keeps each channel's taps in two dimensions.
    let taps: &[usize] = if source.is_gguf() { &[d, config.taps] } else { &[d, 1, config.taps] };
    Ok(AudioLayer {
        ffns: [feed_forward(source, config, &at, 0)?, feed_forward(source, config, &at, 1)?],
        attention_norm: source.vector(Some(&at), AUDIO_ATTENTION_NORM, &[d])?,
        q: source.linear(&at, AUDIO_Q, &[d, d])?,
        k: source.linear(&at, AUDIO_K, &[d, d])?,
        v: source.linear(&at, AUDIO_V, &[d, d])?,
        o: source.linear(&at, AUDIO_O, &[d, d])?,
        query_scale: query_scale(source, config, &at)?,
        distances: distances(source, config, &at)?,
        post_attention_norm: source.vector(Some(&at), AUDIO_POST_ATTENTION_NORM, &[d])?,
        conv_norm: source.vector(Some(&at), AUDIO_CONV_NORM, &[d])?,
        conv_start: source.linear(&at, AUDIO_CONV_START, &[2 * d, d])?,
        taps: source.vector(Some(&at), AUDIO_TAPS, taps)?,
        taps_norm: source.vector(Some(&at), AUDIO_TAPS_NORM, &[d])?,
        conv_end: source.linear(&at, AUDIO_CONV_END, &[d, d])?,
        out_norm: source.vector(Some(&at), AUDIO_OUT_NORM, &[d])?,
    })
}

fn feed_forward<B: Backend>(
    source: &mut TowerSource<'_, B>,
    config: &AudioConfig,
    at: &Layer,
    i: usize,
) -> Result<FeedForward<B>, ModelError> {
    let ([norm, up, down, post_norm], d, ff) = (AUDIO_FFNS[i], config.d_model, config.ffn_width());
    let mut post = source.values(Some(at), post_norm, &[d])?;
    post.iter_mut().for_each(|w| *w *= config.residual_weight);
    Ok(FeedForward {
        norm: source.vector(Some(at), norm, &[d])?,
        up: source.linear(at, up, &[ff, d])?,
        down: source.linear(at, down, &[d, ff])?,
        post_norm: source.backend.vector(&post)?,
    })
}

/// `softplus(1) / ln 2`: what keys are multiplied with.
fn key_scale() -> f64 {
    (1.0 + std::f64::consts::E).ln() / std::f64::consts::LN_2
}

/// What multiplies queries where keys stay as they are: `head_dim^(-1/2) / ln 2 · softplus(s)`, times the keys' factor.
fn query_scale<B: Backend>(
    source: &mut TowerSource<'_, B>,
    config: &AudioConfig,
    at: &Layer,
) -> Result<B::Vector, ModelError> {
    let head_dim = config.head_dim();
    let stored = source.values(Some(at), AUDIO_QUERY_SCALE, &[head_dim])?;
    let softplus = |v: f64| if v > 30.0 { v } else { v.exp().ln_1p() };
    let of = |v: f64| if source.is_gguf() { v } else { softplus(v) };
    let factor = (head_dim as f64).powf(-0.5) / std::f64::consts::LN_2 * key_scale();
    let scale: Vec<f32> = stored.iter().map(|v| (of(f64::from(*v)) * factor) as f32).collect();
    Ok(source.backend.vector(&scale)?)
}

/// What is added to keys by distance, `[reach, d]`: `W · sinusoids`, divided by the keys' factor.
fn distances<B: Backend>(
    source: &mut TowerSource<'_, B>,
    config: &AudioConfig,
    at: &Layer,
) -> Result<B::Vector, ModelError> {
    let (d, reach) = (config.d_model, config.reach);
    let matrix = source.matrix(Some(at), AUDIO_DISTANCES, &[d, d])?;
    let (mut x, mut out) = (source.backend.buffer(reach * d)?, source.backend.buffer(reach * d)?);
    source.backend.upload(&mut x, &sinusoids(config));
    source.backend.project(&mut [Projection { matrix: &matrix, out: &mut out }], &x, None, reach);
    let mut rows = vec![0.0; reach * d];
    source.backend.download(&out, 0, &mut rows);
    rows.iter_mut().for_each(|v| *v = (f64::from(*v) / key_scale()) as f32);
    Ok(source.backend.vector(&rows)?)
}

/// Of the distances from 0 on, `[reach, d]`: sines, then cosines, of wavelengths from 2π to 2π · 10000. Angles are in f32,
/// as the reference has them.
fn sinusoids(config: &AudioConfig) -> Vec<f32> {
    let half = config.d_model / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let rates: Vec<f32> = (0..half).map(|i| (i as f32 * -(step as f32)).exp()).collect();
    let mut rows = Vec::with_capacity(config.reach * config.d_model);
    for distance in 0..config.reach {
        let angles = || rates.iter().map(|rate| (distance + config.distance_shift) as f32 * rate);
        rows.extend(angles().map(f32::sin));
        rows.extend(angles().map(f32::cos));
    }
    rows
}
