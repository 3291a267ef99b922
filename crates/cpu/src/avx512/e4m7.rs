//! Products with interleaved BF16: weights are put together in registers, two bytes each, and meet floats.

use std::arch::x86_64::*;

use super::{load, load16, load64, store};
use crate::e4m7::{self, COLS, FIRST, HIGH, SECOND, Unit};
use crate::interleaved::{Piece, ROWS, Tiles};
use crate::pool::Tile;

/// Activation rows that share a reading of the weights; there are registers for so many.
const SHARE: usize = 4;

/// See [`e4m7::matvec`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn matvec_e4m7(tiles: Tiles<'_>, x: &[f32], scratch: &mut Vec<f32>, out: &mut Tile<'_>) {
    e4m7::by_pieces::<SHARE>(tiles, x, scratch, out, |piece, n, x, out| match n {
        1 => few::<1>(piece, x, out),
        2 => few::<2>(piece, x, out),
        3 => few::<3>(piece, x, out),
        _ => few::<SHARE>(piece, x, out),
    });
}

/// Adds the products of a piece and `N` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn few<const N: usize>(piece: &Piece<'_>, x: &[f32], out: &mut Tile<'_>) {
    let cols = x.len() / N;
    for (p, pair) in e4m7::pairs(piece.bytes).enumerate() {
        let mut acc = [[[_mm512_setzero_ps(); 2]; N]; 2];
        for (u, unit) in pair.units.iter().enumerate() {
            let weights = weights(unit);
            for i in 0..N {
                let x: &[f32; COLS] = x[i * cols + piece.col + u * COLS..].first_chunk().expect("rows are whole");
                for v in 0..4 {
                    let x = load(&x[16 * v..]);
                    for (weights, acc) in weights.iter().zip(&mut acc) {
                        acc[i][v % 2] = _mm512_fmadd_ps(weights[v], x, acc[i][v % 2]);
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (i, [a, b]) in acc.iter().enumerate() {
                let sum = pair.sum(r, _mm512_reduce_add_ps(_mm512_add_ps(*a, *b)));
                out.row(i)[piece.tile * ROWS + 2 * p + r] += sum;
            }
        }
    }
}

/// The columns of a unit of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn weights(unit: &Unit) -> [[__m512; 4]; 2] {
    let both = load64(unit, 2 * COLS);
    let first = _mm512_and_si512(both, _mm512_set1_epi8(FIRST.cast_signed()));
    // The table is there four times: what is above the four bits makes no difference.
    let table = _mm512_broadcast_i32x4(load16(&HIGH, 0));
    let second = _mm512_permutexvar_epi8(_mm512_srli_epi16::<SECOND>(both), table);
    [row(load64(unit, 0), first), row(load64(unit, COLS), second)]
}

/// Of lower and highest bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn row(low: __m512i, high: __m512i) -> [__m512; 4] {
    let (first, last) = (_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high));
    let zero = _mm512_setzero_si512();
    [
        _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, first)),
        _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, first)),
        _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, last)),
        _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, last)),
    ]
}

/// See [`e4m7::widen`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn widen_e4m7(unit: &Unit, roots: [f32; 2], out: [&mut [f32; COLS]; 2]) {
    for ((out, weights), root) in out.into_iter().zip(weights(unit)).zip(roots) {
        let root = _mm512_set1_ps(root);
        for (out, weights) in out.chunks_exact_mut(16).zip(weights) {
            store(out, _mm512_mul_ps(_mm512_mul_ps(weights, root), root));
        }
    }
}
