//! Products of interleaved rows with activation rows: 16 weight rows at once, one per 32-bit lane.
//!
//! A group's weights are unpacked to unsigned bytes once for up to four activation rows: `vpdpbusd` with four broadcast
//! activations sums in the weight row's lane, a plane of 7 or 8 bits at a time, from `−offset · Σ v` on; then one conversion,
//! the activations' power of two, added to the exponent, and one fused multiply-add with the weights' scale. No lane is ever moved.
//!
//! What takes part in products bounds them: nine operations of which eight are dots.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{load32, load64, prefetch, store};
use crate::interleaved::{self, ROWS};
use crate::ints::IntRows;
use crate::kernels::PackedTile;

/// Activation rows that share a pass over the weights, where there are so many.
const SHARE: usize = 8;

/// See [`interleaved::pack_tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn pack_tile(dtype: DType, tile: &[u8], cols: usize, packed: &mut PackedTile) {
    interleaved::pack_tile(dtype, tile, cols, packed);
}

/// See [`crate::scalar::matvec_tiles`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn matvec_tiles(dtype: DType, tiles: &[u8], x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut [f32]) {
    let n = x.q.len() / x.cols;
    let rows = out.len() / n;
    let mut i = 0;
    while i < n {
        let taken = if i + SHARE <= n { SHARE } else { 1 << (n - i).ilog2() };
        let out = &mut out[i * rows..(i + taken) * rows];
        let planes = Planes { x, rest: rest.unwrap_or(x), first: i };
        match taken {
            1 => by_planes::<1>(dtype, tiles, planes, rest.is_some(), out),
            2 => by_planes::<2>(dtype, tiles, planes, rest.is_some(), out),
            4 => by_planes::<4>(dtype, tiles, planes, rest.is_some(), out),
            _ => by_planes::<SHARE>(dtype, tiles, planes, rest.is_some(), out),
        }
        i += taken;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_planes<const N: usize>(dtype: DType, tiles: &[u8], x: Planes<'_>, has_rest: bool, out: &mut [f32]) {
    match (x.x.is_fine(), has_rest) {
        (false, _) => by_type::<1, N>(dtype, tiles, x, out),
        (true, false) => by_type::<2, N>(dtype, tiles, x, out),
        (true, true) => by_type::<3, N>(dtype, tiles, x, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_type<const P: usize, const N: usize>(dtype: DType, tiles: &[u8], x: Planes<'_>, out: &mut [f32]) {
    x.check::<P, N>();
    let units = std::array::from_fn(|i| if P == 3 { &x.rest } else { &x.x }.unit(x.first + i));
    match dtype {
        DType::Q4_0 => all::<Q4_0_BYTES, 32, N>(tiles, x, out, units, |block, b, sums| q4_0::<P, N>(block, b, x, sums)),
        DType::Q8_0 => all::<Q8_0_BYTES, 32, N>(tiles, x, out, units, |block, b, sums| q8_0::<P, N>(block, b, x, sums)),
        DType::Q4K => all::<Q4_K_BYTES, 256, N>(tiles, x, out, units, |block, b, sums| q4_k::<P, N>(block, b, x, sums)),
        DType::Q6K => all::<Q6_K_BYTES, 256, N>(tiles, x, out, units, |block, b, sums| q6_k::<P, N>(block, b, x, sums)),
        _ => unreachable!("{dtype} has no layout in tiles"),
    }
}

/// All tiles: `add` adds block `b` of a tile, `BYTES` for `COLS` columns, to the sums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn all<const BYTES: usize, const COLS: usize, const N: usize>(
    tiles: &[u8],
    x: Planes<'_>,
    out: &mut [f32],
    units: [f32; N],
    add: impl Fn(&[u8; BYTES], usize, &mut Sums<N>),
) {
    let rows = out.len() / N;
    for (t, tile) in tiles.chunks_exact(x.x.cols / COLS * BYTES).enumerate() {
        let mut sums = Sums { of_units: [_mm512_setzero_ps(); N], minima: [_mm512_setzero_ps(); N] };
        for (b, block) in tile.as_chunks::<BYTES>().0.iter().enumerate() {
            add(block, b, &mut sums);
        }
        for i in 0..N {
            let sum = _mm512_fmsub_ps(sums.of_units[i], _mm512_set1_ps(units[i]), sums.minima[i]);
            store(&mut out[i * rows + t * ROWS..], sum);
        }
    }
}

/// What a tile's products with `N` rows have come to.
struct Sums<const N: usize> {
    /// In units of each row ([`IntRows::unit`]).
    of_units: [__m512; N],
    /// What is to be taken off.
    minima: [__m512; N],
}

/// Activation rows from `first` on in up to three planes of bytes, each 128 times as fine as the one before: two of `x`, one
/// of its rest.
#[derive(Clone, Copy)]
struct Planes<'a> {
    x: IntRows<'a>,
    rest: IntRows<'a>,
    first: usize,
}

impl Planes<'_> {
    /// Panics unless there are `N` rows of `P` planes, with all sums and scales: what other functions here rely on.
    fn check<const P: usize, const N: usize>(&self) {
        let (cols, end) = (self.x.cols, self.first + N);
        let planes = [self.x.q, self.x.low, self.rest.q];
        assert!(planes[..P].iter().all(|plane| plane.len() >= end * cols), "{end} rows of {P} planes of {cols} values");
        for x in [&self.x, &self.rest] {
            assert!(x.exps.len() >= end * (cols / 32) && x.dsum32.len() >= end * (cols / 32));
            assert!(x.neg16.len() >= end * (cols / 16) && x.neg32.len() >= end * (cols / 32));
        }
    }

    /// Sums of 32-bit lanes over `QUADS` quads of weights and the columns of activation row `i` from `at` on, all planes
    /// together; `negative` is `−offset · Σ v`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn dot<const P: usize, const QUADS: usize>(
        &self,
        w: &[__m512i; QUADS],
        i: usize,
        at: usize,
        negative: i32,
    ) -> __m512i {
        debug_assert!(at + 4 * QUADS <= self.x.cols);
        let planes = [self.x.q, self.x.low, self.rest.q];
        let mut sums = [_mm512_setzero_si512(); P];
        sums[P - 1] = _mm512_set1_epi32(negative);
        for (sum, plane) in sums.iter_mut().zip(planes) {
            // SAFETY: `check` has seen the rows, and callers stay within one: every tile has `cols / block` blocks, and a
            // block's columns lie within its row.
            let x = unsafe { plane.as_ptr().add((self.first + i) * self.x.cols + at) };
            for (k, &w) in w.iter().enumerate() {
                // SAFETY: as above.
                let quad = unsafe { x.add(4 * k).cast::<i32>().read_unaligned() };
                *sum = _mm512_dpbusd_epi32(*sum, w, _mm512_set1_epi32(quad));
            }
        }
        let mut sum = sums[0];
        for plane in &sums[1..] {
            sum = _mm512_add_epi32(_mm512_slli_epi32::<7>(sum), *plane);
        }
        sum
    }

    /// `−8 · Σ v` of group `g` of 16 or 32 columns of row `i`.
    #[inline]
    fn negative<const P: usize, const GROUP: usize>(&self, i: usize, g: usize) -> i32 {
        let of = |x: &IntRows<'_>| self.of_group::<GROUP, _>(if GROUP == 32 { x.neg32 } else { x.neg16 }, i, g);
        if P == 3 { 128 * of(&self.x) + of(&self.rest) } else { of(&self.x) }
    }

    /// Scale of the 32 columns from `32 · g` on of row `i` ([`IntRows::exps`]): the same for all planes, each in its unit.
    #[inline]
    fn exp(&self, i: usize, g: usize) -> i32 {
        self.of_group::<32, _>(self.x.exps, i, g)
    }

    /// `d · Σ v` of the same.
    #[inline]
    fn weighted<const P: usize>(&self, i: usize, g: usize) -> f32 {
        let of = |x: &IntRows<'_>| self.of_group::<32, _>(x.dsum32, i, g);
        if P == 3 { of(&self.x) + of(&self.rest) } else { of(&self.x) }
    }

    /// What row `i` has for group `g`.
    #[inline]
    fn of_group<const GROUP: usize, T: Copy>(&self, values: &[T], i: usize, g: usize) -> T {
        let at = (self.first + i) * (self.x.cols / GROUP) + g;
        debug_assert!(at < values.len());
        // SAFETY: `check` has seen the rows' values, and callers' groups lie within a row, as every tile has
        // `cols / block` blocks.
        unsafe { *values.get_unchecked(at) }
    }
}

/// 16 halves from `at` on, one of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn halves(block: &[u8], at: usize) -> __m512 {
    _mm512_cvtph_ps(load32(block, at))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn low_nibbles(w: __m512i) -> __m512i {
    _mm512_and_si512(w, _mm512_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn high_nibbles(w: __m512i) -> __m512i {
    low_nibbles(_mm512_srli_epi16::<4>(w))
}

/// `acc + scale · dot · 2^exp`, the power as in [`IntRows::exps`]: of a dot of 0 it leaves `2^-103` at most.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn scaled(dot: __m512i, scale: __m512, exp: i32, acc: __m512) -> __m512 {
    let dot = _mm512_castps_si512(_mm512_cvtepi32_ps(dot));
    _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_add_epi32(dot, _mm512_set1_epi32(exp))), scale, acc)
}

const Q4_0_BYTES: usize = ROWS * 18;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_0<const P: usize, const N: usize>(block: &[u8; Q4_0_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    prefetch(block);
    let mut w = [_mm512_setzero_si512(); 8];
    for k in 0..4 {
        let bytes = load64(block, 32 + 64 * k);
        (w[k], w[k + 4]) = (low_nibbles(bytes), high_nibbles(bytes));
    }
    let scale = halves(block, 0);
    for (i, acc) in sums.of_units.iter_mut().enumerate() {
        let dot = x.dot::<P, 8>(&w, i, 32 * b, x.negative::<P, 32>(i, b));
        *acc = scaled(dot, scale, x.exp(i, b), *acc);
    }
}

const Q8_0_BYTES: usize = ROWS * 34;

/// Weights become unsigned by their sign bit: 128 more. With three planes a group's sum has 33 bits, so the third stays alone.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q8_0<const P: usize, const N: usize>(block: &[u8; Q8_0_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    prefetch(block);
    let sign = _mm512_set1_epi8(-128);
    let mut w = [sign; 8];
    for (k, w) in w.iter_mut().enumerate() {
        *w = _mm512_xor_si512(*w, load64(block, 32 + 64 * k));
    }
    let scale = halves(block, 0);
    for (i, acc) in sums.of_units.iter_mut().enumerate() {
        let exp = x.exp(i, b);
        if P < 3 {
            let dot = x.dot::<P, 8>(&w, i, 32 * b, 16 * x.negative::<P, 32>(i, b));
            *acc = scaled(dot, scale, exp, *acc);
        } else {
            let rest = Planes { x: x.rest, ..x };
            let high = x.dot::<2, 8>(&w, i, 32 * b, 16 * x.negative::<2, 32>(i, b));
            let low = rest.dot::<1, 8>(&w, i, 32 * b, 16 * rest.negative::<1, 32>(i, b));
            *acc = scaled(high, scale, exp + (7 << 23), *acc);
            *acc = scaled(low, scale, exp, *acc);
        }
    }
}

const Q4_K_BYTES: usize = ROWS * 144;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_k<const P: usize, const N: usize>(block: &[u8; Q4_K_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    let both = load64(block, 0);
    let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(both));
    let d_min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(both)));
    let scales = Scales6 { u: [load64(block, 64), load64(block, 128), load64(block, 192)] };
    for pair in 0..4 {
        let bytes = &block[256 + 512 * pair..256 + 512 * (pair + 1)];
        let (mut low, mut high) = ([_mm512_setzero_si512(); 8], [_mm512_setzero_si512(); 8]);
        for k in 0..8 {
            let bytes = load64(bytes, 64 * k);
            (low[k], high[k]) = (low_nibbles(bytes), high_nibbles(bytes));
        }
        for (j, w) in [(2 * pair, low), (2 * pair + 1, high)] {
            let (scale, min) = scales.get(j);
            let (scale, min) = (_mm512_mul_ps(scale, d), _mm512_mul_ps(min, d_min));
            let g = 8 * b + j;
            prefetch(&block[Q4_K_BYTES / 8 * j..Q4_K_BYTES / 8 * (j + 1)]);
            for (i, acc) in sums.of_units.iter_mut().enumerate() {
                let dot = x.dot::<P, 8>(&w, i, 32 * g, 0);
                *acc = scaled(dot, scale, x.exp(i, g), *acc);
                sums.minima[i] = _mm512_fmadd_ps(min, _mm512_set1_ps(x.weighted::<P>(i, g)), sums.minima[i]);
            }
        }
    }
}

/// The 12 bytes of 6-bit scales and minima of 16 rows, by dwords.
struct Scales6 {
    u: [__m512i; 3],
}

impl Scales6 {
    /// Scale and minimum of group `j` ([`carat_tensor::quant::k4_scale_min`]).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn get(&self, j: usize) -> (__m512, __m512) {
        let by = |v: __m512i, bits: usize| _mm512_srlv_epi32(v, _mm512_set1_epi32(bits as i32));
        let and = |v: __m512i, mask: i32| _mm512_and_si512(v, _mm512_set1_epi32(mask));
        let [u0, u1, u2] = self.u;
        let at = 8 * (j % 4);
        let (scale, min) = if j < 4 {
            (and(by(u0, at), 63), and(by(u1, at), 63))
        } else {
            // The two upper bits come from bits 6 and 7, to bits 4 and 5.
            let upper = |v: __m512i| and(by(v, at + 2), 0x30);
            (_mm512_or_si512(and(by(u2, at), 15), upper(u0)), _mm512_or_si512(and(by(u2, at + 4), 15), upper(u1)))
        };
        (_mm512_cvtepi32_ps(scale), _mm512_cvtepi32_ps(min))
    }
}

const Q6_K_BYTES: usize = ROWS * 210;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q6_k<const P: usize, const N: usize>(block: &[u8; Q6_K_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    let d = halves(block, ROWS * 208);
    for part in 0..4 {
        let (half, second) = (part / 2, part % 2);
        let w = sixteens(block, part);
        for (chunk, w) in w.iter().enumerate() {
            // A signed byte of a dword: bytes of groups `4 · n` to `4 · n + 3` stand together.
            let at = 8 * half + 2 * chunk + second;
            let scales = load64(block, ROWS * 192 + 64 * (at / 4));
            let scales = _mm512_sllv_epi32(scales, _mm512_set1_epi32(24 - 8 * (at as i32 % 4)));
            let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(scales)), d);
            let g = 16 * b + at;
            for (i, acc) in sums.of_units.iter_mut().enumerate() {
                let dot = x.dot::<P, 4>(w, i, 16 * g, 4 * x.negative::<P, 16>(i, g));
                *acc = scaled(dot, scale, x.exp(i, g / 2), *acc);
            }
        }
    }
}

/// Of each of the four chunks of 32 columns in a half of Q6_K's block the first or the second 16: parts 0 and 1 of the first half,
/// 2 and 3 of the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sixteens(block: &[u8; Q6_K_BYTES], part: usize) -> [[__m512i; 4]; 4] {
    let (half, second) = (part / 2, part % 2);
    let upper = |bits: __m512i| _mm512_and_si512(bits, _mm512_set1_epi8(0x30));
    let mut w = [[_mm512_setzero_si512(); 4]; 4];
    for k in 0..4 {
        prefetch(&block[Q6_K_BYTES / 16 * (4 * part + k)..Q6_K_BYTES / 16 * (4 * part + k + 1)]);
        let nibbles = |odd: usize| load64(block, 64 * (16 * half + 8 * odd + 4 * second + k));
        let bits = load64(block, ROWS * 128 + 64 * (8 * half + 4 * second + k));
        let (even, odd) = (nibbles(0), nibbles(1));
        w[0][k] = _mm512_or_si512(low_nibbles(even), upper(_mm512_slli_epi16::<4>(bits)));
        w[1][k] = _mm512_or_si512(low_nibbles(odd), upper(_mm512_slli_epi16::<2>(bits)));
        w[2][k] = _mm512_or_si512(high_nibbles(even), upper(bits));
        w[3][k] = _mm512_or_si512(high_nibbles(odd), upper(_mm512_srli_epi16::<2>(bits)));
    }
    w
}
