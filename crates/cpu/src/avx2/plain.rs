//! f32 kernels: decoding, plain matrix-vector products, and the two products of attention.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{half, load, store, sum};
use crate::acts::grow;
use crate::scalar;
use crate::x86::{again, plain_rows};

/// See [`crate::scalar::sum_squares`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn sum_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

/// See [`crate::scalar::dot`].
#[target_feature(enable = "avx2,fma,f16c")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [_mm256_setzero_ps(); 4];
    let (a32, a_rest) = a.as_chunks::<32>();
    let (b32, b_rest) = b.as_chunks::<32>();
    for (a, b) in a32.iter().zip(b32) {
        for (l, acc) in acc.iter_mut().enumerate() {
            *acc = _mm256_fmadd_ps(load(&a[8 * l..]), load(&b[8 * l..]), *acc);
        }
    }
    let all = _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]));
    sum(all) + scalar::dot(a_rest, b_rest)
}

/// Eight values of a plain type.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(dtype: DType, bytes: &[u8]) -> __m256 {
    assert!(bytes.len() >= 8 * dtype.block_bytes());
    // SAFETY: the bytes of eight values are readable, just checked.
    unsafe {
        match dtype {
            DType::F32 => _mm256_loadu_ps(bytes.as_ptr().cast()),
            DType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().cast())),
            _ => {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
            }
        }
    }
}

/// See [`crate::scalar::decode`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn decode(dtype: DType, row: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => {
            let size = dtype.block_bytes();
            let (out8, rest) = out.as_chunks_mut::<8>();
            for (out, bytes) in out8.iter_mut().zip(row.chunks_exact(8 * size)) {
                store(out, widen(dtype, bytes));
            }
            scalar::decode(dtype, &row[out8.len() * 8 * size..], rest);
        }
        DType::Q8_0 => {
            for (out, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(row.as_chunks::<34>().0) {
                let d = _mm256_set1_ps(half([block[0], block[1]]));
                for (out, q) in out.as_chunks_mut::<8>().0.iter_mut().zip(block[2..].as_chunks::<8>().0) {
                    let q = _mm_cvtsi64_si128(i64::from_le_bytes(*q));
                    store(out, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), d));
                }
            }
        }
        _ => scalar::decode(dtype, row, out),
    }
}

plain_rows!("avx2,fma,f16c", _mm256_setzero_ps());

/// Adds the products of 32 columns, by turns of eight to two sums, and reads the row's bytes again at every `step`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_run(dtype: DType, row: &[u8], x: &[f32; 32], acc: &mut [__m256; 2], step: usize) {
    let size = dtype.block_bytes();
    for (row, x) in row.chunks_exact(16 * size).zip(x.as_chunks::<16>().0) {
        for (v, acc) in acc.iter_mut().enumerate() {
            *acc = _mm256_fmadd_ps(widen(dtype, &row[8 * v * size..]), load(&x[8 * v..]), *acc);
        }
        row.iter().step_by(step).for_each(again);
    }
}

/// The lanes of the sums, and the products of the last columns, fewer than 32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn total(dtype: DType, [a, b]: [__m256; 2], row: &[u8], x: &[f32]) -> f32 {
    let mut last = [0.0; 32];
    scalar::decode(dtype, row, &mut last[..x.len()]);
    sum(_mm256_add_ps(a, b)) + scalar::dot(&last[..x.len()], x)
}

/// Sums of four vectors' lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn sums4(v: [__m256; 4]) -> __m128 {
    let lanes = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes))
}

/// See [`crate::scalar::scores`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn scores(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]) {
    let (m, b) = (q.len() / d, k.len() / d);
    let blocks = if d.is_multiple_of(8) { b / 4 * 4 } else { 0 };
    for j in (0..blocks).step_by(4) {
        let mut i = 0;
        while i + 2 <= m {
            scores_block::<2>(&q[i * d..], &k[j * d..], d, &mut scores[i * b + j..], b);
            i += 2;
        }
        if i < m {
            scores_block::<1>(&q[i * d..], &k[j * d..], d, &mut scores[i * b + j..], b);
        }
    }
    let rest = &k[blocks * d..];
    for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(b)) {
        for (s, k) in scores[blocks..].iter_mut().zip(rest.chunks_exact(d)) {
            *s = dot(q, k);
        }
    }
}

/// Scores of `M` queries and four keys, `d` a multiple of 8; those of the next query lie `stride` further.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scores_block<const M: usize>(q: &[f32], k: &[f32], d: usize, scores: &mut [f32], stride: usize) {
    assert!(q.len() >= M * d && k.len() >= 4 * d && d.is_multiple_of(8));
    let mut acc = [[_mm256_setzero_ps(); 4]; M];
    for at in (0..d).step_by(8) {
        // SAFETY: eight values from `at` on of a row of `d` are readable (asserted: whole rows, and whole eights).
        let row = |x: &[f32], r: usize| unsafe { _mm256_loadu_ps(x.as_ptr().add(r * d + at)) };
        let k = [row(k, 0), row(k, 1), row(k, 2), row(k, 3)];
        for (m, acc) in acc.iter_mut().enumerate() {
            let q = row(q, m);
            for (acc, k) in acc.iter_mut().zip(k) {
                *acc = _mm256_fmadd_ps(q, k, *acc);
            }
        }
    }
    for (m, acc) in acc.into_iter().enumerate() {
        let out = &mut scores[m * stride..m * stride + 4];
        // SAFETY: four values were sliced.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums4(acc)) }
    }
}

/// See [`crate::scalar::weighted_sum`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn weighted_sum(p: &[f32], v: &[f32], d: usize, out: &mut [f32]) {
    let (m, b) = (out.len() / d, v.len() / d);
    let whole = d / 16 * 16;
    for at in (0..whole).step_by(16) {
        let mut i = 0;
        while i + 4 <= m {
            weighted_block::<4>(&p[i * b..], v, (d, at), &mut out[i * d..], b);
            i += 4;
        }
        while i < m {
            weighted_block::<1>(&p[i * b..], v, (d, at), &mut out[i * d..], b);
            i += 1;
        }
    }
    if whole == d {
        return;
    }
    for (p, out) in p.chunks_exact(b).zip(out.chunks_exact_mut(d)) {
        for (&p, v) in p.iter().zip(v.chunks_exact(d)) {
            out[whole..].iter_mut().zip(&v[whole..]).for_each(|(out, v)| *out += p * v);
        }
    }
}

/// 16 columns from `at` on of `M` rows of `d`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weighted_block<const M: usize>(p: &[f32], v: &[f32], (d, at): (usize, usize), out: &mut [f32], b: usize) {
    assert!(p.len() >= M * b && v.len() >= b * d && out.len() >= (M - 1) * d + at + 16 && at + 16 <= d);
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    for (m, acc) in acc.iter_mut().enumerate() {
        *acc = [load(&out[m * d + at..]), load(&out[m * d + at + 8..])];
    }
    for j in 0..b {
        // SAFETY: 16 values from `at` on of row `j < b` are readable, and `b` weights of each of `M` rows (asserted).
        unsafe {
            let v = v.as_ptr().add(j * d + at);
            let v = [_mm256_loadu_ps(v), _mm256_loadu_ps(v.add(8))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let p = _mm256_set1_ps(*p.get_unchecked(m * b + j));
                *acc = [_mm256_fmadd_ps(p, v[0], acc[0]), _mm256_fmadd_ps(p, v[1], acc[1])];
            }
        }
    }
    for (m, [low, high]) in acc.into_iter().enumerate() {
        store(&mut out[m * d + at..], low);
        store(&mut out[m * d + at + 8..], high);
    }
}
