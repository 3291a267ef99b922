//! Products of interleaved rows with one activation row: 16 rows at once, in two halves of 8 lanes.
//!
//! Weights of 4 and 6 bits: `vpmaddubsw` of unsigned weights with broadcast activations sums pairs in 16 bits, which hold
//! the sums of a group (`8 · 2 · 15 · 127 < 2¹⁵`) or of half a group (`2 · 2 · 63 · 127`), so that `vpmaddwd` is needed
//! once per group and plane. It also weighs the planes: by 128 and 1. Q8_0's weights become 16-bit, by two shifts, and
//! meet the activations' 15 bits at once.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::store;
use crate::acts::IntRows;
use crate::interleaved::{self, ROWS};
use crate::kernels::PackedTile;
use crate::scalar;

/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4 << 10;

/// See [`interleaved::pack_tile`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack_tile(dtype: DType, tile: &[u8], cols: usize, packed: &mut PackedTile) {
    interleaved::pack_tile(dtype, tile, cols, packed);
}

/// See [`crate::scalar::matvec_tiles`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec_tiles(dtype: DType, tiles: &[u8], x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut [f32]) {
    let n = x.q.len() / x.cols;
    for (i, out) in out.chunks_exact_mut(out.len() / n).enumerate() {
        one_row(dtype, tiles, x.row(i), rest.map(|rest| rest.row(i)), out);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn one_row(dtype: DType, tiles: &[u8], x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut [f32]) {
    let planes = Planes::new(x, rest);
    match (dtype, planes.count) {
        (DType::Q4_0, 1) => q4_0::<1>(tiles, planes, out),
        (DType::Q4_0, 2) => q4_0::<2>(tiles, planes, out),
        (DType::Q4_0, _) => q4_0::<3>(tiles, planes, out),
        (DType::Q4K, 1) => q4_k::<1>(tiles, planes, out),
        (DType::Q4K, 2) => q4_k::<2>(tiles, planes, out),
        (DType::Q4K, _) => q4_k::<3>(tiles, planes, out),
        (DType::Q6K, 1) => q6_k::<1>(tiles, planes, out),
        (DType::Q6K, 2) => q6_k::<2>(tiles, planes, out),
        (DType::Q6K, _) => q6_k::<3>(tiles, planes, out),
        (DType::Q8_0, _) => q8_0(tiles, x, rest, out),
        _ => scalar::matvec_tiles(dtype, tiles, x, rest, out),
    }
}

/// A row in one, two or three planes of bytes, each 128 times as fine as the one before.
#[derive(Clone, Copy)]
struct Planes<'a> {
    cols: usize,
    count: usize,
    bytes: [&'a [i8]; 3],
    /// The last plane's scales.
    d: &'a [f32],
    x: IntRows<'a>,
    rest: IntRows<'a>,
}

impl<'a> Planes<'a> {
    fn new(x: IntRows<'a>, rest: Option<IntRows<'a>>) -> Self {
        let count = 1 + usize::from(x.is_fine()) + usize::from(rest.is_some());
        let rest = rest.unwrap_or(x);
        let bytes = [x.q, x.low, rest.q];
        assert!(bytes[..count].iter().all(|plane| plane.len() == x.cols), "planes of {} values", x.cols);
        Planes { cols: x.cols, count, bytes, d: rest.d, x, rest }
    }

    /// Four values of a plane from `at` on, in every lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn quad(&self, plane: usize, at: usize) -> __m256i {
        debug_assert!(at + 4 <= self.cols);
        // SAFETY: planes that are used have `cols` bytes (asserted in `new`), and callers stay within: every tile has
        // `cols / block` blocks, and a block's columns lie within its row.
        _mm256_set1_epi32(unsafe { self.bytes[plane].as_ptr().add(at).cast::<i32>().read_unaligned() })
    }

    /// `−8 · Σ v` of group `g` of 16 or 32.
    #[inline]
    fn negative<const P: usize, const GROUP: usize>(&self, g: usize) -> i32 {
        let of = |x: &IntRows<'_>| if GROUP == 32 { x.neg32[g] } else { x.neg16[g] };
        if P == 3 { 128 * of(&self.x) + of(&self.rest) } else { of(&self.x) }
    }

    /// `d · Σ v` of group `g` of 32.
    #[inline]
    fn weighted<const P: usize>(&self, g: usize) -> f32 {
        if P == 3 { self.x.dsum32[g] + self.rest.dsum32[g] } else { self.x.dsum32[g] }
    }
}

/// 32 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load32(block: &[u8], at: usize) -> __m256i {
    assert!(block.len() >= at + 32);
    // SAFETY: 32 bytes from `at` on are readable, just checked.
    unsafe { _mm256_loadu_si256(block.as_ptr().add(at).cast()) }
}

/// Eight halves from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(block: &[u8], at: usize) -> __m256 {
    assert!(block.len() >= at + 16);
    // SAFETY: 16 bytes from `at` on are readable, just checked.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(block.as_ptr().add(at).cast()) })
}

/// Asks for what comes `AHEAD` bytes after a block's `bytes`. Past the end nothing is read. A few lines at a time: more at
/// once than a core waits for, and the rest is forgotten.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch(block: &[u8]) {
    for line in 0..block.len().div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD + 64 * line).cast());
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn low_nibbles(w: __m256i) -> __m256i {
    _mm256_and_si256(w, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn high_nibbles(w: __m256i) -> __m256i {
    low_nibbles(_mm256_srli_epi16::<4>(w))
}

/// Sums of pairs in 16 bits, of each plane.
struct Pairs<const P: usize>([__m256i; P]);

impl<const P: usize> Pairs<P> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new() -> Self {
        Pairs([_mm256_setzero_si256(); P])
    }

    /// Adds the products of four columns from `at` on.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(&mut self, w: __m256i, x: Planes<'_>, at: usize) {
        for plane in 0..P {
            self.0[plane] = _mm256_add_epi16(self.0[plane], _mm256_maddubs_epi16(w, x.quad(plane, at)));
        }
    }

    /// The sum over planes, one row per lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn total(&self) -> __m256i {
        let one = _mm256_set1_epi16(1);
        if P == 1 {
            return _mm256_madd_epi16(self.0[0], one);
        }
        let high = _mm256_madd_epi16(self.0[0], _mm256_set1_epi16(128));
        let total = _mm256_add_epi32(high, _mm256_madd_epi16(self.0[1], one));
        if P == 2 { total } else { _mm256_add_epi32(_mm256_slli_epi32::<7>(total), _mm256_madd_epi16(self.0[2], one)) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0<const P: usize>(tiles: &[u8], x: Planes<'_>, out: &mut [f32]) {
    const BLOCK: usize = ROWS * 18;
    for (out, tile) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(tiles.chunks_exact(x.cols / 32 * BLOCK)) {
        let mut acc = [_mm256_setzero_ps(); 2];
        for (g, block) in tile.as_chunks::<BLOCK>().0.iter().enumerate() {
            prefetch(block);
            let (d, negative) = (_mm256_set1_ps(x.d[g]), _mm256_set1_epi32(x.negative::<P, 32>(g)));
            for (half, acc) in acc.iter_mut().enumerate() {
                let mut pairs = Pairs::<P>::new();
                for k in 0..4 {
                    let w = load32(block, 32 + 64 * k + 32 * half);
                    pairs.add(low_nibbles(w), x, 32 * g + 4 * k);
                    pairs.add(high_nibbles(w), x, 32 * g + 16 + 4 * k);
                }
                let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(pairs.total(), negative));
                *acc = _mm256_fmadd_ps(dot, _mm256_mul_ps(halves(block, 16 * half), d), *acc);
            }
        }
        store(out, acc[0]);
        store(&mut out[8..], acc[1]);
    }
}

/// Low or high halves of eight dwords, as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves_of_dwords(v: __m256i) -> __m256 {
    let words = _mm256_packus_epi32(v, v);
    _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(words)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4_k<const P: usize>(tiles: &[u8], x: Planes<'_>, out: &mut [f32]) {
    const BLOCK: usize = ROWS * 144;
    for (out, tile) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(tiles.chunks_exact(x.cols / 256 * BLOCK)) {
        let mut acc = [_mm256_setzero_ps(); 2];
        for (s, block) in tile.as_chunks::<BLOCK>().0.iter().enumerate() {
            for (half, acc) in acc.iter_mut().enumerate() {
                let dword = |u: usize| load32(block, 64 * u + 32 * half);
                let both = dword(0);
                let d = halves_of_dwords(_mm256_and_si256(both, _mm256_set1_epi32(0xffff)));
                let d_min = halves_of_dwords(_mm256_srli_epi32::<16>(both));
                let scales = Scales6 { u: [dword(1), dword(2), dword(3)] };
                for pair in 0..4 {
                    let (mut low, mut high) = (Pairs::<P>::new(), Pairs::<P>::new());
                    for k in 0..8 {
                        let w = load32(block, 64 * (4 + 8 * pair + k) + 32 * half);
                        low.add(low_nibbles(w), x, 256 * s + 64 * pair + 4 * k);
                        high.add(high_nibbles(w), x, 256 * s + 64 * pair + 32 + 4 * k);
                    }
                    for (j, pairs) in [(2 * pair, low), (2 * pair + 1, high)] {
                        let g = 8 * s + j;
                        prefetch(&block[BLOCK / 16 * (8 * half + j)..BLOCK / 16 * (8 * half + j + 1)]);
                        let (scale, min) = scales.get(j);
                        let scale = _mm256_mul_ps(_mm256_mul_ps(scale, d), _mm256_set1_ps(x.d[g]));
                        *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(pairs.total()), scale, *acc);
                        let sum = _mm256_set1_ps(x.weighted::<P>(g));
                        *acc = _mm256_fnmadd_ps(_mm256_mul_ps(min, d_min), sum, *acc);
                    }
                }
            }
        }
        store(out, acc[0]);
        store(&mut out[8..], acc[1]);
    }
}

/// The 12 bytes of 6-bit scales and minima of eight rows, by dwords.
struct Scales6 {
    u: [__m256i; 3],
}

impl Scales6 {
    /// Scale and minimum of group `j` ([`carat_tensor::quant::k4_scale_min`]).
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn get(&self, j: usize) -> (__m256, __m256) {
        let by = |v: __m256i, bits: usize| _mm256_srlv_epi32(v, _mm256_set1_epi32(bits as i32));
        let and = |v: __m256i, mask: i32| _mm256_and_si256(v, _mm256_set1_epi32(mask));
        let [u0, u1, u2] = self.u;
        let at = 8 * (j % 4);
        let (scale, min) = if j < 4 {
            (and(by(u0, at), 63), and(by(u1, at), 63))
        } else {
            // The two upper bits come from bits 6 and 7, to bits 4 and 5.
            let upper = |v: __m256i| and(by(v, at + 2), 0x30);
            (_mm256_or_si256(and(by(u2, at), 15), upper(u0)), _mm256_or_si256(and(by(u2, at + 4), 15), upper(u1)))
        };
        (_mm256_cvtepi32_ps(scale), _mm256_cvtepi32_ps(min))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k<const P: usize>(tiles: &[u8], x: Planes<'_>, out: &mut [f32]) {
    const BLOCK: usize = ROWS * 210;
    for (out, tile) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(tiles.chunks_exact(x.cols / 256 * BLOCK)) {
        let mut acc = [_mm256_setzero_ps(); 2];
        for (s, block) in tile.as_chunks::<BLOCK>().0.iter().enumerate() {
            for (half, acc) in acc.iter_mut().enumerate() {
                let d = halves(block, ROWS * 208 + 16 * half);
                for part in 0..2 {
                    for second in 0..2 {
                        let group = Sixteen { block, part, second, half };
                        *acc = group.add::<P, 0>(x, s, d, *acc);
                        *acc = group.add::<P, 1>(x, s, d, *acc);
                        *acc = group.add::<P, 2>(x, s, d, *acc);
                        *acc = group.add::<P, 3>(x, s, d, *acc);
                    }
                }
            }
        }
        store(out, acc[0]);
        store(&mut out[8..], acc[1]);
    }
}

/// Groups of 16 columns of a block of Q6_K: of each chunk of 32 in a part of 128 the first or the second, eight rows.
#[derive(Clone, Copy)]
struct Sixteen<'a> {
    block: &'a [u8; ROWS * 210],
    part: usize,
    second: usize,
    half: usize,
}

impl Sixteen<'_> {
    /// Four columns from `4 · k` on.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn weights<const CHUNK: usize>(self, k: usize) -> __m256i {
        let Sixteen { block, part, second, half } = self;
        let dword = 4 * second + k;
        let w = load32(block, 64 * (16 * part + 8 * (CHUNK % 2) + dword) + 32 * half);
        let bits = load32(block, ROWS * 128 + 64 * (8 * part + dword) + 32 * half);
        let upper = match CHUNK {
            0 => _mm256_slli_epi16::<4>(bits),
            1 => _mm256_slli_epi16::<2>(bits),
            2 => bits,
            _ => _mm256_srli_epi16::<2>(bits),
        };
        let lower = if CHUNK < 2 { low_nibbles(w) } else { high_nibbles(w) };
        _mm256_or_si256(lower, _mm256_and_si256(upper, _mm256_set1_epi8(0x30)))
    }

    /// `acc` and the group of a chunk.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<const P: usize, const CHUNK: usize>(self, x: Planes<'_>, s: usize, d: __m256, acc: __m256) -> __m256 {
        let at = 8 * self.part + 2 * CHUNK + self.second;
        let (g, column) = (16 * s + at, 256 * s + 16 * at);
        let step = ROWS * 210 / 32;
        prefetch(&self.block[step * (16 * self.half + at)..step * (16 * self.half + at + 1)]);
        let w =
            [self.weights::<CHUNK>(0), self.weights::<CHUNK>(1), self.weights::<CHUNK>(2), self.weights::<CHUNK>(3)];
        let product = |plane: usize, k: usize| _mm256_maddubs_epi16(w[k], x.quad(plane, column + 4 * k));
        // A plane of 8 bits fills 16 after two quads, the others after four.
        let two = |k: usize| _mm256_add_epi16(product(0, k), product(0, k + 1));
        let weight = _mm256_set1_epi16([1, 128, 128 * 128][P - 1]);
        let coarse = _mm256_add_epi32(_mm256_madd_epi16(two(0), weight), _mm256_madd_epi16(two(2), weight));
        let mut dot = _mm256_add_epi32(coarse, _mm256_set1_epi32(4 * x.negative::<P, 16>(g)));
        for plane in 1..P {
            let four = _mm256_add_epi16(
                _mm256_add_epi16(product(plane, 0), product(plane, 1)),
                _mm256_add_epi16(product(plane, 2), product(plane, 3)),
            );
            let weight = _mm256_set1_epi16(if plane + 1 == P { 1 } else { 128 });
            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(four, weight));
        }
        let scales = load32(self.block, ROWS * 192 + 64 * (at / 4) + 32 * self.half);
        let scales = _mm256_sllv_epi32(scales, _mm256_set1_epi32(24 - 8 * (at as i32 % 4)));
        let scale = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(scales)), d);
        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.d[g / 2]));
        _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc)
    }
}

/// Signed bytes against 16-bit activations, whose quads have their even values first: so do words cut from dwords.
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0(tiles: &[u8], x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut [f32]) {
    const BLOCK: usize = ROWS * 34;
    assert!(x.wide.len() == x.cols && rest.is_none_or(|rest| rest.wide.len() == x.cols));
    for (out, tile) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(tiles.chunks_exact(x.cols / 32 * BLOCK)) {
        let mut acc = [_mm256_setzero_ps(); 2];
        for (g, block) in tile.as_chunks::<BLOCK>().0.iter().enumerate() {
            prefetch(block);
            for (half, acc) in acc.iter_mut().enumerate() {
                let scale = halves(block, 16 * half);
                let mut add = |x: IntRows<'_>| {
                    let mut dot = _mm256_setzero_si256();
                    for k in 0..8 {
                        let w = load32(block, 32 + 64 * k + 32 * half);
                        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w));
                        let odd = _mm256_srai_epi16::<8>(w);
                        let (even_x, odd_x) = wide_quad(x, 32 * g + 4 * k);
                        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(even, even_x));
                        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(odd, odd_x));
                    }
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.d[g]));
                    *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *acc);
                };
                add(x);
                if let Some(rest) = rest {
                    add(rest);
                }
            }
        }
        store(out, acc[0]);
        store(&mut out[8..], acc[1]);
    }
}

/// The even and the odd two of four 16-bit values from `at` on, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn wide_quad(x: IntRows<'_>, at: usize) -> (__m256i, __m256i) {
    assert!(at + 4 <= x.wide.len());
    // SAFETY: four values from `at` on are readable, just checked.
    unsafe {
        let at = x.wide.as_ptr().add(at).cast::<i32>();
        (_mm256_set1_epi32(at.read_unaligned()), _mm256_set1_epi32(at.add(1).read_unaligned()))
    }
}
