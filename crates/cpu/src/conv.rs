//! Convolutions: the one in two dimensions that subsamples features, and the one of each channel by itself over the rows
//! before.
//!
//! The first is a product: the 3 × 3 places under a filter become one row, `[3, 3, channels]`, and 16 filters a tile of
//! the blocked matrix kernel. A task makes the rows of one output time, so they stay in the cache.

use carat_tensor::backend::{Subsampling, halved};

use crate::kernels::{Kernels, TILE};
use crate::matmul::copy_row;
use crate::pool::{Output, Pool};

/// Width and height of a filter.
const SIDE: usize = 3;

/// One layer of subsampling.
pub struct Layer<'a> {
    /// `[filters, channels, 3, 3]`.
    pub filters: &'a [f32],
    /// Of the norm, `[filters]`.
    pub weight: &'a [f32],
    /// Of the norm.
    pub eps: f32,
    /// What goes in.
    pub shape: Subsampling,
}

/// See `Backend::subsample`.
pub fn subsample(k: &Kernels, pool: &mut Pool, out: &mut [f32], x: &[f32], layer: &Layer<'_>) {
    let Subsampling { n, bands, channels, filters } = layer.shape;
    let (times, places, cols) = (halved(n), halved(bands), SIDE * SIDE * channels);
    let tiles = tiles(layer.filters, channels);
    pool.tiles(&mut [Output::new(out, times, places * filters, 1, places * filters)], |_, _, mut tile| {
        let (mut under, mut strip) = (vec![0.0; places * cols], vec![0.0; places * TILE]);
        for t in tile.rows() {
            gather(&mut under, x, layer.shape, t);
            let out = tile.row(t);
            for (first, packed) in (0..filters).step_by(TILE).zip(tiles.chunks_exact(cols * TILE)) {
                (k.gemm_f32)(packed, &under, cols, &mut strip);
                let width = TILE.min(filters - first);
                for (out, strip) in out.chunks_exact_mut(filters).zip(strip.chunks_exact(TILE)) {
                    copy_row(&mut out[first..first + width], &strip[..width]);
                }
            }
            out.chunks_exact_mut(filters).for_each(|out| norm_positive(out, layer.weight, layer.eps));
        }
    });
}

/// Filters 16 by 16, `[3, 3, channels, 16]` each; those that aren't there are zero.
fn tiles(filters: &[f32], channels: usize) -> Vec<f32> {
    let cols = SIDE * SIDE * channels;
    let n = filters.len() / cols;
    let mut tiles = vec![0.0; n.div_ceil(TILE) * cols * TILE];
    for (f, filter) in filters.chunks_exact(cols).enumerate() {
        let tile = &mut tiles[f / TILE * cols * TILE..];
        for (c, places) in filter.chunks_exact(SIDE * SIDE).enumerate() {
            for (place, &w) in places.iter().enumerate() {
                tile[(place * channels + c) * TILE + f % TILE] = w;
            }
        }
    }
    tiles
}

/// What lies under a filter at each place of output time `t`: `[places, 3, 3, channels]`.
fn gather(under: &mut [f32], x: &[f32], shape: Subsampling, t: usize) {
    let Subsampling { n, bands, channels, .. } = shape;
    for (m, under) in under.chunks_exact_mut(SIDE * SIDE * channels).enumerate() {
        for (place, under) in under.chunks_exact_mut(channels).enumerate() {
            // One less is meant; where that is below zero, or beyond the end, there is nothing.
            let (time, band) = (2 * t + place / SIDE, 2 * m + place % SIDE);
            if (1..=n).contains(&time) && (1..=bands).contains(&band) {
                let at = ((time - 1) * bands + band - 1) * channels;
                // Of one channel a call would take longer than what it copies.
                under.iter_mut().zip(&x[at..at + channels]).for_each(|(under, x)| *under = *x);
            } else {
                under.fill(0.0);
            }
        }
    }
}

/// Layer norm without a bias, then what is positive.
fn norm_positive(x: &mut [f32], weight: &[f32], eps: f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    let scale = (variance + eps).sqrt().recip();
    for (x, weight) in x.iter_mut().zip(weight) {
        let normed = (*x - mean) * scale * weight;
        // Not `max`, which drops what is no number.
        *x = if normed < 0.0 { 0.0 } else { normed };
    }
}

/// `Σ f(x)`, in lanes.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = x.as_chunks::<16>();
    let mut lanes = [0.0; 16];
    for x in whole {
        lanes.iter_mut().zip(x).for_each(|(lane, &x)| *lane += f(x));
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// Taps `[d, k]` as `[k, d]`.
pub fn by_tap(taps: &[f32], d: usize) -> Vec<f32> {
    let k = taps.len() / d;
    (0..k).flat_map(|j| (0..d).map(move |c| taps[c * k + j])).collect()
}

/// Row `i` of a causal convolution, the taps by [`by_tap`].
pub fn causal_row(out: &mut [f32], x: &[f32], by_tap: &[f32], i: usize) {
    let d = out.len();
    let k = by_tap.len() / d;
    out.fill(0.0);
    for (j, taps) in by_tap.chunks_exact(d).enumerate() {
        let Some(row) = (i + j + 1).checked_sub(k) else { continue };
        let x = &x[row * d..(row + 1) * d];
        out.iter_mut().zip(x).zip(taps).for_each(|((out, x), tap)| *out += x * tap);
    }
}
