//! Rows of activations to integers, eight blocks of 32 at a time: what is asked of every block on its own, its largest value
//! and its sums, is found for all eight in one vector.

use std::arch::x86_64::*;

use super::load;
use crate::ints::{Eight, Sums};
use crate::scalar::{self, RowScale};

/// Values of eight blocks.
const EIGHT: usize = 256;

/// See [`crate::scalar::largest`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn largest(x: &[f32]) -> f32 {
    let (whole, rest) = x.as_chunks::<64>();
    let mut max = [_mm512_setzero_si512(); 4];
    for x in whole {
        for (i, max) in max.iter_mut().enumerate() {
            // As integers, in which order NaN comes last: the maximum of floats may drop it.
            *max = _mm512_max_epi32(*max, _mm512_castps_si512(_mm512_abs_ps(load(&x[16 * i..]))));
        }
    }
    let max = _mm512_max_epi32(_mm512_max_epi32(max[0], max[1]), _mm512_max_epi32(max[2], max[3]));
    let max = _mm512_reduce_max_epi32(max).cast_unsigned();
    f32::from_bits(max.max(scalar::largest(rest).to_bits()))
}

/// See [`crate::scalar::quantise`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn quantise(x: &[f32], scale: RowScale, q: &mut [i8], low: &mut [i8], d: &mut [f32], sum: &mut [i32]) {
    let (eights, some) = x.as_chunks::<EIGHT>();
    let at = eights.len() * EIGHT;
    let (q, q_rest) = q.split_at_mut(at);
    let (low, low_rest) = low.split_at_mut(at.min(low.len()));
    let ((d, d_rest), (sum, sum_rest)) = (d.split_at_mut(at / 32), sum.split_at_mut(at / 16));
    let mut low = low.as_chunks_mut().0.iter_mut();
    let places = q.as_chunks_mut().0.iter_mut().zip(d.as_chunks_mut().0.iter_mut().zip(sum.as_chunks_mut().0));
    for (x, (q, (d, sum))) in eights.iter().zip(places) {
        quantise_eight(x, scale, q, low.next(), d, sum);
    }
    if !some.is_empty() {
        // With zeros after them, which nobody is shown.
        let (mut x, mut q, mut low, mut d, mut sum) = ([0.0; EIGHT], [0; EIGHT], [0; EIGHT], [0.0; 8], [0; 16]);
        x[..some.len()].copy_from_slice(some);
        let low_wanted = (!low_rest.is_empty()).then_some(&mut low);
        quantise_eight(&x, scale, &mut q, low_wanted, &mut d, &mut sum);
        q_rest.copy_from_slice(&q[..q_rest.len()]);
        low_rest.copy_from_slice(&low[..low_rest.len()]);
        d_rest.copy_from_slice(&d[..d_rest.len()]);
        sum_rest.copy_from_slice(&sum[..sum_rest.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn quantise_eight(
    x: &[f32; EIGHT],
    scale: RowScale,
    q: &mut [i8; EIGHT],
    mut low: Option<&mut [i8; EIGHT]>,
    d: &mut [f32; 8],
    sum: &mut [i32; 16],
) {
    let inverses = scales(largest_of_eight(x), scale, d);
    // Biased, so that they are summed as unsigned bytes: by so much are sums of eight too large.
    let bias = if low.is_some() { 129 * 1024 } else { 1024 };
    let mut sums_of_8 = [_mm512_setzero_si512(); 4];
    for (quarter, sums) in sums_of_8.iter_mut().enumerate() {
        let at = 64 * quarter;
        let v: [__m512i; 4] = std::array::from_fn(|i| {
            let inverse = _mm512_set1_ps(inverses[2 * quarter + i / 2]);
            _mm512_cvtps_epi32(_mm512_mul_ps(load(&x[at + 16 * i..]), inverse))
        });
        *sums = match low.as_mut() {
            None => {
                let bytes = narrow(v);
                store_bytes(&mut q[at..], bytes);
                sums_of_bytes(bytes)
            }
            Some(low) => {
                let high = v.map(|v| _mm512_srai_epi32::<7>(_mm512_add_epi32(v, _mm512_set1_epi32(64))));
                let left = std::array::from_fn(|i| _mm512_sub_epi32(v[i], _mm512_slli_epi32::<7>(high[i])));
                let (high, left) = (narrow(high), narrow(left));
                store_bytes(&mut q[at..], high);
                store_bytes(&mut low[at..], left);
                _mm512_add_epi64(_mm512_slli_epi64::<7>(sums_of_bytes(high)), sums_of_bytes(left))
            }
        };
    }
    for (sum, [a, b]) in sum.as_chunks_mut::<8>().0.iter_mut().zip(sums_of_8.as_chunks().0) {
        let (even, odd) = (_mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1));
        let both = _mm512_add_epi64(_mm512_permutex2var_epi64(*a, even, *b), _mm512_permutex2var_epi64(*a, odd, *b));
        let unbiased = _mm256_sub_epi32(_mm512_cvtepi64_epi32(both), _mm256_set1_epi32(2 * bias));
        // SAFETY: an array of eight is written.
        unsafe { _mm256_storeu_si256(sum.as_mut_ptr().cast(), unbiased) }
    }
}

/// The magnitude of the largest value of each block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn largest_of_eight(x: &[f32; EIGHT]) -> __m256 {
    let of_block = |b: usize| {
        let [low, high] = [0, 16].map(|at| _mm512_abs_ps(load(&x[32 * b + at..])));
        _mm512_max_ps(low, high)
    };
    // Of two blocks, by turns; of four; and of all, in quarters of a vector.
    let two = |b: usize| {
        let (m, n) = (of_block(b), of_block(b + 1));
        _mm512_max_ps(_mm512_unpacklo_ps(m, n), _mm512_unpackhi_ps(m, n))
    };
    let four = |b: usize| {
        let (m, n) = (_mm512_castps_pd(two(b)), _mm512_castps_pd(two(b + 2)));
        let (m, n) = (_mm512_unpacklo_pd(m, n), _mm512_unpackhi_pd(m, n));
        _mm512_max_ps(_mm512_castpd_ps(m), _mm512_castpd_ps(n))
    };
    let (m, n) = (four(0), four(4));
    let all = _mm512_max_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(m, n), _mm512_shuffle_f32x4::<0b11_01_11_01>(m, n));
    let all = _mm512_max_ps(all, _mm512_shuffle_f32x4::<0b10_11_00_01>(all, all));
    _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b10_00_10_00>(all, all))
}

/// [`RowScale::of_block`] of eight; returns the reciprocals.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn scales(max: __m256, scale: RowScale, d: &mut [f32; 8]) -> [f32; 8] {
    let set = |v: f32| _mm256_set1_epi32(v.to_bits().cast_signed());
    let below = _mm256_srli_epi32::<23>(_mm256_sub_epi32(set(scale.largest), _mm256_castps_si256(max)));
    let below = _mm256_slli_epi32::<23>(_mm256_min_epu32(below, _mm256_set1_epi32(scalar::RANGE.cast_signed())));
    let mut inverses = [0.0; 8];
    // SAFETY: arrays of eight are written.
    unsafe {
        _mm256_storeu_si256(d.as_mut_ptr().cast(), _mm256_sub_epi32(set(scale.d), below));
        _mm256_storeu_si256(inverses.as_mut_ptr().cast(), _mm256_add_epi32(set(scale.inverse), below));
    }
    inverses
}

/// 64 integers that fit a byte as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn narrow(v: [__m512i; 4]) -> __m512i {
    // Quarters of the four vectors by turns, which the last step sorts.
    let mixed = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    let order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    _mm512_permutexvar_epi32(order, mixed)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_bytes(out: &mut [i8], bytes: __m512i) {
    assert!(out.len() >= 64);
    // SAFETY: 64 bytes are writable, just checked.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bytes) }
}

/// Sums of eight signed bytes each, and 1024.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sums_of_bytes(bytes: __m512i) -> __m512i {
    _mm512_sad_epu8(_mm512_xor_si512(bytes, _mm512_set1_epi8(i8::MIN)), _mm512_setzero_si512())
}

/// See [`crate::scalar::sum_up`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn sum_up(sum: &[i32], d: &[f32], exps: &[i32], out: Sums<'_>) {
    let Sums { neg16, neg32, dsum16, dsum32, eights } = out;
    let at = d.len() / 8 * 8;
    let ((neg16, neg16_rest), (neg32, neg32_rest)) = (neg16.split_at_mut(2 * at), neg32.split_at_mut(at));
    let ((dsum16, dsum16_rest), (dsum32, dsum32_rest)) = (dsum16.split_at_mut(2 * at), dsum32.split_at_mut(at));
    let given = sum.as_chunks::<16>().0.iter().zip(d.as_chunks::<8>().0.iter().zip(exps.as_chunks::<8>().0));
    let of_16 = neg16.as_chunks_mut::<16>().0.iter_mut().zip(dsum16.as_chunks_mut::<16>().0);
    let of_32 = neg32.as_chunks_mut::<8>().0.iter_mut().zip(dsum32.as_chunks_mut::<8>().0);
    let mut eights = eights.iter_mut();
    for ((sum, (d, exps)), ((neg16, dsum16), (neg32, dsum32))) in given.zip(of_16.zip(of_32)) {
        // SAFETY: arrays of sixteen and of eight are read and written.
        unsafe {
            let sum = _mm512_loadu_si512(sum.as_ptr().cast());
            let d = _mm256_loadu_ps(d.as_ptr());
            let both = _mm512_cvtepi64_epi32(_mm512_add_epi32(sum, _mm512_srli_epi64::<32>(sum)));
            let twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
            let d_twice = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(d));
            let of_both = _mm256_cvtepi32_ps(both);
            let less = _mm512_slli_epi32::<5>(_mm512_sub_epi32(_mm512_setzero_si512(), sum));
            _mm512_storeu_si512(neg16.as_mut_ptr().cast(), less);
            _mm512_storeu_ps(dsum16.as_mut_ptr(), _mm512_mul_ps(d_twice, _mm512_cvtepi32_ps(sum)));
            let less = _mm256_slli_epi32::<3>(_mm256_sub_epi32(_mm256_setzero_si256(), both));
            _mm256_storeu_si256(neg32.as_mut_ptr().cast(), less);
            _mm256_storeu_ps(dsum32.as_mut_ptr(), _mm256_mul_ps(d, of_both));
            if let Some(eight) = eights.next() {
                *eight = sums_in_words(of_both, exps);
            }
        }
    }
    let rest = Sums {
        neg16: neg16_rest,
        neg32: neg32_rest,
        dsum16: dsum16_rest,
        dsum32: dsum32_rest,
        eights: eights.into_slice(),
    };
    scalar::sum_up(&sum[2 * at..], &d[at..], &exps[at..], rest);
}

/// [`Eight::new`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sums_in_words(sums: __m256, exps: &[i32; 8]) -> Eight {
    let one = _mm256_set1_epi32(1_f32.to_bits().cast_signed());
    // SAFETY: an array of eight is read.
    let exps = unsafe { _mm256_loadu_si256(exps.as_ptr().cast()) };
    let sums = _mm256_mul_ps(sums, _mm256_castsi256_ps(_mm256_add_epi32(one, exps)));
    let magnitudes = _mm256_castps_si256(_mm256_andnot_ps(_mm256_set1_ps(-0.0), sums));
    let max = _mm_max_epu32(_mm256_castsi256_si128(magnitudes), _mm256_extracti128_si256::<1>(magnitudes));
    let max = _mm_max_epu32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epu32(max, _mm_shuffle_epi32::<0b10_11_00_01>(max));
    let exp = Eight::exp_of(_mm_cvtsi128_si32(max).cast_unsigned());
    let down = _mm256_castsi256_ps(_mm256_sub_epi32(one, _mm256_set1_epi32(exp)));
    let words = _mm256_cvtsepi32_epi16(_mm256_cvtps_epi32(_mm256_mul_ps(sums, down)));
    let mut eight = Eight { sums: [0; 8], exp };
    // SAFETY: an array of eight is written.
    unsafe { _mm_storeu_si128(eight.sums.as_mut_ptr().cast(), words) };
    eight
}
