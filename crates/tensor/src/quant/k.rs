//! K formats: 256 values per block, in sub-blocks with scales of their own.
//!
//! The block's f16 scale multiplies small integer scales. With `d`, `dmin` the block's, `sc`, `m` the
//! sub-block's and `q` the value's integers, `x = (d*sc)*q - dmin*m`, or `x = (d*sc)*q` for the symmetric
//! Q3_K and Q6_K. Where each integer's bits lie differs by format and is written beside each.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::Block;
use crate::DType;

/// 16 sub-blocks of 16: two-bit values, four-bit scales and minima.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ2K {
    /// Per sub-block: scale in the low, minimum in the high nibble.
    pub scales: [u8; 16],
    /// Value `128n + 32j + l` is bits `2j, 2j+1` of byte `32n + l`.
    pub qs: [u8; 64],
    /// Scale of the scales.
    pub d: f16,
    /// Scale of the minima.
    pub dmin: f16,
}

impl Block for BlockQ2K {
    const DTYPE: DType = DType::Q2K;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(self.scales[s] & 15);
            let min = dmin * f32::from(self.scales[s] >> 4);
            for (i, out) in out.iter_mut().enumerate() {
                *out = scale * f32::from(two_bits(&self.qs, 16 * s + i)) - min;
            }
        }
    }
}

/// 16 sub-blocks of 16: three-bit values, six-bit scales with an offset of 32.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ3K {
    /// High bit of value `128n + 32j + l`: bit `4n + j` of byte `l`. A clear bit means minus 4.
    pub hmask: [u8; 32],
    /// Low two bits, as in [`BlockQ2K`].
    pub qs: [u8; 64],
    /// Scales: low four bits in the nibbles of bytes 0..8, high two bits in bytes 8..12.
    pub scales: [u8; 12],
    /// Scale of the scales.
    pub d: f16,
}

impl BlockQ3K {
    /// The scale of sub-block `s`, its offset taken off.
    fn scale(&self, s: usize) -> i8 {
        let low = if s < 8 { self.scales[s] & 15 } else { self.scales[s - 8] >> 4 };
        let high = (self.scales[8 + s % 4] >> (2 * (s / 4))) & 3;
        (low | (high << 4)) as i8 - 32
    }
}

impl Block for BlockQ3K {
    const DTYPE: DType = DType::Q3K;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(self.scale(s));
            for (i, out) in out.iter_mut().enumerate() {
                let at = 16 * s + i;
                let high = (self.hmask[at % 32] >> (at / 32)) & 1;
                let q = two_bits(&self.qs, at) as i8 - if high == 1 { 0 } else { 4 };
                *out = scale * f32::from(q);
            }
        }
    }
}

/// 8 sub-blocks of 32: four-bit values, six-bit scales and minima.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ4K {
    /// Scale of the scales.
    pub d: f16,
    /// Scale of the minima.
    pub dmin: f16,
    /// Packed scales and minima, see [`k4_scale_min`].
    pub scales: [u8; 12],
    /// Bytes `32k..` hold sub-block `2k` in the low and `2k + 1` in the high nibbles.
    pub qs: [u8; 128],
}

impl Block for BlockQ4K {
    const DTYPE: DType = DType::Q4K;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (s, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = k4_scale_min(&self.scales, s);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            for (l, out) in out.iter_mut().enumerate() {
                *out = scale * f32::from(paired_nibble(&self.qs, s, l)) - min;
            }
        }
    }
}

/// 8 sub-blocks of 32: five-bit values, six-bit scales and minima.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ5K {
    /// Scale of the scales.
    pub d: f16,
    /// Scale of the minima.
    pub dmin: f16,
    /// Packed scales and minima, see [`k4_scale_min`].
    pub scales: [u8; 12],
    /// Fifth bit of value `l` of sub-block `s`: bit `s` of byte `l`.
    pub qh: [u8; 32],
    /// Low four bits, as in [`BlockQ4K`].
    pub qs: [u8; 128],
}

impl Block for BlockQ5K {
    const DTYPE: DType = DType::Q5K;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (s, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = k4_scale_min(&self.scales, s);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            for (l, out) in out.iter_mut().enumerate() {
                let high = ((self.qh[l] >> s) & 1) << 4;
                *out = scale * f32::from(paired_nibble(&self.qs, s, l) | high) - min;
            }
        }
    }
}

/// 16 sub-blocks of 16: six-bit values with an offset of 32, eight-bit scales with sign.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct BlockQ6K {
    /// Low four bits of value `128n + 32j + l`: byte `64n + 32(j % 2) + l`, low nibble for `j < 2`, else high.
    pub ql: [u8; 128],
    /// High two bits of the same value: bits `2j, 2j+1` of byte `32n + l`.
    pub qh: [u8; 64],
    /// Per sub-block.
    pub scales: [i8; 16],
    /// Scale of the scales.
    pub d: f16,
}

impl Block for BlockQ6K {
    const DTYPE: DType = DType::Q6K;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(self.scales[s]);
            for (i, out) in out.iter_mut().enumerate() {
                let at = 16 * s + i;
                let (n, j, l) = (at / 128, at / 32 % 4, at % 32);
                let byte = self.ql[64 * n + 32 * (j % 2) + l];
                let low = if j < 2 { byte & 15 } else { byte >> 4 };
                let high = two_bits(&self.qh, at);
                *out = scale * f32::from((low | (high << 4)) as i8 - 32);
            }
        }
    }
}

/// Six-bit scale and minimum of sub-block `s` (0..8) of a Q4_K or Q5_K block.
///
/// Sub-blocks 0..4 have theirs in the low six bits of bytes `s` and `s + 4`. Those of 4..8 are put together
/// from the nibbles of byte `s + 4` and the two bits left over in bytes `s - 4` and `s`.
pub fn k4_scale_min(scales: &[u8; 12], s: usize) -> (u8, u8) {
    if s < 4 {
        (scales[s] & 63, scales[s + 4] & 63)
    } else {
        ((scales[s + 4] & 15) | ((scales[s - 4] >> 6) << 4), (scales[s + 4] >> 4) | ((scales[s] >> 6) << 4))
    }
}

/// The scales and the minima of all eight sub-blocks ([`k4_scale_min`]), a byte each, the first one lowest.
#[inline]
pub fn k4_scales_mins(scales: &[u8; 12]) -> (u64, u64) {
    let mut bytes = [0; 16];
    bytes[..12].copy_from_slice(scales);
    let words = u128::from_le_bytes(bytes);
    let (u0, u1, u2) = (words as u32, (words >> 32) as u32, (words >> 64) as u32);
    let all = |first: u32, low: u32| {
        let later = low & 0x0f0f_0f0f | (first >> 2) & 0x3030_3030;
        u64::from(first & 0x3f3f_3f3f) | u64::from(later) << 32
    };
    (all(u0, u2), all(u1, u2 >> 4))
}

/// The twelve bytes from which [`k4_scale_min`] reads these scales and minima, six bits each.
pub(super) fn pack_k4_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for s in 0..4 {
        bytes[s] = scales[s] | ((scales[s + 4] >> 4) << 6);
        bytes[s + 4] = mins[s] | ((mins[s + 4] >> 4) << 6);
        bytes[s + 8] = (scales[s + 4] & 15) | ((mins[s + 4] & 15) << 4);
    }
    bytes
}

/// Value `at` of 256 two-bit values: `128n + 32j + l` is bits `2j, 2j+1` of byte `32n + l`.
fn two_bits(bytes: &[u8; 64], at: usize) -> u8 {
    let (n, j, l) = (at / 128, at / 32 % 4, at % 32);
    (bytes[32 * n + l] >> (2 * j)) & 3
}

/// Four-bit value `l` of sub-block `s`, where two sub-blocks share 32 bytes.
fn paired_nibble(qs: &[u8; 128], s: usize, l: usize) -> u8 {
    let byte = qs[32 * (s / 2) + l];
    if s.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_scales_and_minima_are_those_of_each() {
        for seed in 0..200u32 {
            let scales =
                std::array::from_fn(|i| (seed.wrapping_mul(0x9e37_79b9).rotate_left(5 * i as u32) >> 24) as u8);
            let (all, mins) = k4_scales_mins(&scales);
            let (all, mins) = (all.to_le_bytes(), mins.to_le_bytes());
            for s in 0..8 {
                assert_eq!((all[s], mins[s]), k4_scale_min(&scales, s), "sub-block {s} of {scales:?}");
            }
        }
    }
}
