//! Products of quantised rows with one activation row: 256 weights per round, in two steps of 128, four rows side by side.
//!
//! A step is two vectors of 64 weights whose lanes hold weights of the same groups, so that both, and all planes of
//! activations, end in one integer per lane: one conversion and one fused multiply-add with the groups' scales. The activations
//! are laid out in the same order once, before the first row ([`Round`]).
//!
//! The unit that multiplies is the limit: an instruction that adds to a register (`vpdpbusd`, fused multiply-adds) takes as long as
//! one and two thirds of others, and there are eight of them in a round of each plane. Of rows side by side the measured machines
//! fetch nothing ahead but what these loops ask for: each line once, in the order of memory.
//!
//! What differs between types is known by number ([`scales`], [`weights`]): closures would not be part of the loop for certain,
//! and a call for each block takes as long as its products.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::plain::reduce4;
use super::{load, load16, load32, load64, store};
use crate::ints::IntRows;
use crate::scalar;
use crate::x86::{LINE, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0, ROUND, round_at, round_bytes, rounds};

/// Rows side by side.
const ROWS: usize = 4;
/// Least distance of prefetches in bytes, some hundreds of nanoseconds of one core's bandwidth.
const AHEAD: usize = 12 << 10;

/// 256 activations with all that their products need, a vector each: four of bytes for each of three planes, in the order in which
/// [`weights`] makes weights; [`SCALES`]; [`SUMS`].
type Round = [[f32; 16]; 14];
/// The scale of each group. Of Q4_K and Q5_K, whose minima are multiplied together with their scales, [`SUMS`] after them, and
/// the odd scales of Q4_K a 16th, as its weights are 16 times what they are.
const SCALES: usize = 12;
/// `d · Σ v` of each group.
const SUMS: usize = 13;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
pub fn matvec(
    dtype: DType,
    rows: &[u8],
    x: IntRows<'_>,
    rest: Option<IntRows<'_>>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let has_kernel = matches!(dtype, DType::Q4_0 | DType::Q8_0 | DType::Q4K | DType::Q5K | DType::Q6K);
    if !has_kernel || x.cols < ROUND {
        return scalar::matvec(dtype, rows, x, rest, scratch, out);
    }
    match rest {
        Some(rest) => by_type::<3>(dtype, rows, Planes::new(x, rest), scratch, out),
        None if x.is_fine() => by_type::<2>(dtype, rows, Planes::new(x, x), scratch, out),
        None => by_type::<1>(dtype, rows, Planes::new(x, x), scratch, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn by_type<const PLANES: usize>(dtype: DType, rows: &[u8], x: Planes<'_>, scratch: &mut Vec<f32>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => all_rows::<Q4_0, PLANES>(rows, x, scratch, out),
        DType::Q8_0 => all_rows::<Q8_0, PLANES>(rows, x, scratch, out),
        DType::Q4K => all_rows::<Q4_K, PLANES>(rows, x, scratch, out),
        DType::Q5K => all_rows::<Q5_K, PLANES>(rows, x, scratch, out),
        _ => all_rows::<Q6_K, PLANES>(rows, x, scratch, out),
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

/// Whether groups have minima.
const fn has_minima<const TYPE: usize>() -> bool {
    matches!(TYPE, Q4_K | Q5_K)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn all_rows<const TYPE: usize, const PLANES: usize>(
    rows: &[u8],
    x: Planes<'_>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let row_bytes = x.cols * round_bytes::<TYPE>() / ROUND;
    for line in rows[..rows.len().min(ahead::<ROWS>(row_bytes))].chunks(LINE) {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
    let rounds: &mut [Round] = rounds(scratch, x.cols.div_ceil(ROUND));
    for (c, round) in rounds.iter_mut().enumerate() {
        make_round::<TYPE, PLANES>(x, c, round);
    }
    let (fours, last) = out.as_chunks_mut::<ROWS>();
    for (i, out) in fours.iter_mut().enumerate() {
        let sums = sums::<TYPE, PLANES, ROWS>(&rows[ROWS * i * row_bytes..], row_bytes, rounds);
        // SAFETY: four values.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), reduce4(sums)) }
    }
    let done = ROWS * fours.len();
    for (i, out) in last.iter_mut().enumerate() {
        let [sum] = sums::<TYPE, PLANES, 1>(&rows[(done + i) * row_bytes..], row_bytes, rounds);
        *out = _mm512_reduce_add_ps(sum);
    }
}

/// How far ahead of the first of `R` rows side by side lines are asked for: at least the next rows'.
fn ahead<const R: usize>(row_bytes: usize) -> usize {
    AHEAD.max(R * row_bytes)
}

/// Lays out round `c`, with zero scales for what earlier rounds had.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn make_round<const TYPE: usize, const PLANES: usize>(x: Planes<'_>, c: usize, round: &mut Round) {
    let (at, had) = round_at(x.cols, c);
    for (plane, bytes) in x.bytes[..PLANES].iter().enumerate() {
        let bytes: &[u8] = bytemuck::cast_slice(&bytes[at..at + ROUND]);
        for step in 0..2 {
            // The blocks of 32 that weights are made of, as they lie in a row.
            let blocks = if has_minima::<TYPE>() {
                [step, 2 + step, 4 + step, 6 + step]
            } else {
                std::array::from_fn(|i| 4 * step + i)
            };
            let [a, b, c, d] = blocks.map(|block| load32(bytes, 32 * block));
            let first = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
            let second = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(c), d);
            for (i, v) in order::<TYPE>(first, second).into_iter().enumerate() {
                store(&mut round[4 * plane + 2 * step + i], _mm512_castsi512_ps(v));
            }
        }
    }
    let groups = at / 32..at / 32 + 8;
    let mut sums = [0.0; 16];
    for dsums in 0..if PLANES > 2 { 2 } else { 1 } {
        let (of_groups, size) = if TYPE == Q6_K {
            (&x.dsum16[dsums][2 * groups.start..2 * groups.end], 2)
        } else {
            (&x.dsum32[dsums][groups.clone()], 1)
        };
        sums.iter_mut().zip(of_groups).skip(size * had).for_each(|(sum, of_group)| *sum += of_group);
    }
    let mut scales = [0.0; 16];
    for (i, &d) in x.d[groups].iter().enumerate().skip(had) {
        match TYPE {
            Q6_K => scales[2 * i..2 * i + 2].fill(d),
            Q4_K if i % 2 == 1 => scales[i] = d / 16.0,
            _ => scales[i] = d,
        }
        if has_minima::<TYPE>() {
            scales[8 + i] = sums[i];
        }
    }
    (round[SCALES], round[SUMS]) = (scales, sums);
}

/// The first `R` rows' products, over lanes.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn sums<const TYPE: usize, const PLANES: usize, const R: usize>(
    rows: &[u8],
    row_bytes: usize,
    rounds: &[Round],
) -> [__m512; R] {
    let bytes = round_bytes::<TYPE>();
    assert!(row_bytes >= bytes && rows.len() >= R * row_bytes);
    let mut sums = Sums { acc: [_mm512_setzero_ps(); R], lower: [_mm512_setzero_ps(); R] };
    let ahead = rows.as_ptr().wrapping_add(ahead::<R>(row_bytes));
    // What comes after is another thread's.
    let last = rows.as_ptr_range().end.wrapping_sub(R * bytes);
    for (c, round) in rounds.iter().enumerate() {
        let ahead = ahead.wrapping_add(c * R * bytes);
        if ahead <= last {
            for line in 0..(R * bytes).div_ceil(LINE) {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(LINE * line).cast());
            }
        }
        let byte = (c * bytes).min(row_bytes - bytes);
        sums.add::<TYPE, PLANES>(&rows[byte..], row_bytes, round);
    }
    // Unsigned weights are too large by this. Minima are in the upper lanes, multiplied.
    let offset = _mm512_set1_ps(match TYPE {
        Q4_0 => 8.0,
        Q8_0 => 128.0,
        Q6_K => 32.0,
        _ => 1.0,
    });
    let lanes = if has_minima::<TYPE>() { 0xff00 } else { 0xffff };
    std::array::from_fn(|r| _mm512_mask3_fnmadd_ps(sums.lower[r], offset, sums.acc[r], lanes))
}

/// Sums of `R` rows in the making.
struct Sums<const R: usize> {
    acc: [__m512; R],
    /// What is to be taken off: the activations' sums for an offset, or, in the upper lanes, minima.
    lower: [__m512; R],
}

impl<const R: usize> Sums<R> {
    /// Adds the products of 256 weights of each row, `stride` bytes apart.
    ///
    /// All planes of a lane are one integer: eight times a weight of at most 63 times a value below 2²¹ stay below 2³¹. Of larger
    /// weights the third plane is another.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
    fn add<const TYPE: usize, const PLANES: usize>(&mut self, rows: &[u8], stride: usize, round: &Round) {
        for r in 0..R {
            let block = &rows[r * stride..][..round_bytes::<TYPE>()];
            let mut scales = scales::<TYPE>(block);
            if has_minima::<TYPE>() {
                scales = _mm512_mul_ps(scales, load(&round[SCALES]));
                self.lower[r] = _mm512_add_ps(self.lower[r], scales);
            } else {
                self.lower[r] = _mm512_fmadd_ps(scales, load(&round[SUMS]), self.lower[r]);
                scales = _mm512_mul_ps(scales, load(&round[SCALES]));
            }
            for step in 0..2 {
                let weights = weights::<TYPE>(block, step);
                let dot = |start, plane: usize| {
                    let x = |i: usize| _mm512_castps_si512(load(&round[4 * plane + 2 * step + i]));
                    _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(start, weights[0], x(0)), weights[1], x(1))
                };
                let mut sum = dot(_mm512_setzero_si512(), 0);
                if PLANES > 1 {
                    sum = dot(_mm512_slli_epi32::<7>(sum), 1);
                }
                let mut value = _mm512_cvtepi32_ps(sum);
                if PLANES > 2 && matches!(TYPE, Q8_0 | Q4_K) {
                    let rest = _mm512_cvtepi32_ps(dot(_mm512_setzero_si512(), 2));
                    value = _mm512_fmadd_ps(value, _mm512_set1_ps(128.0), rest);
                } else if PLANES > 2 {
                    value = _mm512_cvtepi32_ps(dot(_mm512_slli_epi32::<7>(sum), 2));
                }
                self.acc[r] =
                    _mm512_fmadd_ps(value, _mm512_permutexvar_ps(group_lanes::<TYPE>(step), scales), self.acc[r]);
            }
        }
    }
}

/// The group of each lane's weights in a step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn group_lanes<const TYPE: usize>(step: usize) -> __m512i {
    let (lanes, next) = match TYPE {
        Q4_0 => (_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), 4),
        Q8_0 => (_mm512_set_epi32(3, 3, 1, 1, 3, 3, 1, 1, 2, 2, 0, 0, 2, 2, 0, 0), 4),
        Q6_K => (_mm512_set_epi32(7, 7, 3, 3, 6, 6, 2, 2, 5, 5, 1, 1, 4, 4, 0, 0), 8),
        _ => (_mm512_set_epi32(6, 6, 2, 2, 6, 6, 2, 2, 4, 4, 0, 0, 4, 4, 0, 0), 1),
    };
    _mm512_add_epi32(lanes, _mm512_set1_epi32(next * step as i32))
}

/// Two vectors of 64 as a step has them: of Q4_0 the first halves of four blocks of 32, as low nibbles are, and the second ones;
/// of others eight bytes of each vector by turns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn order<const TYPE: usize>(first: __m512i, second: __m512i) -> [__m512i; 2] {
    if TYPE == Q4_0 {
        [_mm512_shuffle_i64x2::<0b10_00_10_00>(first, second), _mm512_shuffle_i64x2::<0b11_01_11_01>(first, second)]
    } else {
        [_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second)]
    }
}

const LOW_NIBBLES: i64 = 0x0f0f_0f0f_0f0f_0f0f;

/// For `gf2p8affineqb`: moves bits `from` and after, `len` of them, to bit `to`, and clears the others.
const fn bits(from: usize, len: usize, to: usize) -> i64 {
    let (mut matrix, mut i) = (0, 0);
    while i < len {
        // Byte 7 − k names the bits whose sum is bit k.
        matrix |= 1 << (from + i + 8 * (7 - (to + i)));
        i += 1;
    }
    matrix
}

/// The groups' scales of a round; of types with minima those after the scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn scales<const TYPE: usize>(block: &[u8]) -> __m512 {
    match TYPE {
        Q4_0 => {
            let at = _mm512_zextsi128_si512(_mm_set_epi16(63, 54, 45, 36, 27, 18, 9, 0));
            let words = _mm512_permutex2var_epi16(load64(block, 0), at, load64(block, 64));
            _mm512_zextps256_ps512(_mm256_cvtph_ps(_mm512_castsi512_si128(words)))
        }
        Q8_0 => {
            // Words 17 · i of the block, two in each of four loads. Of bytes that the compiler knew to be the weights' it would piece
            // these together from those, which takes longer.
            let block = std::hint::black_box(block);
            let first = _mm512_zextsi128_si512(_mm_set_epi16(0, 0, 0, 0, 51, 34, 17, 0));
            let second = _mm512_zextsi128_si512(_mm_set_epi16(0, 0, 0, 0, 55, 38, 21, 4));
            let low = _mm512_permutex2var_epi16(load64(block, 0), first, load64(block, 64));
            let high = _mm512_permutex2var_epi16(load64(block, 128), second, load64(block, 192));
            let words = _mm_unpacklo_epi64(_mm512_castsi512_si128(low), _mm512_castsi512_si128(high));
            _mm512_zextps256_ps512(_mm256_cvtph_ps(words))
        }
        Q4_K | Q5_K => {
            // `d`, `d_min`, then scales and minima of six bits: of the first four groups each in the low bits of a byte, of the last four
            // the low halves together in the last four bytes, the rest above the first ones'.
            let head = load16(block, 0);
            let low = _mm_shuffle_epi8(head, _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 15, 14, 13, 12, 7, 6, 5, 4));
            let low = _mm_srlv_epi32(low, _mm_set_epi32(4, 0, 0, 0));
            let low = _mm_and_si128(low, _mm_set_epi32(0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f));
            let none = -1;
            let high = _mm_set_epi8(11, 10, 9, 8, none, none, none, none, 7, 6, 5, 4, none, none, none, none);
            let high = _mm_srli_epi16::<2>(_mm_shuffle_epi8(head, high));
            let six = _mm_or_si128(low, _mm_and_si128(high, _mm_set1_epi8(0x30)));
            let d = _mm512_castps128_ps512(_mm_cvtph_ps(head));
            let d = _mm512_permutexvar_ps(_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), d);
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(six)), d)
        }
        // 8-bit scales of 16 groups, then the block's.
        _ => {
            let d = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes([block[208], block[209]]))));
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block, 192))), _mm512_broadcastss_ps(d))
        }
    }
}

/// The weights of a step, unsigned; high nibbles of Q4_K stay in place: 16 times the weight.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn weights<const TYPE: usize>(block: &[u8], step: usize) -> [__m512i; 2] {
    match TYPE {
        // Eight blocks of 18 bytes: scale, 16 bytes of nibbles.
        Q4_0 => {
            let (at, more) = if step == 0 { (0, 64) } else { (64, 80) };
            let at = _mm512_permutex2var_epi8(load64(block, at), load64(&NIBBLES[step], 0), load64(block, more));
            [low_nibbles(at), high_nibbles(at)]
        }
        // Eight blocks of 34 bytes: scale, 32 signed bytes.
        Q8_0 => {
            let at = 136 * step + 2;
            let [a, b, c, d] = [at, at + 34, at + 68, at + 102].map(|at| load32(block, at));
            let first = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
            let second = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(c), d);
            let sign = _mm512_set1_epi8(-128);
            order::<TYPE>(_mm512_xor_si512(first, sign), _mm512_xor_si512(second, sign))
        }
        // After scales and minima 32 bytes of nibbles for every two groups.
        Q4_K => {
            let [a, b] = order::<TYPE>(load64(block, 16), load64(block, 80));
            let nibbles = _mm512_set1_epi64(LOW_NIBBLES << (4 * step));
            [_mm512_and_si512(a, nibbles), _mm512_and_si512(b, nibbles)]
        }
        // Between them a byte for each place in a group, of fifth bits.
        Q5_K => {
            let [a, b] = order::<TYPE>(load64(block, 48), load64(block, 112));
            let fifths = _mm512_broadcast_i64x4(load32(block, 16));
            let [fifths_a, fifths_b] = order::<TYPE>(fifths, fifths);
            let [g0, g2, g4, g6] = [0, 2, 4, 6].map(|group| bits(group + step, 1, 4));
            let fifth = _mm512_set_epi64(g6, g2, g6, g2, g4, g0, g4, g0);
            let (a, b) = if step == 0 { (low_nibbles(a), low_nibbles(b)) } else { (high_nibbles(a), high_nibbles(b)) };
            [
                _mm512_or_si512(a, _mm512_gf2p8affine_epi64_epi8::<0>(fifths_a, fifth)),
                _mm512_or_si512(b, _mm512_gf2p8affine_epi64_epi8::<0>(fifths_b, fifth)),
            ]
        }
        // For each 128 weights 64 bytes of nibbles; then, for each, 32 bytes of two high bits.
        _ => {
            let nibbles = load64(block, 64 * step);
            let twos = _mm512_broadcast_i64x4(load32(block, 128 + 32 * step));
            let [a, b, c, d] = const { [bits(0, 2, 4), bits(2, 2, 4), bits(4, 2, 4), bits(6, 2, 4)] };
            let (first, second) = (_mm512_set_epi64(b, b, b, b, a, a, a, a), _mm512_set_epi64(d, d, d, d, c, c, c, c));
            order::<TYPE>(
                _mm512_or_si512(low_nibbles(nibbles), _mm512_gf2p8affine_epi64_epi8::<0>(twos, first)),
                _mm512_or_si512(high_nibbles(nibbles), _mm512_gf2p8affine_epi64_epi8::<0>(twos, second)),
            )
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn low_nibbles(v: __m512i) -> __m512i {
    _mm512_and_si512(v, _mm512_set1_epi64(LOW_NIBBLES))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,gfni")]
fn high_nibbles(v: __m512i) -> __m512i {
    _mm512_gf2p8affine_epi64_epi8::<0>(v, _mm512_set1_epi64(const { bits(4, 4, 0) }))
}

/// Of 256 weights in Q4_0 the bytes of nibbles of the first four blocks, in bytes 0 to 127, and of the last four, in bytes 64 to 127
/// and 80 to 143.
static NIBBLES: [[u8; 64]; 2] = {
    let mut at = [[0; 64]; 2];
    let mut i = 0;
    while i < 64 {
        let byte = 18 * (i / 16) + 2 + i % 16;
        at[0][i] = byte as u8;
        let byte = byte + 4 * 18;
        at[1][i] = if byte < 128 { byte - 64 } else { byte - 80 + 64 } as u8;
        i += 1;
    }
    at
};
