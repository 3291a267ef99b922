//! Loops that do nothing but reach a limit: reading memory, byte products on registers.

use std::arch::x86_64::*;

/// Reads all but what is left after whole rounds once, front to back; what it returns means nothing.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn read_all(x: &[u64]) -> u64 {
    let mut acc = [_mm256_setzero_si256(); 4];
    for x in x.as_chunks::<16>().0 {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: 4 of 16 values from value `4 · i`.
            *acc = _mm256_xor_si256(*acc, unsafe { _mm256_loadu_si256(x.as_ptr().add(4 * i).cast()) });
        }
    }
    let all = _mm256_xor_si256(_mm256_xor_si256(acc[0], acc[1]), _mm256_xor_si256(acc[2], acc[3]));
    let half = _mm_xor_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    (_mm_cvtsi128_si64(half) ^ _mm_extract_epi64::<1>(half)) as u64
}

/// Products of one round: eight in turn on each of two sums, as many as 16 bits hold of 4-bit weights.
pub const PRODUCTS: usize = 16;

/// `rounds` times what a group of 4-bit weights takes at least: `vpmaddubsw` and an addition for every product, one
/// `vpmaddwd` and an addition at the end of a sum.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn dot_rounds(rounds: usize) -> i32 {
    let (one, step) = (_mm256_set1_epi16(1), _mm256_set1_epi8(1));
    let mut w = [_mm256_setzero_si256(); PRODUCTS / 2];
    for (i, w) in w.iter_mut().enumerate() {
        *w = std::hint::black_box(_mm256_set1_epi8(i as i8));
    }
    let mut acc = [_mm256_setzero_si256(); 2];
    let mut x = [std::hint::black_box(step); 2];
    for _ in 0..rounds {
        for (acc, x) in acc.iter_mut().zip(&mut x) {
            // Else the products of all rounds would be the same.
            *x = _mm256_add_epi8(*x, step);
            let mut pairs = _mm256_setzero_si256();
            for w in w {
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, *x));
            }
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, one));
        }
        x[1] = _mm256_xor_si256(x[1], x[0]);
    }
    let all = _mm256_add_epi32(acc[0], acc[1]);
    let half = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    _mm_extract_epi32::<0>(half).wrapping_add(_mm_extract_epi32::<1>(half))
}
