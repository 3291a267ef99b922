//! AVX2 kernels (with FMA and F16C): one file per family, each function defined by its namesake in
//! [`crate::scalar`].
//!
//! Functions are safe where their features are enabled; the dispatch table alone calls them from elsewhere.
//! `unsafe` blocks here are loads and stores, with bounds from the slices they come from. Tails are left to the
//! definitions.
#![allow(unsafe_code, reason = "vector loads and stores by pointer")]

mod e4m7;
mod gemm;
mod halves;
mod limit;
mod matvec;
mod plain;
mod tiles;
mod wise;

pub use e4m7::{matvec_e4m7, widen_e4m7};
pub use gemm::{gemm, gemm_f32};
pub use halves::{scores_f16, weighted_sum_f16};
pub use limit::{PRODUCTS, dot_rounds, read_all};
pub use matvec::matvec;
pub use plain::{decode, matvec_f32, scores, sum_squares, weighted_sum};
pub use tiles::{Head, halves, last_of_sixes, matvec_tiles, pack_floats, pack_tile, prefetch, signed_bytes};
pub use wise::{exp_sum, gelu_mul, largest, quantise, sigmoid_mul, softcap};

use std::arch::x86_64::*;

/// 32 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn load32(block: &[u8], at: usize) -> __m256i {
    assert!(block.len() >= at + 32);
    // SAFETY: 32 bytes from `at` on are readable, just checked.
    unsafe { _mm256_loadu_si256(block.as_ptr().add(at).cast()) }
}

/// 16 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load16(block: &[u8], at: usize) -> __m128i {
    assert!(block.len() >= at + 16);
    // SAFETY: 16 bytes from `at` on are readable, just checked.
    unsafe { _mm_loadu_si128(block.as_ptr().add(at).cast()) }
}

/// The first 8 values of `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(x: &[f32]) -> __m256 {
    assert!(x.len() >= 8);
    // SAFETY: 8 values are readable, just checked.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// Stores to the first 8 values of `out`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(out: &mut [f32], v: __m256) {
    assert!(out.len() >= 8);
    // SAFETY: 8 values are writable, just checked.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn low_nibbles(v: __m256i) -> __m256i {
    _mm256_and_si256(v, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn high_nibbles(v: __m256i) -> __m256i {
    low_nibbles(_mm256_srli_epi16::<4>(v))
}

/// Sum of the lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// A half as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half(bytes: [u8; 2]) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(bytes)))))
}

/// Per 32-bit lane the product of four signed bytes `w` with four signed bytes `x`. The pair sums stay within 16 bits
/// because no byte of `x` is −128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_signed(w: __m256i, x: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}
