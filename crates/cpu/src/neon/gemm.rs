//! Blocked products of 16-row tiles with many activation rows.
//!
//! Eight weight rows of a group meet four activation rows ([`Group`]). Columns go by 256: a tile's part of so many takes
//! 4 KiB, so that all tiles' lie near while all activation rows pass, and four rows' in the first cache while all tiles do.

use std::arch::aarch64::*;
use std::ops::Range;

use super::group::{Group, Rows, share};
use super::{load, load_u8, store};
use crate::ints::IntRows;
use crate::kernels::{PackedTile, TILE};

/// Columns per pass over the activation rows.
pub const PASS: usize = 256;

/// Brings an unpacked tile into the order of [`gemm`]: its bytes signed.
pub fn arrange(tile: &mut PackedTile) {
    let offset = tile.form.offset as u8;
    tile.q.iter_mut().for_each(|q| *q = q.wrapping_sub(offset));
}

/// See [`crate::scalar::gemm`], of arranged tiles.
#[target_feature(enable = "dotprod")]
pub fn gemm(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() { all::<2>(tiles, *x, out) } else { all::<1>(tiles, *x, out) }
}

#[target_feature(enable = "dotprod")]
fn all<const P: usize>(tiles: &[PackedTile], x: IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE / tiles.len();
    out.fill(0.0);
    for start in (0..x.cols).step_by(PASS) {
        let cols = start..(start + PASS).min(x.cols);
        let mut i = 0;
        while i < n {
            let taken = share(n - i);
            for (tile, out) in tiles.iter().zip(out.chunks_exact_mut(n * TILE)) {
                let out = &mut out[i * TILE..(i + taken) * TILE];
                match taken {
                    1 => by_form::<P, 1>(tile, Rows::new::<P, 1>(x, x, i), cols.clone(), out),
                    2 => by_form::<P, 2>(tile, Rows::new::<P, 2>(x, x, i), cols.clone(), out),
                    _ => by_form::<P, 4>(tile, Rows::new::<P, 4>(x, x, i), cols.clone(), out),
                }
            }
            i += taken;
        }
    }
}

#[inline]
#[target_feature(enable = "dotprod")]
fn by_form<const P: usize, const N: usize>(tile: &PackedTile, x: Rows<'_>, cols: Range<usize>, out: &mut [f32]) {
    match (tile.form.group, tile.form.has_min) {
        (32, false) => add::<P, N, 2, false>(tile, x, cols, out),
        (32, true) => add::<P, N, 2, true>(tile, x, cols, out),
        (_, false) => add::<P, N, 1, false>(tile, x, cols, out),
        (_, true) => add::<P, N, 1, true>(tile, x, cols, out),
    }
}

/// Adds the products of some columns, in groups of `16 · S`, and `N` rows to `out`, `[N, 16]`.
#[target_feature(enable = "dotprod")]
fn add<const P: usize, const N: usize, const S: usize, const MIN: bool>(
    tile: &PackedTile,
    x: Rows<'_>,
    cols: Range<usize>,
    out: &mut [f32],
) {
    let groups = cols.start / (16 * S)..cols.end / (16 * S);
    let w = &tile.q.as_chunks::<{ 16 * TILE }>().0[cols.start / 16..cols.end / 16];
    let scale = &tile.scale.as_chunks::<TILE>().0[groups.clone()];
    let min = if MIN { &tile.min.as_chunks::<TILE>().0[groups] } else { scale };
    for half in 0..2 {
        let mut acc = [[vdupq_n_f32(0.0); 2]; N];
        for (g, (q, (scale, min))) in w.chunks_exact(S).zip(scale.iter().zip(min)).enumerate() {
            let mut w = [[[vdupq_n_s8(0); 4]; S]; 2];
            for (s, q) in q.iter().enumerate() {
                for (v, w) in w.iter_mut().enumerate() {
                    for (k, w) in w[s].iter_mut().enumerate() {
                        *w = vreinterpretq_s8_u8(load_u8(&q[64 * k + 32 * half + 16 * v..]));
                    }
                }
            }
            let eight = |x: &[f32; TILE]| [load(&x[8 * half..]), load(&x[8 * half + 4..])];
            let group = Group::<S, 0> { w, scale: eight(scale), min: MIN.then(|| eight(min)) };
            // SAFETY: the feature is enabled for this function, `all` has had the rows checked, and columns are those of a row.
            unsafe { x.add::<P, N, S, 0>(&group, cols.start + 16 * S * g, &mut acc) };
        }
        for (out, acc) in out.as_chunks_mut::<TILE>().0.iter_mut().zip(acc) {
            for (v, acc) in acc.into_iter().enumerate() {
                let out = &mut out[8 * half + 4 * v..];
                let sum = vaddq_f32(load(out), acc);
                store(out, sum);
            }
        }
    }
}

/// Activation rows that share a load of weights in f32.
const ROWS: usize = 4;

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
