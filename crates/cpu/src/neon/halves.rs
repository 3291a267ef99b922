//! Attention of a few query rows over keys and values in f16, as they are stored.
//!
//! Converted in registers, eight at a time, for up to eight rows at once, so nothing is written down in f32: at eight rows of a
//! head a conversion to four values meets eight multiplications. What is read next is asked for line by line on the way.

use std::arch::aarch64::*;

use super::{ask, widen_both};
use crate::kernels::Ahead;

/// Sums in registers; as many are left for what they are made of.
const SUMS: usize = 16;

/// See [`crate::kernels::HalfKernels`].
pub fn scores_f16(q: &[f32], k: &[u8], d: usize, mut ahead: Ahead<'_>, scores: &mut [f32]) {
    let (m, b) = (q.len() / d, k.len() / (2 * d));
    assert!(d.is_multiple_of(8) && scores.len() >= m * b);
    let mut i = 0;
    while i < m {
        let taken = 1 << (m - i).ilog2().min(3);
        let (q, scores) = (&q[i * d..(i + taken) * d], &mut scores[i * b..(i + taken) * b]);
        match taken {
            1 => all_keys::<1, 8>(q, k, d, &mut ahead, scores),
            2 => all_keys::<2, 4>(q, k, d, &mut ahead, scores),
            4 => all_keys::<4, 4>(q, k, d, &mut ahead, scores),
            _ => all_keys::<8, 2>(q, k, d, &mut ahead, scores),
        }
        i += taken;
    }
}

/// Scores of `M` rows, `C` keys at a time.
fn all_keys<const M: usize, const C: usize>(q: &[f32], k: &[u8], d: usize, ahead: &mut Ahead<'_>, scores: &mut [f32]) {
    const { assert!(M * C <= SUMS) };
    let b = k.len() / (2 * d);
    let mut j = 0;
    while j + C <= b {
        let sums = some_keys::<M, C>(q, &k[2 * d * j..2 * d * (j + C)], d, ahead);
        for (scores, sums) in scores.chunks_exact_mut(b).zip(sums) {
            scores[j..j + C].copy_from_slice(&sums);
        }
        j += C;
    }
    for j in j..b {
        let sums = some_keys::<M, 1>(q, &k[2 * d * j..2 * d * (j + 1)], d, ahead);
        for (scores, [sum]) in scores.chunks_exact_mut(b).zip(sums) {
            scores[j] = sum;
        }
    }
}

#[inline]
fn some_keys<const M: usize, const C: usize>(q: &[f32], k: &[u8], d: usize, ahead: &mut Ahead<'_>) -> [[f32; C]; M] {
    assert!(q.len() == M * d && k.len() == C * 2 * d && d.is_multiple_of(8));
    // SAFETY: every row of `q` and `k` has eight values from each multiple of eight below `d` on (asserted); NEON is part
    // of every 64-bit Arm.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); C]; M];
        for at in (0..d).step_by(8) {
            ahead.lines(C.div_ceil(4), ask);
            let mut keys = [[vdupq_n_f32(0.0); 2]; C];
            for (c, key) in keys.iter_mut().enumerate() {
                *key = eight(k.as_ptr().add(2 * (c * d + at)));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let q = q.as_ptr().add(m * d + at);
                let q = [vld1q_f32(q), vld1q_f32(q.add(4))];
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = vfmaq_f32(vfmaq_f32(*sum, q[0], key[0]), q[1], key[1]);
                }
            }
        }
        let mut out = [[0.0; C]; M];
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = vaddvq_f32(sum);
            }
        }
        out
    }
}

/// Eight halves as f32.
///
/// # Safety
/// They are there.
#[inline]
unsafe fn eight(at: *const u8) -> [float32x4_t; 2] {
    // SAFETY: the caller's promise; NEON is part of every 64-bit Arm.
    widen_both(unsafe { vreinterpretq_u16_u8(vld1q_u8(at)) })
}

/// See [`crate::kernels::HalfKernels`].
pub fn weighted_sum_f16(p: &[f32], v: &[u8], d: usize, mut ahead: Ahead<'_>, out: &mut [f32]) {
    let (m, b) = (out.len() / d, v.len() / (2 * d));
    assert!(d.is_multiple_of(8) && p.len() >= m * b);
    let mut i = 0;
    while i < m {
        let taken = 1 << (m - i).ilog2().min(3);
        let (p, out) = (&p[i * b..(i + taken) * b], &mut out[i * d..(i + taken) * d]);
        match taken {
            1 => all_columns::<1, 4>(p, v, d, &mut ahead, out),
            2 => all_columns::<2, 4>(p, v, d, &mut ahead, out),
            4 => all_columns::<4, 2>(p, v, d, &mut ahead, out),
            _ => all_columns::<8, 1>(p, v, d, &mut ahead, out),
        }
        i += taken;
    }
}

/// `M` rows, `8 · C` columns at a time.
fn all_columns<const M: usize, const C: usize>(p: &[f32], v: &[u8], d: usize, ahead: &mut Ahead<'_>, out: &mut [f32]) {
    const { assert!(2 * M * C <= SUMS) };
    let mut at = 0;
    while at + 8 * C <= d {
        some_columns::<M, C>(p, v, d, at, ahead, out);
        at += 8 * C;
    }
    while at < d {
        some_columns::<M, 1>(p, v, d, at, ahead, out);
        at += 8;
    }
}

#[inline]
fn some_columns<const M: usize, const C: usize>(
    p: &[f32],
    v: &[u8],
    d: usize,
    at: usize,
    ahead: &mut Ahead<'_>,
    out: &mut [f32],
) {
    let b = v.len() / (2 * d);
    assert!(p.len() == M * b && out.len() == M * d && at + 8 * C <= d);
    // SAFETY: every row of `out` and of `v` has `8 · C` values from `at` on, and every row of `p` has `b` (asserted); NEON is
    // part of every 64-bit Arm.
    unsafe {
        let mut sums = [[[vdupq_n_f32(0.0); 2]; C]; M];
        for (m, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                let out = out.as_ptr().add(m * d + at + 8 * c);
                *sum = [vld1q_f32(out), vld1q_f32(out.add(4))];
            }
        }
        let row = |j: usize| v.as_ptr().add(2 * (j * d + at));
        let mut j = 0;
        while j + 4 <= b {
            ahead.lines(C, ask);
            let mut four = [vdupq_n_f32(0.0); M];
            for (m, four) in four.iter_mut().enumerate() {
                *four = vld1q_f32(p.as_ptr().add(m * b + j));
            }
            add::<M, C, 0>(&mut sums, four, row(j));
            add::<M, C, 1>(&mut sums, four, row(j + 1));
            add::<M, C, 2>(&mut sums, four, row(j + 2));
            add::<M, C, 3>(&mut sums, four, row(j + 3));
            j += 4;
        }
        for j in j..b {
            let mut one = [vdupq_n_f32(0.0); M];
            for (m, one) in one.iter_mut().enumerate() {
                *one = vdupq_n_f32(*p.get_unchecked(m * b + j));
            }
            add::<M, C, 0>(&mut sums, one, row(j));
        }
        for (m, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                let out = out.as_mut_ptr().add(m * d + at + 8 * c);
                vst1q_f32(out, sum[0]);
                vst1q_f32(out.add(4), sum[1]);
            }
        }
    }
}

/// Adds `8 · C` values, times each row's weight in `LANE`.
///
/// # Safety
/// The values are there.
#[inline(always)]
unsafe fn add<const M: usize, const C: usize, const LANE: i32>(
    sums: &mut [[[float32x4_t; 2]; C]; M],
    p: [float32x4_t; M],
    values: *const u8,
) {
    for c in 0..C {
        // SAFETY: the caller's promise; NEON is part of every 64-bit Arm.
        unsafe {
            let value = eight(values.add(16 * c));
            for (sums, p) in sums.iter_mut().zip(p) {
                for (sum, value) in sums[c].iter_mut().zip(value) {
                    *sum = vfmaq_laneq_f32::<LANE>(*sum, value, p);
                }
            }
        }
    }
}
