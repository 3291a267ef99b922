//! Byte products on registers alone.

use std::arch::x86_64::*;

use super::dot;

/// Sums that don't wait for each other.
pub const SUMS: usize = 12;

/// `rounds` times a product for each sum.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn dot_rounds<const EVEX: bool>(rounds: usize) -> i32 {
    let (w, x) = (std::hint::black_box(_mm256_set1_epi8(1)), std::hint::black_box(_mm256_set1_epi8(1)));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = dot::<EVEX>(*sum, w, x);
        }
    }
    let all = sums.into_iter().fold(_mm256_setzero_si256(), |all, sum| _mm256_add_epi32(all, sum));
    let half = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    _mm_extract_epi32::<0>(half).wrapping_add(_mm_extract_epi32::<1>(half))
}
