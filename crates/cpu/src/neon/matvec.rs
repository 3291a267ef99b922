//! Decode: quantised rows as they lie in the file times one integer row.
//!
//! `Σ_groups scale · d · ((q − offset) · x) − min · d · Σx`: the offset is taken off the bytes, so that `sdot` sees
//! signed weights and needs no correction.

use std::arch::aarch64::*;

use carat_tensor::DType;
use half::f16;

use super::{load_i8, load_u8, sdot};
use crate::ints::IntRows;
use crate::unpack::{Unpacked, form, unpack};

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "dotprod")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    let row_bytes = dtype.row_bytes(x.cols).expect("the matrix was made with whole blocks");
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        *out = match dtype {
            DType::Q4_0 => row_q4_0(row, x),
            DType::Q8_0 => row_q8_0(row, x),
            _ => row_unpacked(dtype, row, x),
        };
    }
}

/// Blocks of an f16 scale and 16 bytes: the low nibbles are weights 0–15, the high ones 16–31.
#[target_feature(enable = "dotprod")]
fn row_q4_0(row: &[u8], x: IntRows<'_>) -> f32 {
    let (eight, zero) = (vdupq_n_s8(8), vdupq_n_s32(0));
    let mut total = vdupq_n_f32(0.0);
    for (b, (block, &d)) in row.chunks_exact(18).zip(x.d).enumerate() {
        let bytes = load_u8(&block[2..]);
        let low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), eight);
        let high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes)), eight);
        let dot = dot(dot(zero, low, x, 32 * b), high, x, 32 * b + 16);
        total = vfmaq_n_f32(total, vcvtq_f32_s32(dot), scale_at(block) * d);
    }
    vaddvq_f32(total)
}

/// `sum + w · v` for the 16 values of `x` from `at` on.
#[inline]
#[target_feature(enable = "dotprod")]
fn dot(sum: int32x4_t, w: int8x16_t, x: IntRows<'_>, at: usize) -> int32x4_t {
    let q = load_i8(&x.q[at..]);
    if !x.is_fine() {
        return sdot(sum, w, q);
    }
    let high = vshlq_n_s32::<7>(sdot(vdupq_n_s32(0), w, q));
    sdot(vaddq_s32(sum, high), w, load_i8(&x.low[at..]))
}

/// Blocks of an f16 scale and 32 signed bytes.
#[target_feature(enable = "dotprod")]
fn row_q8_0(row: &[u8], x: IntRows<'_>) -> f32 {
    let zero = vdupq_n_s32(0);
    let mut total = vdupq_n_f32(0.0);
    for (b, (block, &d)) in row.chunks_exact(34).zip(x.d).enumerate() {
        let weights = |at| vreinterpretq_s8_u8(load_u8(&block[at..]));
        let dot = dot(dot(zero, weights(2), x, 32 * b), weights(18), x, 32 * b + 16);
        total = vfmaq_n_f32(total, vcvtq_f32_s32(dot), scale_at(block) * d);
    }
    vaddvq_f32(total)
}

#[target_feature(enable = "dotprod")]
fn row_unpacked(dtype: DType, row: &[u8], x: IntRows<'_>) -> f32 {
    let form = form(dtype).expect("only quantised types reach the integer kernels");
    let len = dtype.block_len();
    let offset = vdupq_n_u8(form.offset as u8);
    let mut block = Unpacked::new();
    let mut total = vdupq_n_f32(0.0);
    let mut minima = 0.0f32;
    for (b, bytes) in row.chunks_exact(dtype.block_bytes()).enumerate() {
        unpack(dtype, bytes, &mut block);
        for g in 0..len / form.group {
            let mut sum = vdupq_n_s32(0);
            let at = b * len + g * form.group;
            for part in (0..form.group).step_by(16) {
                let weights = vsubq_u8(load_u8(&block.q[g * form.group + part..]), offset);
                sum = dot(sum, vreinterpretq_s8_u8(weights), x, at + part);
            }
            let d = x.d[at / 32];
            total = vfmaq_n_f32(total, vcvtq_f32_s32(sum), block.scale[g] * d);
            if form.has_min {
                let sum: i32 = x.sum[at / 16..(at + form.group) / 16].iter().sum();
                minima += block.min[g] * d * sum as f32;
            }
        }
    }
    vaddvq_f32(total) - minima
}

fn scale_at(block: &[u8]) -> f32 {
    f16::from_le_bytes([block[0], block[1]]).to_f32()
}
