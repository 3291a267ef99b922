//! Products of quantised rows with one activation row: 256 weights per round, in four steps of 64.
//!
//! A step is two vectors of 32 weights whose lanes hold weights of the same groups: `vpmaddubsw` sums pairs in 16 bits, which both
//! vectors fit into, and only their sum is widened, converted and multiplied with the groups' scales. The activations are laid out
//! in the same order once, before the first row ([`Round`]). Weights stay unsigned, as `vpmaddubsw` wants them, and what they are
//! too large by is taken off by the activations' sums; those of Q8_0 lend their signs.
//!
//! Types without a kernel of their own take the definition.

use std::arch::x86_64::*;

use carat_tensor::DType;
use carat_tensor::quant::k4_scales_mins;

use super::{dot_signed, half, high_nibbles, load, load16, load32, low_nibbles, store, sum};
use crate::ints::IntRows;
use crate::scalar;
use crate::x86::{Q4_0, Q4_K, Q5_K, Q6_K, ROUND, round_at, round_bytes, rounds};

/// Steps of a round.
const STEPS: usize = 4;

/// 256 activations with all that their products need: eight vectors of bytes of each of two planes, in the order in which
/// [`weights`] makes weights; [`SCALES`]; [`SUMS`].
type Round = [[f32; 8]; 20];
/// Scales of groups, of which Q6_K has two vectors.
const SCALES: usize = 16;
/// `d · Σ v` of as many.
const SUMS: usize = 18;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec(
    dtype: DType,
    rows: &[u8],
    x: IntRows<'_>,
    rest: Option<IntRows<'_>>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    match dtype {
        DType::Q8_0 => scalar::in_parts(|_, rows, x, out| q8_0(rows, x, out), dtype, rows, x, rest, out),
        DType::Q4_0 if x.cols >= ROUND => by_planes::<Q4_0>(rows, x, rest, scratch, out),
        DType::Q4K => by_planes::<Q4_K>(rows, x, rest, scratch, out),
        DType::Q5K => by_planes::<Q5_K>(rows, x, rest, scratch, out),
        DType::Q6K => by_planes::<Q6_K>(rows, x, rest, scratch, out),
        _ => scalar::matvec(dtype, rows, x, rest, scratch, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn by_planes<const TYPE: usize>(
    rows: &[u8],
    x: IntRows<'_>,
    rest: Option<IntRows<'_>>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    if x.is_fine() {
        all_rows::<TYPE, 2>(rows, x, rest, scratch, out);
    } else {
        all_rows::<TYPE, 1>(rows, x, rest, scratch, out);
    }
}

/// A rest has one plane. A row stays in the first cache while it meets both.
#[target_feature(enable = "avx2,fma,f16c")]
fn all_rows<const TYPE: usize, const PLANES: usize>(
    rows: &[u8],
    x: IntRows<'_>,
    rest: Option<IntRows<'_>>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let count = x.cols.div_ceil(ROUND);
    let rounds: &mut [Round] = rounds(scratch, if rest.is_some() { 2 * count } else { count });
    let (of_x, of_rest) = rounds.split_at_mut(count);
    for (c, round) in of_x.iter_mut().enumerate() {
        make_round::<TYPE, PLANES>(x, c, round);
    }
    for (c, round) in of_rest.iter_mut().enumerate() {
        make_round::<TYPE, 1>(rest.unwrap_or(x), c, round);
    }
    let row_bytes = x.cols * round_bytes::<TYPE>() / ROUND;
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        *out = one_row::<TYPE, PLANES>(row, of_x);
        if !of_rest.is_empty() {
            *out += one_row::<TYPE, 1>(row, of_rest);
        }
    }
}

/// The groups of 32 that the halves of a step's vectors are of.
const fn halves<const TYPE: usize>(step: usize) -> [usize; 2] {
    match TYPE {
        // The low or the high nibbles of four groups.
        Q4_K | Q5_K => [step / 2 * 4 + step % 2, step / 2 * 4 + step % 2 + 2],
        _ => [2 * step, 2 * step + 1],
    }
}

/// Two vectors of 32 as a step has them: first halves, then second ones; of Q6_K, whose groups have 16, eight bytes of each by turns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn order<const TYPE: usize>(first: __m256i, second: __m256i) -> [__m256i; 2] {
    if TYPE == Q6_K {
        [_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second)]
    } else {
        [_mm256_permute2x128_si256::<0x20>(first, second), _mm256_permute2x128_si256::<0x31>(first, second)]
    }
}

/// Lays out round `c`, with zero scales for what earlier rounds had.
#[target_feature(enable = "avx2,fma,f16c")]
fn make_round<const TYPE: usize, const PLANES: usize>(x: IntRows<'_>, c: usize, round: &mut Round) {
    let (at, had) = round_at(x.cols, c);
    for (plane, bytes) in [x.q, x.low][..PLANES].iter().enumerate() {
        let bytes: &[u8] = bytemuck::cast_slice(&bytes[at..at + ROUND]);
        for step in 0..STEPS {
            let [first, second] = halves::<TYPE>(step).map(|block| load32(bytes, 32 * block));
            for (i, v) in order::<TYPE>(first, second).into_iter().enumerate() {
                store(&mut round[8 * plane + 2 * step + i], _mm256_castsi256_ps(v));
            }
        }
    }
    let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
    let groups = at / 32..at / 32 + 8;
    let (of_groups, size) =
        if TYPE == Q6_K { (&x.dsum16[2 * groups.start..2 * groups.end], 2) } else { (&x.dsum32[groups.clone()], 1) };
    for (i, (scale, sum)) in scales.iter_mut().zip(&mut sums).enumerate().take(8 * size).skip(size * had) {
        (*scale, *sum) = (x.d[groups.start + i / size], of_groups[i]);
    }
    round[SCALES..SUMS].as_flattened_mut().copy_from_slice(&scales);
    round[SUMS..].as_flattened_mut().copy_from_slice(&sums);
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn one_row<const TYPE: usize, const PLANES: usize>(row: &[u8], rounds: &[Round]) -> f32 {
    let bytes = round_bytes::<TYPE>();
    // Sums of steps by turns, which don't wait for each other.
    let (mut acc, mut lower) = ([_mm256_setzero_ps(); 2], _mm256_setzero_ps());
    for (c, round) in rounds.iter().enumerate() {
        let block = &row[(c * bytes).min(row.len() - bytes)..][..bytes];
        let [scales, more] = scales::<TYPE>(block);
        let mut shares = [_mm256_mul_ps(scales, load(&round[SCALES])); 2];
        if TYPE == Q6_K {
            shares[1] = _mm256_mul_ps(more, load(&round[SCALES + 1]));
            lower = _mm256_fmadd_ps(more, load(&round[SUMS + 1]), lower);
        }
        let of_sums = if matches!(TYPE, Q4_K | Q5_K) { more } else { scales };
        lower = _mm256_fmadd_ps(of_sums, load(&round[SUMS]), lower);
        for step in 0..STEPS {
            let dot = dot::<PLANES>(weights::<TYPE>(block, step), round, step);
            let of_groups = if TYPE == Q6_K { shares[step / 2] } else { shares[0] };
            let share = _mm256_permutevar8x32_ps(of_groups, group_lanes::<TYPE>(step));
            acc[step % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), share, acc[step % 2]);
        }
    }
    // Unsigned weights are too large by this; minima are multiplied.
    let offset = match TYPE {
        Q4_0 => 8.0,
        Q6_K => 32.0,
        _ => 1.0,
    };
    let acc = _mm256_add_ps(acc[0], acc[1]);
    sum(_mm256_fnmadd_ps(lower, _mm256_set1_ps(offset), acc))
}

/// `Σ w · v` of every four of a step's weights, of both vectors and one or two planes. Four products of 63 and 127 fit 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<const PLANES: usize>(w: [__m256i; 2], round: &Round, step: usize) -> __m256i {
    let of_plane = |plane: usize| {
        let at = 8 * plane + 2 * step;
        let [first, second] = [at, at + 1].map(|at| _mm256_castps_si256(load(&round[at])));
        _mm256_add_epi16(_mm256_maddubs_epi16(w[0], first), _mm256_maddubs_epi16(w[1], second))
    };
    let (high, one) = (of_plane(0), _mm256_set1_epi16(1));
    if PLANES == 1 {
        return _mm256_madd_epi16(high, one);
    }
    let low = _mm256_madd_epi16(of_plane(1), one);
    _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(128)), low)
}

/// The group of each lane's weights in a step; of Q6_K among eight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn group_lanes<const TYPE: usize>(step: usize) -> __m256i {
    if TYPE == Q6_K {
        let first = _mm256_setr_epi32(0, 0, 2, 2, 1, 1, 3, 3);
        return _mm256_add_epi32(first, _mm256_set1_epi32(4 * (step as i32 % 2)));
    }
    let [a, b] = halves::<TYPE>(step).map(|group| group as i32);
    _mm256_setr_epi32(a, a, a, a, b, b, b, b)
}

/// The groups' scales of a round, and minima; of Q6_K the scales of 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales<const TYPE: usize>(block: &[u8]) -> [__m256; 2] {
    match TYPE {
        Q4_0 => {
            let blocks: &[[u8; 18]; 8] = block.as_chunks().0.first_chunk().expect("eight blocks");
            let mut halves = [0; 8];
            for (half, block) in halves.iter_mut().zip(blocks) {
                *half = u16::from_le_bytes([block[0], block[1]]);
            }
            [_mm256_cvtph_ps(load16(bytemuck::cast_slice(&halves), 0)), _mm256_setzero_ps()]
        }
        Q4_K | Q5_K => {
            let (d, d_min) = (half([block[0], block[1]]), half([block[2], block[3]]));
            let (scales, mins) = k4_scales_mins(block[4..16].try_into().expect("12 bytes"));
            [whole(scales, d), whole(mins, d_min)]
        }
        // 8-bit scales of 16 groups, then the block's.
        _ => {
            let d = _mm256_set1_ps(half([block[208], block[209]]));
            let bytes = load16(block, 192);
            let (first, second) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)));
            [_mm256_mul_ps(_mm256_cvtepi32_ps(first), d), _mm256_mul_ps(_mm256_cvtepi32_ps(second), d)]
        }
    }
}

/// Eight bytes times `d`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn whole(bytes: u64, d: f32) -> __m256 {
    let bytes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed()));
    _mm256_mul_ps(_mm256_cvtepi32_ps(bytes), _mm256_set1_ps(d))
}

/// The weights of a step, unsigned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weights<const TYPE: usize>(block: &[u8], step: usize) -> [__m256i; 2] {
    match TYPE {
        // Eight blocks of 18 bytes: scale, 16 bytes of nibbles.
        Q4_0 => {
            let nibbles = two(load16(block, 36 * step + 2), load16(block, 36 * step + 20));
            [low_nibbles(nibbles), high_nibbles(nibbles)]
        }
        // After scales and minima, and Q5_K's fifth bits, 32 bytes of nibbles for every two groups.
        Q4_K | Q5_K => {
            let at = (if TYPE == Q5_K { 48 } else { 16 }) + 64 * (step / 2);
            let first = two(load16(block, at), load16(block, at + 32));
            let second = two(load16(block, at + 16), load16(block, at + 48));
            let [first, second] = if step.is_multiple_of(2) {
                [low_nibbles(first), low_nibbles(second)]
            } else {
                [high_nibbles(first), high_nibbles(second)]
            };
            if TYPE == Q4_K {
                return [first, second];
            }
            let [a, b] = halves::<TYPE>(step).map(|group| _mm_set1_epi8((1u8 << group).cast_signed()));
            let bits = two(a, b);
            [with_fifths(first, load16(block, 16), bits), with_fifths(second, load16(block, 32), bits)]
        }
        // For each 128 weights 64 bytes of nibbles; then, for each, 32 bytes of two high bits.
        _ => {
            let part = step / 2;
            let (a, b) = (load32(block, 64 * part), load32(block, 64 * part + 32));
            let bits = load32(block, 128 + 32 * part);
            let twos = |v| _mm256_and_si256(v, _mm256_set1_epi8(0x30));
            if step.is_multiple_of(2) {
                let first = _mm256_or_si256(low_nibbles(a), twos(_mm256_slli_epi16::<4>(bits)));
                order::<TYPE>(first, _mm256_or_si256(low_nibbles(b), twos(_mm256_slli_epi16::<2>(bits))))
            } else {
                let first = _mm256_or_si256(high_nibbles(a), twos(bits));
                order::<TYPE>(first, _mm256_or_si256(high_nibbles(b), twos(_mm256_srli_epi16::<2>(bits))))
            }
        }
    }
}

/// Adds 16 to the weights of which a byte of `fifths`, one for each place in a group, has the bit of their group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_fifths(w: __m256i, fifths: __m128i, bits: __m256i) -> __m256i {
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_broadcastsi128_si256(fifths), bits), bits);
    _mm256_or_si256(w, _mm256_and_si256(set, _mm256_set1_epi8(16)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two(low: __m128i, high: __m128i) -> __m256i {
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}

/// Blocks of 34 bytes: scale, 32 signed bytes.
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0(rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 32 * 34)) {
        let mut acc = _mm256_setzero_ps();
        for (b, (block, &d)) in row.as_chunks::<34>().0.iter().zip(x.d).enumerate() {
            let scale = _mm256_set1_ps(half([block[0], block[1]]) * d);
            let w = load32(block, 2);
            let of_plane = |plane: &[i8]| dot_signed(w, load32(bytemuck::cast_slice(plane), 32 * b));
            let mut dot = of_plane(x.q);
            if x.is_fine() {
                dot = _mm256_add_epi32(_mm256_slli_epi32::<7>(dot), of_plane(x.low));
            }
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc);
        }
        *out = sum(acc);
    }
}
