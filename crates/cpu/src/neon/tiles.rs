//! Products of interleaved rows with a few activation rows: 16 weight rows at once, in two halves of eight.
//!
//! Weights become signed by as few instructions as their format allows, shifted up where that saves one: nibbles to the upper
//! half of a byte, the six bits of Q6_K to its upper six, and what stands in the sign's place turned around. They do so once
//! for up to four activation rows ([`Group`]).

use std::arch::aarch64::*;

use carat_tensor::DType;

use super::group::{Group, Rows, share};
use super::{load, load_u8, store, upper_over, widen, widen_both};
use crate::interleaved::{
    Piece, Q4_0_BYTES, Q4_K_BYTES, Q6_K_BYTES, Q6_K_SCALES, Q8_0_BYTES, ROWS, Tiles, q6_k_sixteen,
};
use crate::ints::IntRows;
use crate::pool::Tile;

/// See [`crate::scalar::matvec_tiles`].
#[target_feature(enable = "dotprod")]
pub fn matvec_tiles(tiles: Tiles<'_>, x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut Tile<'_>) {
    match (x.is_fine(), rest) {
        (false, _) => by_rows::<1>(tiles, x, x, out),
        (true, None) => by_rows::<2>(tiles, x, x, out),
        (true, Some(rest)) => by_rows::<3>(tiles, x, rest, out),
    }
}

/// Each piece of a tile stays in the first cache while all rows meet it.
#[target_feature(enable = "dotprod")]
fn by_rows<const P: usize>(tiles: Tiles<'_>, x: IntRows<'_>, rest: IntRows<'_>, out: &mut Tile<'_>) {
    let n = x.q.len() / x.cols;
    assert!(out.rows() == (0..n) && out.cols().len() == tiles.count() * ROWS && tiles.cols == x.cols);
    (0..n).for_each(|i| out.row(i).fill(0.0));
    for piece in tiles.pieces() {
        let mut i = 0;
        while i < n {
            let taken = share(n - i);
            let mut out = out.part(i..i + taken);
            match taken {
                1 => by_type::<P, 1>(tiles.dtype, &piece, Rows::new::<P, 1>(x, rest, i), &mut out),
                2 => by_type::<P, 2>(tiles.dtype, &piece, Rows::new::<P, 2>(x, rest, i), &mut out),
                _ => by_type::<P, 4>(tiles.dtype, &piece, Rows::new::<P, 4>(x, rest, i), &mut out),
            }
            i += taken;
        }
    }
}

/// Sums of `N` activation rows and eight weight rows.
type Sums<const N: usize> = [[float32x4_t; 2]; N];

/// What the functions for types rely on: the feature, enabled for all of them; rows that [`Rows::new`] has checked for `P`
/// and `N`; and a piece of a tile of `cols / block` blocks, so that each lies within a row.
#[target_feature(enable = "dotprod")]
fn by_type<const P: usize, const N: usize>(dtype: DType, piece: &Piece<'_>, x: Rows<'_>, out: &mut Tile<'_>) {
    match dtype {
        DType::Q4_0 => all::<_, 32, _>(piece, out, |block, at, half, acc| q4_0::<P, N>(block, half, x, at, acc)),
        DType::Q8_0 => all::<_, 32, _>(piece, out, |block, at, half, acc| q8_0::<P, N>(block, half, x, at, acc)),
        DType::Q4K => all::<_, 256, _>(piece, out, |block, at, half, acc| q4_k::<P, N>(block, half, x, at, acc)),
        DType::Q6K => all::<_, 256, _>(piece, out, |block, at, half, acc| q6_k::<P, N>(block, half, x, at, acc)),
        _ => unreachable!("{dtype} has no layout in tiles"),
    }
}

/// A piece of a tile: `add` adds a half of the block of `COLS` columns at a column, `BYTES` long, to the sums.
#[inline]
#[target_feature(enable = "dotprod")]
fn all<const BYTES: usize, const COLS: usize, const N: usize>(
    piece: &Piece<'_>,
    out: &mut Tile<'_>,
    add: impl Fn(&[u8; BYTES], usize, usize, &mut Sums<N>),
) {
    let mut acc = [[[vdupq_n_f32(0.0); 2]; N]; 2];
    for (half, acc) in acc.iter_mut().enumerate() {
        for (i, acc) in acc.iter_mut().enumerate() {
            let out = &out.row(i)[ROWS * piece.tile + 8 * half..];
            *acc = [load(out), load(&out[4..])];
        }
    }
    for (at, block) in (piece.col..).step_by(COLS).zip(piece.bytes.as_chunks::<BYTES>().0) {
        for (half, acc) in acc.iter_mut().enumerate() {
            add(block, at, half, acc);
        }
    }
    for (half, acc) in acc.iter().enumerate() {
        for (i, acc) in acc.iter().enumerate() {
            let out = &mut out.row(i)[ROWS * piece.tile + 8 * half..];
            store(out, acc[0]);
            store(&mut out[4..], acc[1]);
        }
    }
}

/// Units of four bytes, of eight rows each: `LEN` of a block from `at` on, where units of 16 rows are.
#[derive(Clone, Copy)]
struct Units<'a, const LEN: usize>(&'a [[[u8; 16]; 4]; LEN], usize);

impl<'a, const LEN: usize> Units<'a, LEN> {
    /// Of the first or the second half of the rows. Checked once, for all loads.
    #[inline]
    fn new(block: &'a [u8], at: usize, half: usize) -> Self {
        let units = block[at..].as_chunks().0.as_chunks().0;
        Units(units.first_chunk().expect("a block has as many units as its type says"), half)
    }

    /// Unit `u` of four rows: the `v`-th four of the half.
    #[inline]
    fn get(self, u: usize, v: usize) -> uint8x16_t {
        load_u8(&self.0[u][2 * (self.1 & 1) + v])
    }
}

/// Halves that stand alone from `at` on, as f32.
#[inline]
#[target_feature(enable = "dotprod")]
fn halves(block: &[u8], at: usize, half: usize) -> [float32x4_t; 2] {
    widen_both(vreinterpretq_u16_u8(load_u8(&block[at + 16 * half..])))
}

/// Where the weights of Q4_0 and Q8_0 begin, in bytes.
const AFTER_SCALES: usize = 2 * ROWS;

/// 16 times `q − 8` of 16 bytes' low and high nibbles, whose upper bit turned around is the sign.
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn q4_0_weights(bytes: uint8x16_t) -> (int8x16_t, int8x16_t) {
    let bytes = veorq_u8(bytes, vdupq_n_u8(0x88));
    (vreinterpretq_s8_u8(vshlq_n_u8::<4>(bytes)), vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(0xf0))))
}

#[inline]
#[target_feature(enable = "dotprod")]
fn q4_0<const P: usize, const N: usize>(
    block: &[u8; Q4_0_BYTES],
    half: usize,
    x: Rows<'_>,
    at: usize,
    acc: &mut Sums<N>,
) {
    let units = Units::<4>::new(block, AFTER_SCALES, half);
    let mut w = [[[vdupq_n_s8(0); 4]; 2]; 2];
    for (v, [low, high]) in w.iter_mut().enumerate() {
        for (k, (low, high)) in low.iter_mut().zip(high).enumerate() {
            (*low, *high) = q4_0_weights(units.get(k, v));
        }
    }
    let group = Group::<2, 4> { w, scale: halves(block, 0, half), min: None };
    // SAFETY: as `by_type` says.
    unsafe { x.add::<P, N, 2, 4>(&group, at, acc) };
}

#[inline]
#[target_feature(enable = "dotprod")]
fn q8_0<const P: usize, const N: usize>(
    block: &[u8; Q8_0_BYTES],
    half: usize,
    x: Rows<'_>,
    at: usize,
    acc: &mut Sums<N>,
) {
    let units = Units::<8>::new(block, AFTER_SCALES, half);
    let mut w = [[[vdupq_n_s8(0); 4]; 2]; 2];
    for (v, w) in w.iter_mut().enumerate() {
        for k in 0..8 {
            w[k / 4][k % 4] = vreinterpretq_s8_u8(units.get(k, v));
        }
    }
    let group = Group::<2, 0> { w, scale: halves(block, 0, half), min: None };
    // SAFETY: as `by_type` says.
    unsafe { x.add::<P, N, 2, 0>(&group, at, acc) };
}

#[inline]
#[target_feature(enable = "dotprod")]
fn q4_k<const P: usize, const N: usize>(
    block: &[u8; Q4_K_BYTES],
    half: usize,
    x: Rows<'_>,
    at: usize,
    acc: &mut Sums<N>,
) {
    let heads = Units::new(block, 0, half);
    let scales = scales_of_q4_k(heads, 0).into_iter().zip(scales_of_q4_k(heads, 1));
    for (j, ([scale, min], [next_scale, next_min])) in scales.enumerate() {
        let units = Units::<8>::new(block, 64 * (4 + j / 2 * 8), half);
        let mut w = [[[vdupq_n_s8(0); 4]; 2]; 2];
        for (v, w) in w.iter_mut().enumerate() {
            for k in 0..8 {
                let bytes = units.get(k, v);
                let four = if j % 2 == 0 { vandq_u8(bytes, vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(bytes) };
                w[k / 4][k % 4] = vreinterpretq_s8_u8(four);
            }
        }
        let group = Group { w, scale: [scale, next_scale], min: Some([min, next_min]) };
        // SAFETY: as `by_type` says.
        unsafe { x.add::<P, N, 2, 0>(&group, at + 32 * j, acc) };
    }
}

/// The eight groups' scales and minima ([`carat_tensor::quant::k4_scale_min`]) of four rows, the `v`-th of a half.
#[inline]
#[target_feature(enable = "dotprod")]
fn scales_of_q4_k(heads: Units<'_, 4>, v: usize) -> [[float32x4_t; 2]; 8] {
    let dword = |u: usize| vreinterpretq_u32_u8(heads.get(u, v));
    let [both, u0, u1, u2] = [dword(0), dword(1), dword(2), dword(3)];
    let (d, d_min) = (widen(vmovn_u32(both)), widen(vshrn_n_u32::<16>(both)));
    let and = |v: uint32x4_t, mask: u32| vandq_u32(v, vdupq_n_u32(mask));
    let by = |v: uint32x4_t, bits: i32| vshlq_u32(v, vdupq_n_s32(-bits));
    let mut scales = [[vdupq_n_f32(0.0); 2]; 8];
    for j in 0..4 {
        let (byte, upper) = (8 * j as i32, 8 * j as i32 + 2);
        // Of the later four the two upper bits come from bits 6 and 7, to bits 4 and 5.
        let bits = [
            [and(by(u0, byte), 63), and(by(u1, byte), 63)],
            [
                vorrq_u32(and(by(u2, byte), 15), and(by(u0, upper), 0x30)),
                vorrq_u32(and(by(u2, byte + 4), 15), and(by(u1, upper), 0x30)),
            ],
        ];
        for (j, [scale, min]) in [j, j + 4].into_iter().zip(bits) {
            scales[j] = [vmulq_f32(vcvtq_f32_u32(scale), d), vmulq_f32(vcvtq_f32_u32(min), d_min)];
        }
    }
    scales
}

#[inline]
#[target_feature(enable = "dotprod")]
fn q6_k<const P: usize, const N: usize>(
    block: &[u8; Q6_K_BYTES],
    half: usize,
    x: Rows<'_>,
    at: usize,
    acc: &mut Sums<N>,
) {
    let d = halves(block, 0, half);
    for g in 0..16 {
        let units = Units::<3>::new(block, q6_k_sixteen(g), half);
        let scales = load_u8(&block[Q6_K_SCALES + ROWS * g..]);
        let scales = vmovl_s8(if half == 0 {
            vget_low_s8(vreinterpretq_s8_u8(scales))
        } else {
            vget_high_s8(vreinterpretq_s8_u8(scales))
        });
        let scales = [vmovl_s16(vget_low_s16(scales)), vmovl_high_s16(scales)];
        let (mut w, mut scale) = ([[[vdupq_n_s8(0); 4]; 1]; 2], d);
        for v in 0..2 {
            w[v][0] = q6_k_weights([units.get(0, v), units.get(1, v), units.get(2, v)]);
            scale[v] = vmulq_f32(vcvtq_f32_s32(scales[v]), d[v]);
        }
        // SAFETY: as `by_type` says.
        unsafe { x.add::<P, N, 1, 2>(&Group { w, scale, min: None }, at + 16 * g, acc) };
    }
}

/// Four times `q − 32` of 16 columns ([`crate::interleaved::in_sixes`]): six bits at the top of a byte, the first of them turned
/// around to be the sign.
#[inline]
#[target_feature(enable = "dotprod")]
fn q6_k_weights([low, middle, high]: [uint8x16_t; 3]) -> [int8x16_t; 4] {
    let signed = |v: uint8x16_t| vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(0x80)));
    // The last four's pairs of bits follow one another from the top; what is below them goes.
    let last = upper_over::<4>(upper_over::<2>(high, middle), low);
    let [low, middle, high] = [low, middle, high].map(|v| signed(vshlq_n_u8::<2>(v)));
    [low, middle, high, signed(vandq_u8(last, vdupq_n_u8(0xfc)))]
}
