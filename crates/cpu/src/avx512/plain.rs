//! f32 kernels: decoding, plain matrix-vector products, and the two products of attention.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{half, load, load_some, mask, store, store_some};
use crate::acts::grow;
use crate::scalar;
use crate::x86::{again, plain_rows};

/// See [`crate::scalar::sum_squares`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn sum_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

/// See [`crate::scalar::dot`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [_mm512_setzero_ps(); 4];
    let (a64, a_rest) = a.as_chunks::<64>();
    let (b64, b_rest) = b.as_chunks::<64>();
    for (a, b) in a64.iter().zip(b64) {
        for (l, acc) in acc.iter_mut().enumerate() {
            *acc = _mm512_fmadd_ps(load(&a[16 * l..]), load(&b[16 * l..]), *acc);
        }
    }
    for (a, b) in a_rest.chunks(16).zip(b_rest.chunks(16)) {
        acc[0] = _mm512_fmadd_ps(load_some(a), load_some(b), acc[0]);
    }
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3])))
}

/// Up to 16 values of a plain type; zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn widen(dtype: DType, bytes: &[u8], len: usize) -> __m512 {
    debug_assert!(bytes.len() >= len.min(16) * dtype.block_bytes());
    let m = mask(len);
    // SAFETY: callers pass the bytes of `len` values; the mask names no lane past them.
    unsafe {
        match dtype {
            DType::F32 => _mm512_maskz_loadu_ps(m, bytes.as_ptr().cast()),
            DType::F16 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, bytes.as_ptr().cast())),
            _ => {
                let halves = _mm256_maskz_loadu_epi16(m, bytes.as_ptr().cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
            }
        }
    }
}

/// See [`crate::scalar::decode`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn decode(dtype: DType, row: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => {
            let size = dtype.block_bytes();
            let len = out.len().min(row.len() / size);
            let (whole, rest) = out[..len].as_chunks_mut::<16>();
            let (bytes, last) = row.split_at(16 * size * whole.len());
            for (out, bytes) in whole.iter_mut().zip(bytes.chunks_exact(16 * size)) {
                store(out, widen(dtype, bytes, 16));
            }
            store_some(rest, widen(dtype, last, rest.len()));
        }
        DType::Q8_0 => {
            for (out, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(row.as_chunks::<34>().0) {
                let d = _mm512_set1_ps(half([block[0], block[1]]));
                for part in 0..2 {
                    // SAFETY: bytes 2..34 of the block hold 32 weights; 16 are read at 2 or 18.
                    let q = unsafe { _mm_loadu_si128(block.as_ptr().add(2 + 16 * part).cast()) };
                    store(&mut out[16 * part..], _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), d));
                }
            }
        }
        _ => scalar::decode(dtype, row, out),
    }
}

plain_rows!("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni", _mm512_setzero_ps());

/// Adds the products of 32 columns, 16 to each of two sums, and reads the row's bytes again at every `step`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn add_run(dtype: DType, row: &[u8], x: &[f32; 32], acc: &mut [__m512; 2], step: usize) {
    for ((acc, row), x) in acc.iter_mut().zip(row.chunks_exact(16 * dtype.block_bytes())).zip(x.as_chunks::<16>().0) {
        *acc = _mm512_fmadd_ps(widen(dtype, row, 16), load(x), *acc);
        row.iter().step_by(step).for_each(again);
    }
}

/// The lanes of the sums, and the products of the last columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn total(dtype: DType, [mut a, b]: [__m512; 2], row: &[u8], x: &[f32]) -> f32 {
    for (row, x) in row.chunks(16 * dtype.block_bytes()).zip(x.chunks(16)) {
        a = _mm512_fmadd_ps(widen(dtype, row, x.len()), load_some(x), a);
    }
    _mm512_reduce_add_ps(_mm512_add_ps(a, b))
}

/// Sums of four vectors' lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn reduce4(v: [__m512; 4]) -> __m128 {
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    let lanes = _mm512_add_ps(low, high);
    let halves = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves))
}

/// See [`crate::scalar::scores`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn scores(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]) {
    let (m, b) = (q.len() / d, k.len() / d);
    let mut j = 0;
    while j < b {
        if j + 4 > b {
            for i in 0..m {
                scores[i * b + j] = dot(&q[i * d..(i + 1) * d], &k[j * d..(j + 1) * d]);
            }
            j += 1;
            continue;
        }
        let mut i = 0;
        while i + 4 <= m {
            scores_block::<4>(q, k, d, (i, j), scores, b);
            i += 4;
        }
        while i < m {
            scores_block::<1>(q, k, d, (i, j), scores, b);
            i += 1;
        }
        j += 4;
    }
}

/// Scores of `M` queries from `i` and four keys from `j`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn scores_block<const M: usize>(q: &[f32], k: &[f32], d: usize, (i, j): (usize, usize), scores: &mut [f32], b: usize) {
    let q: [&[f32]; M] = std::array::from_fn(|m| &q[(i + m) * d..(i + m + 1) * d]);
    let k: [&[f32]; 4] = std::array::from_fn(|c| &k[(j + c) * d..(j + c + 1) * d]);
    let mut acc = [[_mm512_setzero_ps(); 4]; M];
    let mut at = 0;
    while at < d {
        let lanes = mask(d - at);
        // SAFETY: every row has `d` values and the mask names no lane past them.
        unsafe {
            let k: [__m512; 4] = std::array::from_fn(|c| _mm512_maskz_loadu_ps(lanes, k[c].as_ptr().add(at)));
            for (q, acc) in q.iter().zip(&mut acc) {
                let q = _mm512_maskz_loadu_ps(lanes, q.as_ptr().add(at));
                for c in 0..4 {
                    acc[c] = _mm512_fmadd_ps(q, k[c], acc[c]);
                }
            }
        }
        at += 16;
    }
    for (m, acc) in acc.into_iter().enumerate() {
        let out = &mut scores[(i + m) * b + j..(i + m) * b + j + 4];
        // SAFETY: four values were sliced.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), reduce4(acc)) }
    }
}

/// See [`crate::scalar::weighted_sum`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn weighted_sum(p: &[f32], v: &[f32], d: usize, out: &mut [f32]) {
    let (m, b) = (out.len() / d, v.len() / d);
    assert!(p.len() >= m * b);
    for at in (0..d).step_by(64) {
        let width = (d - at).min(64);
        let mut i = 0;
        while i + 4 <= m {
            weighted_block::<4>(&p[i * b..], v, d, (at, width), &mut out[i * d..], b);
            i += 4;
        }
        while i < m {
            weighted_block::<1>(&p[i * b..], v, d, (at, width), &mut out[i * d..], b);
            i += 1;
        }
    }
}

/// `M` rows, up to 64 columns from `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn weighted_block<const M: usize>(
    p: &[f32],
    v: &[f32],
    d: usize,
    (at, width): (usize, usize),
    out: &mut [f32],
    b: usize,
) {
    let masks: [u16; 4] = std::array::from_fn(|c| mask(width.saturating_sub(16 * c)));
    assert!(p.len() >= M * b && v.len() >= b * d && out.len() >= (M - 1) * d + at + width);
    // SAFETY: rows of `v` and `out` reach past `at + width` (asserted); a mask names no lane past `width`, and where
    // it names none the address is not used.
    unsafe {
        let mut acc: [[__m512; 4]; M] = std::array::from_fn(|m| {
            std::array::from_fn(|c| _mm512_maskz_loadu_ps(masks[c], out.as_ptr().wrapping_add(m * d + at + 16 * c)))
        });
        for j in 0..b {
            let v: [__m512; 4] =
                std::array::from_fn(|c| _mm512_maskz_loadu_ps(masks[c], v.as_ptr().wrapping_add(j * d + at + 16 * c)));
            for (m, acc) in acc.iter_mut().enumerate() {
                let p = _mm512_set1_ps(*p.get_unchecked(m * b + j));
                for c in 0..4 {
                    acc[c] = _mm512_fmadd_ps(p, v[c], acc[c]);
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            for (c, acc) in acc.into_iter().enumerate() {
                _mm512_mask_storeu_ps(out.as_mut_ptr().wrapping_add(m * d + at + 16 * c), masks[c], acc);
            }
        }
    }
}
