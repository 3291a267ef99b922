//! Plain element types: F32, F16, BF16.
//!
//! `bytes` and `values` of each function have been checked to agree.

use half::{bf16, f16};

pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (&b, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(b);
    }
}

pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    for (&b, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f16::from_le_bytes(b).to_f32();
    }
}

pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (&b, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        // Not `bf16::to_f32`, which changes signalling NaNs.
        *out = f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
    }
}

pub(super) fn encode_f32(values: &[f32], out: &mut [u8]) {
    for (v, out) in values.iter().zip(out.as_chunks_mut::<4>().0) {
        *out = v.to_le_bytes();
    }
}

pub(super) fn encode_f16(values: &[f32], out: &mut [u8]) {
    for (&v, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = f16::from_f32(v).to_le_bytes();
    }
}

pub(super) fn encode_bf16(values: &[f32], out: &mut [u8]) {
    for (&v, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = bf16::from_f32(v).to_le_bytes();
    }
}
