//! Products of interleaved rows with activation rows: 16 weight rows at once, in two halves of 8 lanes, as [`crate::avx512`] has
//! them in one.
//!
//! Weights are unpacked to unsigned bytes for up to four activation rows, whose sums are eight of the sixteen registers: so many
//! that a sum is not wanted again before it is there.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{dot, dot_words};
use crate::avx2::{self, Head, high_nibbles, last_of_sixes, low_nibbles};
use crate::interleaved::{
    GROUP, Pieces, Q4_0_BYTES, Q4_K_BYTES, Q6_K_BYTES, Q6_K_SCALES, Q8_0_BYTES, ROWS, Tiles, q6_k_sixteen,
};
use crate::ints::IntRows;
use crate::planes::Planes;
use crate::pool::Tile;
use crate::x86::products_of_tiles;

/// Activation rows that share a pass over the weights.
const SHARE: usize = 4;

/// A vector of each half of 16 rows.
type Halves = [__m256i; 2];

products_of_tiles!("avx2,fma,f16c", [__m256; 2], [_mm256_setzero_ps(); 2], EVEX);

/// See [`products_of_tiles`].
#[target_feature(enable = "avx2,fma,f16c")]
fn by_count<const EVEX: bool, const P: usize>(tiles: AllTiles<'_, '_>, x: Planes<'_>, out: &mut Tile<'_>) {
    match out.rows().len() {
        1 => by_type::<EVEX, P, 1>(tiles, x, out),
        2 => by_type::<EVEX, P, 2>(tiles, x, out),
        3 => by_type::<EVEX, P, 3>(tiles, x, out),
        _ => by_type::<EVEX, P, SHARE>(tiles, x, out),
    }
}

/// Stores sums of 16 weight rows in units of an activation row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn give(out: &mut [f32], sums: [__m256; 2], unit: f32) {
    for (out, sum) in out.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
        // SAFETY: eight values.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(sum, _mm256_set1_ps(unit))) };
    }
}

impl<const N: usize> Sums<N> {
    /// Adds `scale · dot · 2^exp` to each row's, the power as in [`IntRows::exps`]: of a dot of 0 it leaves `2^-103` at most.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(&mut self, dots: [Halves; N], scale: [__m256; 2], exp: impl Fn(usize) -> i32) {
        for (i, (acc, dots)) in self.0.iter_mut().zip(dots).enumerate() {
            let exp = _mm256_set1_epi32(exp(i));
            for ((acc, dot), scale) in acc.iter_mut().zip(dots).zip(scale) {
                let dot = _mm256_add_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(dot)), exp);
                *acc = _mm256_fmadd_ps(_mm256_castsi256_ps(dot), scale, *acc);
            }
        }
    }
}

/// For each row sums of 32-bit lanes over a group's weights and its columns from `at` on, all planes together, from `starts` on:
/// `−offset · Σ v` of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<const EVEX: bool, const FORM: usize, const P: usize, const N: usize>(
    x: &Planes<'_>,
    group: &[u8],
    at: usize,
    starts: [i32; N],
) -> [Halves; N] {
    let quads = if FORM == SIXES { 4 } else { 8 };
    debug_assert!(at + 4 * quads <= x.cols());
    let add = |sums: &mut [Halves; N], p: usize, k: usize, w: Halves| {
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `Planes::new` has seen the rows, and callers stay within one: every tile has `cols / block` blocks, and a
            // block's columns lie within its row.
            let quad = unsafe { x.of_plane(p, at).add(i * x.cols() + 4 * k).cast::<i32>().read_unaligned() };
            let quad = _mm256_set1_epi32(quad);
            *sums = [dot::<EVEX>(sums[0], w[0], quad), dot::<EVEX>(sums[1], w[1], quad)];
        }
    };
    let starts = starts.map(|start| _mm256_set1_epi32(start));
    let zero = [[_mm256_setzero_si256(); 2]; N];
    if N * P <= SHARE {
        // There are registers for sums of each plane, and none waits for the plane before.
        let mut sums = [zero; P];
        sums[P - 1] = starts.map(|start| [start; 2]);
        for k in 0..quads {
            let w = weights::<FORM>(group, k);
            for (p, sums) in sums.iter_mut().enumerate() {
                add(sums, p, k, w);
            }
        }
        let mut total = sums[0];
        for next in &sums[1..] {
            for (total, next) in total.iter_mut().zip(next) {
                *total = [
                    _mm256_add_epi32(_mm256_slli_epi32::<7>(total[0]), next[0]),
                    _mm256_add_epi32(_mm256_slli_epi32::<7>(total[1]), next[1]),
                ];
            }
        }
        return total;
    }
    let mut sums = zero;
    for p in 0..P {
        for (sums, start) in sums.iter_mut().zip(starts) {
            if p > 0 {
                *sums = [_mm256_slli_epi32::<7>(sums[0]), _mm256_slli_epi32::<7>(sums[1])];
            }
            if p == P - 1 {
                *sums = [_mm256_add_epi32(sums[0], start), _mm256_add_epi32(sums[1], start)];
            }
        }
        for k in 0..quads {
            add(&mut sums, p, k, weights::<FORM>(group, k));
        }
    }
    sums
}

/// Asks for what comes after part `i` of `PARTS` of a block, if one row meets it: of others the first ones do.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch<const N: usize, const PARTS: usize>(block: &[u8], i: usize) {
    if N == 1 {
        let part = block.len() / PARTS;
        avx2::prefetch(&block[i * part..(i + 1) * part]);
    }
}

/// 64 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load64(block: &[u8], at: usize) -> Halves {
    [avx2::load32(block, at), avx2::load32(block, at + 32)]
}

/// 16 halves from `at` on, one of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(block: &[u8], at: usize) -> [__m256; 2] {
    [avx2::halves(block, at), avx2::halves(block, at + 16)]
}

/// 16 signed bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_bytes(block: &[u8], at: usize) -> [__m256; 2] {
    let (first, second) = (avx2::signed_bytes(block, at), avx2::signed_bytes(block, at + 8));
    [_mm256_cvtepi32_ps(first), _mm256_cvtepi32_ps(second)]
}

// How a group's weights lie, by number: closures would not be part of the loop for certain.
/// Low nibbles of eight quads.
const LOW: usize = 0;
/// High nibbles, and the same in place: 16 times what they are.
const HIGH: usize = 1;
const HIGH_IN_PLACE: usize = 2;
/// Low nibbles of four quads, then their high ones.
const LOW_HIGH: usize = 3;
/// Signed bytes, made unsigned by their sign bit: 128 more.
const BYTES: usize = 4;
/// Four quads in 6 bits ([`crate::interleaved::in_sixes`]).
const SIXES: usize = 5;

/// Quad `k` of a group, unsigned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weights<const FORM: usize>(group: &[u8], k: usize) -> Halves {
    let [a, b] = load64(
        group,
        64 * if FORM == LOW_HIGH {
            k % 4
        } else if FORM == SIXES {
            k % 3
        } else {
            k
        },
    );
    match FORM {
        LOW => [low_nibbles(a), low_nibbles(b)],
        HIGH_IN_PLACE => {
            let low = _mm256_set1_epi8(15);
            [_mm256_andnot_si256(low, a), _mm256_andnot_si256(low, b)]
        }
        LOW_HIGH if k < 4 => [low_nibbles(a), low_nibbles(b)],
        HIGH | LOW_HIGH => [high_nibbles(a), high_nibbles(b)],
        BYTES => [_mm256_xor_si256(a, _mm256_set1_epi8(-128)), _mm256_xor_si256(b, _mm256_set1_epi8(-128))],
        _ if k < 3 => [_mm256_and_si256(a, _mm256_set1_epi8(63)), _mm256_and_si256(b, _mm256_set1_epi8(63))],
        _ => {
            let ([c, d], [e, f]) = (load64(group, 64), load64(group, 128));
            [last_of_sixes(a, c, e), last_of_sixes(b, d, f)]
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0<const EVEX: bool, const P: usize, const N: usize>(
    block: &[u8; Q4_0_BYTES],
    b: usize,
    x: Planes<'_>,
    sums: &mut Sums<N>,
) {
    prefetch::<N, 1>(block, 0);
    let starts = std::array::from_fn(|i| x.negative::<P, 32>(i, b));
    let dots = dots::<EVEX, LOW_HIGH, P, N>(&x, &block[32..], 32 * b, starts);
    sums.add(dots, halves(block, 0), |i| x.exp(i, b));
}

/// With three planes a group's sum has 33 bits, so the third stays alone.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0<const EVEX: bool, const P: usize, const N: usize>(
    block: &[u8; Q8_0_BYTES],
    b: usize,
    x: Planes<'_>,
    sums: &mut Sums<N>,
) {
    prefetch::<N, 1>(block, 0);
    let (scale, weights) = (halves(block, 0), &block[32..]);
    if P < 3 {
        let starts = std::array::from_fn(|i| x.negative::<P, 32>(i, b) << 4);
        sums.add(dots::<EVEX, BYTES, P, N>(&x, weights, 32 * b, starts), scale, |i| x.exp(i, b));
    } else {
        let rest = x.of_rest();
        let starts = std::array::from_fn(|i| x.negative::<2, 32>(i, b) << 4);
        let of_rest = std::array::from_fn(|i| rest.negative::<1, 32>(i, b) << 4);
        let high = dots::<EVEX, BYTES, 2, N>(&x, weights, 32 * b, starts);
        let low = dots::<EVEX, BYTES, 1, N>(&rest, weights, 32 * b, of_rest);
        sums.add(high, scale, |i| x.exp(i, b) + (7 << 23));
        sums.add(low, scale, |i| x.exp(i, b));
    }
}

/// Minima have 6 bits: they are multiplied in 16-bit dots with the sums of activations, but for the finest of these. High nibbles
/// are taken where they are, as 16 times what they are, which the scale makes up for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_k<const EVEX: bool, const P: usize, const N: usize>(
    block: &[u8; Q4_K_BYTES],
    b: usize,
    x: Planes<'_>,
    inverses: &[f32; N],
    sums: &mut Sums<N>,
) {
    // Of the finest activations 16 times a dot would have 34 bits.
    let in_place = P < 3;
    let (mut scales, mut mins) = ([[_mm256_setzero_ps(); 2]; 8], [[_mm256_setzero_si256(); 2]; 8]);
    let mut d_min = [_mm256_setzero_ps(); 2];
    for half in 0..2 {
        let head = Head::new(block, half);
        let d_of_high = if in_place { _mm256_mul_ps(head.d, _mm256_set1_ps(1.0 / 16.0)) } else { head.d };
        d_min[half] = head.d_min;
        for j in 0..8 {
            let of_group;
            (of_group, mins[j][half]) = head.scale_and_min(j);
            scales[j][half] = _mm256_mul_ps(_mm256_cvtepi32_ps(of_group), if j % 2 == 0 { head.d } else { d_of_high });
        }
    }
    for pair in 0..4 {
        let (weights, g) = (&block[256 + 512 * pair..], 8 * b + 2 * pair);
        prefetch::<N, 4>(block, pair);
        let low = dots::<EVEX, LOW, P, N>(&x, weights, 32 * g, [0; N]);
        sums.add(low, scales[2 * pair], |i| x.exp(i, g));
        let high = if in_place {
            dots::<EVEX, HIGH_IN_PLACE, P, N>(&x, weights, 32 * (g + 1), [0; N])
        } else {
            dots::<EVEX, HIGH, P, N>(&x, weights, 32 * (g + 1), [0; N])
        };
        sums.add(high, scales[2 * pair + 1], |i| x.exp(i, g + 1));
    }
    if P < 3 {
        let pairs: [Halves; 4] = std::array::from_fn(|pair| {
            [0, 1].map(|half| _mm256_or_si256(mins[2 * pair][half], _mm256_slli_epi32::<16>(mins[2 * pair + 1][half])))
        });
        let mut dots = [[_mm256_setzero_si256(); 2]; N];
        for (i, dots) in dots.iter_mut().enumerate() {
            let of_row: &[i32; 4] = bytemuck::cast_ref(&x.eight(i, b).sums);
            for (pair, &sums) in pairs.iter().zip(of_row) {
                for (dot, mins) in dots.iter_mut().zip(pair) {
                    *dot = dot_words::<EVEX>(*dot, *mins, _mm256_set1_epi32(sums));
                }
            }
        }
        let zero = _mm256_setzero_ps();
        let less = [_mm256_sub_ps(zero, d_min[0]), _mm256_sub_ps(zero, d_min[1])];
        return sums.add(dots, less, |i| x.eight(i, b).exp);
    }
    for (g, min) in (8 * b..).zip(mins) {
        for half in 0..2 {
            let min = _mm256_mul_ps(_mm256_cvtepi32_ps(min[half]), d_min[half]);
            for (i, sum) in sums.0.iter_mut().enumerate() {
                sum[half] = _mm256_fnmadd_ps(min, _mm256_set1_ps(x.weighted(i, g) * inverses[i]), sum[half]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k<const EVEX: bool, const P: usize, const N: usize>(
    block: &[u8; Q6_K_BYTES],
    b: usize,
    x: Planes<'_>,
    sums: &mut Sums<N>,
) {
    let d = halves(block, 0);
    for g in 0..16 {
        prefetch::<N, 16>(block, g);
        let at = 16 * b + g;
        let starts = std::array::from_fn(|i| x.negative::<P, 16>(i, at));
        let dots = dots::<EVEX, SIXES, P, N>(&x, &block[q6_k_sixteen(g)..], 16 * at, starts);
        let scale = signed_bytes(block, Q6_K_SCALES + ROWS * g);
        let scale = [_mm256_mul_ps(scale[0], d[0]), _mm256_mul_ps(scale[1], d[1])];
        sums.add(dots, scale, |i| x.exp(i, at / 2));
    }
}
