//! Blocked products of one 16-row tile with all activation rows: two halves of 8 rows, four activation rows at a time.
//!
//! Without VNNI, pairs of byte products are summed in 16 bits: unsigned weights up to 63 fit; Q8_0's are made signed
//! again first.

use std::arch::x86_64::*;

use super::{dot_signed, load, store};
use crate::acts::IntRows;
use crate::kernels::{PackedTile, TILE};

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gemm(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    match (tile.form.group, tile.form.offset, x.is_fine()) {
        (32, 128, true) => all::<8, true, true>(tile, x, out),
        (32, 128, false) => all::<8, true, false>(tile, x, out),
        (32, _, true) => all::<8, false, true>(tile, x, out),
        (32, _, false) => all::<8, false, false>(tile, x, out),
        (_, _, true) => all::<4, false, true>(tile, x, out),
        (_, _, false) => all::<4, false, false>(tile, x, out),
    }
}

/// Groups of `4 · QUADS` weights; `WIDE` weights need all 8 bits, `FINE` activations 15.
#[target_feature(enable = "avx2,fma,f16c")]
fn all<const QUADS: usize, const WIDE: bool, const FINE: bool>(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE;
    let mut i = 0;
    while i + 4 <= n {
        some::<QUADS, WIDE, FINE, 4>(tile, x, i, out);
        i += 4;
    }
    while i < n {
        some::<QUADS, WIDE, FINE, 1>(tile, x, i, out);
        i += 1;
    }
}

/// Activation rows `first .. first + C`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some<const QUADS: usize, const WIDE: bool, const FINE: bool, const C: usize>(
    tile: &PackedTile,
    x: &IntRows<'_>,
    first: usize,
    out: &mut [f32],
) {
    let (groups, offset) = (x.cols / (4 * QUADS), tile.form.offset);
    let rows: [_; C] = std::array::from_fn(|c| x.row(first + c));
    assert!(tile.q.len() >= x.cols * TILE);
    assert!(rows.iter().all(|row| row.q.len() == x.cols && (!FINE || row.low.len() == x.cols)));
    let product = |w: __m256i, quad: __m256i| {
        if WIDE {
            dot_signed(_mm256_xor_si256(w, _mm256_set1_epi8(-128)), quad)
        } else {
            _mm256_madd_epi16(_mm256_maddubs_epi16(w, quad), _mm256_set1_epi16(1))
        }
    };
    for half in 0..2 {
        let mut acc = [_mm256_setzero_ps(); C];
        for g in 0..groups {
            let lanes = g * TILE + 8 * half;
            let scale = load(&tile.scale[lanes..]);
            let (mut dots, mut low) = ([_mm256_setzero_si256(); C], [_mm256_setzero_si256(); C]);
            for k in g * QUADS..(g + 1) * QUADS {
                // SAFETY: the tile has `cols / 4` rows of 64 bytes (asserted) and `k < cols / 4`.
                let w = unsafe { _mm256_loadu_si256(tile.q.as_ptr().add(64 * k + 32 * half).cast()) };
                for (row, (dot, low)) in rows.iter().zip(dots.iter_mut().zip(&mut low)) {
                    let quad = |bytes: &[i8]| {
                        // SAFETY: a row's `cols` bytes (asserted), of which four are read at `4 · k`.
                        _mm256_set1_epi32(unsafe { bytes.as_ptr().add(4 * k).cast::<i32>().read_unaligned() })
                    };
                    *dot = _mm256_add_epi32(*dot, product(w, quad(row.q)));
                    if FINE {
                        *low = _mm256_add_epi32(*low, product(w, quad(row.low)));
                    }
                }
            }
            for ((row, (dot, low)), acc) in rows.iter().zip(dots.into_iter().zip(low)).zip(&mut acc) {
                let dot = if FINE { _mm256_add_epi32(_mm256_slli_epi32::<7>(dot), low) } else { dot };
                let sum = if QUADS == 8 { row.sum[2 * g] + row.sum[2 * g + 1] } else { row.sum[g] };
                let d = row.d[g * QUADS / 8];
                let dot = if WIDE { dot } else { _mm256_sub_epi32(dot, _mm256_set1_epi32(offset * sum)) };
                *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, _mm256_set1_ps(d)), *acc);
                if tile.form.has_min {
                    let min = load(&tile.min[lanes..]);
                    *acc = _mm256_fnmadd_ps(min, _mm256_set1_ps(d * sum as f32), *acc);
                }
            }
        }
        for (c, acc) in acc.into_iter().enumerate() {
            store(&mut out[(first + c) * TILE + 8 * half..], acc);
        }
    }
}

/// Columns after which partial sums are added up, so rounding grows with their number and not with the row's length.
const RUN: usize = 256;

/// See [`crate::scalar::gemm_f32`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gemm_f32(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    let n = out.len() / TILE;
    let mut i = 0;
    while i + 4 <= n {
        some_f32::<4>(tile, &x[i * cols..], cols, &mut out[i * TILE..]);
        i += 4;
    }
    while i < n {
        some_f32::<1>(tile, &x[i * cols..], cols, &mut out[i * TILE..]);
        i += 1;
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_f32<const C: usize>(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    let mut total = [[_mm256_setzero_ps(); 2]; C];
    for start in (0..cols).step_by(RUN) {
        let end = (start + RUN).min(cols);
        let rows: [&[f32]; C] = std::array::from_fn(|c| &x[c * cols + start..c * cols + end]);
        let mut acc = [[_mm256_setzero_ps(); 2]; C];
        for (k, w) in tile[start * TILE..end * TILE].chunks_exact(TILE).enumerate() {
            let w = [load(w), load(&w[8..])];
            for (row, acc) in rows.iter().zip(&mut acc) {
                let x = _mm256_set1_ps(row[k]);
                *acc = [_mm256_fmadd_ps(w[0], x, acc[0]), _mm256_fmadd_ps(w[1], x, acc[1])];
            }
        }
        for (total, acc) in total.iter_mut().zip(acc) {
            *total = [_mm256_add_ps(total[0], acc[0]), _mm256_add_ps(total[1], acc[1])];
        }
    }
    for (c, [low, high]) in total.into_iter().enumerate() {
        store(&mut out[c * TILE..], low);
        store(&mut out[c * TILE + 8..], high);
    }
}
