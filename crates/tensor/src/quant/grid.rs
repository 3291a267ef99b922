//! Formats whose codes are indices into codebooks of four or eight values: IQ1, IQ2 and IQ3.
//!
//! Signs lie apart from the codebooks' magnitudes, one bit a value. Types that spend seven bits on eight signs leave
//! out the last: the number of minuses is even. IQ1 has no signs but shifts all values of a codebook by an eighth, up
//! or down; its bytes are eighths.
//!
//! Source: ggml `ggml-common.h` (layouts, `iq2xxs_grid` and so on), `ggml-quants.c` (arithmetic).

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::coded::Coded;
use crate::DType;

/// All codebooks, see `tests/data/make_grids.py`.
static GRIDS: &[u8; 2 * 4608] = include_bytes!("grids.bin");

/// Where each codebook begins.
mod first {
    pub const IQ2_XXS: usize = 0;
    pub const IQ2_XS: usize = 256;
    pub const IQ2_S: usize = 768;
    pub const IQ3_XXS: usize = 1792;
    pub const IQ3_S: usize = 2048;
    pub const IQ1: usize = 2560;
}

/// What two-bit codes stand for; the fourth does not occur.
const IQ2: [i8; 4] = [8, 25, 43, 0];
/// The same for three-bit codes.
const IQ3_XXS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3_S: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

fn word(at: usize) -> u16 {
    u16::from_le_bytes([GRIDS[2 * at], GRIDS[2 * at + 1]])
}

/// The eight values of an entry of two-bit codes.
fn eight(at: usize, signs: u8, q: &mut [i8]) {
    let codes = word(at);
    for (i, q) in q.iter_mut().enumerate() {
        let v = IQ2[usize::from((codes >> (2 * i)) & 3)];
        *q = if (signs >> i) & 1 == 0 { v } else { -v };
    }
}

/// The eight values of two entries of three-bit codes.
fn twice_four(table: &[i8; 8], at: [usize; 2], signs: u8, q: &mut [i8]) {
    for (i, q) in q.iter_mut().enumerate() {
        let v = table[usize::from((word(at[i / 4]) >> (4 * (i % 4))) & 7)];
        *q = if (signs >> i) & 1 == 0 { v } else { -v };
    }
}

/// The eight values of an entry of IQ1's codebook, in eighths, shifted by one.
fn eighths(index: usize, minus: bool, q: &mut [i8]) {
    let codes = word(first::IQ1 + index);
    for (i, q) in q.iter_mut().enumerate() {
        *q = 8 * (((codes >> (2 * i)) & 3) as i8 - 1) + if minus { -1 } else { 1 };
    }
}

/// Eight signs from seven: the last makes the number of minuses even.
fn even_signs(seven: u8) -> u8 {
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

/// Four-bit value `i`, the low nibble first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 2] >> (4 * (i % 2))) & 15
}

fn u16_at(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

fn u32_at(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|k| bytes[4 * i + k]))
}

/// 8 sub-blocks of 32: four indices of 8 bits, four times seven signs, a scale of 4 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq2Xxs {
    /// Scale of the scales.
    pub d: f16,
    /// Of sub-block `s` from byte `8s` on: indices, then a word whose bits `7i..` are signs and whose top is the scale.
    pub qs: [u8; 64],
}

impl Coded for BlockIq2Xxs {
    const TYPE: DType = DType::Iq2Xxs;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, (q, scale)) in q.chunks_exact_mut(32).zip(scale).enumerate() {
            let word = u32_at(&self.qs, 2 * s + 1);
            *scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (i, q) in q.chunks_exact_mut(8).enumerate() {
                let index = usize::from(self.qs[8 * s + i]);
                eight(first::IQ2_XXS + index, even_signs(((word >> (7 * i)) & 127) as u8), q);
            }
        }
    }
}

/// 16 sub-blocks of 16: two indices of 9 bits with seven signs each, a scale of 4 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq2Xs {
    /// Scale of the scales.
    pub d: f16,
    /// Words of an index and signs above it.
    pub qs: [u8; 64],
    /// Scales, low nibbles first.
    pub scales: [u8; 8],
}

impl Coded for BlockIq2Xs {
    const TYPE: DType = DType::Iq2Xs;
    const GROUP: usize = 16;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, scale) in scale.iter_mut().enumerate() {
            *scale = d * (0.5 + f32::from(nibble(&self.scales, s))) * 0.25;
        }
        for (i, q) in q.chunks_exact_mut(8).enumerate() {
            let word = u16_at(&self.qs, i);
            eight(first::IQ2_XS + usize::from(word & 511), even_signs((word >> 9) as u8), q);
        }
    }
}

/// 16 sub-blocks of 16: two indices of 10 bits, eight signs each, a scale of 4 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq2S {
    /// Scale of the scales.
    pub d: f16,
    /// Low eight bits of the indices.
    pub qs: [u8; 32],
    /// Signs.
    pub signs: [u8; 32],
    /// High two bits of four indices each.
    pub qh: [u8; 8],
    /// Scales, low nibbles first.
    pub scales: [u8; 8],
}

impl Coded for BlockIq2S {
    const TYPE: DType = DType::Iq2S;
    const GROUP: usize = 16;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, scale) in scale.iter_mut().enumerate() {
            *scale = d * (0.5 + f32::from(nibble(&self.scales, s))) * 0.25;
        }
        for (i, q) in q.chunks_exact_mut(8).enumerate() {
            let high = usize::from((self.qh[i / 4] >> (2 * (i % 4))) & 3);
            eight(first::IQ2_S + (usize::from(self.qs[i]) | (high << 8)), self.signs[i], q);
        }
    }
}

/// 8 sub-blocks of 32: eight indices of 8 bits, four times seven signs, a scale of 4 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq3Xxs {
    /// Scale of the scales.
    pub d: f16,
    /// Indices.
    pub qs: [u8; 64],
    /// A word per sub-block, as in [`BlockIq2Xxs`].
    pub signs: [u8; 32],
}

impl Coded for BlockIq3Xxs {
    const TYPE: DType = DType::Iq3Xxs;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, (q, scale)) in q.chunks_exact_mut(32).zip(scale).enumerate() {
            let word = u32_at(&self.signs, s);
            *scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            for (i, q) in q.chunks_exact_mut(8).enumerate() {
                let at = [0, 1].map(|k| first::IQ3_XXS + usize::from(self.qs[8 * s + 2 * i + k]));
                twice_four(&IQ3_XXS, at, even_signs(((word >> (7 * i)) & 127) as u8), q);
            }
        }
    }
}

/// 8 sub-blocks of 32: eight indices of 9 bits, four times eight signs, a scale of 4 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq3S {
    /// Scale of the scales.
    pub d: f16,
    /// Low eight bits of the indices.
    pub qs: [u8; 64],
    /// High bit of eight indices each.
    pub qh: [u8; 8],
    /// Signs.
    pub signs: [u8; 32],
    /// Scales, low nibbles first.
    pub scales: [u8; 4],
}

impl Coded for BlockIq3S {
    const TYPE: DType = DType::Iq3S;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, scale) in scale.iter_mut().enumerate() {
            *scale = d * f32::from(1 + 2 * nibble(&self.scales, s));
        }
        let index = |i: usize| usize::from(self.qs[i]) | (usize::from((self.qh[i / 8] >> (i % 8)) & 1) << 8);
        for (i, q) in q.chunks_exact_mut(8).enumerate() {
            let at = [0, 1].map(|k| first::IQ3_S + index(2 * i + k));
            twice_four(&IQ3_S, at, self.signs[i], q);
        }
    }
}

/// 8 sub-blocks of 32: four indices of 11 bits, a scale of 3 bits, a shift.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq1S {
    /// Scale of the scales.
    pub d: f16,
    /// Low eight bits of the indices.
    pub qs: [u8; 32],
    /// A word per sub-block: four times three high bits, the scale, and the shift's sign.
    pub qh: [u8; 16],
}

impl Coded for BlockIq1S {
    const TYPE: DType = DType::Iq1S;
    const GROUP: usize = 32;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, (q, scale)) in q.chunks_exact_mut(32).zip(scale).enumerate() {
            let word = u16_at(&self.qh, s);
            *scale = d * f32::from(2 * ((word >> 12) & 7) + 1) / 8.0;
            for (i, q) in q.chunks_exact_mut(8).enumerate() {
                let high = usize::from((word >> (3 * i)) & 7);
                eighths(usize::from(self.qs[4 * s + i]) | (high << 8), word & 0x8000 != 0, q);
            }
        }
    }
}

/// 16 sub-blocks of 16: two indices of 11 bits with a shift each, a scale of 3 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockIq1M {
    /// Low eight bits of the indices.
    pub qs: [u8; 32],
    /// Of two indices each: three high bits, and the shift's sign above them.
    pub qh: [u8; 16],
    /// Four words of four scales each; their top nibbles are the block's f16 scale, lowest first.
    pub scales: [u8; 8],
}

impl Coded for BlockIq1M {
    const TYPE: DType = DType::Iq1M;
    const GROUP: usize = 16;

    fn integers(&self, q: &mut [i8], scale: &mut [f32]) {
        let d = (0..4).fold(0, |bits, i| bits | ((u16_at(&self.scales, i) >> 12) << (4 * i)));
        let d = f16::from_bits(d).to_f32();
        for (s, scale) in scale.iter_mut().enumerate() {
            let three = (u16_at(&self.scales, s / 4) >> (3 * (s % 4))) & 7;
            *scale = d * f32::from(2 * three + 1) / 8.0;
        }
        for (i, q) in q.chunks_exact_mut(8).enumerate() {
            let four = nibble(&self.qh, i);
            eighths(usize::from(self.qs[i]) | (usize::from(four & 7) << 8), four & 8 != 0, q);
        }
    }
}
