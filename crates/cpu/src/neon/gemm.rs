//! Prefill: a packed tile of 16 weight rows times many activation rows.
//!
//! A quad of columns of the tile is four vectors of four rows; `sdot` with the activations' quad in every lane gives
//! 16 rows at once. Four activation rows share each load of weights: 16 integer and 16 float accumulators.

use std::arch::aarch64::*;

use super::{load, load_quad, load_u8, sdot, store};
use crate::ints::IntRows;
use crate::kernels::{PackedTile, TILE};

/// Activation rows that share a load of weights.
const ROWS: usize = 4;

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "dotprod")]
pub fn gemm(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE;
    let whole = n / ROWS * ROWS;
    for i in (0..whole).step_by(ROWS) {
        let rows: [_; ROWS] = std::array::from_fn(|r| x.row(i + r));
        let out = &mut out[i * TILE..];
        if x.is_fine() { block::<ROWS, true>(tile, rows, out) } else { block::<ROWS, false>(tile, rows, out) }
    }
    for i in whole..n {
        let (row, out) = ([x.row(i)], &mut out[i * TILE..]);
        if x.is_fine() { block::<1, true>(tile, row, out) } else { block::<1, false>(tile, row, out) }
    }
}

#[inline]
#[target_feature(enable = "dotprod")]
fn block<const N: usize, const FINE: bool>(tile: &PackedTile, x: [IntRows<'_>; N], out: &mut [f32]) {
    let group = tile.form.group;
    let offset = vdupq_n_u8(tile.form.offset as u8);
    let mut total = [[vdupq_n_f32(0.0); 4]; N];
    for g in 0..x[0].cols / group {
        let at = g * group;
        let (mut dots, mut lows) = ([[vdupq_n_s32(0); 4]; N], [[vdupq_n_s32(0); 4]; N]);
        let weights = &tile.q[at * TILE..(at + group) * TILE];
        for (quad, weights) in weights.chunks_exact(4 * TILE).enumerate() {
            let w: [int8x16_t; 4] =
                std::array::from_fn(|v| vreinterpretq_s8_u8(vsubq_u8(load_u8(&weights[16 * v..]), offset)));
            for ((dots, lows), x) in dots.iter_mut().zip(&mut lows).zip(&x) {
                let q = load_quad(&x.q[at + 4 * quad..]);
                for (dot, &w) in dots.iter_mut().zip(&w) {
                    *dot = sdot(*dot, w, q);
                }
                if FINE {
                    let low = load_quad(&x.low[at + 4 * quad..]);
                    for (dot, &w) in lows.iter_mut().zip(&w) {
                        *dot = sdot(*dot, w, low);
                    }
                }
            }
        }
        if FINE {
            for (dot, low) in dots.as_flattened_mut().iter_mut().zip(lows.as_flattened()) {
                *dot = vaddq_s32(vshlq_n_s32::<7>(*dot), *low);
            }
        }
        let scale = &tile.scale[g * TILE..(g + 1) * TILE];
        for ((total, dots), x) in total.iter_mut().zip(&dots).zip(&x) {
            let d = x.d[at / 32];
            for (v, (total, &dot)) in total.iter_mut().zip(dots).enumerate() {
                *total = vfmaq_f32(*total, vcvtq_f32_s32(dot), vmulq_n_f32(load(&scale[4 * v..]), d));
            }
            if tile.form.has_min {
                let sum: i32 = x.sum[at / 16..(at + group) / 16].iter().sum();
                let min = &tile.min[g * TILE..(g + 1) * TILE];
                for (v, total) in total.iter_mut().enumerate() {
                    *total = vfmsq_n_f32(*total, load(&min[4 * v..]), d * sum as f32);
                }
            }
        }
    }
    for (out, total) in out.chunks_exact_mut(TILE).zip(total) {
        for (out, total) in out.chunks_exact_mut(4).zip(total) {
            store(out, total);
        }
    }
}

/// See [`crate::scalar::gemm_f32`].
pub fn gemm_f32(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(ROWS * cols).zip(out.chunks_mut(ROWS * TILE)) {
        if x.len() == ROWS * cols {
            block_f32::<ROWS>(tile, std::array::from_fn(|r| &x[r * cols..(r + 1) * cols]), out);
        } else {
            for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(TILE)) {
                block_f32::<1>(tile, [x], out);
            }
        }
    }
}

#[inline]
fn block_f32<const N: usize>(tile: &[f32], x: [&[f32]; N], out: &mut [f32]) {
    // SAFETY: NEON is part of every 64-bit Arm; memory is touched by the checked loads and stores alone.
    unsafe {
        let mut total = [[vdupq_n_f32(0.0); 4]; N];
        for (k, weights) in tile.chunks_exact(TILE).enumerate() {
            let w: [float32x4_t; 4] = std::array::from_fn(|v| load(&weights[4 * v..]));
            for (total, x) in total.iter_mut().zip(&x) {
                for (total, &w) in total.iter_mut().zip(&w) {
                    *total = vfmaq_n_f32(*total, w, x[k]);
                }
            }
        }
        for (out, total) in out.chunks_exact_mut(TILE).zip(total) {
            for (out, total) in out.chunks_exact_mut(4).zip(total) {
                store(out, total);
            }
        }
    }
}
