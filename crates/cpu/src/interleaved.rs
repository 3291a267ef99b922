//! Weights in the order in which kernels want them: 16 rows at a time, interleaved.
//!
//! A tile holds 16 rows. The blocks of the same columns follow one another as one block of 16 times the size, in which each
//! unit of a row's block, four bytes or the two of a scale that stands alone, is followed by the same unit of the next row:
//! what lies at byte `o` of row `r`'s block lies at `16 · o + r · unit`. No bit changes, so a tile takes what its rows
//! took. One load then has the same columns of several rows, a row in each 32-bit lane: sums stay in their lanes, and the
//! activations, broadcast, are shared.

use std::ops::Range;

use carat_tensor::DType;
use carat_tensor::quant::k4_scale_min;
use half::f16;

use crate::kernels::{PackedTile, TILE};
use crate::scalar;
use crate::unpack::form;

/// Rows of a tile.
pub const ROWS: usize = TILE;

/// Units of a block in order: their size in bytes and their number.
const fn units(dtype: DType) -> Option<&'static [(usize, usize)]> {
    match dtype {
        DType::Q4_0 => Some(&[(2, 1), (4, 4)]),
        DType::Q8_0 => Some(&[(2, 1), (4, 8)]),
        DType::Q4K => Some(&[(4, 36)]),
        DType::Q6K => Some(&[(4, 52), (2, 1)]),
        _ => None,
    }
}

/// Whether rows of the type can be interleaved.
pub const fn has_layout(dtype: DType) -> bool {
    units(dtype).is_some()
}

/// Byte ranges of the units of a block.
fn unit_ranges(dtype: DType) -> impl Iterator<Item = Range<usize>> {
    let units = units(dtype).expect("the type has a layout").iter();
    units.flat_map(|&(size, count)| std::iter::repeat_n(size, count)).scan(0, |at, size| {
        *at += size;
        Some(*at - size..*at)
    })
}

/// Interleaves whole tiles: `rows` and `out` have the same length, a multiple of 16 rows of `row_bytes`.
///
/// # Panics
/// If the type has no layout or the lengths aren't as said.
pub fn interleave(dtype: DType, rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let block = dtype.block_bytes();
    assert!(rows.len() == out.len() && rows.len().is_multiple_of(ROWS * row_bytes), "{} bytes of tiles", rows.len());
    for (rows, tile) in rows.chunks_exact(ROWS * row_bytes).zip(out.chunks_exact_mut(ROWS * row_bytes)) {
        for (b, out) in tile.chunks_exact_mut(ROWS * block).enumerate() {
            interleave_block(dtype, rows, row_bytes, b, out);
        }
    }
}

/// Block `b` of each of 16 rows.
fn interleave_block(dtype: DType, rows: &[u8], row_bytes: usize, b: usize, out: &mut [u8]) {
    let block = dtype.block_bytes();
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (mut row, mut at) = (&row[b * block..(b + 1) * block], 0);
        for &(size, count) in units(dtype).expect("the type has a layout") {
            let (units, rest) = row.split_at(size * count);
            let places = out[at..at + ROWS * units.len()].chunks_exact_mut(ROWS * size);
            // Of known lengths: copies of a register each.
            if size == 4 {
                places.zip(units.as_chunks::<4>().0).for_each(|(place, unit)| place.as_chunks_mut().0[r] = *unit);
            } else {
                places.zip(units.as_chunks::<2>().0).for_each(|(place, unit)| place.as_chunks_mut().0[r] = *unit);
            }
            (row, at) = (rest, at + ROWS * units.len());
        }
    }
}

/// The rows of one tile as they were before.
pub fn rows_of(dtype: DType, tile: &[u8], row_bytes: usize, rows: &mut Vec<u8>) {
    let block = dtype.block_bytes();
    rows.resize(ROWS * row_bytes, 0);
    for (b, tile) in tile.chunks_exact(ROWS * block).enumerate() {
        for (r, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
            let row = &mut row[b * block..(b + 1) * block];
            for unit in unit_ranges(dtype) {
                let at = ROWS * unit.start + r * unit.len();
                row[unit.clone()].copy_from_slice(&tile[at..at + unit.len()]);
            }
        }
    }
}

/// The longest block with a layout.
const MAX_BLOCK_BYTES: usize = 210;

/// Unpacks a tile for the blocked product, as [`crate::scalar::pack`] does rows. Inlined, down to the last loop, so that
/// each instruction set's own function compiles it to vectors.
#[inline(always)]
pub fn pack_tile(dtype: DType, interleaved: &[u8], cols: usize, tile: &mut PackedTile) {
    tile.reset(form(dtype).expect("types with a layout are quantised"), cols);
    for (b, block) in interleaved.chunks_exact(ROWS * dtype.block_bytes()).enumerate() {
        unpack_block(dtype, block, b, tile);
    }
}

/// [`crate::scalar::pack`]: whole tiles of types that have a layout are interleaved block by block on the way, which is faster.
pub fn pack(dtype: DType, rows: &[u8], cols: usize, tile: &mut PackedTile) {
    let row_bytes = dtype.row_bytes(cols).expect("the matrix was made with whole blocks");
    if !has_layout(dtype) || rows.len() != ROWS * row_bytes {
        return scalar::pack(dtype, rows, cols, tile);
    }
    tile.reset(form(dtype).expect("types with a layout are quantised"), cols);
    let mut block = [0; ROWS * MAX_BLOCK_BYTES];
    let block = &mut block[..ROWS * dtype.block_bytes()];
    for b in 0..cols / dtype.block_len() {
        interleave_block(dtype, rows, row_bytes, b, block);
        unpack_block(dtype, block, b, tile);
    }
}

/// Bytes only change their place, and each of a dword's is in the row's lane already.
#[inline(always)]
fn unpack_block(dtype: DType, block: &[u8], b: usize, tile: &mut PackedTile) {
    let len = ROWS * dtype.block_len();
    let groups = len / tile.form.group;
    let q = &mut tile.q[b * len..(b + 1) * len];
    let scale = &mut tile.scale[b * groups..(b + 1) * groups];
    match dtype {
        DType::Q4_0 => {
            scale.copy_from_slice(&halves(&block[..2 * ROWS]));
            let (low, high) = q.split_at_mut(16 * ROWS);
            nibbles(&block[2 * ROWS..], low, high);
        }
        DType::Q8_0 => {
            scale.copy_from_slice(&halves(&block[..2 * ROWS]));
            q.iter_mut().zip(&block[2 * ROWS..]).for_each(|(q, w)| *q = w ^ 0x80);
        }
        DType::Q4K => {
            scales_of_q4_k(&block[..16 * ROWS], scale, &mut tile.min[b * groups..(b + 1) * groups]);
            for (q, w) in q.chunks_exact_mut(64 * ROWS).zip(block[16 * ROWS..].chunks_exact(32 * ROWS)) {
                let (low, high) = q.split_at_mut(32 * ROWS);
                nibbles(w, low, high);
            }
        }
        _ => q6_k(block, q, scale),
    }
}

/// 16 scales that stand alone.
#[inline(always)]
fn halves(bytes: &[u8]) -> [f32; ROWS] {
    let mut halves = [0.0; ROWS];
    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *half = f16::from_le_bytes(*bytes).to_f32();
    }
    halves
}

#[inline(always)]
fn nibbles(w: &[u8], low: &mut [u8], high: &mut [u8]) {
    for ((low, high), &w) in low.iter_mut().zip(high).zip(w) {
        *low = w & 15;
        *high = w >> 4;
    }
}

/// `[8, 16]` scales and minima of a block's first four dwords a row.
#[inline(always)]
fn scales_of_q4_k(head: &[u8], scale: &mut [f32], min: &mut [f32]) {
    for r in 0..ROWS {
        let dword = |u: usize| &head[4 * (u * ROWS + r)..4 * (u * ROWS + r) + 4];
        let half = |at: usize| f16::from_le_bytes([dword(0)[at], dword(0)[at + 1]]).to_f32();
        let (d, d_min) = (half(0), half(2));
        let mut bytes = [0; 12];
        bytes.chunks_exact_mut(4).zip(1..).for_each(|(bytes, u)| bytes.copy_from_slice(dword(u)));
        for j in 0..8 {
            let (s, m) = k4_scale_min(&bytes, j);
            scale[j * ROWS + r] = d * f32::from(s);
            min[j * ROWS + r] = d_min * f32::from(m);
        }
    }
}

/// A block of Q6_K: `[64, 16, 4]` weights and `[16, 16]` scales.
#[inline(always)]
fn q6_k(block: &[u8], q: &mut [u8], scale: &mut [f32]) {
    let d = halves(&block[208 * ROWS..]);
    for (at, scale) in scale.chunks_exact_mut(ROWS).enumerate() {
        let bytes = &block[192 * ROWS + at / 4 * 4 * ROWS..];
        scale.iter_mut().enumerate().for_each(|(r, s)| *s = d[r] * f32::from(bytes[4 * r + at % 4] as i8));
    }
    // Of 128 columns 64 bytes a row with two nibbles each, and 32 with four pairs of higher bits.
    for (part, q) in q.chunks_exact_mut(128 * ROWS).enumerate() {
        let (w, bits) = (&block[64 * ROWS * part..], &block[(128 + 32 * part) * ROWS..]);
        for (chunk, q) in q.chunks_exact_mut(32 * ROWS).enumerate() {
            let w = &w[chunk % 2 * 32 * ROWS..];
            for ((q, &w), &bits) in q.iter_mut().zip(w).zip(bits) {
                let nibble = if chunk < 2 { w & 15 } else { w >> 4 };
                *q = nibble | ((bits >> (2 * chunk)) & 3) << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for dtype in DType::ALL.into_iter().filter(|&dtype| has_layout(dtype)) {
            let cols = 3 * dtype.block_len();
            let row_bytes = dtype.row_bytes(cols).unwrap();
            let rows: Vec<u8> = (0..32 * row_bytes).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect();
            let mut tiles = vec![0; rows.len()];
            interleave(dtype, &rows, row_bytes, &mut tiles);
            assert_eq!(unit_ranges(dtype).last().unwrap().end, dtype.block_bytes(), "{dtype}");
            let mut back = Vec::new();
            for (tile, expected) in tiles.chunks_exact(16 * row_bytes).zip(rows.chunks_exact(16 * row_bytes)) {
                rows_of(dtype, tile, row_bytes, &mut back);
                assert_eq!(back, expected, "{dtype}");
            }
        }
    }

    #[test]
    fn a_q4_0_tile_lies_as_described() {
        let rows: Vec<u8> = (0..16u8).flat_map(|r| (0..18).map(move |i| 16 * (i % 16) + r)).collect();
        let mut tile = vec![0; rows.len()];
        interleave(DType::Q4_0, &rows, 18, &mut tile);
        // Scales first, then bytes 2 to 5 of rows 0, 1, ….
        assert_eq!(tile[..6], [0, 16, 1, 17, 2, 18]);
        assert_eq!(tile[32..40], [32, 48, 64, 80, 33, 49, 65, 81]);
    }
}
