//! Attention over keys and values in f16, as they are stored.
//!
//! Converted in registers, 16 at a time, for up to eight rows at once, so nothing is written down in f32: at eight rows of a
//! head each value meets 16 operations and the memory would have twice as many to offer. What is read next is asked for line by
//! line on the way.

use std::arch::x86_64::*;

use super::plain::reduce4;
use crate::halves::kernels_of_halves;
use crate::kernels::Ahead;

/// Sums in registers; half of them leave room for what they are made of.
const SUMS: usize = 16;

kernels_of_halves! {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    16, most_rows: 8, keys: [1 => 8, 2 => 8, 4 => 4, 8 => 2], columns: [1 => 8, 2 => 8, 4 => 4, 8 => 2]
}

/// Scores of `M` rows and `C` keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn some_keys<const M: usize, const C: usize>(q: &[f32], k: &[u8], d: usize, ahead: &mut Ahead<'_>) -> [[f32; C]; M] {
    assert!(q.len() == M * d && k.len() == C * 2 * d && d.is_multiple_of(16));
    let mut sums = [[_mm512_setzero_ps(); C]; M];
    for at in (0..d).step_by(16) {
        ahead.lines(C.div_ceil(2), |line| _mm_prefetch::<_MM_HINT_T1>(line.cast()));
        // SAFETY: every row of `q` and `k` has 16 values from `at` on (asserted).
        unsafe {
            let mut keys = [_mm512_setzero_ps(); C];
            for (c, key) in keys.iter_mut().enumerate() {
                *key = half(k.as_ptr().add(2 * (c * d + at)));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let q = _mm512_loadu_ps(q.as_ptr().add(m * d + at));
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = _mm512_fmadd_ps(q, key, *sum);
                }
            }
        }
    }
    let mut out = [[0.0; C]; M];
    let zero = _mm512_setzero_ps();
    for (out, sums) in out.as_flattened_mut().chunks_mut(4).zip(sums.as_flattened().chunks(4)) {
        let mut four = [zero; 4];
        four[..sums.len()].copy_from_slice(sums);
        let mut totals = [0.0; 4];
        // SAFETY: four values.
        unsafe { _mm_storeu_ps(totals.as_mut_ptr(), reduce4(four)) }
        out.copy_from_slice(&totals[..sums.len()]);
    }
    out
}

/// 16 halves.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn half(at: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// `M` rows, `C` vectors of columns from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn some_columns<const M: usize, const C: usize>(
    p: &[f32],
    v: &[u8],
    d: usize,
    at: usize,
    ahead: &mut Ahead<'_>,
    out: &mut [f32],
) {
    const { assert!(M * C <= SUMS) };
    let b = v.len() / (2 * d);
    assert!(p.len() == M * b && out.len() == M * d && at + 16 * C <= d);
    let mut sums = [[_mm512_setzero_ps(); C]; M];
    // SAFETY: every row of `out` and of `v` has `16 · C` values from `at` on, and every row of `p` has `b` (asserted).
    unsafe {
        for (m, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(out.as_ptr().add(m * d + at + 16 * c));
            }
        }
        for j in 0..b {
            ahead.lines(C.div_ceil(2), |line| _mm_prefetch::<_MM_HINT_T1>(line.cast()));
            let mut values = [_mm512_setzero_ps(); C];
            for (c, value) in values.iter_mut().enumerate() {
                *value = half(v.as_ptr().add(2 * (j * d + at + 16 * c)));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let p = _mm512_set1_ps(*p.get_unchecked(m * b + j));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = _mm512_fmadd_ps(p, value, *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(out.as_mut_ptr().add(m * d + at + 16 * c), *sum);
            }
        }
    }
}
