//! Formats of 32 values per block.
//!
//! Four-bit values lie in two halves: byte `i` holds value `i` in its low and value `16 + i` in its high
//! nibble. Five-bit formats keep the fifth bit of value `i` in bit `i` of `qh`.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::{Block, fit};
use crate::DType;

/// `x = d * (q - 8)`, q of four bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: f16,
    /// Values 0..16 in the low nibbles, 16..32 in the high ones.
    pub qs: [u8; 16],
}

impl Block for BlockQ4_0 {
    const DTYPE: DType = DType::Q4_0;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(nibble(&self.qs, i)) - 8.0);
        }
    }
}

impl BlockQ4_0 {
    /// ggml's `quantize_row_q4_0_ref`: the value of largest magnitude becomes exactly -8.
    pub fn encode(values: &[f32; 32]) -> Self {
        // The first of equals decides the sign, as in ggml.
        let peak = values.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
        let d = peak / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        // The cast truncates, and saturates at 0.
        let q = |v: f32| ((v * inverse + 8.5) as u8).min(15);
        let qs = std::array::from_fn(|i| q(values[i]) | (q(values[16 + i]) << 4));
        BlockQ4_0 { d: f16::from_f32(d), qs }
    }

    /// The block for which `Σ w · (x̂ − x)²` is small.
    pub fn encode_weighted(values: &[f32; 32], w: &[f32; 32]) -> Self {
        let mut q = [0.0; 32];
        let d = fit::symmetric(values, w, -8.0, 7.0, &mut q);
        let code = |i: usize| (q[i] + 8.0) as u8;
        BlockQ4_0 { d: f16::from_f32(d), qs: std::array::from_fn(|i| code(i) | (code(16 + i) << 4)) }
    }
}

/// `x = d * q + m`, q of four bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ4_1 {
    /// Scale.
    pub d: f16,
    /// Minimum.
    pub m: f16,
    /// As in [`BlockQ4_0`].
    pub qs: [u8; 16],
}

impl Block for BlockQ4_1 {
    const DTYPE: DType = DType::Q4_1;

    fn decode(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(nibble(&self.qs, i)) + m;
        }
    }
}

/// `x = d * (q - 16)`, q of five bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ5_0 {
    /// Scale.
    pub d: f16,
    /// Fifth bits, a little-endian `u32` that lies unaligned.
    pub qh: [u8; 4],
    /// Low four bits, as in [`BlockQ4_0`].
    pub qs: [u8; 16],
}

impl Block for BlockQ5_0 {
    const DTYPE: DType = DType::Q5_0;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(nibble(&self.qs, i) | fifth_bit(self.qh, i)) - 16.0);
        }
    }
}

impl BlockQ5_0 {
    /// ggml's `quantize_row_q5_0_ref`: the value of largest magnitude becomes exactly -16.
    pub fn encode(values: &[f32; 32]) -> Self {
        let peak = values.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
        let d = peak / -16.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let q = values.map(|v| ((v * inverse + 16.5) as u8).min(31));
        let fifth = q.iter().enumerate().fold(0u32, |bits, (i, &q)| bits | (u32::from(q >> 4) << i));
        let qs = std::array::from_fn(|i| (q[i] & 15) | ((q[16 + i] & 15) << 4));
        BlockQ5_0 { d: f16::from_f32(d), qh: fifth.to_le_bytes(), qs }
    }
}

/// `x = d * q + m`, q of five bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: f16,
    /// Minimum.
    pub m: f16,
    /// As in [`BlockQ5_0`].
    pub qh: [u8; 4],
    /// As in [`BlockQ4_0`].
    pub qs: [u8; 16],
}

impl Block for BlockQ5_1 {
    const DTYPE: DType = DType::Q5_1;

    fn decode(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(nibble(&self.qs, i) | fifth_bit(self.qh, i)) + m;
        }
    }
}

/// `x = d * q`, q of eight bits with sign.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: f16,
    /// Values.
    pub qs: [i8; 32],
}

impl Block for BlockQ8_0 {
    const DTYPE: DType = DType::Q8_0;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (&q, out) in self.qs.iter().zip(out) {
            *out = d * f32::from(q);
        }
    }
}

impl BlockQ8_0 {
    /// ggml's `quantize_row_q8_0_ref`: the value of largest magnitude becomes 127 or -127; halves round away
    /// from zero.
    pub fn encode(values: &[f32; 32]) -> Self {
        let peak = values.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
        let d = peak / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        BlockQ8_0 { d: f16::from_f32(d), qs: values.map(|v| (v * inverse).round() as i8) }
    }
}

/// Four-bit value `i` of 32.
fn nibble(qs: &[u8; 16], i: usize) -> u8 {
    if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 }
}

/// The fifth bit of value `i`, in its place.
fn fifth_bit(qh: [u8; 4], i: usize) -> u8 {
    (((u32::from_le_bytes(qh) >> i) & 1) << 4) as u8
}
