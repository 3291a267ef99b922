//! Formats whose codes stand for signed bytes of a table: `x = scale · table[code]`.
//!
//! A block gives its bytes and one scale per group ([`Coded::integers`]); its values are their products. Integer
//! kernels work on the same bytes and scales.
//!
//! Sources: ggml `ggml-common.h` (`kvalues_iq4nl`, `kvalues_mxfp4`), OCP Microscaling Formats 1.0 (E2M1, E8M0).

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::grid::{BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs};
use super::scaled::{BlockF4F32, BlockI8F32};
use super::{Block, MAX_BLOCK, MAX_GROUPS};
use crate::DType;

/// A block whose values are signed bytes times the scale of their group.
pub trait Coded: Pod {
    /// The type whose block this is.
    const TYPE: DType;
    /// Values per scale: 16 or 32.
    const GROUP: usize;

    /// Writes the bytes to `q`, which has a block's length, and the scales to `scale`, one per group.
    fn integers(&self, q: &mut [i8], scale: &mut [f32]);
}

impl<B: Coded> Block for B {
    const DTYPE: DType = B::TYPE;

    fn decode(&self, out: &mut [f32]) {
        let (mut q, mut scale) = ([0; MAX_BLOCK], [0.0; MAX_GROUPS]);
        self.integers(&mut q[..out.len()], &mut scale[..out.len() / B::GROUP]);
        for ((out, q), scale) in out.chunks_exact_mut(B::GROUP).zip(q.chunks_exact(B::GROUP)).zip(scale) {
            for (out, &q) in out.iter_mut().zip(q) {
                *out = scale * f32::from(q);
            }
        }
    }
}

/// The signed bytes and the scales of one block of a coded type, see [`Coded::integers`]. Returns the values per
/// scale, or `None` for other types.
///
/// # Panics
/// If `block` is not one block of `dtype`, or `q` and `scale` are shorter than it asks for.
pub fn integers(dtype: DType, block: &[u8], q: &mut [i8], scale: &mut [f32]) -> Option<usize> {
    fn of<B: Coded>(block: &[u8], q: &mut [i8], scale: &mut [f32]) -> Option<usize> {
        let len = B::TYPE.block_len();
        bytemuck::pod_read_unaligned::<B>(block).integers(&mut q[..len], &mut scale[..len / B::GROUP]);
        Some(B::GROUP)
    }
    match dtype {
        DType::Iq4Nl => of::<BlockIq4Nl>(block, q, scale),
        DType::Iq4Xs => of::<BlockIq4Xs>(block, q, scale),
        DType::Iq2Xxs => of::<BlockIq2Xxs>(block, q, scale),
        DType::Iq2Xs => of::<BlockIq2Xs>(block, q, scale),
        DType::Iq2S => of::<BlockIq2S>(block, q, scale),
        DType::Iq3Xxs => of::<BlockIq3Xxs>(block, q, scale),
        DType::Iq3S => of::<BlockIq3S>(block, q, scale),
        DType::Iq1S => of::<BlockIq1S>(block, q, scale),
        DType::Iq1M => of::<BlockIq1M>(block, q, scale),
        DType::Mxfp4 => of::<BlockMxfp4>(block, q, scale),
        DType::Nvfp4 => of::<BlockNvfp4>(block, q, scale),
        DType::F4F32 => of::<BlockF4F32>(block, q, scale),
        DType::I8F32 => of::<BlockI8F32>(block, q, scale),
        _ => None,
    }
}

/// What the four-bit codes of IQ4_NL and IQ4_XS stand for.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice what the four-bit floats (E2M1) stand for; their minus zero is zero.
pub(super) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Codes of a group in two halves: the low nibbles of all bytes, then the high ones.
pub(super) fn look_up(table: &[i8; 16], codes: &[u8], q: &mut [i8]) {
    let (low, high) = q.split_at_mut(codes.len());
    for ((low, high), &code) in low.iter_mut().zip(high).zip(codes) {
        *low = table[usize::from(code & 15)];
        *high = table[usize::from(code >> 4)];
    }
}

/// `x = d · table[q]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq4Nl {
    /// Scale.
    pub d: f16,
    /// Values 0..16 in the low nibbles, 16..32 in the high ones.
    pub qs: [u8; 16],
}

impl Coded for BlockIq4Nl {
    const TYPE: DType = DType::Iq4Nl;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        scale[0] = self.d.to_f32();
        look_up(&IQ4, &self.qs, q);
    }
}

/// 8 sub-blocks of 32 with six-bit scales, their offset 32.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq4Xs {
    /// Scale of the scales.
    pub d: f16,
    /// High two bits of the scale of sub-block `s`: bits `2s, 2s+1` of a little-endian `u16`.
    pub scales_h: [u8; 2],
    /// Low four bits: low nibble of byte `s / 2` for even `s`, else the high one.
    pub scales_l: [u8; 4],
    /// Codes of sub-block `s` in bytes `16s..`, as in [`BlockIq4Nl`].
    pub qs: [u8; 128],
}

impl Coded for BlockIq4Xs {
    const TYPE: DType = DType::Iq4Xs;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let (d, high) = (self.d.to_f32(), u16::from_le_bytes(self.scales_h));
        for (s, scale) in scale.iter_mut().enumerate() {
            let low = (self.scales_l[s / 2] >> (4 * (s % 2))) & 15;
            let high = ((high >> (2 * s)) & 3) as u8;
            *scale = d * f32::from((low | (high << 4)) as i8 - 32);
        }
        for (codes, q) in self.qs.chunks_exact(16).zip(q.chunks_exact_mut(32)) {
            look_up(&IQ4, codes, q);
        }
    }
}

/// `x = 2^(e − 127) · E2M1[q]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockMxfp4 {
    /// Exponent of the scale, offset by 127 (E8M0).
    pub e: u8,
    /// As in [`BlockIq4Nl`].
    pub qs: [u8; 16],
}

impl Coded for BlockMxfp4 {
    const TYPE: DType = DType::Mxfp4;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        // The table holds twice the values, so the scale is half of 2^(e − 127); for `e` 0 and 1 that is subnormal.
        let bits = match u32::from(self.e) {
            e @ 0..2 => 0x0020_0000 << e,
            e => (e - 1) << 23,
        };
        scale[0] = f32::from_bits(bits);
        look_up(&E2M1, &self.qs, q);
    }
}

/// 4 sub-blocks of 16: `x = scale · E2M1[q]`, the scale an 8-bit float without sign (E4M3).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockNvfp4 {
    /// Scale per sub-block.
    pub scales: [u8; 4],
    /// Codes of sub-block `s` in bytes `8s..`: values 0..8 in the low nibbles, 8..16 in the high ones.
    pub qs: [u8; 32],
}

impl Coded for BlockNvfp4 {
    const TYPE: DType = DType::Nvfp4;
    const GROUP: usize = 16;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        for (scale, &u) in scale.iter_mut().zip(&self.scales) {
            *scale = 0.5 * ue4m3(u);
        }
        for (codes, q) in self.qs.chunks_exact(8).zip(q.chunks_exact_mut(16)) {
            look_up(&E2M1, codes, q);
        }
    }
}

/// An 8-bit float without sign as ggml reads it: four bits of exponent, three of mantissa, 0x7F is zero.
fn ue4m3(u: u8) -> f32 {
    let (exponent, mantissa) = (u32::from((u >> 3) & 15), u32::from(u & 7));
    match (u, exponent) {
        (0x7F, _) => 0.0,
        (_, 0) => mantissa as f32 / 512.0,
        _ => f32::from_bits(((exponent + 120) << 23) | (mantissa << 20)),
    }
}
