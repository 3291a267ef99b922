//! Products of quantised rows with one activation row: 256 weights per round, 64 per step, two rows side by side.
//!
//! A step is: load and spread 64 weights, `vpdpbusd` (and one for each plane of lower bits), convert, one fused
//! multiply-add with the groups' scales in their lanes. Scales are read and multiplied with the activations' once per
//! round; the offset that makes weights unsigned, and minima, take one fused multiply-add per round.
//!
//! Of rows side by side the measured machines fetch little ahead but what these loops ask for: each line once, a few kilobytes
//! ahead, in the order of memory. One row alone would be fetched ahead better, but activations loaded for it alone take as long.
//!
//! What differs between types is known by number ([`scales`], [`weights`]): closures would not be part of the loop for certain,
//! and a call for each block takes as long as its products.

use std::arch::x86_64::*;

use carat_tensor::DType;
use carat_tensor::quant::k4_scales_mins;

use super::plain::reduce4;
use super::{half, load16, load32, load64};
use crate::ints::IntRows;
use crate::scalar;

/// Weights of a round.
const ROUND: usize = 256;
/// Rows side by side.
const ROWS: usize = 2;
/// Least distance of prefetches in bytes, some hundreds of nanoseconds of one core's bandwidth: into L1, if the rows side by side
/// leave room for it, else into L2.
const AHEAD_L1: usize = 4 << 10;
const AHEAD_L2: usize = 8 << 10;
/// Bytes of rows side by side that do.
const NARROW: usize = 3 << 10;

// Types by number.
const Q4_0: usize = DType::Q4_0 as usize;
const Q8_0: usize = DType::Q8_0 as usize;
const Q4_K: usize = DType::Q4K as usize;
const Q5_K: usize = DType::Q5K as usize;
const Q6_K: usize = DType::Q6K as usize;

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
        DType::Q4_0 => all_rows::<Q4_0, PLANES>(rows, x, out),
        DType::Q8_0 => all_rows::<Q8_0, PLANES>(rows, x, out),
        DType::Q4K => all_rows::<Q4_K, PLANES>(rows, x, out),
        DType::Q5K => all_rows::<Q5_K, PLANES>(rows, x, out),
        _ => all_rows::<Q6_K, PLANES>(rows, x, out),
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

/// Bytes of 256 weights.
const fn round_bytes<const TYPE: usize>() -> usize {
    match TYPE {
        Q4_0 => 8 * DType::Q4_0.block_bytes(),
        Q8_0 => 8 * DType::Q8_0.block_bytes(),
        Q4_K => DType::Q4K.block_bytes(),
        Q5_K => DType::Q5K.block_bytes(),
        _ => DType::Q6K.block_bytes(),
    }
}

/// Weights of a group with a scale.
const fn group_of<const TYPE: usize>() -> usize {
    if TYPE == Q6_K { 16 } else { 32 }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn all_rows<const TYPE: usize, const PLANES: usize>(rows: &[u8], x: Planes<'_>, out: &mut [f32]) {
    let row_bytes = x.cols * round_bytes::<TYPE>() / ROUND;
    let rest = Rest::new::<PLANES>(x);
    for line in rows[..rows.len().min(AHEAD_L1)].chunks(64) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
    let (fours, last) = out.as_chunks_mut::<4>();
    for (i, out) in fours.iter_mut().enumerate() {
        let [a, b] = sums::<TYPE, PLANES, ROWS>(&rows[4 * i * row_bytes..], x, &rest);
        let [c, d] = sums::<TYPE, PLANES, ROWS>(&rows[(4 * i + 2) * row_bytes..], x, &rest);
        // SAFETY: four values.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), reduce4([a, b, c, d])) }
    }
    let done = 4 * fours.len();
    for (i, out) in last.iter_mut().enumerate() {
        let [sum] = sums::<TYPE, PLANES, 1>(&rows[(done + i) * row_bytes..], x, &rest);
        *out = _mm512_reduce_add_ps(sum);
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
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sums<const TYPE: usize, const PLANES: usize, const R: usize>(
    rows: &[u8],
    x: Planes<'_>,
    rest: &Rest,
) -> [__m512; R] {
    let bytes = round_bytes::<TYPE>();
    let row_bytes = x.cols * bytes / ROUND;
    assert!(rows.len() >= R * row_bytes && x.bytes[..PLANES].iter().all(|plane| plane.len() == x.cols));
    let mut sums = Sums::<PLANES, R> { acc: [_mm512_setzero_ps(); R], lower: [_mm512_setzero_ps(); R] };
    let whole = x.cols / ROUND;
    let narrow = R * row_bytes <= NARROW;
    let ahead = rows.as_ptr().wrapping_add(if narrow { AHEAD_L1 } else { AHEAD_L2.max(R * row_bytes) });
    // What comes after is another thread's.
    let last = rows.as_ptr_range().end.wrapping_sub(R * bytes);
    for c in 0..x.cols.div_ceil(ROUND) {
        let ahead = ahead.wrapping_add(c * R * bytes);
        if ahead <= last {
            for line in 0..(R * bytes).div_ceil(64) {
                let at = ahead.wrapping_add(64 * line).cast();
                if narrow { _mm_prefetch::<_MM_HINT_T0>(at) } else { _mm_prefetch::<_MM_HINT_T1>(at) }
            }
        }
        let (at, block, of_x) = if c < whole {
            (c * ROUND, c * bytes, scale_lanes::<TYPE, PLANES>(x, c))
        } else {
            (x.cols - ROUND, row_bytes - bytes, (eight(&rest.d), eight(&rest.dsum)))
        };
        sums.add::<TYPE>(&rows[block..], row_bytes, x, at, of_x);
    }
    sums.finish::<TYPE>()
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
fn scale_lanes<const TYPE: usize, const PLANES: usize>(x: Planes<'_>, c: usize) -> (__m512, __m512) {
    let d = eight(&x.d[8 * c..8 * c + 8]);
    if group_of::<TYPE>() == 32 {
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
    acc: [__m512; R],
    lower: [__m512; R],
}

impl<const PLANES: usize, const R: usize> Sums<PLANES, R> {
    /// Adds the products of 256 weights of each row, `stride` bytes apart, with the activations from `at` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn add<const TYPE: usize>(
        &mut self,
        rows: &[u8],
        stride: usize,
        x: Planes<'_>,
        at: usize,
        (d, dsum): (__m512, __m512),
    ) {
        let bytes = round_bytes::<TYPE>();
        let mut group_scales = [_mm512_setzero_ps(); R];
        for r in 0..R {
            // Of bytes that the compiler knew to be the weights', it would piece these together from those, which takes longer than
            // loads.
            let (scale, lower) = scales::<TYPE>(std::hint::black_box(&rows[r * stride..r * stride + bytes]));
            group_scales[r] = _mm512_mul_ps(scale, d);
            self.lower[r] = _mm512_fmadd_ps(lower, dsum, self.lower[r]);
        }
        let plane = |p: usize| -> &[u8] { bytemuck::cast_slice(&x.bytes[p.min(PLANES - 1)][at..at + ROUND]) };
        let planes = [plane(0), plane(1), plane(2)];
        for step in 0..4 {
            let [q, low, lowest] = planes.map(|plane| load64(plane, 64 * step));
            let lanes = group_lanes(group_of::<TYPE>(), step as i32);
            for r in 0..R {
                let w = weights::<TYPE>(&rows[r * stride..r * stride + bytes], step);
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

    /// Takes off minima, or what unsigned weights are too large by, and brings down those that are 16 times what they are.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn finish<const TYPE: usize>(self) -> [__m512; R] {
        let offset = _mm512_set1_ps(match TYPE {
            Q4_0 => 8.0,
            Q8_0 => 128.0,
            Q6_K => 32.0,
            _ => 1.0,
        });
        let share = match TYPE {
            Q4_0 => nibble_shares(0xf0f0),
            Q4_K => nibble_shares(0xff00),
            _ => _mm512_set1_ps(1.0),
        };
        let mut sums = self.acc;
        for (sum, lower) in sums.iter_mut().zip(self.lower) {
            *sum = _mm512_fnmadd_ps(lower, offset, _mm512_mul_ps(*sum, share));
        }
        sums
    }
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

/// The groups' scales of a round, and what the activations' sums are to be multiplied with: the same scales, or minima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn scales<const TYPE: usize>(block: &[u8]) -> (__m512, __m512) {
    match TYPE {
        Q4_0 => {
            let at = _mm512_zextsi128_si512(_mm_set_epi16(63, 54, 45, 36, 27, 18, 9, 0));
            let words = _mm512_permutex2var_epi16(load64(block, 0), at, load64(block, 64));
            let scales = _mm512_zextps256_ps512(_mm256_cvtph_ps(_mm512_castsi512_si128(words)));
            (scales, scales)
        }
        Q8_0 => {
            // Words 17 · i of the block, two in each of four loads.
            let first = _mm512_zextsi128_si512(_mm_set_epi16(0, 0, 0, 0, 51, 34, 17, 0));
            let second = _mm512_zextsi128_si512(_mm_set_epi16(0, 0, 0, 0, 55, 38, 21, 4));
            let low = _mm512_permutex2var_epi16(load64(block, 0), first, load64(block, 64));
            let high = _mm512_permutex2var_epi16(load64(block, 128), second, load64(block, 192));
            let words = _mm_unpacklo_epi64(_mm512_castsi512_si128(low), _mm512_castsi512_si128(high));
            let scales = _mm512_zextps256_ps512(_mm256_cvtph_ps(words));
            (scales, scales)
        }
        Q4_K | Q5_K => {
            let (d, d_min) = (half([block[0], block[1]]), half([block[2], block[3]]));
            let of_groups = block[4..16].try_into().expect("12 bytes");
            let (scales, mins) = k4_scales_mins(of_groups);
            let times = |bytes: u64, d| {
                let values = _mm256_mul_ps(
                    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed()))),
                    _mm256_set1_ps(d),
                );
                _mm512_zextps256_ps512(values)
            };
            (times(scales, d), times(mins, d_min))
        }
        // 8-bit scales of 16 groups at byte 192.
        _ => {
            let d = _mm512_set1_ps(half([block[208], block[209]]));
            let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block, 192))), d);
            (scales, scales)
        }
    }
}

/// 64 weights of a round, unsigned; high nibbles of Q4_0 and Q4_K stay in place: 16 times the weight.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn weights<const TYPE: usize>(block: &[u8], step: usize) -> __m512i {
    match TYPE {
        // Eight blocks of 18 bytes: scale, 16 bytes of nibbles.
        Q4_0 => {
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
            let (at, spread) =
                if step == 3 { (80, _mm512_add_epi8(spread, _mm512_set1_epi8(28))) } else { (36 * step, spread) };
            let (low, high) = (LOW_NIBBLES, HIGH_NIBBLES);
            let nibbles = _mm512_set_epi64(high, high, low, low, high, high, low, low);
            _mm512_and_si512(_mm512_permutexvar_epi8(spread, load64(block, at)), nibbles)
        }
        // Eight blocks of 34 bytes: scale, 32 signed bytes.
        Q8_0 => {
            let (a, b) = (load32(block, 68 * step + 2), load32(block, 68 * step + 36));
            _mm512_xor_si512(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b), _mm512_set1_epi8(-128))
        }
        // After scales and minima, and Q5_K's fifth bits, 32 bytes of nibbles for each 64 weights.
        Q4_K => {
            let nibbles = _mm512_broadcast_i64x4(load32(block, 16 + 32 * step));
            let (low, high) = (LOW_NIBBLES, HIGH_NIBBLES);
            _mm512_and_si512(nibbles, _mm512_set_epi64(high, high, high, high, low, low, low, low))
        }
        Q5_K => {
            let nibbles = _mm512_broadcast_i64x4(load32(block, 48 + 32 * step));
            let shift = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
            let w = _mm512_and_si512(_mm512_srlv_epi64(nibbles, shift), _mm512_set1_epi64(LOW_NIBBLES));
            let (a, b) = ((1u8 << (2 * step)).cast_signed(), (2u8 << (2 * step)).cast_signed());
            let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(a), _mm256_set1_epi8(b));
            let set = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(load32(block, 16)), bits);
            _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16))
        }
        // Nibbles at byte 0, two high bits each at 128.
        _ => {
            let (low, two) = (_mm512_set1_epi64(LOW_NIBBLES), _mm512_set1_epi8(0x30));
            let half = step / 2;
            let nibbles = load64(block, 64 * half);
            let bits = _mm512_broadcast_i64x4(load32(block, 128 + 32 * half));
            if step % 2 == 1 {
                let right = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
                let nibbles = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), low);
                _mm512_or_si512(nibbles, _mm512_and_si512(_mm512_srlv_epi64(bits, right), two))
            } else {
                let left = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
                let nibbles = _mm512_and_si512(nibbles, low);
                _mm512_or_si512(nibbles, _mm512_and_si512(_mm512_sllv_epi64(bits, left), two))
            }
        }
    }
}
