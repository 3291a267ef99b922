//! AVX-512 kernels (F, BW, VL, DQ, VBMI, VNNI, and GFNI where it says so): one file per family, each function defined by its namesake in
//! [`crate::scalar`].
//!
//! Functions are safe where their features are enabled; the dispatch table alone calls them from elsewhere.
//! `unsafe` blocks here are loads and stores, with bounds from the slices they come from.
#![allow(unsafe_code, reason = "vector loads and stores by pointer")]

mod e4m7;
mod gemm;
mod halves;
mod ints;
mod limit;
mod matvec;
mod pack;
mod plain;
mod tiles;
mod wise;
pub mod words;

pub use e4m7::{matvec_e4m7, widen_e4m7};
pub use gemm::{gemm, gemm_f32};
pub use halves::{scores_f16, weighted_sum_f16};
pub use ints::{largest, quantise, sum_up};
pub use limit::{SUMS, dot_rounds, read_all};
pub use matvec::matvec;
pub use pack::{pack, pack_floats};
pub use plain::{decode, matvec_f32, scores, sum_squares, weighted_sum};
pub use tiles::{matvec_tiles, pack_tile};
pub use wise::{exp_sum, gelu_mul, sigmoid_mul, softcap};

use std::arch::x86_64::*;

/// 64 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load64(block: &[u8], at: usize) -> __m512i {
    assert!(block.len() >= at + 64);
    // SAFETY: 64 bytes from `at` on are readable, just checked.
    unsafe { _mm512_loadu_si512(block.as_ptr().add(at).cast()) }
}

/// 16 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load16(block: &[u8], at: usize) -> __m128i {
    assert!(block.len() >= at + 16);
    // SAFETY: 16 bytes from `at` on are readable, just checked.
    unsafe { _mm_loadu_si128(block.as_ptr().add(at).cast()) }
}

/// 32 bytes of a block from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load32(block: &[u8], at: usize) -> __m256i {
    assert!(block.len() >= at + 32);
    // SAFETY: 32 bytes from `at` on are readable, just checked.
    unsafe { _mm256_loadu_si256(block.as_ptr().add(at).cast()) }
}

/// The first 16 values of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load(x: &[f32]) -> __m512 {
    assert!(x.len() >= 16);
    // SAFETY: 16 values are readable, just checked.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Up to 16 values; zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_some(x: &[f32]) -> __m512 {
    // A load with a mask waits until what was stored there has reached the cache.
    if x.len() >= 16 {
        return load(x);
    }
    // SAFETY: the mask names no lane past the slice.
    unsafe { _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()) }
}

/// Stores to the first 16 values of `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store(out: &mut [f32], v: __m512) {
    assert!(out.len() >= 16);
    // SAFETY: 16 values are writable, just checked.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
}

/// Stores the first lanes, at most 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_some(out: &mut [f32], v: __m512) {
    // As with loads: one that follows would wait.
    if out.len() >= 16 {
        return store(out, v);
    }
    // SAFETY: the mask names no lane past the slice.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), v) }
}

/// The lowest `len` of 16 lanes.
fn mask(len: usize) -> u16 {
    if len >= 16 { u16::MAX } else { (1 << len) - 1 }
}

/// A half as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn half(bytes: [u8; 2]) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(bytes)))))
}
