//! Products of quantised rows with one activation row: 32 weights per step. Weights below 128 stay unsigned, as `vpmaddubsw`
//! wants them, and what they are too large by is taken off by the activations' sums; those of Q8_0 lend their signs.
//!
//! Types without a kernel of their own take the definition.

use std::arch::x86_64::*;

use carat_tensor::DType;
use carat_tensor::quant::k4_scales_mins;

use super::{dot_signed, half, load, store, sum};
use crate::ints::IntRows;
use crate::scalar;

/// See [`crate::scalar::matvec_part`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() {
        by_type::<2>(dtype, rows, x, out);
    } else {
        by_type::<1>(dtype, rows, x, out);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn by_type<const PLANES: usize>(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => q4_0::<PLANES>(rows, x, out),
        DType::Q8_0 => q8_0::<PLANES>(rows, x, out),
        DType::Q4K => each_k::<Q4_K, 144, PLANES>(rows, x, out),
        DType::Q5K => each_k::<Q5_K, 176, PLANES>(rows, x, out),
        DType::Q6K => each_k::<Q6_K, 210, PLANES>(rows, x, out),
        _ => scalar::matvec_part(dtype, rows, x, out),
    }
}

/// The first 16 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load16(bytes: &[u8]) -> __m128i {
    assert!(bytes.len() >= 16);
    // SAFETY: 16 bytes are readable, just checked.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The first 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load32(bytes: &[u8]) -> __m256i {
    assert!(bytes.len() >= 32);
    // SAFETY: 32 bytes are readable, just checked.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The first four values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load4(values: &[f32]) -> __m128 {
    assert!(values.len() >= 4);
    // SAFETY: four values are readable, just checked.
    unsafe { _mm_loadu_ps(values.as_ptr()) }
}

/// `Σ w · v` of every four of 32 values in one or two planes, `w` bytes below 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<const PLANES: usize>(w: __m256i, [q, low]: [&[i8; 32]; 2]) -> __m256i {
    let one = _mm256_set1_epi16(1);
    let high = _mm256_maddubs_epi16(w, load32(bytemuck::cast_slice(q)));
    if PLANES == 1 {
        return _mm256_madd_epi16(high, one);
    }
    let low = _mm256_madd_epi16(_mm256_maddubs_epi16(w, load32(bytemuck::cast_slice(low))), one);
    _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(128)), low)
}

/// The `b`-th `N` activations; of a row in one plane the second is the first again.
#[inline]
fn planes<const PLANES: usize, const N: usize>(x: IntRows<'_>, b: usize) -> [&[i8; N]; 2] {
    let low = if PLANES == 1 { x.q } else { x.low };
    [&x.q.as_chunks().0[b], &low.as_chunks().0[b]]
}

/// The same of signed `w`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_dot<const PLANES: usize>(w: __m256i, [q, low]: [&[i8; 32]; 2]) -> __m256i {
    let high = dot_signed(w, load32(bytemuck::cast_slice(q)));
    if PLANES == 1 {
        return high;
    }
    _mm256_add_epi32(_mm256_slli_epi32::<7>(high), dot_signed(w, load32(bytemuck::cast_slice(low))))
}

/// Eight blocks of 18 bytes at a time: their scales are read and multiplied at once.
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0<const PLANES: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    const BYTES: usize = 18;
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 32 * BYTES)) {
        let (eights, rest) = row.as_chunks::<{ 8 * BYTES }>();
        let (mut acc, mut lower) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for (c, blocks) in eights.iter().enumerate() {
            let (x, mut shares) = (Round::new::<PLANES>(x, c), [0.0; 8]);
            let half = |i: usize| i16::from_le_bytes([blocks[BYTES * i], blocks[BYTES * i + 1]]);
            let halves = _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7));
            let scales = _mm256_cvtph_ps(halves);
            lower = _mm256_fmadd_ps(scales, load(x.dsum32), lower);
            store(&mut shares, _mm256_mul_ps(scales, load(x.d)));
            for (j, (block, &share)) in blocks.as_chunks::<BYTES>().0.iter().zip(&shares).enumerate() {
                let dot = _mm256_cvtepi32_ps(x.dot::<PLANES>(nibbles(&block[2..]), j));
                acc = _mm256_fmadd_ps(dot, _mm256_set1_ps(share), acc);
            }
        }
        let (mut sum, mut offsets) = (sum(acc), sum(lower));
        for (i, block) in rest.as_chunks::<BYTES>().0.iter().enumerate() {
            let (b, scale) = (8 * eights.len() + i, half([block[0], block[1]]));
            sum += scale
                * x.d[b]
                * self::sum(_mm256_cvtepi32_ps(dot::<PLANES>(nibbles(&block[2..]), planes::<PLANES, 32>(x, b))));
            offsets += scale * x.dsum32[b];
        }
        *out = sum - 8.0 * offsets;
    }
}

/// The nibbles of 16 bytes, low ones first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(bytes: &[u8]) -> __m256i {
    let v = load16(bytes);
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(v), _mm_srli_epi16::<4>(v));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// Blocks of 34 bytes: scale, 32 signed bytes.
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0<const PLANES: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 32 * 34)) {
        let mut acc = _mm256_setzero_ps();
        for (b, (block, &d)) in row.as_chunks::<34>().0.iter().zip(x.d).enumerate() {
            let scale = _mm256_set1_ps(half([block[0], block[1]]) * d);
            let dot = signed_dot::<PLANES>(load32(&block[2..]), planes::<PLANES, 32>(x, b));
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc);
        }
        *out = sum(acc);
    }
}

/// 256 activations.
struct Round<'a> {
    planes: [&'a [i8; 256]; 2],
    d: &'a [f32; 8],
    dsum16: &'a [f32; 16],
    dsum32: &'a [f32; 8],
}

impl<'a> Round<'a> {
    /// Those from `256 · s` on.
    #[inline]
    fn new<const PLANES: usize>(x: IntRows<'a>, s: usize) -> Self {
        Round {
            planes: planes::<PLANES, 256>(x, s),
            d: &x.d.as_chunks().0[s],
            dsum16: &x.dsum16.as_chunks().0[s],
            dsum32: &x.dsum32.as_chunks().0[s],
        }
    }

    /// As [`dot`], of group `j` of 32.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot<const PLANES: usize>(&self, w: __m256i, j: usize) -> __m256i {
        let [q, low] = self.planes;
        dot::<PLANES>(w, [&q.as_chunks().0[j], &low.as_chunks().0[j]])
    }
}

// Types by number: what a closure does would not be part of the loop for certain.
const Q4_K: usize = DType::Q4K as usize;
const Q5_K: usize = DType::Q5K as usize;
const Q6_K: usize = DType::Q6K as usize;

/// Rows of blocks of `B` bytes with 256 weights.
#[target_feature(enable = "avx2,fma,f16c")]
fn each_k<const TYPE: usize, const B: usize, const PLANES: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.cols / 256 * B)) {
        let mut sums = [_mm256_setzero_ps(); 2];
        for (s, block) in row.as_chunks::<B>().0.iter().enumerate() {
            let x = Round::new::<PLANES>(x, s);
            if TYPE == Q6_K {
                q6_k::<PLANES>(block, &x, &mut sums);
            } else {
                q4_q5_k::<TYPE, PLANES>(block, &x, &mut sums);
            }
        }
        *out = sum(_mm256_sub_ps(sums[0], sums[1]));
    }
}

/// Adds 8 groups of 32 with 6-bit scales and minima: nibbles after these and, in Q5_K, the
/// fifth bits, which are at byte 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_q5_k<const TYPE: usize, const PLANES: usize>(block: &[u8], x: &Round<'_>, [acc, lower]: &mut [__m256; 2]) {
    let (d, d_min) = (half([block[0], block[1]]), half([block[2], block[3]]));
    let of_groups = block[4..16].try_into().expect("12 bytes");
    let (scales, mins) = k4_scales_mins(of_groups);
    let times = |bytes: u64, d| {
        _mm256_mul_ps(
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed()))),
            _mm256_set1_ps(d),
        )
    };
    let (scales, mins) = (times(scales, d), times(mins, d_min));
    *lower = _mm256_fmadd_ps(mins, load(x.dsum32), *lower);
    let mut shares = [0.0; 8];
    store(&mut shares, _mm256_mul_ps(scales, load(x.d)));
    let (low, sixteen) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    let nibbles_at = if TYPE == Q5_K { 48 } else { 16 };
    for pair in 0..4 {
        let v = load32(&block[nibbles_at + 32 * pair..]);
        let nibbles = [_mm256_and_si256(v, low), _mm256_and_si256(_mm256_srli_epi16::<4>(v), low)];
        for (j, mut w) in (2 * pair..).zip(nibbles) {
            if TYPE == Q5_K {
                let bit = _mm256_set1_epi8((1u8 << j).cast_signed());
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(load32(&block[16..]), bit), bit);
                w = _mm256_or_si256(w, _mm256_and_si256(set, sixteen));
            }
            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(x.dot::<PLANES>(w, j)), _mm256_set1_ps(shares[j]), *acc);
        }
    }
}

/// Adds 16 groups of 16 with 8-bit scales: nibbles at byte 0, two high bits each at 128, scales at 192.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k<const PLANES: usize>(block: &[u8], x: &Round<'_>, [acc, lower]: &mut [__m256; 2]) {
    let d = half([block[208], block[209]]);
    let bytes = load16(&block[192..]);
    let halves = [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))];
    let mut shares = [0.0; 16];
    for (i, (half, shares)) in halves.into_iter().zip(shares.as_chunks_mut::<8>().0).enumerate() {
        let scales = _mm256_mul_ps(_mm256_cvtepi32_ps(half), _mm256_set1_ps(d));
        // What the weights are too large by.
        let offsets = _mm256_mul_ps(load(&x.dsum16[8 * i..]), _mm256_set1_ps(32.0));
        *lower = _mm256_fmadd_ps(scales, offsets, *lower);
        let four = _mm256_castps128_ps256(load4(&x.d[4 * i..]));
        let twice = _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
        store(shares, _mm256_mul_ps(scales, twice));
    }
    let (low, high) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    for part in 0..2 {
        let (a, b) = (load32(&block[64 * part..]), load32(&block[64 * part + 32..]));
        let bits = load32(&block[128 + 32 * part..]);
        let weights = [
            _mm256_or_si256(_mm256_and_si256(a, low), _mm256_and_si256(_mm256_slli_epi16::<4>(bits), high)),
            _mm256_or_si256(_mm256_and_si256(b, low), _mm256_and_si256(_mm256_slli_epi16::<2>(bits), high)),
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<4>(a), low), _mm256_and_si256(bits, high)),
            _mm256_or_si256(
                _mm256_and_si256(_mm256_srli_epi16::<4>(b), low),
                _mm256_and_si256(_mm256_srli_epi16::<2>(bits), high),
            ),
        ];
        for (j, w) in (4 * part..).zip(weights) {
            let share = _mm256_set_m128(_mm_set1_ps(shares[2 * j + 1]), _mm_set1_ps(shares[2 * j]));
            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(x.dot::<PLANES>(w, j)), share, *acc);
        }
    }
}
