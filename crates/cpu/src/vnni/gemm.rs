//! Blocked products of 16-row tiles with all activation rows: as in [`crate::avx512`], the tile's two halves of 8 rows in place of two
//! tiles, and four activation rows.

use std::arch::x86_64::*;

use super::dot;
use crate::ints::IntRows;
use crate::kernels::{PackedTile, TILE};
use crate::planes::group_sums;
use crate::scalar;

/// Activation rows per pass.
const ROWS: usize = 4;

/// Columns per pass over the activation rows: a tile's weights, 8 KiB, stay in the first cache.
const PASS: usize = 512;

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gemm<const EVEX: bool>(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    let one = |tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]| match x.is_fine() {
        true => by_form::<EVEX, true>(tile, x, out),
        false => by_form::<EVEX, false>(tile, x, out),
    };
    scalar::by_tile(one, tiles, x, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn by_form<const EVEX: bool, const FINE: bool>(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    match (tile.form.group, tile.form.offset) {
        (32, 0) => all::<EVEX, 8, 0, FINE>(tile, x, out),
        (32, 8) => all::<EVEX, 8, 8, FINE>(tile, x, out),
        (32, 16) => all::<EVEX, 8, 16, FINE>(tile, x, out),
        (32, 128) => all::<EVEX, 8, 128, FINE>(tile, x, out),
        (16, 0) => all::<EVEX, 4, 0, FINE>(tile, x, out),
        (16, 4) => all::<EVEX, 4, 4, FINE>(tile, x, out),
        (16, 32) => all::<EVEX, 4, 32, FINE>(tile, x, out),
        (16, 64) => all::<EVEX, 4, 64, FINE>(tile, x, out),
        _ => scalar::gemm(std::slice::from_ref(tile), x, out),
    }
}

/// Groups of `4 · QUADS` weights; formats without an offset have minima.
#[target_feature(enable = "avx2,fma,f16c")]
fn all<const EVEX: bool, const QUADS: usize, const OFFSET: i32, const FINE: bool>(
    tile: &PackedTile,
    x: &IntRows<'_>,
    out: &mut [f32],
) {
    let (n, groups) = (out.len() / TILE, x.cols / (4 * QUADS));
    let (negative, weighted) = group_sums::<QUADS, OFFSET, FINE>(&[tile], x, n);
    let product = Product { tile, x: *x, negative, weighted };
    let pass = PASS / (4 * QUADS);
    for start in (0..groups).step_by(pass) {
        let groups = start..(start + pass).min(groups);
        let mut i = 0;
        while i + ROWS <= n {
            product.add::<EVEX, QUADS, OFFSET, FINE, ROWS>(i, groups.clone(), &mut out[i * TILE..(i + ROWS) * TILE]);
            i += ROWS;
        }
        while i < n {
            product.add::<EVEX, QUADS, OFFSET, FINE, 1>(i, groups.clone(), &mut out[i * TILE..(i + 1) * TILE]);
            i += 1;
        }
    }
}

/// A product's operands, their lengths checked.
struct Product<'a> {
    tile: &'a PackedTile,
    x: IntRows<'a>,
    /// [`IntRows::neg16`] or [`IntRows::neg32`], and `d · Σ v` of the tile's groups.
    negative: &'a [i32],
    weighted: &'a [f32],
}

impl Product<'_> {
    /// Adds some groups of `C` activation rows from `first` on to `out`, `[C, 16]`; the first ones are stored.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<const EVEX: bool, const QUADS: usize, const OFFSET: i32, const FINE: bool, const C: usize>(
        &self,
        first: usize,
        groups: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let (x, all, blocks) = (&self.x, self.x.cols / (4 * QUADS), self.x.cols / 32);
        let out: &mut [[f32; 8]] = out.as_chunks_mut().0;
        assert!(out.len() == 2 * C && groups.end <= all);
        let mut acc = [[_mm256_setzero_ps(); 2]; C];
        if groups.start > 0 {
            for (c, acc) in acc.iter_mut().enumerate() {
                for (half, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: eight values.
                    *acc = unsafe { _mm256_loadu_ps(out[2 * c + half].as_ptr()) };
                }
            }
        }
        for g in groups.clone() {
            // SAFETY: `group_sums` has checked that the tile has `cols · 16` bytes and a scale (and minimum) for each group and row, each
            // activation row `cols` bytes, a scale for every 32 and sums for every group; `g` is one of these groups, and all rows
            // from `first` on are there.
            unsafe {
                let mut sums = [[_mm256_setzero_si256(); 2]; C];
                for plane in 0..if FINE { 2 } else { 1 } {
                    let is_last = plane == 1 || !FINE;
                    for (c, sums) in sums.iter_mut().enumerate() {
                        if plane == 1 {
                            *sums = sums.map(|sum| _mm256_slli_epi32::<7>(sum));
                        }
                        if is_last && OFFSET != 0 {
                            // `−32 · Σx` of 16, `−8 · Σx` of 32, brought to `−offset · Σx`.
                            let given = *self.negative.get_unchecked((first + c) * all + g);
                            let start = _mm256_set1_epi32(match OFFSET {
                                4 => given >> 3,
                                8 | 32 => given,
                                16 | 64 => given << 1,
                                _ => given << 4,
                            });
                            *sums = sums.map(|sum| _mm256_add_epi32(sum, start));
                        }
                    }
                    let values = if plane == 0 { x.q } else { x.low };
                    for k in 0..QUADS {
                        let at = g * QUADS + k;
                        let w = [0, 32].map(|half| _mm256_loadu_si256(self.tile.q.as_ptr().add(64 * at + half).cast()));
                        for (c, sums) in sums.iter_mut().enumerate() {
                            let quad = values.as_ptr().add((first + c) * x.cols + 4 * at).cast::<i32>();
                            let quad = _mm256_set1_epi32(quad.read_unaligned());
                            *sums = [dot::<EVEX>(sums[0], w[0], quad), dot::<EVEX>(sums[1], w[1], quad)];
                        }
                    }
                }
                let of_rows = |values: &[f32]| [0, 8].map(|half| _mm256_loadu_ps(values.as_ptr().add(g * TILE + half)));
                let scale = of_rows(&self.tile.scale);
                for (c, (acc, sums)) in acc.iter_mut().zip(sums).enumerate() {
                    let block = (first + c) * blocks + g * QUADS / 8;
                    for half in 0..2 {
                        let dot = _mm256_cvtepi32_ps(sums[half]);
                        acc[half] = if OFFSET == 0 {
                            let d = _mm256_set1_ps(*x.d.get_unchecked(block));
                            _mm256_fmadd_ps(dot, _mm256_mul_ps(scale[half], d), acc[half])
                        } else {
                            let exp = _mm256_set1_epi32(*x.exps.get_unchecked(block));
                            let dot = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(dot), exp));
                            _mm256_fmadd_ps(dot, scale[half], acc[half])
                        };
                    }
                }
                if OFFSET == 0 {
                    let min = of_rows(&self.tile.min);
                    for (c, acc) in acc.iter_mut().enumerate() {
                        let sum = _mm256_set1_ps(*self.weighted.get_unchecked((first + c) * all + g));
                        *acc = [0, 1].map(|half| _mm256_fnmadd_ps(min[half], sum, acc[half]));
                    }
                }
            }
        }
        for (c, acc) in acc.into_iter().enumerate() {
            // Up to here in units of the row, but for the formats with minima.
            let is_last = OFFSET != 0 && groups.end == all;
            let unit = _mm256_set1_ps(if is_last { x.unit(first + c) } else { 1.0 });
            for (half, acc) in acc.into_iter().enumerate() {
                // SAFETY: eight values.
                unsafe { _mm256_storeu_ps(out[2 * c + half].as_mut_ptr(), _mm256_mul_ps(acc, unit)) };
            }
        }
    }
}
