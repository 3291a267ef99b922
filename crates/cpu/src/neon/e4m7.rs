//! Products with interleaved BF16: weights are put together in registers, two bytes each, and meet floats.

use std::arch::aarch64::*;

use super::{load, load_u8};
use crate::e4m7::{self, COLS, FIRST, HIGH, SECOND, Unit};
use crate::interleaved::{Piece, ROWS, Tiles};
use crate::pool::Tile;

/// See [`e4m7::matvec`].
pub fn matvec_e4m7(tiles: Tiles<'_>, x: &[f32], scratch: &mut Vec<f32>, out: &mut Tile<'_>) {
    e4m7::by_pieces::<2>(tiles, x, scratch, out, |piece, n, x, out| match n {
        1 => few::<1>(piece, x, out),
        _ => few::<2>(piece, x, out),
    });
}

/// Adds the products of a piece and `N` rows.
#[inline]
fn few<const N: usize>(piece: &Piece<'_>, x: &[f32], out: &mut Tile<'_>) {
    let cols = x.len() / N;
    for (p, pair) in e4m7::pairs(piece.bytes).enumerate() {
        // SAFETY: NEON is part of every 64-bit Arm; memory is touched by the checked loads alone.
        let sums: [[f32; N]; 2] = unsafe {
            let mut acc = [[[vdupq_n_f32(0.0); 2]; N]; 2];
            for (u, unit) in pair.units.iter().enumerate() {
                for k in 0..4 {
                    let weights = weights(unit, 16 * k);
                    for i in 0..N {
                        let x: &[f32; COLS] =
                            x[i * cols + piece.col + u * COLS..].first_chunk().expect("rows are whole");
                        for v in 0..4 {
                            let x = load(&x[16 * v + 4 * k..]);
                            for (weights, acc) in weights.iter().zip(&mut acc) {
                                acc[i][v % 2] = vfmaq_f32(acc[i][v % 2], weights[v], x);
                            }
                        }
                    }
                }
            }
            acc.map(|acc| acc.map(|[a, b]| vaddvq_f32(vaddq_f32(a, b))))
        };
        for (r, sums) in sums.iter().enumerate() {
            for (i, &sum) in sums.iter().enumerate() {
                out.row(i)[piece.tile * ROWS + 2 * p + r] += pair.sum(r, sum);
            }
        }
    }
}

/// What stands from `at` on in a unit's lines, a quarter of them: four of each 16 columns, of each row.
#[inline]
fn weights(unit: &Unit, at: usize) -> [[float32x4_t; 4]; 2] {
    let [a, b, both] = [0, COLS, 2 * COLS].map(|line| load_u8(&unit[line + at..]));
    // SAFETY: works on registers alone, and NEON is part of every 64-bit Arm.
    let (first, second) = unsafe {
        let second = vandq_u8(vshrq_n_u8::<{ SECOND as i32 }>(both), vdupq_n_u8(15));
        (vandq_u8(both, vdupq_n_u8(FIRST)), vqtbl1q_u8(load_u8(&HIGH), second))
    };
    [row(a, first), row(b, second)]
}

/// Of lower and highest bytes.
#[inline]
fn row(low: uint8x16_t, high: uint8x16_t) -> [float32x4_t; 4] {
    // SAFETY: works on registers alone, and NEON is part of every 64-bit Arm.
    unsafe {
        let zero = vdupq_n_u16(0);
        let first = vreinterpretq_u16_u8(vzip1q_u8(low, high));
        let last = vreinterpretq_u16_u8(vzip2q_u8(low, high));
        let [a, b] = [vzip1q_u16(zero, first), vzip2q_u16(zero, first)];
        let [c, d] = [vzip1q_u16(zero, last), vzip2q_u16(zero, last)];
        [a, b, c, d].map(|bits| vreinterpretq_f32_u16(bits))
    }
}
