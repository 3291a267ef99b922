//! Products of quantised rows with one activation row: 32 weights per step. Weights below 128 stay unsigned, as `vpmaddubsw`
//! wants them, and what they are too large by is taken off by the activations' sums; those of Q8_0 lend their signs.
//!
//! Types without a kernel of their own take the definition.

use std::arch::x86_64::*;

use carat_tensor::DType;
use carat_tensor::quant::k4_scale_min;

use super::{dot_signed, half, load, store, sum};
use crate::ints::IntRows;
use crate::scalar;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => q4_0(rows, x, out),
        DType::Q8_0 => each::<34>(rows, x, out, |block| load32(&block[2..])),
        DType::Q4K => each_k::<144>(rows, x, out, |block, s| q4_q5_k::<false>(block, &block[16..], s, x)),
        DType::Q5K => each_k::<176>(rows, x, out, |block, s| q4_q5_k::<true>(block, &block[48..], s, x)),
        DType::Q6K => each_k::<210>(rows, x, out, |block, s| q6_k(block, s, x)),
        _ => scalar::matvec(dtype, rows, x, out),
    }
}

/// The first 16 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load16(bytes: &[u8]) -> __m128i {
    assert!(bytes.len() >= 16);
    // SAFETY: 16 bytes are readable, just checked.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The first 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load32(bytes: &[u8]) -> __m256i {
    assert!(bytes.len() >= 32);
    // SAFETY: 32 bytes are readable, just checked.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// `Σ w · v` of every four values of block `b` of 32, `w` bytes below 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot(w: __m256i, x: IntRows<'_>, b: usize) -> __m256i {
    let at = |all: &[i8]| load32(bytemuck::cast_slice(&all[32 * b..32 * b + 32]));
    let one = _mm256_set1_epi16(1);
    let high = _mm256_maddubs_epi16(w, at(x.q));
    if !x.is_fine() {
        return _mm256_madd_epi16(high, one);
    }
    let low = _mm256_madd_epi16(_mm256_maddubs_epi16(w, at(x.low)), one);
    _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(128)), low)
}

/// The same of signed `w`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_dot(w: __m256i, x: IntRows<'_>, b: usize) -> __m256i {
    let at = |all: &[i8]| load32(bytemuck::cast_slice(&all[32 * b..32 * b + 32]));
    let high = dot_signed(w, at(x.q));
    if !x.is_fine() {
        return high;
    }
    _mm256_add_epi32(_mm256_slli_epi32::<7>(high), dot_signed(w, at(x.low)))
}

/// Eight blocks of 18 bytes at a time: their scales are read and multiplied at once.
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0(rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    const BYTES: usize = 18;
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 32 * BYTES)) {
        let (eights, rest) = row.as_chunks::<{ 8 * BYTES }>();
        let (mut acc, mut lower) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for (c, blocks) in eights.iter().enumerate() {
            let (at, mut shares) = (8 * c, [0.0; 8]);
            let half = |i: usize| i16::from_le_bytes([blocks[BYTES * i], blocks[BYTES * i + 1]]);
            let halves = _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7));
            let scales = _mm256_cvtph_ps(halves);
            lower = _mm256_fmadd_ps(scales, load(&x.dsum32[at..]), lower);
            store(&mut shares, _mm256_mul_ps(scales, load(&x.d[at..])));
            for (i, (block, &share)) in blocks.as_chunks::<BYTES>().0.iter().zip(&shares).enumerate() {
                let dot = _mm256_cvtepi32_ps(dot(nibbles(&block[2..]), x, at + i));
                acc = _mm256_fmadd_ps(dot, _mm256_set1_ps(share), acc);
            }
        }
        let (mut sum, mut offsets) = (sum(acc), sum(lower));
        for (i, block) in rest.as_chunks::<BYTES>().0.iter().enumerate() {
            let (b, scale) = (8 * eights.len() + i, half([block[0], block[1]]));
            sum += scale * x.d[b] * self::sum(_mm256_cvtepi32_ps(dot(nibbles(&block[2..]), x, b)));
            offsets += scale * x.dsum32[b];
        }
        *out = sum - 8.0 * offsets;
    }
}

/// The nibbles of 16 bytes, low ones first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(bytes: &[u8]) -> __m256i {
    let v = load16(bytes);
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(v), _mm_srli_epi16::<4>(v));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// Rows of blocks of `B` bytes that begin with their scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn each<const B: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32], read: impl Fn(&[u8; B]) -> __m256i) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 32 * B)) {
        let mut acc = _mm256_setzero_ps();
        for (b, (block, &d)) in row.as_chunks::<B>().0.iter().zip(x.d).enumerate() {
            let scale = _mm256_set1_ps(half([block[0], block[1]]) * d);
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(signed_dot(read(block), x, b)), scale, acc);
        }
        *out = sum(acc);
    }
}

/// Rows of blocks of `B` bytes with 256 weights; `part` gives what block `s` of a row adds, over lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn each_k<const B: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32], part: impl Fn(&[u8; B], usize) -> __m256) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 256 * B)) {
        let mut acc = _mm256_setzero_ps();
        for (s, block) in row.as_chunks::<B>().0.iter().enumerate() {
            acc = _mm256_add_ps(acc, part(block, s));
        }
        *out = sum(acc);
    }
}

/// 8 sub-blocks of 32 with 6-bit scales and minima, nibbles in `qs`; `FIVE` adds the fifth bits at byte 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_q5_k<const FIVE: bool>(block: &[u8], qs: &[u8], s: usize, x: IntRows<'_>) -> __m256 {
    let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
    let (low, sixteen) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    let scales = block[4..16].try_into().expect("12 bytes");
    let (mut acc, mut mins) = (_mm256_setzero_ps(), [0.0; 8]);
    for pair in 0..4 {
        let v = load32(&qs[32 * pair..]);
        let nibbles = [_mm256_and_si256(v, low), _mm256_and_si256(_mm256_srli_epi16::<4>(v), low)];
        for (j, mut w) in (2 * pair..).zip(nibbles) {
            if FIVE {
                let bit = _mm256_set1_epi8((1u8 << j) as i8);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(load32(&block[16..]), bit), bit);
                w = _mm256_or_si256(w, _mm256_and_si256(set, sixteen));
            }
            let (scale, min) = k4_scale_min(scales, j);
            mins[j] = dmin * f32::from(min);
            let scale = _mm256_set1_ps(d * f32::from(scale) * x.d[8 * s + j]);
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot(w, x, 8 * s + j)), scale, acc);
        }
    }
    _mm256_fnmadd_ps(load(&mins), load(&x.dsum32[8 * s..]), acc)
}

/// 16 sub-blocks of 16 with 8-bit scales: low nibbles at byte 0, high bits at 128, scales at 192.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k(block: &[u8; 210], s: usize, x: IntRows<'_>) -> __m256 {
    let d = _mm256_set1_ps(half([block[208], block[209]]));
    let (low, high) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let (mut acc, mut lower, mut shares) = (_mm256_setzero_ps(), _mm256_setzero_ps(), [0.0; 16]);
    for (i, shares) in shares.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let bytes = i64::from_le_bytes(block[192..208].as_chunks::<8>().0[i]);
        let scales = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes)));
        lower = _mm256_fmadd_ps(scales, load(&x.dsum16[16 * s + 8 * i..]), lower);
        store(shares, _mm256_mul_ps(scales, d));
    }
    for part in 0..2 {
        let (a, b) = (load32(&block[64 * part..]), load32(&block[64 * part + 32..]));
        let bits = load32(&block[128 + 32 * part..]);
        let weights = [
            _mm256_or_si256(_mm256_and_si256(a, low), _mm256_and_si256(_mm256_slli_epi16::<4>(bits), high)),
            _mm256_or_si256(_mm256_and_si256(b, low), _mm256_and_si256(_mm256_slli_epi16::<2>(bits), high)),
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<4>(a), low), _mm256_and_si256(bits, high)),
            _mm256_or_si256(
                _mm256_and_si256(_mm256_srli_epi16::<4>(b), low),
                _mm256_and_si256(_mm256_srli_epi16::<2>(bits), high),
            ),
        ];
        for (j, w) in (4 * part..).zip(weights) {
            let share = _mm256_set_m128(_mm_set1_ps(shares[2 * j + 1]), _mm_set1_ps(shares[2 * j]));
            let share = _mm256_mul_ps(share, _mm256_set1_ps(x.d[8 * s + j]));
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot(w, x, 8 * s + j)), share, acc);
        }
    }
    // What the weights are too large by.
    _mm256_fnmadd_ps(lower, _mm256_mul_ps(d, _mm256_set1_ps(32.0)), acc)
}
