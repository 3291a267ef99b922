//! The loop that does nothing but reach the limit of integer dot products, on registers.

use std::arch::aarch64::*;

use super::sdot;

/// Sums of a round, as many as keep four units busy for four cycles.
pub const SUMS: usize = 16;

/// `rounds` dots for each sum.
#[target_feature(enable = "dotprod")]
pub fn dot_rounds(rounds: usize) -> i32 {
    let (w, x) = (std::hint::black_box(vdupq_n_s8(3)), std::hint::black_box(vdupq_n_s8(1)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = sdot(*sum, w, x));
    }
    sums.into_iter().fold(0, |all, sum| all.wrapping_add(vaddvq_s32(sum)))
}
