//! Products of quantised rows with one activation row: 32 weights per step, signed bytes on both sides.
//!
//! Types without a kernel of their own take the definition.

use std::arch::x86_64::*;

use carat_tensor::DType;
use carat_tensor::quant::k4_scale_min;

use super::{dot_signed, half, load, sum};
use crate::acts::IntRows;
use crate::scalar;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => each::<18>(rows, x, out, |block| {
            let v = load16(&block[2..]);
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(v), _mm_srli_epi16::<4>(v));
            _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8))
        }),
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

/// `Σ w · v` of every four values of block `b` of 32, `w` signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot(w: __m256i, x: IntRows<'_>, b: usize) -> __m256i {
    let at = |all: &[i8]| load32(bytemuck::cast_slice(&all[32 * b..32 * b + 32]));
    let high = dot_signed(w, at(x.q));
    if !x.is_fine() {
        return high;
    }
    _mm256_add_epi32(_mm256_slli_epi32::<7>(high), dot_signed(w, at(x.low)))
}

/// Rows of blocks of `B` bytes that begin with their scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn each<const B: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32], read: impl Fn(&[u8; B]) -> __m256i) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 32 * B)) {
        let mut acc = _mm256_setzero_ps();
        for (b, (block, &d)) in row.as_chunks::<B>().0.iter().zip(x.d).enumerate() {
            let scale = _mm256_set1_ps(half([block[0], block[1]]) * d);
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot(read(block), x, b)), scale, acc);
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
    let d = half([block[208], block[209]]);
    let (low, high, offset) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30), _mm256_set1_epi8(32));
    let mut acc = _mm256_setzero_ps();
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
            let scale = |at: usize| d * f32::from(block[192 + at] as i8) * x.d[8 * s + j];
            let scales = _mm256_set_m128(_mm_set1_ps(scale(2 * j + 1)), _mm_set1_ps(scale(2 * j)));
            let dot = dot(_mm256_sub_epi8(w, offset), x, 8 * s + j);
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scales, acc);
        }
    }
    acc
}
