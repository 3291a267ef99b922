//! Blocked products of one 16-row tile with some activation rows at a time, one 32-bit lane per weight row in two halves.
//!
//! Without VNNI, pairs of byte products are summed in 16 bits, from what an offset takes away on and as many as then fit
//! (a group, but where that has 32 weights of 5 bits without an offset or 16 of 7 bits), before `vpmaddwd` brings them to 32
//! and weighs the planes of 15-bit activations, by 128 and 1. Weights of 8 bits become 16-bit, and meet activations of 16.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tiles::{pair, start, wide_quad};
use super::{load, store};
use crate::ints::{Block, IntRows};
use crate::kernels::{PackedTile, TILE};

/// Columns per pass over the activation rows, in blocks of 32. A tile's part of so many takes 4.5 KiB: eight lie in the second
/// cache, where all rows meet them, and a few rows' parts in the first, where all tiles do.
const PASS: usize = 256 / 32;

/// See [`crate::scalar::gemm`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gemm(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    let form = tiles[0].form;
    if tiles.iter().any(|tile| tile.form != form) {
        let len = out.len() / tiles.len();
        return tiles.chunks(1).zip(out.chunks_exact_mut(len)).for_each(|(tile, out)| gemm(tile, x, out));
    }
    match (form.group, form.offset, form.most) {
        (32, 0, 0..=15) => narrow::<8, 8, 0>(tiles, x, out),
        (32, 0, 16..=31) => narrow::<8, 4, 0>(tiles, x, out),
        (32, 8, 0..=15) => narrow::<8, 8, 8>(tiles, x, out),
        (32, 16, 0..=31) => narrow::<8, 8, 16>(tiles, x, out),
        (32, 128, _) => all_wide(tiles, x, out),
        (16, 0, 0..=31) => narrow::<4, 4, 0>(tiles, x, out),
        (16, 4, 0..=7) => narrow::<4, 4, 4>(tiles, x, out),
        (16, 32, 0..=63) => narrow::<4, 4, 32>(tiles, x, out),
        (16, 64, 0..=127) => narrow::<4, 1, 64>(tiles, x, out),
        _ => crate::scalar::gemm(tiles, x, out),
    }
}

/// Groups of `4 · QUADS` weights, of which 16 bits hold the products of `4 · RUN`, less what `OFFSET` adds if they are all.
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow<const QUADS: usize, const RUN: usize, const OFFSET: i32>(
    tiles: &[PackedTile],
    x: &IntRows<'_>,
    out: &mut [f32],
) {
    let (n, blocks) = (out.len() / TILE / tiles.len(), x.cols / 32);
    let groups = x.cols / (4 * QUADS);
    assert!(x.cols.is_multiple_of(32) && x.blocks.len() >= n * blocks);
    assert!(tiles.iter().all(|tile| tile.q.len() >= x.cols * TILE && tile.scale.len() >= groups * TILE));
    assert!(OFFSET != 0 || tiles.iter().all(|tile| tile.min.len() >= groups * TILE));
    out.fill(0.0);
    // As many rows as leave room for their sums in registers.
    let most = if x.is_fine() { 3 } else { 6 };
    for start in (0..blocks).step_by(PASS) {
        let len = PASS.min(blocks - start);
        let mut i = 0;
        while i < n {
            let c = if n - i >= most { most } else { 1 };
            for (tile, out) in tiles.iter().zip(out.chunks_exact_mut(n * TILE)) {
                let part = Part { tile, x: &x.blocks[i * blocks + start..], stride: blocks, start, len };
                let out = &mut out[i * TILE..(i + c) * TILE];
                match (c, x.is_fine()) {
                    (3, true) => part.add::<QUADS, RUN, OFFSET, true, 3>(out),
                    (6, false) => part.add::<QUADS, RUN, OFFSET, false, 6>(out),
                    (_, true) => part.add::<QUADS, RUN, OFFSET, true, 1>(out),
                    (_, false) => part.add::<QUADS, RUN, OFFSET, false, 1>(out),
                }
            }
            i += c;
        }
    }
}

/// A part of a tile's columns, and the same of some activation rows.
struct Part<'a> {
    tile: &'a PackedTile,
    /// From the first row's first block on.
    x: &'a [Block],
    /// From a row to the next.
    stride: usize,
    /// The tile's first block of 32 columns, and how many.
    start: usize,
    len: usize,
}

impl Part<'_> {
    /// Adds the products of `C` rows.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<const QUADS: usize, const RUN: usize, const OFFSET: i32, const FINE: bool, const C: usize>(
        &self,
        out: &mut [f32],
    ) {
        let Part { tile, x, stride, start, len } = *self;
        assert!(x.len() >= (C - 1) * stride + len);
        let groups = start * 8 / QUADS..(start + len) * 8 / QUADS;
        let mut w = tile.q[64 * QUADS * groups.start..64 * QUADS * groups.end].as_ptr();
        let lanes = groups.start * TILE..groups.end * TILE;
        let mut scales = tile.scale[lanes.clone()].as_ptr();
        let mut mins = if OFFSET == 0 { tile.min[lanes].as_ptr() } else { scales };
        let mut rows = [x.as_ptr(); C];
        for (c, row) in rows.iter_mut().enumerate() {
            *row = x[c * stride..].as_ptr();
        }
        let mut acc = [[_mm256_setzero_ps(); 2]; C];
        for _ in 0..len {
            for part in 0..8 / QUADS {
                // SAFETY: the slices above hold `len` blocks of each row and as many groups, with 64 bytes for each quad, 16
                // scales, and 16 minima where there are some; the pointers are moved on by one of each at a time.
                unsafe {
                    let dots = dots::<QUADS, RUN, OFFSET, FINE, C>(w, rows, part);
                    for (c, (dots, acc)) in dots.into_iter().zip(&mut acc).enumerate() {
                        let x = &*rows[c];
                        let d = _mm256_set1_ps(x.d);
                        for (half, (dot, acc)) in dots.into_iter().zip(&mut *acc).enumerate() {
                            let scale = _mm256_mul_ps(_mm256_loadu_ps(scales.add(8 * half)), d);
                            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *acc);
                        }
                        if OFFSET == 0 {
                            let sum = _mm256_set1_ps(if QUADS == 8 { x.dsum32 } else { x.dsum16[part] });
                            for (half, acc) in acc.iter_mut().enumerate() {
                                *acc = _mm256_fnmadd_ps(_mm256_loadu_ps(mins.add(8 * half)), sum, *acc);
                            }
                        }
                    }
                }
                w = w.wrapping_add(64 * QUADS);
                scales = scales.wrapping_add(TILE);
                mins = mins.wrapping_add(TILE);
            }
            for row in &mut rows {
                *row = row.wrapping_add(1);
            }
        }
        add_to(out, acc);
    }
}

/// The integer products of a group's weights with `C` rows, offset and planes included. A sum of pairs starts from what the
/// offset takes away; it may wrap on its way, as the whole, `Σ (q − OFFSET) · v`, is in 16 bits again.
///
/// # Safety
/// `64 · QUADS` bytes of `w` and one block of each row must be readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<const QUADS: usize, const RUN: usize, const OFFSET: i32, const FINE: bool, const C: usize>(
    w: *const u8,
    rows: [*const Block; C],
    part: usize,
) -> [[__m256i; 2]; C] {
    let one = _mm256_set1_epi16(1);
    let weight = if FINE { _mm256_set1_epi16(128) } else { one };
    let mut dots = [[_mm256_setzero_si256(); 2]; C];
    let (mut pairs, mut low) = (dots, dots);
    for run in 0..QUADS / RUN {
        for c in 0..C {
            // SAFETY: as the caller says.
            let x = unsafe { &*rows[c] };
            pairs[c] = [start::<QUADS, OFFSET>(x, 0, part); 2];
            if FINE {
                low[c] = [start::<QUADS, OFFSET>(x, 1, part); 2];
            }
        }
        for k in 0..RUN {
            let k = run * RUN + k;
            // SAFETY: as the caller says; `k < QUADS`.
            let w = unsafe { [0, 32].map(|half| _mm256_loadu_si256(w.add(64 * k + half).cast())) };
            for c in 0..C {
                // SAFETY: as the caller says; `4 · (QUADS · part + k) + 4 <= 32`.
                let quad = |plane: usize| unsafe {
                    let x = (*rows[c]).planes[plane].as_ptr();
                    _mm256_set1_epi32(x.add(4 * (QUADS * part + k)).cast::<i32>().read_unaligned())
                };
                let x = quad(0);
                for half in 0..2 {
                    pairs[c][half] = _mm256_add_epi16(pairs[c][half], _mm256_maddubs_epi16(w[half], x));
                }
                if FINE {
                    let x = quad(1);
                    for half in 0..2 {
                        low[c][half] = _mm256_add_epi16(low[c][half], _mm256_maddubs_epi16(w[half], x));
                    }
                }
            }
        }
        for c in 0..C {
            for half in 0..2 {
                let mut dot = _mm256_madd_epi16(pairs[c][half], weight);
                if FINE {
                    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(low[c][half], one));
                }
                dots[c][half] = if run == 0 { dot } else { _mm256_add_epi32(dots[c][half], dot) };
            }
        }
    }
    if OFFSET == 64 {
        for c in 0..C {
            // SAFETY: as the caller says.
            let x = unsafe { &*rows[c] };
            let mut less = _mm256_madd_epi16(pair(x.start16[0][part]), _mm256_slli_epi16::<3>(weight));
            if FINE {
                let low = _mm256_madd_epi16(pair(x.start16[1][part]), _mm256_set1_epi16(8));
                less = _mm256_add_epi32(less, low);
            }
            dots[c] = dots[c].map(|dot| _mm256_add_epi32(dot, less));
        }
    }
    dots
}

/// Weights of 8 bits in groups of 32, made signed, and activations of 16.
#[target_feature(enable = "avx2,fma,f16c")]
fn all_wide(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    let (n, groups) = (out.len() / TILE / tiles.len(), x.cols / 32);
    assert!(x.wide.len() >= n * x.cols && x.d.len() >= n * groups);
    assert!(tiles.iter().all(|tile| tile.q.len() >= x.cols * TILE && tile.scale.len() >= groups * TILE));
    out.fill(0.0);
    for start in (0..groups).step_by(PASS) {
        let groups = start..(start + PASS).min(groups);
        let mut i = 0;
        while i < n {
            let c = if n - i >= 4 { 4 } else { 1 };
            for (tile, out) in tiles.iter().zip(out.chunks_exact_mut(n * TILE)) {
                let out = &mut out[i * TILE..(i + c) * TILE];
                if c == 4 {
                    wide::<4>(tile, x, i, groups.clone(), out);
                } else {
                    wide::<1>(tile, x, i, groups.clone(), out);
                }
            }
            i += c;
        }
    }
}

/// Adds the products of some groups with activation rows `first .. first + C`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn wide<const C: usize>(tile: &PackedTile, x: &IntRows<'_>, first: usize, groups: Range<usize>, out: &mut [f32]) {
    let sign = _mm256_set1_epi8(-128);
    let mut acc = [[_mm256_setzero_ps(); 2]; C];
    for g in groups {
        let mut dots = [[_mm256_setzero_si256(); 2]; C];
        for k in 8 * g..8 * (g + 1) {
            let (mut even, mut odd) = ([_mm256_setzero_si256(); 2], [_mm256_setzero_si256(); 2]);
            for half in 0..2 {
                // SAFETY: the tile has `cols / 4` rows of 64 bytes (`all_wide`) and `k < cols / 4`.
                let w = unsafe { _mm256_loadu_si256(tile.q.as_ptr().add(64 * k + 32 * half).cast()) };
                let w = _mm256_xor_si256(w, sign);
                (even[half], odd[half]) =
                    (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w));
            }
            for (c, dots) in dots.iter_mut().enumerate() {
                let (even_x, odd_x) = wide_quad(*x, (first + c) * x.cols + 4 * k);
                for (half, dot) in dots.iter_mut().enumerate() {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(even[half], even_x));
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(odd[half], odd_x));
                }
            }
        }
        for (c, (dots, acc)) in dots.into_iter().zip(&mut acc).enumerate() {
            let d = _mm256_set1_ps(x.d[(first + c) * (x.cols / 32) + g]);
            for (half, dot) in dots.into_iter().enumerate() {
                let scale = _mm256_mul_ps(load(&tile.scale[g * TILE + 8 * half..]), d);
                acc[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc[half]);
            }
        }
    }
    add_to(out, acc);
}

/// Adds 16 sums to each of some rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_to<const C: usize>(out: &mut [f32], sums: [[__m256; 2]; C]) {
    for (out, [low, high]) in out.as_chunks_mut::<TILE>().0.iter_mut().zip(sums) {
        let [low, high] = [_mm256_add_ps(load(out), low), _mm256_add_ps(load(&out[8..]), high)];
        store(out, low);
        store(&mut out[8..], high);
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
    add_to(out, acc);
}
