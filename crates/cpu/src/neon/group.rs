//! What the kernels for few and for many activation rows share: eight weight rows of a group times some activation rows.
//!
//! A vector holds four columns of four weight rows, a row in each 32-bit lane; `sdot` takes the same columns of an activation
//! row from a lane of a vector of 16, so nothing is broadcast or moved. Weights are signed and stay in registers while one
//! activation row after another meets them, a plane of 7 or 8 bits at a time; then one conversion, one multiplication with
//! the weights' scale and one fused multiply-add with the activations' for each four sums. Dots go to two sums in turn:
//! `sdot` hands its sum on at once on most cores, and rows don't wait for each other.

use std::arch::aarch64::*;

use super::sdot_lane;
use crate::ints::IntRows;

/// Eight weight rows of `16 · S` columns that share scales: signed, `2^SHIFT` times what they stand for.
#[derive(Clone, Copy)]
pub struct Group<const S: usize, const SHIFT: i32> {
    /// Of every four rows and 16 columns four vectors.
    pub w: [[[int8x16_t; 4]; S]; 2],
    /// One for each row.
    pub scale: [float32x4_t; 2],
    /// Where there are some.
    pub min: Option<[float32x4_t; 2]>,
}

/// How many of some activation rows are taken at once: four, or two, or one.
pub fn share(rows: usize) -> usize {
    if rows >= 4 { 4 } else { 1 << rows.ilog2() }
}

/// Activation rows from `first` on in up to three planes of bytes, each 128 times as fine as the one before: two of `x`, one
/// of its rest.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    x: IntRows<'a>,
    rest: IntRows<'a>,
    first: usize,
}

impl<'a> Rows<'a> {
    /// `N` rows of `P` planes; without a third one `rest` isn't read.
    ///
    /// # Panics
    /// If they aren't there.
    pub fn new<const P: usize, const N: usize>(x: IntRows<'a>, rest: IntRows<'a>, first: usize) -> Self {
        let (cols, end) = (x.cols, first + N);
        let planes = [x.q, x.low, rest.q];
        assert!(planes[..P].iter().all(|plane| plane.len() >= end * cols), "{end} rows of {P} planes of {cols} values");
        for x in [&x, &rest] {
            assert!(x.cols == cols && x.d.len() >= end * (cols / 32) && x.dsum32.len() >= end * (cols / 32));
            assert!(x.dsum16.len() >= end * (cols / 16));
        }
        Rows { x, rest, first }
    }

    /// Adds the products of `N` rows of `P` planes with a group whose first column is `at`. Always inlined, which functions with
    /// features of their own can't be: weights and sums stay in registers.
    ///
    /// # Safety
    /// The CPU must have `dotprod`, [`Rows::new`] must have seen as many rows and planes, and the group must lie within a row.
    #[inline(always)]
    pub unsafe fn add<const P: usize, const N: usize, const S: usize, const SHIFT: i32>(
        &self,
        group: &Group<S, SHIFT>,
        at: usize,
        acc: &mut [[float32x4_t; 2]; N],
    ) {
        debug_assert!(at + 16 * S <= self.x.cols);
        // Written out, as the sums of a loop that isn't unrolled stay in memory.
        // SAFETY: as the caller says.
        unsafe {
            match acc.as_mut_slice() {
                [a] => self.add_one::<P, S, SHIFT>(group, 0, at, a),
                [a, b] => {
                    self.add_one::<P, S, SHIFT>(group, 0, at, a);
                    self.add_one::<P, S, SHIFT>(group, 1, at, b);
                }
                [a, b, c, d] => {
                    self.add_one::<P, S, SHIFT>(group, 0, at, a);
                    self.add_one::<P, S, SHIFT>(group, 1, at, b);
                    self.add_one::<P, S, SHIFT>(group, 2, at, c);
                    self.add_one::<P, S, SHIFT>(group, 3, at, d);
                }
                _ => unreachable!("one, two or four rows at once"),
            }
        }
    }

    /// Those of row `i`.
    ///
    /// # Safety
    /// As for [`Rows::add`]; the row must be one of those that were seen.
    #[inline(always)]
    unsafe fn add_one<const P: usize, const S: usize, const SHIFT: i32>(
        &self,
        group: &Group<S, SHIFT>,
        i: usize,
        at: usize,
        acc: &mut [float32x4_t; 2],
    ) {
        let at = (self.first + i) * self.x.cols + at;
        // SAFETY: `new` has seen the row's planes, scales and sums; the rest is as the caller says.
        unsafe {
            if P == 1 {
                add_row(group, [self.x.q], &self.x, at, acc);
            } else {
                add_row(group, [self.x.q, self.x.low], &self.x, at, acc);
            }
            // Three planes of 8-bit weights are too much for 32 bits.
            if P == 3 {
                add_row(group, [self.rest.q], &self.rest, at, acc);
            }
        }
    }
}

/// Adds the products of the values of `x` from `at` on.
///
/// # Safety
/// The planes must have `16 · S` values from `at` on, and `x` the scales and sums that go with them; the CPU must have
/// `dotprod`.
#[inline(always)]
unsafe fn add_row<const P: usize, const S: usize, const SHIFT: i32>(
    group: &Group<S, SHIFT>,
    planes: [&[i8]; P],
    x: &IntRows<'_>,
    at: usize,
    acc: &mut [float32x4_t; 2],
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [vdupq_n_s32(0); 2];
        for (p, plane) in planes.into_iter().enumerate() {
            if p > 0 {
                sums = [vshlq_n_s32::<7>(sums[0]), vshlq_n_s32::<7>(sums[1])];
            }
            for s in 0..S {
                let x = vld1q_s8(plane.as_ptr().add(at + 16 * s));
                for (sum, w) in sums.iter_mut().zip(&group.w) {
                    let w = &w[s];
                    *sum = sdot_lane::<0>(*sum, w[0], x);
                    *sum = sdot_lane::<1>(*sum, w[1], x);
                    *sum = sdot_lane::<2>(*sum, w[2], x);
                    *sum = sdot_lane::<3>(*sum, w[3], x);
                }
            }
        }
        let d = *x.d.get_unchecked(at / 32);
        for ((acc, sum), scale) in acc.iter_mut().zip(sums).zip(group.scale) {
            let sum = match SHIFT {
                0 => vcvtq_f32_s32(sum),
                2 => vcvtq_n_f32_s32::<2>(sum),
                4 => vcvtq_n_f32_s32::<4>(sum),
                _ => unreachable!("weights are shifted by 0, 2 or 4"),
            };
            *acc = vfmaq_n_f32(*acc, vmulq_f32(sum, scale), d);
        }
        if let Some(min) = group.min {
            let dsum = *if S == 2 { x.dsum32 } else { x.dsum16 }.get_unchecked(at / (16 * S));
            for (acc, min) in acc.iter_mut().zip(min) {
                *acc = vfmsq_n_f32(*acc, min, dsum);
            }
        }
    }
}
