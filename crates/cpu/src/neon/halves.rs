//! Attention of a few query rows over keys and values in f16, as they are stored.
//!
//! Converted in registers, eight at a time, for up to eight rows at once, so nothing is written down in f32: at eight rows of a
//! head a conversion to four values meets eight multiplications. What is read next is asked for line by line on the way.

use std::arch::aarch64::*;

use super::{ask, widen_both};
use crate::halves::kernels_of_halves;
use crate::kernels::Ahead;

/// Sums in registers; as many are left for what they are made of.
const SUMS: usize = 16;

kernels_of_halves! {
    8, most_rows: 8, keys: [1 => 8, 2 => 4, 4 => 4, 8 => 2], columns: [1 => 4, 2 => 4, 4 => 2, 8 => 1]
}

/// Scores of `M` rows and `C` keys.
#[inline]
fn some_keys<const M: usize, const C: usize>(q: &[f32], k: &[u8], d: usize, ahead: &mut Ahead<'_>) -> [[f32; C]; M] {
    const { assert!(M * C <= SUMS) };
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
#[target_feature(enable = "neon")]
unsafe fn eight(at: *const u8) -> [float32x4_t; 2] {
    // SAFETY: the caller's promise; NEON is part of every 64-bit Arm.
    widen_both(unsafe { vreinterpretq_u16_u8(vld1q_u8(at)) })
}

/// `M` rows, `C` vectors of columns from `at` on.
#[inline]
fn some_columns<const M: usize, const C: usize>(
    p: &[f32],
    v: &[u8],
    d: usize,
    at: usize,
    ahead: &mut Ahead<'_>,
    out: &mut [f32],
) {
    const { assert!(2 * M * C <= SUMS) };
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
