//! Products of interleaved rows with activation rows: 16 weight rows at once, one per 32-bit lane.
//!
//! A group's weights are unpacked to unsigned bytes once for up to eight activation rows: `vpdpbusd` with four broadcast
//! activations sums in the weight row's lane, a plane of 7 or 8 bits at a time, from `−offset · Σ v` on; then one conversion,
//! the activations' power of two, added to the exponent, and one fused multiply-add with the weights' scale. No lane is ever moved.
//!
//! What takes part in products bounds them: nine operations of which eight are dots.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{load16, load32, load64, store};
use crate::interleaved::{
    self, GROUP, Pieces, Q4_0_BYTES, Q4_K_BYTES, Q6_K_BYTES, Q6_K_SCALES, Q8_0_BYTES, ROWS, Tiles, q6_k_sixteen,
};
use crate::ints::{Eight, IntRows};
use crate::kernels::PackedTile;
use crate::planes::Planes;
use crate::pool::Tile;
use crate::x86::products_of_tiles;

/// Four dots with each of eight rows, of `$w` with the dwords at `$x` and `$stride` bytes further each, every row's after the
/// last one's: a row's own follow one another only after eight, longer than a dot takes, so none waits. Compilers put a row's
/// together, or take other instructions.
macro_rules! by_turns {
    ($dot:literal, $sums:expr, $w:expr, $x:expr, $stride:expr) => {{
        let ([s0, s1, s2, s3, s4, s5, s6, s7], &[w0, w1, w2, w3], x, stride) = ($sums, $w, $x, $stride);
        std::arch::asm!(
            by_turns!($dot, "w0", "0"), by_turns!($dot, "w1", "4"), by_turns!($dot, "w2", "8"), by_turns!($dot, "w3", "12"),
            s0 = inout(zmm_reg) *s0, s1 = inout(zmm_reg) *s1, s2 = inout(zmm_reg) *s2, s3 = inout(zmm_reg) *s3,
            s4 = inout(zmm_reg) *s4, s5 = inout(zmm_reg) *s5, s6 = inout(zmm_reg) *s6, s7 = inout(zmm_reg) *s7,
            w0 = in(zmm_reg) w0, w1 = in(zmm_reg) w1, w2 = in(zmm_reg) w2, w3 = in(zmm_reg) w3,
            x = in(reg) x, x3 = in(reg) x.byte_add(3 * stride), x6 = in(reg) x.byte_add(6 * stride), d = in(reg) stride,
            options(pure, readonly, nostack, preserves_flags),
        );
    }};
    ($dot:literal, $w:literal, $at:literal) => {
        concat!(
            $dot, " {s0}, {", $w, "}, dword ptr [{x} + ", $at, "]{{1to16}}\n",
            $dot, " {s1}, {", $w, "}, dword ptr [{x} + {d} + ", $at, "]{{1to16}}\n",
            $dot, " {s2}, {", $w, "}, dword ptr [{x} + 2 * {d} + ", $at, "]{{1to16}}\n",
            $dot, " {s3}, {", $w, "}, dword ptr [{x3} + ", $at, "]{{1to16}}\n",
            $dot, " {s4}, {", $w, "}, dword ptr [{x3} + {d} + ", $at, "]{{1to16}}\n",
            $dot, " {s5}, {", $w, "}, dword ptr [{x3} + 2 * {d} + ", $at, "]{{1to16}}\n",
            $dot, " {s6}, {", $w, "}, dword ptr [{x6} + ", $at, "]{{1to16}}\n",
            $dot, " {s7}, {", $w, "}, dword ptr [{x6} + {d} + ", $at, "]{{1to16}}",
        )
    };
}

/// Activation rows that share a pass over the weights, where there are so many.
const SHARE: usize = 8;

/// See [`interleaved::pack_tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn pack_tile(tile: Tiles<'_>, packed: &mut PackedTile) {
    interleaved::pack_tile(tile, packed);
}

products_of_tiles!("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni", __m512, _mm512_setzero_ps());

/// See [`products_of_tiles`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_count<const P: usize>(tiles: AllTiles<'_, '_>, x: Planes<'_>, out: &mut Tile<'_>) {
    match out.rows().len() {
        1 => by_type::<P, 1>(tiles, x, out),
        2 => by_type::<P, 2>(tiles, x, out),
        3 => by_type::<P, 3>(tiles, x, out),
        4 => by_type::<P, 4>(tiles, x, out),
        5 => by_type::<P, 5>(tiles, x, out),
        6 => by_type::<P, 6>(tiles, x, out),
        7 => by_type::<P, 7>(tiles, x, out),
        _ => by_type::<P, SHARE>(tiles, x, out),
    }
}

/// Stores sums of 16 weight rows in units of an activation row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn give(out: &mut [f32], sums: __m512, unit: f32) {
    store(out, _mm512_mul_ps(sums, _mm512_set1_ps(unit)));
}

impl<const N: usize> Sums<N> {
    /// Adds `scale · dot · 2^exp` to each row's, the power as in [`IntRows::exps`]: of a dot of 0 it leaves `2^-103` at most.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn add(&mut self, dots: [__m512i; N], scale: __m512, exp: impl Fn(usize) -> i32) {
        for (i, (acc, dot)) in self.0.iter_mut().zip(dots).enumerate() {
            let dot = _mm512_castps_si512(_mm512_cvtepi32_ps(dot));
            *acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_add_epi32(dot, _mm512_set1_epi32(exp(i)))), scale, *acc);
        }
    }
}

impl Planes<'_> {
    /// For each row sums of 32-bit lanes over `QUADS` quads of weights and its columns from `at` on, all planes together;
    /// `start` gives `−offset · Σ v` of a row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn dots<const P: usize, const QUADS: usize, const N: usize>(
        &self,
        w: &[__m512i; QUADS],
        at: usize,
        start: impl Fn(usize) -> i32,
    ) -> [__m512i; N] {
        debug_assert!(at + 4 * QUADS <= self.cols());
        let add = |sums: &mut [__m512i; N], p: usize| {
            // SAFETY: `Planes::new` has seen the rows, and callers stay within one: every tile has `cols / block` blocks, and a
            // block's columns lie within its row.
            unsafe { add_dots::<false, QUADS, N>(sums, w, self.of_plane(p, at), self.cols()) };
        };
        let finer = |sums: [__m512i; N], by: [__m512i; N]| -> [__m512i; N] {
            std::array::from_fn(|i| _mm512_add_epi32(_mm512_slli_epi32::<7>(sums[i]), by[i]))
        };
        let start: [__m512i; N] = std::array::from_fn(|i| _mm512_set1_epi32(start(i)));
        let mut sums = [_mm512_setzero_si512(); N];
        // There are no registers for sums of each plane of so many rows; those of few would wait for the plane before.
        let in_turn = N == SHARE;
        for p in 0..P {
            let mut next = if p == P - 1 { start } else { [_mm512_setzero_si512(); N] };
            if p > 0 && in_turn {
                next = finer(sums, next);
            }
            add(&mut next, p);
            sums = if p > 0 && !in_turn { finer(sums, next) } else { next };
        }
        sums
    }

    /// For each row the dot of `mins`, two of each lane's row in a lane, with the sums of block `b` of 256 columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn dots_of_sums<const N: usize>(&self, mins: &[__m512i; 4], b: usize) -> [__m512i; N] {
        let mut dots = [_mm512_setzero_si512(); N];
        let (sums, stride) = (self.eight(0, b).sums.as_ptr().cast(), self.cols() / 256 * size_of::<Eight>());
        // SAFETY: `Planes::new` has seen the sums of `N` rows, `stride` apart.
        unsafe { add_dots::<true, 4, N>(&mut dots, mins, sums, stride) };
        dots
    }
}

/// Adds to each sum the dots of `QUADS` vectors with a row's dwords: of bytes or, `WORDS`, of pairs of 16-bit integers. The first
/// row's are at `x`, the others' `stride` bytes further each.
///
/// # Safety
/// `QUADS` dwords of each row are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn add_dots<const WORDS: bool, const QUADS: usize, const N: usize>(
    sums: &mut [__m512i; N],
    w: &[__m512i; QUADS],
    x: *const i8,
    stride: usize,
) {
    if let Ok(sums) = <&mut [__m512i; SHARE]>::try_from(&mut sums[..]) {
        for (four, w) in w.as_chunks::<4>().0.iter().enumerate() {
            // SAFETY: as the caller vouches.
            unsafe {
                if WORDS {
                    by_turns!("vpdpwssd", &mut *sums, w, x.add(16 * four), stride);
                } else {
                    by_turns!("vpdpbusd", &mut *sums, w, x.add(16 * four), stride);
                }
            }
        }
        return;
    }
    for (i, sum) in sums.iter_mut().enumerate() {
        for (k, &w) in w.iter().enumerate() {
            // SAFETY: as the caller vouches.
            let x = unsafe { x.add(i * stride + 4 * k).cast::<i32>().read_unaligned() };
            let x = _mm512_set1_epi32(x);
            *sum = if WORDS { _mm512_dpwssd_epi32(*sum, w, x) } else { _mm512_dpbusd_epi32(*sum, w, x) };
        }
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_0<const P: usize, const N: usize>(block: &[u8; Q4_0_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    let mut w = [_mm512_setzero_si512(); 8];
    for k in 0..4 {
        let bytes = load64(block, 32 + 64 * k);
        (w[k], w[k + 4]) = (low_nibbles(bytes), high_nibbles(bytes));
    }
    let scale = halves(block, 0);
    let dots = x.dots::<P, 8, N>(&w, 32 * b, |i| x.negative::<P, 32>(i, b));
    sums.add(dots, scale, |i| x.exp(i, b));
}

/// Weights become unsigned by their sign bit: 128 more. With three planes a group's sum has 33 bits, so the third stays alone.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q8_0<const P: usize, const N: usize>(block: &[u8; Q8_0_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    let sign = _mm512_set1_epi8(-128);
    let mut w = [sign; 8];
    for (k, w) in w.iter_mut().enumerate() {
        *w = _mm512_xor_si512(*w, load64(block, 32 + 64 * k));
    }
    let scale = halves(block, 0);
    if P < 3 {
        let dots = x.dots::<P, 8, N>(&w, 32 * b, |i| x.negative::<P, 32>(i, b) << 4);
        sums.add(dots, scale, |i| x.exp(i, b));
    } else {
        let rest = x.of_rest();
        let high = x.dots::<2, 8, N>(&w, 32 * b, |i| x.negative::<2, 32>(i, b) << 4);
        let low = rest.dots::<1, 8, N>(&w, 32 * b, |i| rest.negative::<1, 32>(i, b) << 4);
        sums.add(high, scale, |i| x.exp(i, b) + (7 << 23));
        sums.add(low, scale, |i| x.exp(i, b));
    }
}

/// Minima have 6 bits: they are multiplied in 16-bit dots with the sums of activations, but for the finest of these. High nibbles
/// are taken where they are, as 16 times what they are, which the scale makes up for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_k<const P: usize, const N: usize>(
    block: &[u8; Q4_K_BYTES],
    b: usize,
    x: Planes<'_>,
    inverses: &[f32; N],
    sums: &mut Sums<N>,
) {
    let both = load64(block, 0);
    let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(both));
    let d_min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(both)));
    let scales6 = Scales6 { u: [load64(block, 64), load64(block, 128), load64(block, 192)] };
    // Of the finest activations 16 times a dot would have 34 bits.
    let in_place = P < 3;
    let d_of_high = if in_place { _mm512_mul_ps(d, _mm512_set1_ps(1.0 / 16.0)) } else { d };
    let (mut scales, mut mins) = ([d; 8], [both; 8]);
    for (j, (scale, min)) in scales.iter_mut().zip(&mut mins).enumerate() {
        let of_group;
        (of_group, *min) = scales6.get(j);
        *scale = _mm512_mul_ps(_mm512_cvtepi32_ps(of_group), if j % 2 == 0 { d } else { d_of_high });
    }
    for pair in 0..4 {
        let bytes = |k: usize| load64(block, 256 + 512 * pair + 64 * k);
        let in_upper = |k: usize| _mm512_andnot_si512(_mm512_set1_epi8(15), bytes(k));
        let (low, high) = (|k| low_nibbles(bytes(k)), |k| if in_place { in_upper(k) } else { high_nibbles(bytes(k)) });
        for (w, j) in [std::array::from_fn(low), std::array::from_fn(high)].iter().zip(2 * pair..) {
            let g = 8 * b + j;
            sums.add(x.dots::<P, 8, N>(w, 32 * g, |_| 0), scales[j], |i| x.exp(i, g));
        }
    }
    if P < 3 {
        let both = |pair: usize| _mm512_or_si512(mins[2 * pair], _mm512_slli_epi32::<16>(mins[2 * pair + 1]));
        let dots = x.dots_of_sums(&std::array::from_fn(both), b);
        return sums.add(dots, _mm512_sub_ps(_mm512_setzero_ps(), d_min), |i| x.eight(i, b).exp);
    }
    for (g, min) in (8 * b..).zip(mins) {
        let min = _mm512_mul_ps(_mm512_cvtepi32_ps(min), d_min);
        for (i, sum) in sums.0.iter_mut().enumerate() {
            *sum = _mm512_fnmadd_ps(min, _mm512_set1_ps(x.weighted(i, g) * inverses[i]), *sum);
        }
    }
}

/// The 12 bytes of 6-bit scales and minima of 16 rows, by dwords.
struct Scales6 {
    u: [__m512i; 3],
}

impl Scales6 {
    /// Scale and minimum of group `j` ([`carat_tensor::quant::k4_scale_min`]), of 6 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn get(&self, j: usize) -> (__m512i, __m512i) {
        let by = |v: __m512i, bits: usize| _mm512_srlv_epi32(v, _mm512_set1_epi32(bits as i32));
        let and = |v: __m512i, mask: i32| _mm512_and_si512(v, _mm512_set1_epi32(mask));
        let [u0, u1, u2] = self.u;
        let at = 8 * (j % 4);
        if j < 4 {
            (and(by(u0, at), 63), and(by(u1, at), 63))
        } else {
            // The two upper bits come from bits 6 and 7, to bits 4 and 5.
            let upper = |v: __m512i| and(by(v, at + 2), 0x30);
            (_mm512_or_si512(and(by(u2, at), 15), upper(u0)), _mm512_or_si512(and(by(u2, at + 4), 15), upper(u1)))
        }
    }
}

/// Two groups of 16 columns share the activations' power of two: their dots, of 24 bits, are multiplied with their scales and added
/// as integers, but those of the finest activations, of 31 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q6_k<const P: usize, const N: usize>(block: &[u8; Q6_K_BYTES], b: usize, x: Planes<'_>, sums: &mut Sums<N>) {
    let d = halves(block, 0);
    // The scales' lines, in the order of memory: what is read is to be one stream.
    for at in [64, 128, 192, 256] {
        _mm_prefetch::<_MM_HINT_T0>(block[at..].as_ptr().cast());
    }
    // Nor have so many rows registers for them.
    let one_by_one = P == 3 || N == SHARE;
    for g in 0..8 {
        let mut both = [_mm512_setzero_si512(); N];
        for half in 2 * g..2 * g + 2 {
            let at = 16 * b + half;
            let dots = x.dots::<P, 4, N>(&q6_k_weights(block, half), 16 * at, |i| x.negative::<P, 16>(i, at));
            let scale = _mm512_cvtepi8_epi32(load16(block, Q6_K_SCALES + ROWS * half));
            if one_by_one {
                sums.add(dots, _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d), |i| x.exp(i, at / 2));
            } else {
                both = std::array::from_fn(|i| _mm512_add_epi32(both[i], _mm512_mullo_epi32(dots[i], scale)));
            }
        }
        if !one_by_one {
            sums.add(both, d, |i| x.exp(i, 8 * b + g));
        }
    }
}

/// The `g`-th 16 columns of a block ([`interleaved::in_sixes`]).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q6_k_weights(block: &[u8; Q6_K_BYTES], g: usize) -> [__m512i; 4] {
    let [low, middle, high] = [0, 64, 128].map(|at| load64(block, q6_k_sixteen(g) + at));
    let and = |v: __m512i, bits: i8| _mm512_and_si512(v, _mm512_set1_epi8(bits));
    let upper = _mm512_or_si512(and(_mm512_srli_epi16::<4>(middle), 0x0c), and(_mm512_srli_epi16::<2>(high), 0x30));
    let last = _mm512_or_si512(and(_mm512_srli_epi16::<6>(low), 3), upper);
    [and(low, 63), and(middle, 63), and(high, 63), last]
}
