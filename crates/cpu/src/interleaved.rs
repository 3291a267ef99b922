//! Weights in the order in which kernels want them: 16 rows at a time, interleaved.
//!
//! A tile holds 16 rows. The blocks of the same columns follow one another as one block of 16 times the size, in which each
//! unit of a row's block, four bytes or the two of a scale that stands alone, is followed by the same unit of the next row:
//! what lies at byte `o` of row `r`'s block lies at `16 · o + r · unit`. A tile takes what its rows took, bit for bit, but for
//! Q6_K, whose bits are put in another order first ([`in_sixes`]). One load then has the same columns of several rows, a row in
//! each 32-bit lane: sums stay in their lanes, and the activations, broadcast, are shared. Rows in BF16 lie two and two, in 12 bits a
//! weight ([`crate::e4m7`]).
//!
//! Four tiles are a group, of which the first 1,536 columns of each tile follow one another, then the next 1,536: pieces of
//! tiles, panel by panel. Whoever reads a matrix from front to back has four uses of the activations while the first cache
//! holds them, which a whole row of a wide matrix would push out. Then memory is all that is waited for, and the processor,
//! which sees one stream and little else, fetches it ahead by itself.

use std::ops::Range;

use carat_tensor::DType;
use carat_tensor::quant::k4_scale_min;
use half::f16;

use crate::kernels::{PackedTile, TILE};
use crate::unpack::form;
use crate::{e4m7, scalar};

/// Rows of a tile.
pub const ROWS: usize = TILE;
/// Tiles of a group, but of a matrix's last, which has those that are left.
pub const GROUP: usize = 4;
/// Rows of a group.
pub const GROUP_ROWS: usize = GROUP * ROWS;
/// Columns of a panel, but of a row's last: whole blocks of every type.
pub const PANEL: usize = 1536;

/// Some tiles of a matrix.
#[derive(Clone, Copy)]
pub struct Tiles<'a> {
    /// Type of the weights.
    pub dtype: DType,
    /// Columns of the matrix.
    pub cols: usize,
    /// The groups that hold them.
    groups: &'a [u8],
    first: usize,
    count: usize,
}

/// A panel of a tile.
pub struct Piece<'a> {
    /// Which of the tiles.
    pub tile: usize,
    /// Its first column.
    pub col: usize,
    /// Whether it is the tile's last.
    pub is_last: bool,
    /// Interleaved blocks.
    pub bytes: &'a [u8],
}

impl<'a> Tiles<'a> {
    /// Some rows, whole tiles, of a matrix of `cols` columns that `bytes` are all tiles of.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn new(dtype: DType, cols: usize, bytes: &'a [u8], rows: Range<usize>) -> Self {
        assert!(rows.start.is_multiple_of(ROWS) && rows.end.is_multiple_of(ROWS), "rows {rows:?} of tiles");
        let of_groups = GROUP * tile_bytes(dtype, cols);
        let (first, end) = (rows.start / ROWS, rows.end / ROWS);
        let groups = &bytes[first / GROUP * of_groups..(end.div_ceil(GROUP) * of_groups).min(bytes.len())];
        Tiles { dtype, cols, groups, first: first % GROUP, count: end - first }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The pieces, in the order of memory.
    pub fn pieces(self) -> Pieces<'a> {
        let tile_bytes = tile_bytes(self.dtype, self.cols);
        Pieces {
            all: self.groups.len() / tile_bytes,
            tile_bytes,
            panel_bytes: piece_bytes(self.dtype, PANEL),
            last_bytes: piece_bytes(self.dtype, last_cols(self.cols)),
            tile: self.first,
            col: 0,
            tiles: self,
        }
    }
}

/// See [`Tiles::pieces`].
#[derive(Clone)]
pub struct Pieces<'a> {
    tiles: Tiles<'a>,
    /// Tiles of the groups.
    all: usize,
    /// Bytes of a tile, of its columns of a panel, and of its last columns.
    tile_bytes: usize,
    panel_bytes: usize,
    last_bytes: usize,
    /// The next piece: its tile, counted from the first group's, and its column.
    tile: usize,
    col: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Piece<'a>> {
        let Tiles { cols, groups, first, count, .. } = self.tiles;
        let (tile, col) = (self.tile, self.col);
        if tile >= first + count {
            return None;
        }
        let group = tile / GROUP * GROUP;
        let is_last = col + PANEL >= cols;
        let bytes = if is_last { self.last_bytes } else { self.panel_bytes };
        let before = GROUP.min(self.all - group) * (col / PANEL) * self.panel_bytes;
        let at = group * self.tile_bytes + before + (tile - group) * bytes;
        self.tile += 1;
        if self.tile == (group + GROUP).min(first + count) && !is_last {
            (self.tile, self.col) = (group.max(first), col + PANEL);
        } else if self.tile == group + GROUP {
            self.col = 0;
        }
        Some(Piece { tile: tile - first, col, is_last, bytes: &groups[at..at + bytes] })
    }
}

/// Bytes of a matrix's tiles; `None` where its rows can't be interleaved.
pub fn bytes(dtype: DType, (rows, cols): (usize, usize)) -> Option<usize> {
    let whole = dtype != DType::BF16 || cols.is_multiple_of(e4m7::COLS);
    let some = rows.is_multiple_of(ROWS) && rows > 0 && cols > 0;
    (has_layout(dtype) && whole && some).then(|| rows / ROWS * tile_bytes(dtype, cols))
}

/// Bytes of a tile.
pub fn tile_bytes(dtype: DType, cols: usize) -> usize {
    (cols - 1) / PANEL * piece_bytes(dtype, PANEL) + piece_bytes(dtype, last_cols(cols))
}

/// Columns of a row's last panel.
fn last_cols(cols: usize) -> usize {
    (cols - 1) % PANEL + 1
}

/// Bytes of so many columns of a tile.
fn piece_bytes(dtype: DType, cols: usize) -> usize {
    if dtype == DType::BF16 { e4m7::piece_bytes(cols) } else { ROWS * row_bytes(dtype, cols) }
}

/// Bytes of so many columns of a row.
fn row_bytes(dtype: DType, cols: usize) -> usize {
    dtype.row_bytes(cols).expect("the matrix was made with whole blocks")
}

/// Units of one size that follow one another, in a row's block as in a tile's.
struct Run {
    /// Where they begin in the row's block, in bytes.
    at: usize,
    /// Of a unit.
    size: usize,
    count: usize,
}

/// A row's block, of Q6_K [`in_sixes`]; `None` for types that have no layout, and for BF16, whose is another.
const fn runs(dtype: DType) -> Option<&'static [Run]> {
    const fn run(at: usize, size: usize, count: usize) -> Run {
        Run { at, size, count }
    }
    match dtype {
        DType::Q4_0 => Some(&const { [run(0, 2, 1), run(2, 4, 4)] }),
        DType::Q8_0 => Some(&const { [run(0, 2, 1), run(2, 4, 8)] }),
        DType::Q4K => Some(&const { [run(0, 4, 36)] }),
        DType::Q6K => Some(&const { [run(0, 2, 1), run(2, 1, 16), run(18, 4, 48)] }),
        _ => None,
    }
}

/// Bytes of a tile's block of each type.
pub const Q4_0_BYTES: usize = ROWS * DType::Q4_0.block_bytes();
pub const Q8_0_BYTES: usize = ROWS * DType::Q8_0.block_bytes();
pub const Q4_K_BYTES: usize = ROWS * DType::Q4K.block_bytes();
pub const Q6_K_BYTES: usize = ROWS * DType::Q6K.block_bytes();

/// Bytes of a block of Q6_K.
const Q6_K: usize = DType::Q6K.block_bytes();
/// Where the signed bytes of scales begin in a tile's block of Q6_K, those of 16 rows for every 16 columns.
pub const Q6_K_SCALES: usize = 2 * ROWS;

/// Where the weights of the `g`-th 16 columns begin in a tile's block of Q6_K: three times four bytes of each row, as
/// [`in_sixes`] says.
pub const fn q6_k_sixteen(g: usize) -> usize {
    18 * ROWS + 12 * ROWS * g
}

/// A block of Q6_K with its bits in the order in which they are read: the scale of all, the 16 scales, and for every 16 columns
/// 12 bytes, of which the lower six bits are the first 12 weights; the upper two are two bits each of the other four: the lowest
/// ones in the first four bytes, the highest in the last.
#[inline(always)]
pub fn in_sixes(block: &[u8; Q6_K]) -> [u8; Q6_K] {
    let mut out = [0; Q6_K];
    out[..2].copy_from_slice(&block[208..]);
    out[2..18].copy_from_slice(&block[192..208]);
    for (g, out) in out[18..].as_chunks_mut::<12>().0.iter_mut().enumerate() {
        let (nibbles, pairs, (half, two)) = place_in_q6_k(g);
        let w: [u8; 16] =
            std::array::from_fn(|i| (block[nibbles + i] >> half) & 15 | ((block[pairs + i] >> two) & 3) << 4);
        for (i, out) in out.iter_mut().enumerate() {
            *out = w[i] | ((w[12 + i % 4] >> (i / 4 * 2)) & 3) << 6;
        }
    }
    out
}

/// The block that [`in_sixes`] was made of.
fn from_sixes(sixes: &[u8; Q6_K]) -> [u8; Q6_K] {
    let mut block = [0; Q6_K];
    block[208..].copy_from_slice(&sixes[..2]);
    block[192..208].copy_from_slice(&sixes[2..18]);
    for (g, sixes) in sixes[18..].as_chunks::<12>().0.iter().enumerate() {
        let (nibbles, pairs, (half, two)) = place_in_q6_k(g);
        for i in 0..16 {
            let w = if i < 12 {
                sixes[i] & 63
            } else {
                sixes[i - 12] >> 6 | sixes[i - 8] >> 6 << 2 | sixes[i - 4] >> 6 << 4
            };
            block[nibbles + i] |= (w & 15) << half;
            block[pairs + i] |= (w >> 4) << two;
        }
    }
    block
}

/// Where the `g`-th 16 columns of a row's block of Q6_K have their nibbles and their pairs of higher bits, and by how many bits
/// these are shifted there.
#[inline(always)]
fn place_in_q6_k(g: usize) -> (usize, usize, (usize, usize)) {
    let (half, chunk, second) = (g / 8, g / 2 % 4, g % 2);
    (64 * half + 32 * (chunk % 2) + 16 * second, 128 + 32 * half + 16 * second, (chunk / 2 * 4, 2 * chunk))
}

/// Whether rows of the type can be interleaved.
pub const fn has_layout(dtype: DType) -> bool {
    runs(dtype).is_some() || matches!(dtype, DType::BF16)
}

/// Interleaves whole tiles: `rows` are a multiple of 16 rows of `row_bytes`, and `out` becomes their tiles. Of a matrix's rows
/// whole groups ([`GROUP_ROWS`]) can be interleaved alone.
///
/// # Panics
/// If the rows have no layout: see [`crate::CpuBackend::tiles_bytes`].
pub fn interleave(dtype: DType, rows: &[u8], row_bytes: usize, out: &mut Vec<u8>) {
    let (block, tile) = (dtype.block_bytes(), ROWS * row_bytes);
    let cols = row_bytes / block * dtype.block_len();
    let len = bytes(dtype, (rows.len() / row_bytes, cols));
    out.resize(len.unwrap_or_else(|| panic!("{} bytes of {dtype}, {cols} columns", rows.len())), 0);
    if dtype == DType::BF16 {
        return interleave_bf16(rows, cols, out);
    }
    let panel = PANEL / dtype.block_len();
    for (rows, out) in rows.chunks(GROUP * tile).zip(out.chunks_mut(GROUP * tile)) {
        let mut places = out.chunks_exact_mut(ROWS * block);
        for first in (0..row_bytes / block).step_by(panel) {
            for rows in rows.chunks_exact(tile) {
                for (b, out) in (first..(first + panel).min(row_bytes / block)).zip(&mut places) {
                    interleave_block(dtype, rows, row_bytes, b, out);
                }
            }
        }
    }
}

/// The same of BF16, in 12 bits.
fn interleave_bf16(rows: &[u8], cols: usize, out: &mut [u8]) {
    let (size, tile_bytes) = (DType::BF16.block_bytes(), tile_bytes(DType::BF16, cols));
    let tile = ROWS * cols * size;
    for (rows, mut out) in rows.chunks(GROUP * tile).zip(out.chunks_mut(GROUP * tile_bytes)) {
        for first in (0..cols).step_by(PANEL) {
            let cols = first..(first + PANEL).min(cols);
            for rows in rows.chunks_exact(tile) {
                let piece = out.split_off_mut(..e4m7::piece_bytes(cols.len())).expect("a piece for each panel");
                let part = cols.start * size..cols.end * size;
                e4m7::compress(rows.chunks_exact(tile / ROWS).map(|row| &row[part.clone()]), piece);
            }
        }
    }
}

/// Block `b` of each of 16 rows.
fn interleave_block(dtype: DType, rows: &[u8], row_bytes: usize, b: usize, out: &mut [u8]) {
    /// Units of known length: copies of a register each.
    fn place<const SIZE: usize>(units: &[u8], r: usize, out: &mut [u8]) {
        let places = out.chunks_exact_mut(ROWS * SIZE);
        places.zip(units.as_chunks::<SIZE>().0).for_each(|(place, unit)| place.as_chunks_mut().0[r] = *unit);
    }
    let block = dtype.block_bytes();
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (mut row, mut at) = (&row[b * block..(b + 1) * block], 0);
        let sixes;
        if dtype == DType::Q6K {
            sixes = in_sixes(row.first_chunk().expect("a block is whole"));
            row = &sixes;
        }
        for run in runs(dtype).expect("the type has a layout") {
            let units = &row[run.at..run.at + run.size * run.count];
            let out = &mut out[at..at + ROWS * units.len()];
            match run.size {
                1 => place::<1>(units, r, out),
                2 => place::<2>(units, r, out),
                _ => place::<4>(units, r, out),
            }
            at += out.len();
        }
    }
}

/// The rows of some tiles as they were before, those in BF16 but for their smallest weights.
pub fn rows_of(tiles: Tiles<'_>) -> Vec<u8> {
    if tiles.dtype == DType::BF16 {
        return e4m7::rows_of(tiles);
    }
    let (block, row_bytes) = (tiles.dtype.block_bytes(), row_bytes(tiles.dtype, tiles.cols));
    let mut all = vec![0; tiles.count * ROWS * row_bytes];
    for piece in tiles.pieces() {
        let rows = all[piece.tile * ROWS * row_bytes..].chunks_exact_mut(row_bytes).take(ROWS);
        let first = piece.col / tiles.dtype.block_len();
        for (r, row) in rows.enumerate() {
            for (b, mut interleaved) in (first..).zip(piece.bytes.chunks_exact(ROWS * block)) {
                for run in runs(tiles.dtype).expect("the type has a layout") {
                    let (units, rest) = interleaved.split_at(ROWS * run.size * run.count);
                    let row = &mut row[b * block + run.at..][..run.size * run.count];
                    for (unit, of_rows) in row.chunks_exact_mut(run.size).zip(units.chunks_exact(ROWS * run.size)) {
                        unit.copy_from_slice(&of_rows[r * run.size..(r + 1) * run.size]);
                    }
                    interleaved = rest;
                }
                if let (DType::Q6K, Some(row)) = (tiles.dtype, row[b * block..].first_chunk_mut()) {
                    *row = from_sixes(row);
                }
            }
        }
    }
    all
}

/// Unpacks one tile for the blocked product, as [`crate::scalar::pack`] does rows. Inlined, down to the last loop, so that
/// each instruction set's own function compiles it to vectors.
#[inline(always)]
pub fn pack_tile(one: Tiles<'_>, tile: &mut PackedTile) {
    let dtype = one.dtype;
    tile.reset(form(dtype).expect("types with a layout are quantised"), one.cols);
    for piece in one.pieces() {
        let blocks = piece.bytes.chunks_exact(ROWS * dtype.block_bytes());
        for (b, block) in (piece.col / dtype.block_len()..).zip(blocks) {
            unpack_block(dtype, block, b, tile);
        }
    }
}

/// [`crate::scalar::pack`]: whole tiles of types that have a layout are interleaved block by block on the way, which is faster.
pub fn pack(dtype: DType, rows: &[u8], cols: usize, tile: &mut PackedTile) {
    let row_bytes = dtype.row_bytes(cols).expect("the matrix was made with whole blocks");
    if runs(dtype).is_none() || rows.len() != ROWS * row_bytes {
        return scalar::pack(dtype, rows, cols, tile);
    }
    tile.reset(form(dtype).expect("types with a layout are quantised"), cols);
    // The longest one with a layout.
    let mut block = [0; Q6_K_BYTES];
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
    let d = halves(&block[..2 * ROWS]);
    let scales = block[Q6_K_SCALES..].chunks_exact(ROWS);
    for (scale, bytes) in scale.chunks_exact_mut(ROWS).zip(scales) {
        scale.iter_mut().zip(bytes).zip(d).for_each(|((scale, &byte), d)| *scale = d * f32::from(byte as i8));
    }
    for (g, q) in q.chunks_exact_mut(16 * ROWS).enumerate() {
        let bytes: &[u8; 12 * ROWS] = block[q6_k_sixteen(g)..].first_chunk().expect("a block is whole");
        let (first, last) = q.split_at_mut(12 * ROWS);
        first.iter_mut().zip(bytes).for_each(|(q, byte)| *q = byte & 63);
        let (low, rest) = bytes.split_at(4 * ROWS);
        let (middle, high) = rest.split_at(4 * ROWS);
        for (q, (low, (middle, high))) in last.iter_mut().zip(low.iter().zip(middle.iter().zip(high))) {
            *q = low >> 6 | (middle >> 6) << 2 | (high >> 6) << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for dtype in DType::ALL.into_iter().filter(|&dtype| has_layout(dtype)) {
            if let Some(runs) = runs(dtype) {
                let len: usize = runs.iter().map(|run| run.size * run.count).sum();
                assert_eq!(len, dtype.block_bytes(), "{dtype}");
            }
            // A panel and less, two and more; a group and more.
            for (tiles, cols) in [(2, 3 * 256), (GROUP + 2, PANEL), (2 * GROUP + 1, 2 * PANEL + 512)] {
                let row_bytes = dtype.row_bytes(cols).unwrap();
                let mut rows: Vec<u8> =
                    (0..ROWS * tiles * row_bytes).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect();
                if dtype == DType::BF16 {
                    // Exponents of 60 to 67: all are kept.
                    rows.iter_mut().skip(1).step_by(2).for_each(|high| *high = *high & 0x83 | 0x3c);
                }
                let mut interleaved = Vec::new();
                interleave(dtype, &rows, row_bytes, &mut interleaved);
                for some in [0..tiles, 1..2, tiles - 1..tiles] {
                    let some = some.start * ROWS..some.end * ROWS;
                    let back = rows_of(Tiles::new(dtype, cols, &interleaved, some.clone()));
                    assert!(back == rows[some.start * row_bytes..some.end * row_bytes], "{dtype}, rows {some:?}");
                }
            }
        }
    }

    #[test]
    fn pieces_follow_one_another_in_memory() {
        let (cols, count) = (2 * PANEL + 32, GROUP + 1);
        let bytes = vec![0u8; count * ROWS * DType::Q4_0.row_bytes(cols).unwrap()];
        let tiles = Tiles::new(DType::Q4_0, cols, &bytes, 0..count * ROWS);
        let order: Vec<_> = tiles.pieces().map(|piece| (piece.tile, piece.col)).collect();
        assert_eq!(order[..5], [(0, 0), (1, 0), (2, 0), (3, 0), (0, PANEL)]);
        assert_eq!(order[12..], [(4, 0), (4, PANEL), (4, 2 * PANEL)]);
        let mut end = bytes.as_ptr();
        for piece in tiles.pieces() {
            assert_eq!(piece.bytes.as_ptr(), end);
            end = piece.bytes.as_ptr_range().end;
        }
        assert_eq!(end, bytes.as_ptr_range().end);
    }

    #[test]
    fn a_q4_0_tile_lies_as_described() {
        let rows: Vec<u8> = (0..16u8).flat_map(|r| (0..18).map(move |i| 16 * (i % 16) + r)).collect();
        let mut tile = Vec::new();
        interleave(DType::Q4_0, &rows, 18, &mut tile);
        // Scales first, then bytes 2 to 5 of rows 0, 1, ….
        assert_eq!(tile[..6], [0, 16, 1, 17, 2, 18]);
        assert_eq!(tile[32..40], [32, 48, 64, 80, 33, 49, 65, 81]);
    }
}
