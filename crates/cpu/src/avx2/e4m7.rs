//! Products with interleaved BF16: weights are put together in registers, two bytes each, and meet floats.

use std::arch::x86_64::*;

use super::{load, load32, store, sum};
use crate::e4m7::{self, COLS, FIRST, HIGH, SECOND, Unit};
use crate::interleaved::{Piece, ROWS, Tiles};
use crate::pool::Tile;

/// How far ahead weights are asked for, in units.
const AHEAD: usize = 20;

/// See [`e4m7::matvec`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec_e4m7(tiles: Tiles<'_>, x: &[f32], scratch: &mut Vec<f32>, out: &mut Tile<'_>) {
    e4m7::by_pieces::<2>(tiles, x, scratch, out, |piece, n, x, out| match n {
        1 => few::<1>(piece, x, out),
        _ => few::<2>(piece, x, out),
    });
}

/// Adds the products of a piece and `N` rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn few<const N: usize>(piece: &Piece<'_>, x: &[f32], out: &mut Tile<'_>) {
    let cols = x.len() / N;
    for (p, pair) in e4m7::pairs(piece.bytes).enumerate() {
        let mut acc = [[[_mm256_setzero_ps(); 2]; N]; 2];
        for (u, unit) in pair.units.iter().enumerate() {
            for line in 0..3 {
                _mm_prefetch::<_MM_HINT_T0>(unit.as_ptr().wrapping_add(AHEAD * size_of::<Unit>() + 64 * line).cast());
            }
            for half in 0..2 {
                let weights = weights(unit, 32 * half);
                for i in 0..N {
                    let x: &[f32; COLS] = x[i * cols + piece.col + u * COLS..].first_chunk().expect("rows are whole");
                    for v in 0..4 {
                        let x = load(&x[16 * v + 8 * half..]);
                        for (weights, acc) in weights.iter().zip(&mut acc) {
                            acc[i][v % 2] = _mm256_fmadd_ps(weights[v], x, acc[i][v % 2]);
                        }
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (i, [a, b]) in acc.iter().enumerate() {
                let sum = pair.sum(r, sum(_mm256_add_ps(*a, *b)));
                out.row(i)[piece.tile * ROWS + 2 * p + r] += sum;
            }
        }
    }
}

/// What stands from `at` on in a unit's lines, half of them: of each 16 columns the first eight or the last, of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weights(unit: &Unit, at: usize) -> [[__m256; 4]; 2] {
    let both = load32(unit, 2 * COLS + at);
    let first = _mm256_and_si256(both, _mm256_set1_epi8(FIRST.cast_signed()));
    // SAFETY: the table has 16 bytes.
    let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(HIGH.as_ptr().cast()) });
    let second = _mm256_and_si256(_mm256_srli_epi16::<{ SECOND as i32 }>(both), _mm256_set1_epi8(15));
    let second = _mm256_shuffle_epi8(table, second);
    [row(load32(unit, at), first), row(load32(unit, COLS + at), second)]
}

/// Of lower and highest bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn row(low: __m256i, high: __m256i) -> [__m256; 4] {
    let (first, last) = (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high));
    let zero = _mm256_setzero_si256();
    [
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, first)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, first)),
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, last)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, last)),
    ]
}

/// See [`e4m7::widen`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn widen_e4m7(unit: &Unit, roots: [f32; 2], out: [&mut [f32; COLS]; 2]) {
    let halves = [weights(unit, 0), weights(unit, 32)];
    for (r, (out, root)) in out.into_iter().zip(roots).enumerate() {
        let root = _mm256_set1_ps(root);
        for (v, out) in out.chunks_exact_mut(16).enumerate() {
            for (half, out) in halves.iter().zip(out.chunks_exact_mut(8)) {
                store(out, _mm256_mul_ps(_mm256_mul_ps(half[r][v], root), root));
            }
        }
    }
}
