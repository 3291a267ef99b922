//! Quantised blocks as integers: the common form all integer kernels work on.
//!
//! Every block format is read as groups of 16 or 32 weights with `w = scale · (q − offset) − min`, `q` an
//! unsigned byte. The offset belongs to the format, scale and min to the group. Block layouts are those of the
//! GGUF format (ggml `block_q4_0` and so on).

use carat_tensor::DType;
use carat_tensor::quant::{self, k4_scale_min};
use half::f16;

/// How a format's integers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Weights per scale: 16 or 32.
    pub group: usize,
    /// Subtracted from every `q`.
    pub offset: i32,
    /// Whether groups have a minimum.
    pub has_min: bool,
    /// No `q` is above it: 3, 7, 15, 31, 63, 127 or 255.
    pub most: u8,
}

/// The form of a quantised type; `None` for types that are decoded.
///
/// Types whose codes come from a table hold signed bytes. Their offsets are the least of those that kernels have at
/// which none is negative: kernels without 8-bit dot products want `q` small.
pub const fn form(dtype: DType) -> Option<Form> {
    let (group, offset, has_min, most) = match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F8F32 => return None,
        DType::Q4_0 => (32, 8, false, 15),
        DType::Q4_1 | DType::Q4K => (32, 0, true, 15),
        DType::Q5_1 | DType::Q5K => (32, 0, true, 31),
        DType::Q5_0 => (32, 16, false, 31),
        DType::Q8_0 => (32, 128, false, 255),
        DType::Q2K => (16, 0, true, 3),
        DType::Q3K => (16, 4, false, 7),
        DType::Q6K => (16, 32, false, 63),
        DType::Iq4Nl | DType::Iq4Xs | DType::Iq2Xxs | DType::Iq3Xxs | DType::I8F32 => (32, 128, false, 255),
        DType::Mxfp4 | DType::Iq3S | DType::Iq1S => (32, 16, false, 31),
        DType::Nvfp4 | DType::F4F32 | DType::Iq1M => (16, 32, false, 63),
        DType::Iq2Xs | DType::Iq2S => (16, 64, false, 127),
    };
    Some(Form { group, offset, has_min, most })
}

/// Largest number of groups in a block.
pub const MAX_GROUPS: usize = quant::MAX_GROUPS;
/// Largest number of weights in a block.
pub const MAX_BLOCK: usize = quant::MAX_BLOCK;

/// One block in the common form; the first `block_len` and `block_len / group` entries are meant.
pub struct Unpacked {
    /// Unsigned integers.
    pub q: [u8; MAX_BLOCK],
    /// Scale per group.
    pub scale: [f32; MAX_GROUPS],
    /// Minimum per group; 0 where the format has none.
    pub min: [f32; MAX_GROUPS],
}

impl Unpacked {
    /// All zero.
    pub const fn new() -> Self {
        Unpacked { q: [0; MAX_BLOCK], scale: [0.0; MAX_GROUPS], min: [0.0; MAX_GROUPS] }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// 6-bit scale `j` of Q3_K, not yet offset by 32.
fn q3_scale(s: &[u8], j: usize) -> u8 {
    let low = if j < 8 { s[j] & 15 } else { s[j - 8] >> 4 };
    low | (((s[8 + j % 4] >> (2 * (j / 4))) & 3) << 4)
}

/// Nibbles of 16 bytes: low ones first.
fn nibbles(qs: &[u8], q: &mut [u8]) {
    let (low, high) = q.split_at_mut(qs.len());
    for ((low, high), &b) in low.iter_mut().zip(high).zip(qs) {
        *low = b & 15;
        *high = b >> 4;
    }
}

/// Adds the fifth bits `qh` of 32 weights.
fn fifth_bits(qh: &[u8], q: &mut [u8]) {
    let bits = u32::from_le_bytes([qh[0], qh[1], qh[2], qh[3]]);
    for (i, q) in q.iter_mut().take(32).enumerate() {
        *q |= (((bits >> i) & 1) as u8) << 4;
    }
}

/// A block of a type whose codes come from a table.
fn coded(dtype: DType, b: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let form = form(dtype).expect("coded types are quantised");
    let len = dtype.block_len();
    let mut bytes = [0; MAX_BLOCK];
    quant::integers(dtype, b, &mut bytes, scale);
    for (q, &byte) in q.iter_mut().zip(&bytes[..len]) {
        *q = (i32::from(byte) + form.offset) as u8;
    }
    min[..len / form.group].fill(0.0);
}

/// Reads one block.
///
/// # Panics
/// If the type is not quantised or `b` is not one block long.
pub fn unpack(dtype: DType, b: &[u8], out: &mut Unpacked) {
    assert_eq!(b.len(), dtype.block_bytes(), "a {dtype} block");
    let Unpacked { q, scale, min } = out;
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F8F32 => panic!("{dtype} has no integers"),
        DType::Iq4Nl
        | DType::Iq4Xs
        | DType::Iq2Xxs
        | DType::Iq2Xs
        | DType::Iq2S
        | DType::Iq3Xxs
        | DType::Iq3S
        | DType::Iq1S
        | DType::Iq1M
        | DType::Mxfp4
        | DType::Nvfp4
        | DType::F4F32
        | DType::I8F32 => coded(dtype, b, q, scale, min),
        DType::Q4_0 => {
            scale[0] = half_at(b, 0);
            min[0] = 0.0;
            nibbles(&b[2..18], &mut q[..32]);
        }
        DType::Q4_1 => {
            scale[0] = half_at(b, 0);
            min[0] = -half_at(b, 2);
            nibbles(&b[4..20], &mut q[..32]);
        }
        DType::Q5_0 => {
            scale[0] = half_at(b, 0);
            min[0] = 0.0;
            nibbles(&b[6..22], &mut q[..32]);
            fifth_bits(&b[2..6], q);
        }
        DType::Q5_1 => {
            scale[0] = half_at(b, 0);
            min[0] = -half_at(b, 2);
            nibbles(&b[8..24], &mut q[..32]);
            fifth_bits(&b[4..8], q);
        }
        DType::Q8_0 => {
            scale[0] = half_at(b, 0);
            min[0] = 0.0;
            for (q, &w) in q.iter_mut().zip(&b[2..34]) {
                *q = w ^ 0x80;
            }
        }
        DType::Q2K => {
            let (d, dmin) = (half_at(b, 80), half_at(b, 82));
            for s in 0..16 {
                scale[s] = d * f32::from(b[s] & 15);
                min[s] = dmin * f32::from(b[s] >> 4);
            }
            for (i, q) in q.iter_mut().enumerate() {
                let (half, j, l) = (i / 128, i % 128 / 32, i % 32);
                *q = (b[16 + 32 * half + l] >> (2 * j)) & 3;
            }
        }
        DType::Q3K => {
            let d = half_at(b, 108);
            for s in 0..16 {
                scale[s] = d * (f32::from(q3_scale(&b[96..108], s)) - 32.0);
                min[s] = 0.0;
            }
            for (i, q) in q.iter_mut().enumerate() {
                let (half, j, l) = (i / 128, i % 128 / 32, i % 32);
                let low = (b[32 + 32 * half + l] >> (2 * j)) & 3;
                *q = low | (((b[l] >> (4 * half + j)) & 1) << 2);
            }
        }
        DType::Q4K | DType::Q5K => {
            let (d, dmin) = (half_at(b, 0), half_at(b, 2));
            let qs = if dtype == DType::Q4K { &b[16..144] } else { &b[48..176] };
            let scales = b[4..16].try_into().expect("the block's length is checked above");
            for j in 0..8 {
                let (s, m) = k4_scale_min(scales, j);
                scale[j] = d * f32::from(s);
                min[j] = dmin * f32::from(m);
            }
            for (qs, q) in qs.chunks_exact(32).zip(q.chunks_exact_mut(64)) {
                nibbles(qs, q);
            }
            if dtype == DType::Q5K {
                for (j, q) in q.chunks_exact_mut(32).enumerate() {
                    for (q, &h) in q.iter_mut().zip(&b[16..48]) {
                        *q |= ((h >> j) & 1) << 4;
                    }
                }
            }
        }
        DType::Q6K => {
            let d = half_at(b, 208);
            for s in 0..16 {
                scale[s] = d * f32::from(b[192 + s] as i8);
                min[s] = 0.0;
            }
            for (half, q) in q.chunks_exact_mut(128).enumerate() {
                let (ql, qh) = (&b[64 * half..64 * half + 64], &b[128 + 32 * half..160 + 32 * half]);
                for l in 0..32 {
                    q[l] = (ql[l] & 15) | ((qh[l] & 3) << 4);
                    q[l + 32] = (ql[l + 32] & 15) | (((qh[l] >> 2) & 3) << 4);
                    q[l + 64] = (ql[l] >> 4) | (((qh[l] >> 4) & 3) << 4);
                    q[l + 96] = (ql[l + 32] >> 4) | ((qh[l] >> 6) << 4);
                }
            }
        }
    }
}
