//! Products of many rows with weights of 16 bits, or of 8 in blocks.
//!
//! A task makes some columns of the output: it rounds weight rows to panels that stay in the second cache together, and takes
//! the activations through all of them by [`ROWS`], whose sums stay in the first.

use std::ops::Range;
use std::sync::Mutex;

use carat_tensor::DType;
use carat_tensor::backend::UNBOUNDED;

use super::{BLOCK, LINE, Lines, MAX_TILES, Pair, Panel, Rows, Scale, Start, Steps, TileScale, WordKernels, blocks};
use crate::acts::grow;
use crate::kernels::{Kernels, TILE};
use crate::matmul::{Matrix, PLAIN_ROWS, copy_row};
use crate::moe::lock;
use crate::pool::{Output, Pool};

/// Weight rows of a panel.
pub(super) const WIDTH: usize = MAX_TILES * TILE;
/// Bytes of a task's panels, about; one at least.
const PANEL_BYTES: usize = 400 << 10;
/// Activation rows that pass a panel together.
const ROWS: usize = 50;
/// Sums of a worker: those of two panels.
pub(super) const SUMS: usize = 2 * ROWS * WIDTH;
/// Rows rounded by a task.
const ROUNDED: usize = 16;

/// All kernels, and those of words.
pub type Tables<'a> = (&'a Kernels, &'a WordKernels);

/// Activations of a product, rounded.
#[derive(Default)]
pub struct Acts {
    n: usize,
    /// Pairs of a row.
    len: usize,
    /// `[n, stride]`.
    pairs: Lines<Pair>,
    scales: Vec<Scale>,
}

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    pub(super) panels: Lines<Pair>,
    pub(super) scales: Vec<TileScale>,
    /// Room for [`SUMS`].
    pub(super) out: Lines<f32>,
}

/// Panels of some columns of one matrix or two, one matrix after the other.
pub(super) struct Packed<'a> {
    /// Pairs of a row.
    len: usize,
    /// Columns, with those that fill up the last tile.
    padded: usize,
    pairs: &'a [Pair],
    scales: &'a [TileScale],
}

/// Whether products of so many rows with such weights are made here, those of 8 bits between bounds alone: elsewhere there are
/// faster ones.
pub fn takes(dtype: DType, n: usize, bounded: bool) -> bool {
    (matches!(dtype, DType::F16 | DType::BF16) || bounded && dtype == DType::Q8_0) && n > PLAIN_ROWS
}

/// From row to row, for rows of `len` pairs: an odd number of lines, so that few rows share a set of the first cache.
fn stride(len: usize) -> usize {
    let line = LINE / size_of::<Pair>();
    (len.div_ceil(line) | 1) * line
}

/// Pairs and scales of `n` rows.
pub(super) fn lengths(n: usize, cols: usize) -> (usize, usize) {
    let len = cols.div_ceil(2);
    (n * stride(len), n * blocks(len))
}

/// Pairs that are room for `n` rows, wherever they begin.
pub fn room(n: usize, cols: usize) -> usize {
    lengths(n, cols).0 + LINE / size_of::<Pair>() - 1
}

/// Rounds `n` rows of `x`, brought within bounds, to pairs that begin where `pairs` do.
pub(super) fn round<'a>(
    k: &WordKernels,
    pool: &mut Pool,
    (x, n, cols): (&[f32], usize, usize),
    bounds: [f32; 2],
    (pairs, scales): (&'a mut [Pair], &'a mut [Scale]),
) -> Rows<'a> {
    let len = cols.div_ceil(2);
    let (stride, blocks) = (stride(len), blocks(len));
    let parts = pairs.chunks_mut(ROUNDED * stride).zip(scales.chunks_mut(ROUNDED * blocks));
    let parts: Vec<_> = parts.map(Mutex::new).collect();
    assert!(parts.len() == n.div_ceil(ROUNDED), "no room for {n} rows");
    pool.run(parts.len(), |_, part| {
        let (pairs, scales) = &mut *lock(&parts[part]);
        let rows = pairs.chunks_exact_mut(stride).zip(scales.chunks_exact_mut(blocks));
        for ((pairs, scales), x) in rows.zip(x[part * ROUNDED * cols..].chunks_exact(cols)) {
            for ((pairs, scale), x) in pairs[..len].chunks_mut(BLOCK / 2).zip(scales).zip(x.chunks(BLOCK)) {
                *scale = (k.round)(x, bounds, Steps::Any, pairs);
            }
        }
    });
    Rows { len, stride, pairs, scales }
}

/// Bytes of the scales of `n` rows.
pub fn scale_bytes(n: usize, cols: usize) -> usize {
    lengths(n, cols).1 * size_of::<Scale>()
}

impl Acts {
    /// Bytes of `n` rows.
    pub fn bytes(n: usize, cols: usize) -> usize {
        lengths(n, cols).0 * size_of::<Pair>() + scale_bytes(n, cols)
    }

    /// Takes `n` rows of `x`, brought within bounds.
    pub fn round(&mut self, k: &WordKernels, pool: &mut Pool, x: &[f32], (n, cols): (usize, usize), bounds: [f32; 2]) {
        round(k, pool, (x, n, cols), bounds, self.room(n, cols));
    }

    /// Room for so many rows, which it then has.
    pub(super) fn room(&mut self, n: usize, cols: usize) -> (&mut [Pair], &mut [Scale]) {
        (self.n, self.len) = (n, cols.div_ceil(2));
        let (n_pairs, n_scales) = lengths(n, cols);
        grow(&mut self.scales, n_scales);
        (self.pairs.take(n_pairs), &mut self.scales[..n_scales])
    }

    /// The rows.
    pub fn rows(&self) -> Rows<'_> {
        let Acts { n, len, .. } = *self;
        let stride = stride(len);
        Rows { len, stride, pairs: &self.pairs.get()[..n * stride], scales: &self.scales[..n * blocks(len)] }
    }
}

/// Panels of a task of each of some matrices, of rows of `len` pairs.
fn most_panels(len: usize, matrices: usize) -> usize {
    (PANEL_BYTES / (matrices * len * WIDTH * size_of::<Pair>())).max(1)
}

/// Blocks of columns of a task of each of some matrices: of two panels.
pub(super) fn blocks_at_once(len: usize, matrices: usize) -> usize {
    (most_panels(len, matrices) * WIDTH / BLOCK).max(1)
}

impl Scratch {
    /// Bytes for so many matrices of `cols` columns at once, at most; `blocks` says whether whole blocks of columns are made.
    pub fn bytes(cols: usize, matrices: usize, blocks: bool) -> usize {
        let len = cols.div_ceil(2);
        let panels = if blocks { blocks_at_once(len, matrices) * BLOCK / WIDTH } else { most_panels(len, matrices) };
        let of_panel = WIDTH * len * size_of::<Pair>() + MAX_TILES * super::blocks(len) * size_of::<TileScale>();
        matrices * panels * of_panel + SUMS * size_of::<f32>()
    }
}

impl<'a> Packed<'a> {
    /// Rounds these rows of all matrices.
    pub(super) fn new(
        tables: Tables<'_>,
        matrices: &[&Matrix],
        rows: &Range<usize>,
        (panels, scales): (&'a mut Lines<Pair>, &'a mut Vec<TileScale>),
    ) -> Self {
        let (len, padded) = (matrices[0].cols.div_ceil(2), rows.len().next_multiple_of(TILE));
        let (of_one, scales_of_one) = (len * padded, blocks(len) * padded / TILE);
        grow(scales, matrices.len() * scales_of_one);
        let pairs = panels.take(matrices.len() * of_one);
        let places = pairs.chunks_exact_mut(of_one).zip(scales.chunks_exact_mut(scales_of_one));
        for (m, (pairs, scales)) in matrices.iter().zip(places) {
            pack(tables, m, rows.clone(), pairs, scales);
        }
        Packed { len, padded, pairs, scales }
    }

    /// The panel that begins with row `start` of matrix `m`, a multiple of [`WIDTH`].
    pub(super) fn panel(&self, m: usize, start: usize) -> Panel<'a> {
        let (tiles, blocks) = ((self.padded - start).min(WIDTH) / TILE, blocks(self.len));
        Panel {
            tiles,
            pairs: &self.pairs[(m * self.padded + start) * self.len..][..self.len * tiles * TILE],
            scales: &self.scales[(m * self.padded + start) / TILE * blocks..][..blocks * tiles],
        }
    }
}

/// Rounds rows of a matrix to panels, one after another.
fn pack((k, words): Tables<'_>, m: &Matrix, rows: Range<usize>, panels: &mut [Pair], scales: &mut [TileScale]) {
    let len = m.cols.div_ceil(2);
    let blocks = blocks(len);
    let (mut decoded, mut rounded) = ([[0.0; BLOCK]; TILE], [[[0; 2]; BLOCK / 2]; TILE]);
    let is_half = !m.dtype.is_quantised();
    let kind = if is_half { Steps::PowersOfTwo } else { Steps::Any };
    for start in (0..rows.len()).step_by(WIDTH) {
        let some = rows.start + start..(rows.start + start + WIDTH).min(rows.end);
        let width = some.len().next_multiple_of(TILE);
        let panel = &mut panels[start * len..][..len * width];
        let tiles = width / TILE;
        let scales = &mut scales[start / TILE * blocks..][..blocks * tiles];
        if width > some.len() {
            scales.fill(TileScale::default());
        }
        // A tile's rows block by block: what they are spread over stays in the first cache.
        for (tile, start) in some.clone().step_by(TILE).enumerate() {
            let some = start..(start + TILE).min(some.end);
            let blocks = panel.chunks_mut(BLOCK / 2 * width).zip(scales.chunks_exact_mut(tiles)).enumerate();
            let as_stored = is_half && m.tiles(some.clone()).is_none();
            rounded[some.len()..].fill([[0; 2]; BLOCK / 2]);
            for (b, (panel, scales)) in blocks {
                let cols = b * BLOCK..((b + 1) * BLOCK).min(m.cols);
                let len = cols.len().div_ceil(2);
                if as_stored {
                    for (r, (row, q)) in m.blocks(k, some.clone(), cols).zip(&mut rounded).enumerate() {
                        scales[tile].set(r, (words.round_halves)(m.dtype, row, &mut q[..len]));
                    }
                } else {
                    m.decode(k, some.clone(), cols.clone(), &mut decoded);
                    for (r, (x, q)) in decoded[..some.len()].iter().zip(&mut rounded).enumerate() {
                        scales[tile].set(r, (words.round)(&x[..cols.len()], UNBOUNDED, kind, &mut q[..len]));
                    }
                }
                (words.spread)(&rounded, len, width, &mut panel[tile * TILE..]);
            }
        }
    }
}

/// `out = clamp(m · x, bounds)` of all rows or, of two matrices, `gelu_tanh(a · x) ⊙ (b · x)`; then `finish` works on each
/// finished part of a row: `finish(activation row, columns, values)`.
pub fn project<const M: usize>(
    (k, words): Tables<'_>,
    (pool, scratch): (&mut Pool, &[Mutex<Scratch>]),
    x: Rows<'_>,
    out: &mut [f32],
    matrices: [&Matrix; M],
    bounds: [f32; 2],
    finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
) {
    const { assert!(M == 1 || M == 2) };
    let (n, rows) = (x.count(), check(x, &matrices));
    let panels = most_panels(x.len, M).min(rows.div_ceil(4 * pool.threads() * WIDTH));
    pool.tiles(&mut [Output::new(out, n, rows, n, panels * WIDTH)], |worker, _, mut tile| {
        let Scratch { panels, scales, out } = &mut *lock(&scratch[worker]);
        let cols = tile.cols();
        let packed = Packed::new((k, words), &matrices, &cols, (panels, scales));
        let sums = out.take(SUMS);
        for first in (0..n).step_by(ROWS) {
            let part = first..(first + ROWS).min(n);
            let x = x.part(part.clone());
            for start in (0..cols.len()).step_by(WIDTH) {
                let here = cols.start + start..cols.start + (start + WIDTH).min(cols.len());
                let panel = packed.panel(0, start);
                let width = panel.tiles * TILE;
                let (sums, more) = sums[..M * part.len() * width].split_at_mut(part.len() * width);
                let mut to = tile.columns(here.clone());
                if M == 1 && width == here.len() {
                    (words.gemm)(panel, x, Start::Zero, bounds, sums, Some(&mut to.part(part.clone())));
                    for i in part.clone() {
                        finish(i, here.clone(), to.row(i));
                    }
                    continue;
                }
                (words.gemm)(panel, x, Start::Zero, bounds, sums, None);
                if M == 2 {
                    (words.gemm)(packed.panel(1, start), x, Start::Zero, bounds, more, None);
                    (k.gelu_mul)(sums, more);
                }
                for (i, sums) in part.clone().zip(sums.chunks_exact_mut(width)) {
                    let sums = &mut sums[..here.len()];
                    finish(i, here.clone(), sums);
                    copy_row(to.row(i), sums);
                }
            }
        }
    });
}

/// Rows of matrices that are multiplied with `x`.
pub(super) fn check(x: Rows<'_>, matrices: &[&Matrix]) -> usize {
    let rows = matrices[0].rows;
    assert!(matrices.iter().all(|m| m.cols.div_ceil(2) == x.len), "activations of another width");
    assert!(matrices.iter().all(|m| m.rows == rows), "matrices of different heights");
    rows
}
