//! f32 kernels: decoding, plain matrix-vector products, and the two products of attention.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{half, load, store, sum};
use crate::acts::grow;
use crate::scalar;

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

/// See [`crate::scalar::decode`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn decode(dtype: DType, row: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F16 => {
            let (out8, rest) = out.as_chunks_mut::<8>();
            for (out, bytes) in out8.iter_mut().zip(row.as_chunks::<16>().0) {
                // SAFETY: 16 bytes.
                store(out, _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }));
            }
            scalar::decode(dtype, &row[out8.len() * 16..], rest);
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

/// See [`crate::scalar::matvec_f32`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec_f32(dtype: DType, rows: &[u8], x: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
    let row_bytes = dtype.row_bytes(x.len()).expect("the matrix was made with whole blocks");
    grow(scratch, x.len());
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        decode(dtype, row, &mut scratch[..x.len()]);
        *out = dot(&scratch[..x.len()], x);
    }
}

/// See [`crate::scalar::scores`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn scores(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]) {
    let b = k.len() / d;
    for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(b)) {
        for (s, k) in scores.iter_mut().zip(k.chunks_exact(d)) {
            *s = dot(q, k);
        }
    }
}

/// See [`crate::scalar::weighted_sum`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn weighted_sum(p: &[f32], v: &[f32], d: usize, out: &mut [f32]) {
    let b = v.len() / d;
    for (p, out) in p.chunks_exact(b).zip(out.chunks_exact_mut(d)) {
        for (&p, v) in p.iter().zip(v.chunks_exact(d)) {
            let (out8, rest) = out.as_chunks_mut::<8>();
            for (out, v) in out8.iter_mut().zip(v.as_chunks::<8>().0) {
                let added = _mm256_fmadd_ps(_mm256_set1_ps(p), load(v), load(&*out));
                store(out, added);
            }
            for (out, v) in rest.iter_mut().zip(v.as_chunks::<8>().1) {
                *out += p * v;
            }
        }
    }
}
