//! Products of quantised rows with one activation row: 256 weights per round, 64 per step, two rows side by side.
//!
//! A step is: load and spread 64 weights, `vpdpbusd` (and one for each plane of lower bits), convert, one fused
//! multiply-add with the groups' scales in their lanes. Scales are read and multiplied with the activations' once per
//! round; the offset that makes weights unsigned, and minima, take one fused multiply-add per round.
//!
//! Memory sets the pace, and of rows side by side the measured machines fetch little ahead but what these loops ask for: each
//! line once, a few kilobytes ahead, in the order of memory.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::plain::reduce4;
use super::{half, load32, load64};
use crate::ints::IntRows;
use crate::scalar;

/// Weights of a round.
const ROUND: usize = 256;
/// Rows side by side.
const ROWS: usize = 2;
/// Least distance of prefetches in bytes, some hundreds of nanoseconds of one core's bandwidth: into L1, if the rows side
/// by side are no longer than that and leave room for it, else into L2.
const AHEAD_L1: usize = 4 << 10;
const AHEAD_L2: usize = 8 << 10;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    if !has_kernel(dtype, x) {
        scalar::matvec(dtype, rows, x, out);
    } else if x.is_fine() {
        by_type::<2>(dtype, rows, Planes::new(x, x), out);
    } else {
        by_type::<1>(dtype, rows, Planes::new(x, x), out);
    }
}

/// See [`crate::scalar::matvec_finest`].
///
/// The three dots of a lane are one integer: four times a weight of at most 255 times a value below 2²¹ stay below 2³¹.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn matvec_finest(dtype: DType, rows: &[u8], x: IntRows<'_>, rest: IntRows<'_>, out: &mut [f32]) {
    if has_kernel(dtype, x) {
        by_type::<3>(dtype, rows, Planes::new(x, rest), out);
    } else {
        scalar::matvec_finest(dtype, rows, x, rest, out);
    }
}

fn has_kernel(dtype: DType, x: IntRows<'_>) -> bool {
    x.cols >= ROUND && matches!(dtype, DType::Q4_0 | DType::Q8_0 | DType::Q4K | DType::Q5K | DType::Q6K)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_type<const PLANES: usize>(dtype: DType, rows: &[u8], x: Planes<'_>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => q4_0::<PLANES>(rows, x, out),
        DType::Q8_0 => q8_0::<PLANES>(rows, x, out),
        DType::Q4K => q4_q5_k::<PLANES, false>(rows, x, out),
        DType::Q5K => q4_q5_k::<PLANES, true>(rows, x, out),
        _ => q6_k::<PLANES>(rows, x, out),
    }
}

/// A row in one, two or three planes of bytes.
#[derive(Clone, Copy)]
struct Planes<'a> {
    cols: usize,
    bytes: [&'a [i8]; 3],
    /// The last plane's scales.
    d: &'a [f32],
    /// `d · Σ v` of the first two planes, and of the third.
    dsum16: [&'a [f32]; 2],
    dsum32: [&'a [f32]; 2],
}

impl<'a> Planes<'a> {
    /// Of a row and its rest; of a row without one, the row again, whose third plane nobody reads.
    fn new(x: IntRows<'a>, rest: IntRows<'a>) -> Self {
        let dsum16 = [x.dsum16, rest.dsum16];
        Planes { cols: x.cols, bytes: [x.q, x.low, rest.q], d: rest.d, dsum16, dsum32: [x.dsum32, rest.dsum32] }
    }
}

/// How a format lies in memory and in lanes.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of 256 weights.
    bytes: usize,
    /// Weights of a group: 16 or 32.
    group: usize,
    /// What the unsigned weights are to be lowered by; 0 where there are minima instead.
    offset: f32,
    /// What a lane's sum is to be multiplied with, where weights are left at their place in a byte.
    share: __m512,
}

/// All rows. `scales(block)` gives the groups' scales and what the activations' sums are to be multiplied with (the same
/// scales, or minima), `weights(block, step)` 64 unsigned weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn all_rows<const PLANES: usize>(
    layout: Layout,
    rows: &[u8],
    x: Planes<'_>,
    out: &mut [f32],
    scales: impl Fn(&[u8]) -> (__m512, __m512) + Copy,
    weights: impl Fn(&[u8], usize) -> __m512i + Copy,
) {
    let row_bytes = x.cols * layout.bytes / ROUND;
    let rest = Rest::new::<PLANES>(x);
    for line in rows[..rows.len().min(AHEAD_L1)].chunks(64) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
    let pair = |first: usize| sums::<PLANES, ROWS>(layout, &rows[first * row_bytes..], x, &rest, scales, weights);
    let (fours, last) = out.as_chunks_mut::<4>();
    for (i, out) in fours.iter_mut().enumerate() {
        let ([a, b], [c, d]) = (pair(4 * i), pair(4 * i + 2));
        // SAFETY: four values.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), reduce4([a, b, c, d])) }
    }
    let done = 4 * fours.len();
    for (i, out) in last.iter_mut().enumerate() {
        let rows = &rows[(done + i) * row_bytes..];
        *out = _mm512_reduce_add_ps(sums::<PLANES, 1>(layout, rows, x, &rest, scales, weights)[0]);
    }
}

/// Activations of the last round where rows aren't whole rounds: the last 256 values, with zero scales for those that
/// earlier rounds had.
struct Rest {
    d: [f32; 8],
    dsum: [f32; 8],
}

impl Rest {
    fn new<const PLANES: usize>(x: Planes<'_>) -> Self {
        let (blocks, left) = (x.cols / 32, x.cols % ROUND / 32);
        let last = |values: &[f32], i: usize| if i + left < 8 { 0.0 } else { values[blocks - 8 + i] };
        let more = |i: usize| if PLANES > 2 { last(x.dsum32[1], i) } else { 0.0 };
        let d = std::array::from_fn(|i| last(x.d, i));
        Rest { d, dsum: std::array::from_fn(|i| last(x.dsum32[0], i) + more(i)) }
    }
}

/// The first `R` rows' products, over lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sums<const PLANES: usize, const R: usize>(
    layout: Layout,
    rows: &[u8],
    x: Planes<'_>,
    rest: &Rest,
    scales: impl Fn(&[u8]) -> (__m512, __m512) + Copy,
    weights: impl Fn(&[u8], usize) -> __m512i + Copy,
) -> [__m512; R] {
    let row_bytes = x.cols * layout.bytes / ROUND;
    assert!(rows.len() >= R * row_bytes && x.bytes[..PLANES].iter().all(|plane| plane.len() == x.cols));
    let narrow = R * row_bytes <= AHEAD_L1;
    let ahead = rows.as_ptr().wrapping_add(if narrow { AHEAD_L1 } else { AHEAD_L2.max(R * row_bytes) });
    let end = rows.as_ptr_range().end.cast();
    let mut sums = Sums::<PLANES, R> { layout, acc: [_mm512_setzero_ps(); R], lower: [_mm512_setzero_ps(); R] };
    let whole = x.cols / ROUND;
    for c in 0..x.cols.div_ceil(ROUND) {
        for line in 0..(R * layout.bytes).div_ceil(64) {
            let at = ahead.wrapping_add(c * R * layout.bytes + 64 * line).cast();
            if at >= end {
                // What comes after is another thread's.
                break;
            }
            if narrow { _mm_prefetch::<_MM_HINT_T0>(at) } else { _mm_prefetch::<_MM_HINT_T1>(at) }
        }
        let (at, block, of_x) = if c < whole {
            (c * ROUND, c * layout.bytes, scale_lanes::<PLANES>(layout, x, c))
        } else {
            (x.cols - ROUND, row_bytes - layout.bytes, (eight(&rest.d), eight(&rest.dsum)))
        };
        sums.add(&rows[block..], row_bytes, x, at, of_x, scales, weights);
    }
    sums.finish()
}

/// Eight values, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn eight(values: &[f32]) -> __m512 {
    assert!(values.len() >= 8);
    // SAFETY: eight values are readable, just checked.
    _mm512_zextps256_ps512(unsafe { _mm256_loadu_ps(values.as_ptr()) })
}

/// Of round `c` the activations' scale of each group, and `d · Σ v`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn scale_lanes<const PLANES: usize>(layout: Layout, x: Planes<'_>, c: usize) -> (__m512, __m512) {
    let d = eight(&x.d[8 * c..8 * c + 8]);
    if layout.group == 32 {
        let sums = |plane: usize| eight(&x.dsum32[plane][8 * c..8 * c + 8]);
        return (d, if PLANES > 2 { _mm512_add_ps(sums(0), sums(1)) } else { sums(0) });
    }
    let twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    let sums = |plane: usize| super::load(&x.dsum16[plane][16 * c..16 * c + 16]);
    let dsum = if PLANES > 2 { _mm512_add_ps(sums(0), sums(1)) } else { sums(0) };
    (_mm512_permutexvar_ps(twice, d), dsum)
}

/// Sums of `R` rows in the making.
struct Sums<const PLANES: usize, const R: usize> {
    layout: Layout,
    acc: [__m512; R],
    lower: [__m512; R],
}

impl<const PLANES: usize, const R: usize> Sums<PLANES, R> {
    /// Adds the products of 256 weights of each row, `stride` bytes apart, with the activations from `at` on.
    #[allow(clippy::too_many_arguments, reason = "two operands, where each begins, and how to read one")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn add(
        &mut self,
        rows: &[u8],
        stride: usize,
        x: Planes<'_>,
        at: usize,
        (d, dsum): (__m512, __m512),
        scales: impl Fn(&[u8]) -> (__m512, __m512) + Copy,
        weights: impl Fn(&[u8], usize) -> __m512i + Copy,
    ) {
        let mut group_scales = [_mm512_setzero_ps(); R];
        for r in 0..R {
            let (scale, lower) = scales(&rows[r * stride..r * stride + self.layout.bytes]);
            group_scales[r] = _mm512_mul_ps(scale, d);
            self.lower[r] = _mm512_fmadd_ps(lower, dsum, self.lower[r]);
        }
        let q = &x.bytes[0][at..at + ROUND];
        let low = if PLANES > 1 { &x.bytes[1][at..at + ROUND] } else { q };
        let lowest = if PLANES > 2 { &x.bytes[2][at..at + ROUND] } else { q };
        for step in 0..4 {
            let (q, low, lowest) = (bytes(&q[64 * step..]), bytes(&low[64 * step..]), bytes(&lowest[64 * step..]));
            let lanes = group_lanes(self.layout.group, step as i32);
            for r in 0..R {
                let w = weights(&rows[r * stride..r * stride + self.layout.bytes], step);
                let mut dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, q);
                if PLANES > 1 {
                    dot = _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(dot), w, low);
                }
                if PLANES > 2 {
                    dot = _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(dot), w, lowest);
                }
                let scale = _mm512_permutexvar_ps(lanes, group_scales[r]);
                self.acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, self.acc[r]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn finish(self) -> [__m512; R] {
        let Layout { offset, share, .. } = self.layout;
        let offset = _mm512_set1_ps(if offset == 0.0 { 1.0 } else { offset });
        let mut sums = self.acc;
        for (sum, lower) in sums.iter_mut().zip(self.lower) {
            *sum = _mm512_fnmadd_ps(lower, offset, _mm512_mul_ps(*sum, share));
        }
        sums
    }
}

/// 64 of the activations' bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn bytes(values: &[i8]) -> __m512i {
    assert!(values.len() >= 64);
    // SAFETY: 64 bytes are readable, just checked.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// The group of each lane's four weights, of 64 from `64 · step` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn group_lanes(group: usize, step: i32) -> __m512i {
    if group == 32 {
        let (a, b) = (2 * step, 2 * step + 1);
        return _mm512_set_epi32(b, b, b, b, b, b, b, b, a, a, a, a, a, a, a, a);
    }
    let first = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    _mm512_add_epi32(first, _mm512_set1_epi32(4 * step))
}

/// 1/16 for the lanes in `upper`, 1 for the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn nibble_shares(upper: u16) -> __m512 {
    _mm512_mask_mov_ps(_mm512_set1_ps(1.0), upper, _mm512_set1_ps(1.0 / 16.0))
}

const LOW_NIBBLES: i64 = 0x0f0f_0f0f_0f0f_0f0f;
const HIGH_NIBBLES: i64 = LOW_NIBBLES << 4;

/// Eight blocks of 18 bytes: scale, 16 bytes of nibbles. High nibbles stay in place: 16 times the weight.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_0<const PLANES: usize>(rows: &[u8], x: Planes<'_>, out: &mut [f32]) {
    const BYTES: usize = 8 * 18;
    let layout = Layout { bytes: BYTES, group: 32, offset: 8.0, share: nibble_shares(0xf0f0) };
    // Of two blocks bytes 2..18 twice, then 20..36 twice.
    let spread = _mm512_set_epi64(
        0x2322_2120_1f1e_1d1c,
        0x1b1a_1918_1716_1514,
        0x2322_2120_1f1e_1d1c,
        0x1b1a_1918_1716_1514,
        0x1110_0f0e_0d0c_0b0a,
        0x0908_0706_0504_0302,
        0x1110_0f0e_0d0c_0b0a,
        0x0908_0706_0504_0302,
    );
    // The last two blocks are read with those before them, so as not to read past the row.
    let last = _mm512_add_epi8(spread, _mm512_set1_epi8(28));
    let nibbles = _mm512_set_epi64(
        HIGH_NIBBLES,
        HIGH_NIBBLES,
        LOW_NIBBLES,
        LOW_NIBBLES,
        HIGH_NIBBLES,
        HIGH_NIBBLES,
        LOW_NIBBLES,
        LOW_NIBBLES,
    );
    let scale_words = _mm512_zextsi128_si512(_mm_set_epi16(63, 54, 45, 36, 27, 18, 9, 0));
    all_rows::<PLANES>(
        layout,
        rows,
        x,
        out,
        |block| {
            let words = _mm512_permutex2var_epi16(load64(block, 0), scale_words, load64(block, 64));
            let scales = _mm512_zextps256_ps512(_mm256_cvtph_ps(_mm512_castsi512_si128(words)));
            (scales, scales)
        },
        |block, step| {
            let (at, spread) = if step == 3 { (80, last) } else { (36 * step, spread) };
            _mm512_and_si512(_mm512_permutexvar_epi8(spread, load64(block, at)), nibbles)
        },
    );
}

/// Eight blocks of 34 bytes: scale, 32 signed bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q8_0<const PLANES: usize>(rows: &[u8], x: Planes<'_>, out: &mut [f32]) {
    const BYTES: usize = 8 * 34;
    let layout = Layout { bytes: BYTES, group: 32, offset: 128.0, share: _mm512_set1_ps(1.0) };
    let sign = _mm512_set1_epi8(-128);
    // Words 17 · i of the block, two in each of four loads.
    let first = _mm512_zextsi128_si512(_mm_set_epi16(0, 0, 0, 0, 51, 34, 17, 0));
    let second = _mm512_zextsi128_si512(_mm_set_epi16(0, 0, 0, 0, 55, 38, 21, 4));
    all_rows::<PLANES>(
        layout,
        rows,
        x,
        out,
        |block| {
            let low = _mm512_permutex2var_epi16(load64(block, 0), first, load64(block, 64));
            let high = _mm512_permutex2var_epi16(load64(block, 128), second, load64(block, 192));
            let words = _mm_unpacklo_epi64(_mm512_castsi512_si128(low), _mm512_castsi512_si128(high));
            let scales = _mm512_zextps256_ps512(_mm256_cvtph_ps(words));
            (scales, scales)
        },
        |block, step| {
            let (a, b) = (load32(block, 68 * step + 2), load32(block, 68 * step + 36));
            _mm512_xor_si512(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b), sign)
        },
    );
}

/// 256 weights in 8 sub-blocks with 6-bit scales and minima; `FIVE` adds fifth bits at byte 16. High nibbles of Q4_K stay
/// in place: 16 times the weight.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_q5_k<const PLANES: usize, const FIVE: bool>(rows: &[u8], x: Planes<'_>, out: &mut [f32]) {
    let (bytes, nibbles_at) = if FIVE { (176, 48) } else { (144, 16) };
    let share = if FIVE { _mm512_set1_ps(1.0) } else { nibble_shares(0xff00) };
    let layout = Layout { bytes, group: 32, offset: 0.0, share };
    let (low, high) = (_mm256_set1_epi64x(LOW_NIBBLES), _mm256_set1_epi64x(HIGH_NIBBLES));
    let in_place = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    let (shift, low) = (_mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0), _mm512_set1_epi64(LOW_NIBBLES));
    all_rows::<PLANES>(
        layout,
        rows,
        x,
        out,
        |block| {
            let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
            let u = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            let (u0, u1, u2) = (u(4), u(8), u(12));
            let scale_high = (u2 & 0x0f0f_0f0f) | (((u0 >> 6) & 0x0303_0303) << 4);
            let min_high = ((u2 >> 4) & 0x0f0f_0f0f) | (((u1 >> 6) & 0x0303_0303) << 4);
            let eight = |low: u32, high: u32, d: f32| {
                let bytes = _mm_cvtsi64_si128((u64::from(low) | u64::from(high) << 32) as i64);
                let values = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_set1_ps(d));
                _mm512_zextps256_ps512(values)
            };
            (eight(u0 & 0x3f3f_3f3f, scale_high, d), eight(u1 & 0x3f3f_3f3f, min_high, dmin))
        },
        |block, step| {
            let nibbles = _mm512_broadcast_i64x4(load32(block, nibbles_at + 32 * step));
            if !FIVE {
                return _mm512_and_si512(nibbles, in_place);
            }
            let w = _mm512_and_si512(_mm512_srlv_epi64(nibbles, shift), low);
            let (a, b) = ((1u8 << (2 * step)) as i8, (2u8 << (2 * step)) as i8);
            let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(a), _mm256_set1_epi8(b));
            let set = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(load32(block, 16)), bits);
            _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16))
        },
    );
}

/// 256 weights in 16 sub-blocks with 8-bit scales: nibbles at byte 0, two high bits each at 128, scales at 192.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q6_k<const PLANES: usize>(rows: &[u8], x: Planes<'_>, out: &mut [f32]) {
    let layout = Layout { bytes: 210, group: 16, offset: 32.0, share: _mm512_set1_ps(1.0) };
    let (low, two) = (_mm512_set1_epi64(LOW_NIBBLES), _mm512_set1_epi8(0x30));
    let left = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
    let right = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
    all_rows::<PLANES>(
        layout,
        rows,
        x,
        out,
        |block| {
            let d = _mm512_set1_ps(half([block[208], block[209]]));
            // Bytes 192..208 are the upper half of 176..208.
            let bytes = _mm256_extracti128_si256::<1>(load32(block, 176));
            let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), d);
            (scales, scales)
        },
        |block, step| {
            let (half, second) = (step / 2, step % 2 == 1);
            let nibbles = load64(block, 64 * half);
            let bits = _mm512_broadcast_i64x4(load32(block, 128 + 32 * half));
            if second {
                let nibbles = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), low);
                _mm512_or_si512(nibbles, _mm512_and_si512(_mm512_srlv_epi64(bits, right), two))
            } else {
                let nibbles = _mm512_and_si512(nibbles, low);
                _mm512_or_si512(nibbles, _mm512_and_si512(_mm512_sllv_epi64(bits, left), two))
            }
        },
    );
}
