//! NEON kernels for 64-bit Arm with the integer dot product (`sdot`, ARMv8.2) and, in [`i8mm`], with the integer matrix
//! product (`smmla`, ARMv8.6): each function is defined by its namesake in [`crate::scalar`]; kernels that aren't here
//! are the scalar ones.
//!
//! Plain NEON belongs to every 64-bit Arm, so only functions around these two are gated. Their intrinsics are not stable,
//! nor is that of `prfm`, hence a line of assembly for each. `unsafe` blocks are loads and stores, with bounds
//! from the slices they come from or checked once for all, and those lines.
#![allow(unsafe_code, reason = "vector loads and stores by pointer, and instructions without an intrinsic")]

mod e4m7;
mod gemm;
mod group;
mod halves;
pub mod i8mm;
mod limit;
mod matvec;
mod plain;
mod tiles;
mod wise;

pub use e4m7::matvec_e4m7;
pub use gemm::{arrange, gemm, gemm_f32};
pub use halves::{scores_f16, weighted_sum_f16};
pub use limit::{SUMS, dot_rounds};
pub use matvec::matvec;
pub use plain::{matvec_f32, scores, sum_squares, weighted_sum};
pub use tiles::matvec_tiles;
pub use wise::{exp_sum, gelu_mul, largest, quantise, sigmoid_mul, softcap};

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

/// The same with four bytes of `b` for every lane: those of its lane `LANE`.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot_lane<const LANE: i32>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: works on registers alone; the feature is enabled for this function.
    unsafe {
        std::arch::asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// The upper `BITS` bits of each byte of `a` over the upper ones of `b`. There is an intrinsic, but it becomes the instructions
/// that this one stands for.
#[inline]
fn upper_over<const BITS: u32>(mut a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    // SAFETY: works on registers alone, and NEON is part of every 64-bit Arm.
    unsafe {
        std::arch::asm!(
            "sri {a:v}.16b, {b:v}.16b, #{bits}",
            a = inout(vreg) a,
            b = in(vreg) b,
            bits = const BITS,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    a
}

/// Four halves as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen(halves: uint16x4_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u16(halves))
}

/// Eight halves as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen_both(halves: uint16x8_t) -> [float32x4_t; 2] {
    [widen(vget_low_u16(halves)), vcvt_high_f32_f16(vreinterpretq_f16_u16(halves))]
}

/// Asks for a line, into L2.
#[inline]
fn ask(line: *const u8) {
    // SAFETY: a hint, which any address may have.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{line}]",
            line = in(reg) line,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// Asks for the lines of `bytes`, into L2.
pub fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        ask(line.as_ptr());
    }
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

/// Stores to the first 16 bytes of `out`.
#[inline]
fn store_u8(out: &mut [u8], v: uint8x16_t) {
    assert!(out.len() >= 16);
    // SAFETY: 16 bytes are writable, just checked.
    unsafe { vst1q_u8(out.as_mut_ptr(), v) }
}

/// The first 16 bytes of `x`.
#[inline]
fn load_i8(x: &[i8]) -> int8x16_t {
    assert!(x.len() >= 16);
    // SAFETY: 16 bytes are readable, just checked.
    unsafe { vld1q_s8(x.as_ptr()) }
}
