//! f32 kernels: dots, plain matrix-vector products, the two products of attention.

use std::arch::aarch64::*;

use carat_tensor::DType;

use super::{load, store};
use crate::acts::grow;
use crate::scalar;

/// See [`crate::scalar::sum_squares`].
pub fn sum_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

/// See [`crate::scalar::dot`]: 16 lanes.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    // SAFETY: NEON is part of every 64-bit Arm; memory is touched by the checked loads alone.
    let lanes = unsafe {
        let mut acc = [vdupq_n_f32(0.0); 4];
        for (a, b) in a16.iter().zip(b16) {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = vfmaq_f32(*acc, load(&a[4 * v..]), load(&b[4 * v..]));
            }
        }
        vaddvq_f32(vaddq_f32(vaddq_f32(acc[0], acc[1]), vaddq_f32(acc[2], acc[3])))
    };
    lanes + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// See [`crate::scalar::matvec_f32`].
pub fn matvec_f32(dtype: DType, rows: &[u8], x: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
    let row_bytes = dtype.row_bytes(x.len()).expect("the matrix was made with whole blocks");
    grow(scratch, x.len());
    let scratch = &mut scratch[..x.len()];
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        scalar::decode(dtype, row, scratch);
        *out = dot(scratch, x);
    }
}

/// See [`crate::scalar::scores`].
pub fn scores(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]) {
    let b = k.len() / d;
    for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(b)) {
        for (s, k) in scores.iter_mut().zip(k.chunks_exact(d)) {
            *s = dot(q, k);
        }
    }
}

/// See [`crate::scalar::weighted_sum`].
pub fn weighted_sum(p: &[f32], v: &[f32], d: usize, out: &mut [f32]) {
    let b = v.len() / d;
    for (p, out) in p.chunks_exact(b).zip(out.chunks_exact_mut(d)) {
        for (&p, v) in p.iter().zip(v.chunks_exact(d)) {
            let (out4, out_rest) = out.as_chunks_mut::<4>();
            let (v4, v_rest) = v.as_chunks::<4>();
            for (out, v) in out4.iter_mut().zip(v4) {
                // SAFETY: NEON is part of every 64-bit Arm.
                let sum = unsafe { vfmaq_n_f32(load(out), load(v), p) };
                store(out, sum);
            }
            for (out, &v) in out_rest.iter_mut().zip(v_rest) {
                *out += p * v;
            }
        }
    }
}
