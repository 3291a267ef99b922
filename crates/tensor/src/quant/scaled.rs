//! Blocks that exist in memory only: what files hold as a tensor of codes and a tensor of scales, brought together.
//!
//! Their scale is an f32, so that no scale a file may have is rounded: bf16 scales reach below f16's range, and
//! products of two scales need more bits than either.

use bytemuck::{Pod, Zeroable};

use super::Block;
use super::coded::{Coded, E2M1, look_up};
use crate::DType;

/// 2 sub-blocks of 16: `x = d · E2M1[q]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockF4F32 {
    /// Scale per sub-block.
    pub d: [f32; 2],
    /// Codes of sub-block `s` in bytes `8s..`: values 0..8 in the low nibbles, 8..16 in the high ones.
    pub qs: [u8; 16],
}

impl Coded for BlockF4F32 {
    const TYPE: DType = DType::F4F32;
    const GROUP: usize = 16;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        // The table holds twice the values.
        scale.copy_from_slice(&self.d.map(|d| 0.5 * d));
        for (codes, q) in self.qs.chunks_exact(8).zip(q.chunks_exact_mut(16)) {
            look_up(&E2M1, codes, q);
        }
    }
}

/// `x = d · q`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockI8F32 {
    /// Scale.
    pub d: f32,
    /// Values.
    pub qs: [i8; 32],
}

impl Coded for BlockI8F32 {
    const TYPE: DType = DType::I8F32;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        scale[0] = self.d;
        q.copy_from_slice(&self.qs);
    }
}

/// `x = d · q`, q an 8-bit float.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockF8F32 {
    /// Scale.
    pub d: f32,
    /// Values, see [`e4m3`].
    pub qs: [u8; 32],
}

impl Block for BlockF8F32 {
    const DTYPE: DType = DType::F8F32;

    fn decode(&self, out: &mut [f32]) {
        for (&q, out) in self.qs.iter().zip(out) {
            *out = self.d * E4M3[usize::from(q)];
        }
    }
}

/// What every [`e4m3`] stands for.
static E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut q = 0;
    while q < 256 {
        values[q] = e4m3(q as u8);
        q += 1;
    }
    values
};

/// The 8-bit float with four bits of exponent and three of mantissa that safetensors calls `F8_E4M3`: no infinities,
/// 0x7F and 0xFF are not numbers.
///
/// Source: OCP 8-bit Floating Point Specification 1.0, table 1.
pub const fn e4m3(q: u8) -> f32 {
    let (exponent, mantissa) = (((q >> 3) & 15) as u32, (q & 7) as u32);
    let size = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits(((exponent + 120) << 23) | (mantissa << 20)),
    };
    if q & 0x80 == 0 { size } else { -size }
}
