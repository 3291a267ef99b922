//! Blocked products of one 16-row tile with some activation rows at a time, one 32-bit lane per weight row in two halves.
//!
//! Without VNNI, pairs of byte products are summed in 16 bits, as many as fit (`RUN · 2 · most · 127 < 2¹⁵`), before
//! `vpmaddwd` brings them to 32 and weighs the planes of 15-bit activations, by 128 and 1. Weights of 8 bits become 16-bit, and
//! meet activations of 16.

use std::arch::x86_64::*;

use super::tiles::wide_quad;
use super::{load, store};
use crate::acts::IntRows;
use crate::kernels::{PackedTile, TILE};

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gemm(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    match (tile.form.group, tile.form.most) {
        (32, 0..=15) => narrow::<8, 8>(tile, x, out),
        (32, 16..=31) => narrow::<8, 4>(tile, x, out),
        (32, _) => all_wide(tile, x, out),
        (_, 0..=31) => narrow::<4, 4>(tile, x, out),
        (_, 32..=63) => narrow::<4, 2>(tile, x, out),
        (_, most) => {
            assert!(most < 128, "the largest weight of groups of 16 is {most}");
            narrow::<4, 1>(tile, x, out);
        }
    }
}

/// Groups of `4 · QUADS` weights, of which 16 bits hold the products of `4 · RUN`.
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow<const QUADS: usize, const RUN: usize>(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE;
    let mut i = 0;
    // As many rows as leave room for their sums in registers.
    if x.is_fine() {
        while i + 3 <= n {
            some::<QUADS, RUN, true, 3>(tile, x, i, out);
            i += 3;
        }
        while i < n {
            some::<QUADS, RUN, true, 1>(tile, x, i, out);
            i += 1;
        }
    } else {
        while i + 6 <= n {
            some::<QUADS, RUN, false, 6>(tile, x, i, out);
            i += 6;
        }
        while i < n {
            some::<QUADS, RUN, false, 1>(tile, x, i, out);
            i += 1;
        }
    }
}

/// Four of a row's bytes, in every lane.
///
/// # Safety
/// Bytes `at .. at + 4` must be there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quad(bytes: &[i8], at: usize) -> __m256i {
    // SAFETY: as the caller says.
    _mm256_set1_epi32(unsafe { bytes.as_ptr().add(at).cast::<i32>().read_unaligned() })
}

/// Activation rows `first .. first + C`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some<const QUADS: usize, const RUN: usize, const FINE: bool, const C: usize>(
    tile: &PackedTile,
    x: &IntRows<'_>,
    first: usize,
    out: &mut [f32],
) {
    let (groups, offset) = (x.cols / (4 * QUADS), tile.form.offset);
    let rows: [_; C] = std::array::from_fn(|c| x.row(first + c));
    assert!(tile.q.len() >= x.cols * TILE);
    assert!(rows.iter().all(|row| row.q.len() == x.cols && (!FINE || row.low.len() == x.cols)));
    let (one, weight) = (_mm256_set1_epi16(1), _mm256_set1_epi16(if FINE { 128 } else { 1 }));
    let mut acc = [[_mm256_setzero_ps(); 2]; C];
    for g in 0..groups {
        let mut dots = [[_mm256_setzero_si256(); 2]; C];
        for run in 0..QUADS / RUN {
            let (mut pairs, mut low) = ([[_mm256_setzero_si256(); 2]; C], [[_mm256_setzero_si256(); 2]; C]);
            for k in g * QUADS + run * RUN..g * QUADS + (run + 1) * RUN {
                // SAFETY: the tile has `cols / 4` rows of 64 bytes (asserted) and `k < cols / 4`.
                let w = unsafe {
                    let at = tile.q.as_ptr().add(64 * k);
                    [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())]
                };
                for c in 0..C {
                    // SAFETY: a row has `cols` bytes (asserted), of which four are read at `4 · k`.
                    let (q, l) = unsafe { (quad(rows[c].q, 4 * k), if FINE { quad(rows[c].low, 4 * k) } else { one }) };
                    for half in 0..2 {
                        pairs[c][half] = _mm256_add_epi16(pairs[c][half], _mm256_maddubs_epi16(w[half], q));
                        if FINE {
                            low[c][half] = _mm256_add_epi16(low[c][half], _mm256_maddubs_epi16(w[half], l));
                        }
                    }
                }
            }
            for c in 0..C {
                for half in 0..2 {
                    let dot = &mut dots[c][half];
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs[c][half], weight));
                    if FINE {
                        *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(low[c][half], one));
                    }
                }
            }
        }
        for c in 0..C {
            finish(tile, &rows[c], g, 4 * QUADS, offset, dots[c], &mut acc[c]);
        }
    }
    for (c, [low, high]) in acc.into_iter().enumerate() {
        store(&mut out[(first + c) * TILE..], low);
        store(&mut out[(first + c) * TILE + 8..], high);
    }
}

/// Adds what group `g` of a row gives, `offset` still in its dots.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn finish(
    tile: &PackedTile,
    row: &IntRows<'_>,
    g: usize,
    group: usize,
    offset: i32,
    dots: [__m256i; 2],
    acc: &mut [__m256; 2],
) {
    let (negative, weighted) = if group == 32 { (row.neg32[g], row.dsum32[g]) } else { (row.neg16[g], row.dsum16[g]) };
    // `−8 · Σv`, brought to `−offset · Σv`.
    let start = _mm256_set1_epi32(negative / 8 * offset);
    let d = _mm256_set1_ps(row.d[g * group / 32]);
    for (half, (dot, acc)) in dots.into_iter().zip(acc).enumerate() {
        let lanes = g * TILE + 8 * half;
        let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(dot, start));
        *acc = _mm256_fmadd_ps(dot, _mm256_mul_ps(load(&tile.scale[lanes..]), d), *acc);
        if tile.form.has_min {
            *acc = _mm256_fnmadd_ps(load(&tile.min[lanes..]), _mm256_set1_ps(weighted), *acc);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn all_wide(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE;
    let mut i = 0;
    while i + 4 <= n {
        wide::<4>(tile, x, i, out);
        i += 4;
    }
    while i < n {
        wide::<1>(tile, x, i, out);
        i += 1;
    }
}

/// Weights of 8 bits in groups of 32, made signed: activation rows `first .. first + C`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn wide<const C: usize>(tile: &PackedTile, x: &IntRows<'_>, first: usize, out: &mut [f32]) {
    let offset = tile.form.offset;
    assert!(offset == 128 && tile.q.len() >= x.cols * TILE && x.wide.len() >= (first + C) * x.cols);
    let rows: [_; C] = std::array::from_fn(|c| x.row(first + c));
    let sign = _mm256_set1_epi8(-128);
    let mut acc = [[_mm256_setzero_ps(); 2]; C];
    for g in 0..x.cols / 32 {
        let mut dots = [[_mm256_setzero_si256(); C]; 2];
        for k in 8 * g..8 * (g + 1) {
            for (half, dots) in dots.iter_mut().enumerate() {
                // SAFETY: the tile has `cols / 4` rows of 64 bytes (asserted) and `k < cols / 4`.
                let w = unsafe { _mm256_loadu_si256(tile.q.as_ptr().add(64 * k + 32 * half).cast()) };
                let w = _mm256_xor_si256(w, sign);
                let (even, odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w));
                for (dot, row) in dots.iter_mut().zip(rows) {
                    let (even_x, odd_x) = wide_quad(row, 4 * k);
                    let both = _mm256_add_epi32(_mm256_madd_epi16(even, even_x), _mm256_madd_epi16(odd, odd_x));
                    *dot = _mm256_add_epi32(*dot, both);
                }
            }
        }
        for c in 0..C {
            finish(tile, &rows[c], g, 32, 0, [dots[0][c], dots[1][c]], &mut acc[c]);
        }
    }
    for (c, [low, high]) in acc.into_iter().enumerate() {
        store(&mut out[(first + c) * TILE..], low);
        store(&mut out[(first + c) * TILE + 8..], high);
    }
}

/// Columns after which partial sums are added up, so rounding grows with their number and not with the row's length. A
/// tile's part of so many columns, 16 KiB, stays in the first cache while all rows meet it.
const RUN: usize = 256;

/// See [`crate::scalar::gemm_f32`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gemm_f32(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    let n = out.len() / TILE;
    assert!(tile.len() >= cols * TILE && x.len() >= n * cols);
    out.fill(0.0);
    for start in (0..cols).step_by(RUN) {
        let end = (start + RUN).min(cols);
        let tile = &tile[start * TILE..end * TILE];
        let mut i = 0;
        while i + 6 <= n {
            some_f32::<6>(tile, &x[i * cols + start..], cols, &mut out[i * TILE..]);
            i += 6;
        }
        while i < n {
            some_f32::<1>(tile, &x[i * cols + start..], cols, &mut out[i * TILE..]);
            i += 1;
        }
    }
}

/// Adds the products of a tile's part `[_, 16]` with `C` rows that lie `stride` apart.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_f32<const C: usize>(tile: &[f32], x: &[f32], stride: usize, out: &mut [f32]) {
    let (tile, cols) = (tile.as_chunks::<TILE>().0, tile.len() / TILE);
    assert!(x.len() >= (C - 1) * stride + cols);
    let mut acc = [[_mm256_setzero_ps(); 2]; C];
    for (k, w) in tile.iter().enumerate() {
        let w = [load(w), load(&w[8..])];
        for (c, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `k < cols` and `c < C`, so this lies within what was asserted.
            let x = _mm256_set1_ps(unsafe { *x.get_unchecked(c * stride + k) });
            *acc = [_mm256_fmadd_ps(w[0], x, acc[0]), _mm256_fmadd_ps(w[1], x, acc[1])];
        }
    }
    for (out, [low, high]) in out.as_chunks_mut::<TILE>().0.iter_mut().zip(acc) {
        let [low, high] = [_mm256_add_ps(load(out), low), _mm256_add_ps(load(&out[8..]), high)];
        store(out, low);
        store(&mut out[8..], high);
    }
}
