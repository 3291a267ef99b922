//! Blocked products of one 16-row tile with all activation rows.
//!
//! One 32-bit lane per weight row, eight activation rows at a time. Integers: `vpdpbusd` of unsigned weights with
//! broadcast activations, starting from `−offset · Σx`, so the offset costs nothing; per group one conversion and one
//! fused multiply-add with `scale · d`. Activations of 15 bits take two dots, the first one's sum times 128.

use std::arch::x86_64::*;

use super::{load, store};
use crate::acts::IntRows;
use crate::kernels::{PackedTile, TILE};

/// Activation rows per pass: 8 sums and 8 weight registers leave room for the rest.
const COLS: usize = 8;

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn gemm(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() { by_form::<true>(tile, x, out) } else { by_form::<false>(tile, x, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_form<const FINE: bool>(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    match (tile.form.group, tile.form.offset) {
        (32, 0) => all::<8, 0, FINE>(tile, x, out),
        (32, 8) => all::<8, 8, FINE>(tile, x, out),
        (32, 16) => all::<8, 16, FINE>(tile, x, out),
        (32, 128) => all::<8, 128, FINE>(tile, x, out),
        (16, 0) => all::<4, 0, FINE>(tile, x, out),
        (16, 4) => all::<4, 4, FINE>(tile, x, out),
        (16, 32) => all::<4, 32, FINE>(tile, x, out),
        (16, 64) => all::<4, 64, FINE>(tile, x, out),
        _ => crate::scalar::gemm(tile, x, out),
    }
}

/// Groups of `4 · QUADS` weights; formats without an offset have minima.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn all<const QUADS: usize, const OFFSET: i32, const FINE: bool>(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE;
    let mut i = 0;
    while i + COLS <= n {
        some::<QUADS, OFFSET, FINE, COLS>(tile, x, i, out);
        i += COLS;
    }
    if i + 4 <= n {
        some::<QUADS, OFFSET, FINE, 4>(tile, x, i, out);
        i += 4;
    }
    while i < n {
        some::<QUADS, OFFSET, FINE, 1>(tile, x, i, out);
        i += 1;
    }
}

/// Activation rows `first .. first + C`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn some<const QUADS: usize, const OFFSET: i32, const FINE: bool, const C: usize>(
    tile: &PackedTile,
    x: &IntRows<'_>,
    first: usize,
    out: &mut [f32],
) {
    let groups = x.cols / (4 * QUADS);
    let (negative, weighted) = if QUADS == 8 { (x.neg32, x.dsum32) } else { (x.neg16, x.dsum16) };
    assert!(tile.q.len() >= x.cols * TILE && tile.scale.len() >= groups * TILE);
    assert!(OFFSET != 0 || tile.min.len() >= groups * TILE);
    let (last, blocks) = (first + C, x.cols / 32);
    assert!(x.q.len() >= last * x.cols && x.d.len() >= last * blocks && (!FINE || x.low.len() == x.q.len()));
    assert!(negative.len() >= last * groups && weighted.len() >= last * groups);
    let (q, d) = (x.q[first * x.cols..].as_ptr(), x.d[first * blocks..].as_ptr());
    let low = if FINE { x.low[first * x.cols..].as_ptr() } else { q };
    let (negative, weighted) = (negative[first * groups..].as_ptr(), weighted[first * groups..].as_ptr());
    // One offset per activation row serves all its arrays, as index of an address with scale 8, 1 or 2: eight pointers
    // for each array would not stay in registers.
    let offset: [usize; C] = std::array::from_fn(|c| c * blocks * 4);
    let mut acc = [_mm512_setzero_ps(); C];
    for g in 0..groups {
        // SAFETY: the tile has `cols · 16` bytes and `groups · 16` scales (and minima), each of the `C` rows from
        // `first` on `cols` bytes, `cols / 32` scales and `groups` sums, all asserted above; `g < groups`. An offset is
        // `c` rows of scales in bytes: eight times that are `c` rows of bytes, and once or twice `c` rows of sums.
        unsafe {
            let w: [__m512i; QUADS] =
                std::array::from_fn(|k| _mm512_loadu_si512(tile.q.as_ptr().add((g * QUADS + k) * 64).cast()));
            let scale = _mm512_loadu_ps(tile.scale.as_ptr().add(g * TILE));
            for c in 0..C {
                let at = offset[c] * 8 + g * QUADS * 4;
                let dot = |quads: *const i8, mut sum: __m512i| {
                    for (k, &w) in w.iter().enumerate() {
                        let quad = _mm512_set1_epi32(quads.add(at + 4 * k).cast::<i32>().read_unaligned());
                        sum = _mm512_dpbusd_epi32(sum, w, quad);
                    }
                    sum
                };
                // `−8 · Σx`, brought to `−offset · Σx`.
                let eight = || _mm512_set1_epi32(*negative.byte_add(offset[c] * (8 / QUADS)).add(g));
                let start = match OFFSET {
                    0 => _mm512_setzero_si512(),
                    4 => _mm512_srai_epi32::<1>(eight()),
                    8 => eight(),
                    16 => _mm512_slli_epi32::<1>(eight()),
                    32 => _mm512_slli_epi32::<2>(eight()),
                    64 => _mm512_slli_epi32::<3>(eight()),
                    _ => _mm512_slli_epi32::<4>(eight()),
                };
                let sum = if FINE {
                    let high = _mm512_slli_epi32::<7>(dot(q, _mm512_setzero_si512()));
                    dot(low, if OFFSET == 0 { high } else { _mm512_add_epi32(high, start) })
                } else {
                    dot(q, start)
                };
                let d = _mm512_set1_ps(*d.byte_add(offset[c]).add(g * QUADS / 8));
                acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, d), acc[c]);
                if OFFSET == 0 {
                    let min = _mm512_loadu_ps(tile.min.as_ptr().add(g * TILE));
                    acc[c] = _mm512_fnmadd_ps(
                        min,
                        _mm512_set1_ps(*weighted.byte_add(offset[c] * (8 / QUADS)).add(g)),
                        acc[c],
                    );
                }
            }
        }
    }
    for (c, acc) in acc.into_iter().enumerate() {
        store(&mut out[(first + c) * TILE..], acc);
    }
}

/// Columns after which partial sums are added up, so rounding grows with their number and not with the row's length.
const RUN: usize = 256;

/// See [`crate::scalar::gemm_f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn gemm_f32(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    let n = out.len() / TILE;
    assert!(x.len() >= n * cols && tile.len() >= cols * TILE);
    let mut i = 0;
    while i + COLS <= n {
        some_f32::<COLS>(tile, &x[i * cols..], cols, &mut out[i * TILE..]);
        i += COLS;
    }
    while i < n {
        some_f32::<1>(tile, &x[i * cols..], cols, &mut out[i * TILE..]);
        i += 1;
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn some_f32<const C: usize>(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    let rows: [&[f32]; C] = std::array::from_fn(|c| &x[c * cols..(c + 1) * cols]);
    let mut total = [_mm512_setzero_ps(); C];
    for start in (0..cols).step_by(RUN) {
        let end = (start + RUN).min(cols);
        let rows: [&[f32]; C] = std::array::from_fn(|c| &rows[c][start..end]);
        let mut acc = [_mm512_setzero_ps(); C];
        for (k, w) in tile[start * TILE..end * TILE].chunks_exact(TILE).enumerate() {
            let w = load(w);
            for c in 0..C {
                acc[c] = _mm512_fmadd_ps(w, _mm512_set1_ps(rows[c][k]), acc[c]);
            }
        }
        for (total, acc) in total.iter_mut().zip(acc) {
            *total = _mm512_add_ps(*total, acc);
        }
    }
    for (c, total) in total.into_iter().enumerate() {
        store(&mut out[c * TILE..], total);
    }
}
