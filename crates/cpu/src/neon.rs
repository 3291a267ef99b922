//! NEON kernels for 64-bit Arm with the integer dot product (`sdot`, ARMv8.2): each function is defined by its
//! namesake in [`crate::scalar`]; kernels that aren't here yet are the scalar ones.
//!
//! Plain NEON belongs to every 64-bit Arm, so only functions around `sdot` are gated. Its intrinsic is not stable,
//! hence one line of assembly. `unsafe` blocks are loads and stores, with bounds from the slices they come from,
//! and that line.
#![allow(unsafe_code, reason = "vector loads and stores by pointer, and one instruction without an intrinsic")]

mod gemm;
mod matvec;
mod plain;
mod wise;

pub use gemm::{gemm, gemm_f32};
pub use matvec::matvec;
pub use plain::{matvec_f32, scores, sum_squares, weighted_sum};
pub use wise::{exp_sum, gelu_mul, quantise, sigmoid_mul, softcap};

use std::arch::aarch64::*;

/// `acc + a · b` in four lanes of four products each.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: works on registers alone; the feature is enabled for this function.
    unsafe {
        std::arch::asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// The first four values of `x`.
#[inline]
fn load(x: &[f32]) -> float32x4_t {
    assert!(x.len() >= 4);
    // SAFETY: four values are readable, just checked.
    unsafe { vld1q_f32(x.as_ptr()) }
}

/// Stores to the first four values of `out`.
#[inline]
fn store(out: &mut [f32], v: float32x4_t) {
    assert!(out.len() >= 4);
    // SAFETY: four values are writable, just checked.
    unsafe { vst1q_f32(out.as_mut_ptr(), v) }
}

/// The first 16 bytes of `x`.
#[inline]
fn load_u8(x: &[u8]) -> uint8x16_t {
    assert!(x.len() >= 16);
    // SAFETY: 16 bytes are readable, just checked.
    unsafe { vld1q_u8(x.as_ptr()) }
}

/// The first 16 bytes of `x`.
#[inline]
fn load_i8(x: &[i8]) -> int8x16_t {
    assert!(x.len() >= 16);
    // SAFETY: 16 bytes are readable, just checked.
    unsafe { vld1q_s8(x.as_ptr()) }
}

/// The first four integers of `x` in every quarter: quads of bytes.
#[inline]
fn load_quad(x: &[i8]) -> int8x16_t {
    assert!(x.len() >= 4);
    // SAFETY: four bytes are readable, just checked; the load needs no more than byte alignment.
    let quad = unsafe { x.as_ptr().cast::<i32>().read_unaligned() };
    splat_quad(quad)
}

#[inline]
fn splat_quad(quad: i32) -> int8x16_t {
    // SAFETY: NEON is part of every 64-bit Arm.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(quad)) }
}
