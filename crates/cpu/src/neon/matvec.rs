//! Decode: quantised rows as they lie in the file times one integer row, two rows side by side.
//!
//! A vector holds 16 columns of a row. Weights become signed as in [`super::tiles`], so that `sdot` needs no correction; its
//! four sums of a group, both planes together, are converted and added with `scale · d`, and only a row's are added up.

use std::arch::aarch64::*;

use carat_tensor::DType;
use carat_tensor::quant::k4_scales_mins;

use super::tiles::q4_0_weights;
use super::{load, load_i8, load_u8, sdot, store, upper_over, widen};
use crate::ints::IntRows;
use crate::unpack::{Unpacked, form, unpack};

/// See [`crate::scalar::matvec_part`].
#[target_feature(enable = "dotprod")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() { by_type::<true>(dtype, rows, x, out) } else { by_type::<false>(dtype, rows, x, out) }
}

#[target_feature(enable = "dotprod")]
fn by_type<const FINE: bool>(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => all(rows, x.cols / 32, out, |block, b, sum| q4_0::<FINE>(block, x, b, sum)),
        DType::Q8_0 => all(rows, x.cols / 32, out, |block, b, sum| q8_0::<FINE>(block, x, b, sum)),
        DType::Q4K => all(rows, x.cols / 256, out, |block, b, sum| q4_k::<FINE>(block, x, b, sum)),
        DType::Q6K => all(rows, x.cols / 256, out, |block, b, sum| q6_k::<FINE>(block, x, b, sum)),
        _ => {
            let row_bytes = dtype.row_bytes(x.cols).expect("the matrix was made with whole blocks");
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                *out = row_unpacked::<FINE>(dtype, row, x);
            }
        }
    }
}

/// All rows of so many blocks: `add` gives a sum with the products of block `b`.
#[inline]
#[target_feature(enable = "dotprod")]
fn all<const BYTES: usize>(
    rows: &[u8],
    blocks: usize,
    out: &mut [f32],
    add: impl Fn(&[u8; BYTES], usize, float32x4_t) -> float32x4_t,
) {
    let rows = rows.as_chunks::<BYTES>().0;
    for (out, rows) in out.chunks_mut(2).zip(rows.chunks(2 * blocks)) {
        let (first, second) = rows.split_at(blocks);
        let mut sums = [vdupq_n_f32(0.0); 2];
        if second.is_empty() {
            for (b, block) in first.iter().enumerate() {
                sums[0] = add(block, b, sums[0]);
            }
        }
        for (b, (first, second)) in first.iter().zip(second).enumerate() {
            sums[0] = add(first, b, sums[0]);
            sums[1] = add(second, b, sums[1]);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = vaddvq_f32(sum);
        }
    }
}

/// Sums of the products with the values of `x` from `at` on.
#[inline]
#[target_feature(enable = "dotprod")]
fn dot<const FINE: bool, const S: usize>(w: [int8x16_t; S], x: IntRows<'_>, at: usize) -> int32x4_t {
    let mut sum = vdupq_n_s32(0);
    for (w, x) in w.iter().zip(x.q[at..at + 16 * S].as_chunks::<16>().0) {
        sum = sdot(sum, *w, load_i8(x));
    }
    if FINE {
        sum = vshlq_n_s32::<7>(sum);
        for (w, x) in w.iter().zip(x.low[at..at + 16 * S].as_chunks::<16>().0) {
            sum = sdot(sum, *w, load_i8(x));
        }
    }
    sum
}

/// The half at the start of `bytes`.
#[inline]
#[target_feature(enable = "dotprod")]
fn half(bytes: &[u8]) -> f32 {
    vgetq_lane_f32::<0>(widen(vdup_n_u16(u16::from_le_bytes([bytes[0], bytes[1]]))))
}

#[inline]
fn lanes(v: float32x4_t) -> [f32; 4] {
    let mut lanes = [0.0; 4];
    store(&mut lanes, v);
    lanes
}

/// Blocks of an f16 scale and 16 bytes: the low nibbles are weights 0–15, the high ones 16–31.
#[inline]
#[target_feature(enable = "dotprod")]
fn q4_0<const FINE: bool>(block: &[u8; 18], x: IntRows<'_>, b: usize, sum: float32x4_t) -> float32x4_t {
    let (low, high) = q4_0_weights(load_u8(&block[2..]));
    vfmaq_n_f32(sum, vcvtq_n_f32_s32::<4>(dot::<FINE, _>([low, high], x, 32 * b)), half(block) * x.d[b])
}

/// Blocks of an f16 scale and 32 signed bytes.
#[inline]
#[target_feature(enable = "dotprod")]
fn q8_0<const FINE: bool>(block: &[u8; 34], x: IntRows<'_>, b: usize, sum: float32x4_t) -> float32x4_t {
    let weights = |at: usize| vreinterpretq_s8_u8(load_u8(&block[at..]));
    vfmaq_n_f32(sum, vcvtq_f32_s32(dot::<FINE, _>([weights(2), weights(18)], x, 32 * b)), half(block) * x.d[b])
}

/// Blocks of two f16 scales, 12 bytes of 6-bit ones and 128 of nibbles.
#[inline]
#[target_feature(enable = "dotprod")]
fn q4_k<const FINE: bool>(block: &[u8; 144], x: IntRows<'_>, b: usize, mut sum: float32x4_t) -> float32x4_t {
    let (scales, mins) = scales_of_q4_k(block);
    let (d, d_min) = (half(block), half(&block[2..]));
    for part in 0..2 {
        let g = 8 * b + 4 * part;
        let scale = lanes(vmulq_f32(vmulq_n_f32(scales[part], d), load(&x.d[g..])));
        sum = vfmsq_f32(sum, vmulq_n_f32(mins[part], d_min), load(&x.dsum32[g..]));
        for two in 0..2 {
            let bytes = |at: usize| load_u8(&block[16 + 64 * part + 32 * two + at..]);
            let (first, second) = (bytes(0), bytes(16));
            let low = |v| vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
            let high = |v| vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
            let at = 32 * g + 64 * two;
            let dots = dot::<FINE, _>([low(first), low(second)], x, at);
            sum = vfmaq_n_f32(sum, vcvtq_f32_s32(dots), scale[2 * two]);
            let dots = dot::<FINE, _>([high(first), high(second)], x, at + 32);
            sum = vfmaq_n_f32(sum, vcvtq_f32_s32(dots), scale[2 * two + 1]);
        }
    }
    sum
}

/// The eight groups' scales and minima, not yet times the block's.
#[inline]
#[target_feature(enable = "dotprod")]
fn scales_of_q4_k(block: &[u8; 144]) -> ([float32x4_t; 2], [float32x4_t; 2]) {
    let (scales, mins) = k4_scales_mins(block[4..16].try_into().expect("12 bytes"));
    let floats = |bytes: u64| {
        let words = vmovl_u8(vcreate_u8(bytes));
        [vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(words)))]
    };
    (floats(scales), floats(mins))
}

/// Blocks of 128 bytes of nibbles, 64 of pairs of higher bits, 16 signed scales and one of f16.
#[inline]
#[target_feature(enable = "dotprod")]
fn q6_k<const FINE: bool>(block: &[u8; 210], x: IntRows<'_>, b: usize, mut sum: float32x4_t) -> float32x4_t {
    let d = half(&block[208..]);
    let bytes = vreinterpretq_s8_u8(load_u8(&block[192..]));
    for (part, words) in [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)].into_iter().enumerate() {
        // Two groups share an activations' scale.
        let x_d = load(&x.d[8 * b + 4 * part..]);
        let of = |scale: int32x4_t, x_d| lanes(vmulq_f32(vmulq_n_f32(vcvtq_f32_s32(scale), d), x_d));
        let scale =
            [of(vmovl_s16(vget_low_s16(words)), vzip1q_f32(x_d, x_d)), of(vmovl_high_s16(words), vzip2q_f32(x_d, x_d))];
        for second in 0..2 {
            let pairs = load_u8(&block[128 + 32 * part + 16 * second..]);
            let nibbles = |odd: usize| load_u8(&block[64 * part + 32 * odd + 16 * second..]);
            let nibbles = [nibbles(0), nibbles(1)];
            for chunk in 0..4 {
                let w = q6_k_weights(chunk, nibbles[chunk % 2], pairs);
                let dots = dot::<FINE, _>([w], x, 256 * b + 128 * part + 32 * chunk + 16 * second);
                let scale = scale[chunk / 2][2 * (chunk % 2) + second];
                sum = vfmaq_n_f32(sum, vcvtq_n_f32_s32::<2>(dots), scale);
            }
        }
    }
    sum
}

/// Four times `q − 32` of a chunk of 32 columns, of which there are four in 128, from the bytes that hold its nibbles and its
/// pairs of higher bits: six bits at the top of a byte, the first of them turned around to be the sign.
#[inline]
#[target_feature(enable = "dotprod")]
fn q6_k_weights(chunk: usize, nibbles: uint8x16_t, pairs: uint8x16_t) -> int8x16_t {
    let four = if chunk < 2 { vshlq_n_u8::<4>(nibbles) } else { vandq_u8(nibbles, vdupq_n_u8(0xf0)) };
    let two = match chunk {
        0 => vshlq_n_u8::<6>(pairs),
        1 => vshlq_n_u8::<4>(pairs),
        2 => vshlq_n_u8::<2>(pairs),
        _ => pairs,
    };
    vreinterpretq_s8_u8(veorq_u8(upper_over::<2>(two, four), vdupq_n_u8(0x80)))
}

/// Of any type, by blocks in the common form.
#[target_feature(enable = "dotprod")]
fn row_unpacked<const FINE: bool>(dtype: DType, row: &[u8], x: IntRows<'_>) -> f32 {
    let form = form(dtype).expect("only quantised types reach the integer kernels");
    let len = dtype.block_len();
    let offset = vdupq_n_u8(form.offset as u8);
    let mut block = Unpacked::new();
    let mut total = vdupq_n_f32(0.0);
    let mut minima = 0.0f32;
    for (b, bytes) in row.chunks_exact(dtype.block_bytes()).enumerate() {
        unpack(dtype, bytes, &mut block);
        for g in 0..len / form.group {
            let at = b * len + g * form.group;
            let weights = |part: usize| {
                let bytes = load_u8(&block.q[g * form.group + 16 * part..]);
                vreinterpretq_s8_u8(vsubq_u8(bytes, offset))
            };
            let sum = match form.group {
                32 => dot::<FINE, _>([weights(0), weights(1)], x, at),
                _ => dot::<FINE, _>([weights(0)], x, at),
            };
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
