//! Blocked products of 16-row tiles with all activation rows.
//!
//! One 32-bit lane per weight row. Integers: two tiles and six activation rows at a time, so that a broadcast serves two
//! `vpdpbusd` and a load of weights six; 12 sums of integers and 12 of f32 fill the registers. Sums start from `−offset · Σx`,
//! so the offset costs nothing; a group ends with one conversion, the activations' power of two, added to the exponent, and one
//! fused multiply-add; with minima, whose scales are whole, with a multiplication and two. Activations of 15 bits take two
//! dots, the first one's sum times 128.
//!
//! Columns go by 512: weights stay in the first cache while all activation rows pass, and these are asked for one block
//! of rows ahead.

use std::arch::x86_64::*;
use std::slice::from_ref;

use super::{load, store};
use crate::ints::IntRows;
use crate::kernels::{PackedTile, TILE};
use crate::planes::group_sums;
use crate::scalar;

/// Activation rows per pass.
const ROWS: usize = 6;

/// Columns per pass over the activation rows.
const PASS: usize = 512;

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn gemm(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() { by_form::<true>(tiles, x, out) } else { by_form::<false>(tiles, x, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_form<const FINE: bool>(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    let form = tiles[0].form;
    if tiles.iter().any(|tile| tile.form != form) {
        let one = |tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]| by_form::<FINE>(from_ref(tile), x, out);
        return scalar::by_tile(one, tiles, x, out);
    }
    match (form.group, form.offset) {
        (32, 0) => all::<8, 0, FINE>(tiles, x, out),
        (32, 8) => all::<8, 8, FINE>(tiles, x, out),
        (32, 16) => all::<8, 16, FINE>(tiles, x, out),
        (32, 128) => all::<8, 128, FINE>(tiles, x, out),
        (16, 0) => all::<4, 0, FINE>(tiles, x, out),
        (16, 4) => all::<4, 4, FINE>(tiles, x, out),
        (16, 32) => all::<4, 32, FINE>(tiles, x, out),
        (16, 64) => all::<4, 64, FINE>(tiles, x, out),
        _ => scalar::gemm(tiles, x, out),
    }
}

/// Groups of `4 · QUADS` weights; formats without an offset have minima.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn all<const QUADS: usize, const OFFSET: i32, const FINE: bool>(
    tiles: &[PackedTile],
    x: &IntRows<'_>,
    out: &mut [f32],
) {
    let len = out.len() / tiles.len();
    for (tiles, out) in tiles.chunks(2).zip(out.chunks_mut(2 * len)) {
        match tiles {
            [a, b] => one_or_two::<QUADS, OFFSET, FINE, 2>([a, b], x, out),
            [a] => one_or_two::<QUADS, OFFSET, FINE, 1>([a], x, out),
            _ => unreachable!("chunks of two"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn one_or_two<const QUADS: usize, const OFFSET: i32, const FINE: bool, const T: usize>(
    tiles: [&PackedTile; T],
    x: &IntRows<'_>,
    out: &mut [f32],
) {
    let (n, groups) = (out.len() / (T * TILE), x.cols / (4 * QUADS));
    let (negative, weighted) = group_sums::<QUADS, OFFSET, FINE>(&tiles, x, n);
    let product = Product { tiles, x: *x, negative, weighted, n };
    let pass = PASS / (4 * QUADS);
    for start in (0..groups).step_by(pass) {
        let groups = start..(start + pass).min(groups);
        let mut i = 0;
        while i + ROWS <= n {
            product.add::<QUADS, OFFSET, FINE, ROWS>(i, groups.clone(), out);
            i += ROWS;
        }
        while i + 2 <= n {
            product.add::<QUADS, OFFSET, FINE, 2>(i, groups.clone(), out);
            i += 2;
        }
        if i < n {
            product.add::<QUADS, OFFSET, FINE, 1>(i, groups, out);
        }
    }
}

/// A product's operands, their lengths checked.
struct Product<'a, const T: usize> {
    tiles: [&'a PackedTile; T],
    x: IntRows<'a>,
    /// [`IntRows::neg16`] or [`IntRows::neg32`], and `d · Σ v` of the tiles' groups.
    negative: &'a [i32],
    weighted: &'a [f32],
    n: usize,
}

impl<const T: usize> Product<'_, T> {
    /// Adds some groups of `C` activation rows from `first` on to `out`, `[T, n, 16]`; the first ones are stored.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn add<const QUADS: usize, const OFFSET: i32, const FINE: bool, const C: usize>(
        &self,
        first: usize,
        groups: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let (x, all, blocks) = (&self.x, self.x.cols / (4 * QUADS), self.x.cols / 32);
        debug_assert!(first + C <= self.n && groups.end <= all);
        let q = x.q[first * x.cols..].as_ptr();
        let (d, exps) = (x.d[first * blocks..].as_ptr(), x.exps[first * blocks..].as_ptr());
        let low = if FINE { x.low[first * x.cols..].as_ptr() } else { q };
        let negative = self.negative[first * all..].as_ptr();
        let weighted = self.weighted[first * all..].as_ptr();
        // One offset per activation row serves all its arrays, as index of an address with scale 8, 1 or 2: a pointer for
        // each row of each array would not stay in registers.
        let offset: [usize; C] = std::array::from_fn(|c| c * blocks * 4);
        let mut acc = [[_mm512_setzero_ps(); C]; T];
        if groups.start > 0 {
            for t in 0..T {
                for c in 0..C {
                    acc[t][c] = load(&out[(t * self.n + first + c) * TILE..]);
                }
            }
        }
        for g in groups.clone() {
            // SAFETY: `group_sums` has checked that each tile has `cols · 16` bytes and a scale (and minimum) for each group
            // and row, each activation row `cols` bytes, a scale for every 32 and sums for every group; `g` is one of these
            // groups, `first + C <= n`. An offset is `c` rows of scales in bytes: eight times that are `c` rows of bytes, and
            // once or twice `c` rows of sums. What is only asked for may lie anywhere.
            unsafe {
                let mut sums = [[_mm512_setzero_si512(); C]; T];
                // `−32 · Σx` of 16, `−8 · Σx` of 32, brought to `−offset · Σx`.
                let start = |c: usize| {
                    let given = || _mm512_set1_epi32(*negative.byte_add(offset[c] * (8 / QUADS)).add(g));
                    match OFFSET {
                        0 => _mm512_setzero_si512(),
                        4 => _mm512_srai_epi32::<3>(given()),
                        8 | 32 => given(),
                        16 | 64 => _mm512_slli_epi32::<1>(given()),
                        _ => _mm512_slli_epi32::<4>(given()),
                    }
                };
                if !FINE {
                    for c in 0..C {
                        let start = start(c);
                        sums.iter_mut().for_each(|sums| sums[c] = start);
                    }
                }
                self.dots::<QUADS, C>(&mut sums, q, &offset, g);
                if FINE {
                    for c in 0..C {
                        let start = start(c);
                        for sums in &mut sums {
                            sums[c] = _mm512_add_epi32(_mm512_slli_epi32::<7>(sums[c]), start);
                        }
                    }
                    self.dots::<QUADS, C>(&mut sums, low, &offset, g);
                }
                if g % (16 / QUADS) == 0 {
                    for offset in offset {
                        let next = 8 * (C * blocks * 4 + offset) + g * QUADS * 4;
                        _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(next).cast());
                        if FINE {
                            _mm_prefetch::<_MM_HINT_T0>(low.wrapping_add(next).cast());
                        }
                    }
                }
                for t in 0..T {
                    let scale = _mm512_loadu_ps(self.tiles[t].scale.as_ptr().add(g * TILE));
                    for c in 0..C {
                        let dot = _mm512_cvtepi32_ps(sums[t][c]);
                        acc[t][c] = if OFFSET == 0 {
                            let d = _mm512_set1_ps(*d.byte_add(offset[c]).add(g * QUADS / 8));
                            _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, d), acc[t][c])
                        } else {
                            let exp = _mm512_set1_epi32(*exps.byte_add(offset[c]).add(g * QUADS / 8));
                            let dot = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(dot), exp));
                            _mm512_fmadd_ps(dot, scale, acc[t][c])
                        };
                    }
                    if OFFSET == 0 {
                        let min = _mm512_loadu_ps(self.tiles[t].min.as_ptr().add(g * TILE));
                        for c in 0..C {
                            let sum = _mm512_set1_ps(*weighted.byte_add(offset[c] * (8 / QUADS)).add(g));
                            acc[t][c] = _mm512_fnmadd_ps(min, sum, acc[t][c]);
                        }
                    }
                }
            }
        }
        for c in 0..C {
            // Up to here in units of the row, but for the formats with minima.
            let is_last = OFFSET != 0 && groups.end == all;
            let unit = _mm512_set1_ps(if is_last { x.unit(first + c) } else { 1.0 });
            for t in 0..T {
                store(&mut out[(t * self.n + first + c) * TILE..], _mm512_mul_ps(acc[t][c], unit));
            }
        }
    }

    /// Adds the dots of group `g` with the bytes of each row at `x`.
    ///
    /// # Safety
    /// Eight times each offset, and from there all columns, are readable at `x`; the tiles have group `g`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn dots<const QUADS: usize, const C: usize>(
        &self,
        sums: &mut [[__m512i; C]; T],
        x: *const i8,
        offset: &[usize; C],
        g: usize,
    ) {
        for k in 0..QUADS {
            let mut w = [_mm512_setzero_si512(); T];
            for (w, tile) in w.iter_mut().zip(self.tiles) {
                // SAFETY: a group has `QUADS` quads of 16 rows.
                *w = unsafe { _mm512_loadu_si512(tile.q.as_ptr().add((g * QUADS + k) * 64).cast()) };
            }
            for c in 0..C {
                // SAFETY: four columns of the group, as the caller vouches.
                let quad = unsafe { x.add(offset[c] * 8 + (g * QUADS + k) * 4).cast::<i32>().read_unaligned() };
                let quad = _mm512_set1_epi32(quad);
                for t in 0..T {
                    sums[t][c] = _mm512_dpbusd_epi32(sums[t][c], w[t], quad);
                }
            }
        }
    }
}

/// Columns after which partial sums are added up, so rounding grows with their number and not with the row's length.
const RUN: usize = 256;

/// Activation rows per pass in f32.
const ROWS_F32: usize = 8;

/// See [`crate::scalar::gemm_f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn gemm_f32(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    let n = out.len() / TILE;
    assert!(x.len() >= n * cols && tile.len() >= cols * TILE);
    let mut i = 0;
    while i + ROWS_F32 <= n {
        some_f32::<ROWS_F32>(tile, &x[i * cols..], cols, &mut out[i * TILE..]);
        i += ROWS_F32;
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
