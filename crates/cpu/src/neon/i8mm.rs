//! Kernels with `smmla`: blocked products of 16-row tiles with many activation rows.
//!
//! An instruction multiplies two activation rows with two weight rows in eight columns: 32 products, twice those of `sdot`. It
//! wants a row's eight columns side by side, and two rows in a vector: tiles are brought into that order once they are
//! unpacked ([`arrange`]), activations four rows and some columns at a time, for all tiles. Eight weight rows then meet four
//! activation rows: eight sums of integers and eight of f32, and six loads for eight instructions.

use std::arch::aarch64::*;
use std::ops::Range;

use super::gemm::PASS;
use super::{SUMS, load, load_i8, load_u8, store, store_u8};
use crate::ints::IntRows;
use crate::kernels::{PackedTile, TILE};

/// `acc + a · bᵀ` of two rows of eight bytes each: `[a0 · b0, a0 · b1, a1 · b0, a1 · b1]`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: works on registers alone; the feature is enabled for this function.
    unsafe {
        std::arch::asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Brings an unpacked tile into the order of [`gemm`]: signed bytes, `[cols / 8, 16, 8]`.
#[target_feature(enable = "neon,i8mm")]
pub fn arrange(tile: &mut PackedTile) {
    let offset = vdupq_n_u8(tile.form.offset as u8);
    for eight in tile.q.as_chunks_mut::<{ 8 * TILE }>().0 {
        let quads = *eight;
        for (v, out) in eight.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let quad = |k: usize| vreinterpretq_u32_u8(vsubq_u8(load_u8(&quads[64 * k + 16 * v..]), offset));
            let (a, b) = (quad(0), quad(1));
            store_u8(out, vreinterpretq_u8_u32(vzip1q_u32(a, b)));
            store_u8(&mut out[16..], vreinterpretq_u8_u32(vzip2q_u32(a, b)));
        }
    }
}

/// See [`crate::scalar::gemm`], of arranged tiles.
#[target_feature(enable = "neon,i8mm")]
pub fn gemm(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() { all::<2>(tiles, x, out) } else { all::<1>(tiles, x, out) }
}

#[target_feature(enable = "neon,i8mm")]
fn all<const P: usize>(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    let n = out.len() / TILE / tiles.len();
    out.fill(0.0);
    let mut pairs = Pairs::new();
    for start in (0..x.cols).step_by(PASS) {
        let cols = start..(start + PASS).min(x.cols);
        for i in (0..n).step_by(4) {
            let rows = i..(i + 4).min(n);
            pairs.fill::<P>(x, rows.clone(), cols.clone());
            for (tile, out) in tiles.iter().zip(out.chunks_exact_mut(n * TILE)) {
                let out = &mut out[rows.start * TILE..rows.end * TILE];
                match rows.len() {
                    1 | 2 => by_form::<P, 1>(tile, &pairs, cols.clone(), out),
                    _ => by_form::<P, 2>(tile, &pairs, cols.clone(), out),
                }
            }
        }
    }
}

/// Four activation rows in some columns as the products want them: by pairs, of an odd number the last one twice.
struct Pairs {
    /// Of each plane `[columns / 8, pairs]`, of each pair `[2, 8]`.
    planes: [[[[i8; 16]; 2]; PASS / 8]; 2],
    /// `[columns / 32, pairs]`, each row's twice.
    d: [[[f32; 4]; 2]; PASS / 32],
    /// The same of `−d · Σ v` of 16 and of 32 columns.
    less16: [[[f32; 4]; 2]; PASS / 16],
    less32: [[[f32; 4]; 2]; PASS / 32],
}

impl Pairs {
    const fn new() -> Self {
        Pairs {
            planes: [[[[0; 16]; 2]; PASS / 8]; 2],
            d: [[[0.0; 4]; 2]; PASS / 32],
            less16: [[[0.0; 4]; 2]; PASS / 16],
            less32: [[[0.0; 4]; 2]; PASS / 32],
        }
    }

    /// Takes up to four rows of `P` planes.
    fn fill<const P: usize>(&mut self, x: &IntRows<'_>, rows: Range<usize>, cols: Range<usize>) {
        let by = |len: usize| cols.start / len..cols.end / len;
        for (pair, first) in rows.clone().step_by(2).enumerate() {
            for (r, i) in [first, (first + 1).min(rows.end - 1)].into_iter().enumerate() {
                let x = x.row(i);
                for (plane, values) in self.planes.iter_mut().zip([x.q, x.low]).take(P) {
                    for (out, eight) in plane.iter_mut().zip(values[cols.clone()].as_chunks::<8>().0) {
                        out[pair].as_chunks_mut().0[r] = *eight;
                    }
                }
                let twice = |out: &mut [[[f32; 4]; 2]], values: &[f32], sign: f32| {
                    out.iter_mut().zip(values).for_each(|(out, v)| out[pair].as_chunks_mut().0[r] = [sign * v; 2]);
                };
                twice(&mut self.d, &x.d[by(32)], 1.0);
                twice(&mut self.less16, &x.dsum16[by(16)], -1.0);
                twice(&mut self.less32, &x.dsum32[by(32)], -1.0);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon,i8mm")]
fn by_form<const P: usize, const N: usize>(tile: &PackedTile, x: &Pairs, cols: Range<usize>, out: &mut [f32]) {
    match (tile.form.group, tile.form.has_min) {
        (32, false) => add::<P, N, 2, false>(tile, x, cols, out),
        (32, true) => add::<P, N, 2, true>(tile, x, cols, out),
        (_, false) => add::<P, N, 1, false>(tile, x, cols, out),
        (_, true) => add::<P, N, 1, true>(tile, x, cols, out),
    }
}

/// Adds the products of some columns, in groups of `16 · S`, and the rows of `N` pairs to `out`, `[_, 16]`.
#[target_feature(enable = "neon,i8mm")]
fn add<const P: usize, const N: usize, const S: usize, const MIN: bool>(
    tile: &PackedTile,
    x: &Pairs,
    cols: Range<usize>,
    out: &mut [f32],
) {
    let groups = cols.start / (16 * S)..cols.end / (16 * S);
    let w = &tile.q.as_chunks::<{ 8 * TILE }>().0[cols.start / 8..cols.end / 8];
    let scale = &tile.scale.as_chunks::<TILE>().0[groups.clone()];
    let min = if MIN { &tile.min.as_chunks::<TILE>().0[groups] } else { scale };
    let less: &[_] = if S == 2 { &x.less32 } else { &x.less16 };
    for half in 0..2 {
        let mut acc = [[vdupq_n_f32(0.0); N]; 4];
        for (g, (w, (scale, min))) in w.chunks_exact(2 * S).zip(scale.iter().zip(min)).enumerate() {
            let mut sums = [[vdupq_n_s32(0); N]; 4];
            for p in 0..P {
                if p > 0 {
                    sums.as_flattened_mut().iter_mut().for_each(|sum| *sum = vshlq_n_s32::<7>(*sum));
                }
                for (w, x) in w.iter().zip(&x.planes[p][2 * S * g..2 * S * (g + 1)]) {
                    for (pair, sums) in sums.iter_mut().enumerate() {
                        let w = vreinterpretq_s8_u8(load_u8(&w[64 * half + 16 * pair..]));
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = smmla(*sum, load_i8(x), w);
                        }
                    }
                }
            }
            let d = &x.d[S * g / 2];
            for (pair, (acc, sums)) in acc.iter_mut().zip(sums).enumerate() {
                let scale = twice(&scale[8 * half + 2 * pair..]);
                for ((acc, sum), d) in acc.iter_mut().zip(sums).zip(d) {
                    *acc = vfmaq_f32(*acc, vmulq_f32(vcvtq_f32_s32(sum), scale), load(d));
                }
            }
            if MIN {
                for (pair, acc) in acc.iter_mut().enumerate() {
                    let min = twice(&min[8 * half + 2 * pair..]);
                    for (acc, less) in acc.iter_mut().zip(&less[g]) {
                        *acc = vfmaq_f32(*acc, min, load(less));
                    }
                }
            }
        }
        let rows = out.as_chunks_mut::<TILE>().0.iter_mut();
        for (i, out) in rows.enumerate() {
            for (four, pairs) in acc.as_chunks::<2>().0.iter().enumerate() {
                let out = &mut out[8 * half + 4 * four..];
                let sum = vaddq_f32(load(out), one_row(pairs[0][i / 2], pairs[1][i / 2], i % 2));
                store(out, sum);
            }
        }
    }
}

/// The first two values of `x`, twice.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn twice(x: &[f32]) -> float32x4_t {
    assert!(x.len() >= 2);
    // SAFETY: two values are readable, just checked.
    let two = unsafe { vld1_f32(x.as_ptr()) };
    vcombine_f32(two, two)
}

/// Of the sums of two pairs of weight rows those of the first or of the second activation row.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn one_row(a: float32x4_t, b: float32x4_t, second: usize) -> float32x4_t {
    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    vreinterpretq_f32_f64(if second == 0 { vzip1q_f64(a, b) } else { vzip2q_f64(a, b) })
}

/// So many rounds of matrix products on registers: [`super::SUMS`] of 32 products each.
#[target_feature(enable = "neon,i8mm")]
pub fn dot_rounds(rounds: usize) -> i32 {
    let (w, x) = (std::hint::black_box(vdupq_n_s8(3)), std::hint::black_box(vdupq_n_s8(1)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = smmla(*sum, w, x));
    }
    sums.into_iter().fold(0, |all, sum| all.wrapping_add(vaddvq_s32(sum)))
}
