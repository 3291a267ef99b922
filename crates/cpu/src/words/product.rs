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
const WIDTH: usize = MAX_TILES * TILE;
/// Bytes of a task's panels, about; one at least.
const PANEL_BYTES: usize = 400 << 10;
/// Activation rows that pass a panel together.
const ROWS: usize = 50;
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
    panels: Lines<Pair>,
    scales: Vec<TileScale>,
    out: Lines<f32>,
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

impl Acts {
    /// Pairs and scales of `n` rows.
    fn lengths(n: usize, cols: usize) -> (usize, usize) {
        let len = cols.div_ceil(2);
        (n * stride(len), n * blocks(len))
    }

    /// Bytes of the same.
    pub fn bytes(n: usize, cols: usize) -> usize {
        let (pairs, scales) = Self::lengths(n, cols);
        pairs * size_of::<Pair>() + scales * size_of::<Scale>()
    }

    /// Takes `n` rows of `x`, brought within bounds.
    pub fn round(&mut self, k: &WordKernels, pool: &mut Pool, x: &[f32], (n, cols): (usize, usize), bounds: [f32; 2]) {
        let len = cols.div_ceil(2);
        let blocks = blocks(len);
        (self.n, self.len) = (n, len);
        let (n_pairs, n_scales) = Self::lengths(n, cols);
        grow(&mut self.scales, n_scales);
        let stride = stride(len);
        let pairs = self.pairs.take(n_pairs).chunks_mut(ROUNDED * stride);
        let parts: Vec<_> = pairs.zip(self.scales.chunks_mut(ROUNDED * blocks)).map(Mutex::new).collect();
        pool.run(parts.len(), |_, part| {
            let (pairs, scales) = &mut *lock(&parts[part]);
            let rows = pairs.chunks_exact_mut(stride).zip(scales.chunks_exact_mut(blocks));
            for ((pairs, scales), x) in rows.zip(x[part * ROUNDED * cols..].chunks_exact(cols)) {
                for ((pairs, scale), x) in pairs[..len].chunks_mut(BLOCK / 2).zip(scales).zip(x.chunks(BLOCK)) {
                    *scale = (k.round)(x, bounds, Steps::Any, pairs);
                }
            }
        });
    }

    fn rows(&self) -> Rows<'_> {
        let Acts { n, len, .. } = *self;
        let stride = stride(len);
        Rows { len, stride, pairs: &self.pairs.get()[..n * stride], scales: &self.scales[..n * blocks(len)] }
    }
}

/// Panels of a task of each of some matrices, of rows of `len` pairs.
fn most_panels(len: usize, matrices: usize) -> usize {
    (PANEL_BYTES / (matrices * len * WIDTH * size_of::<Pair>())).max(1)
}

impl Scratch {
    /// Bytes for so many matrices of `cols` columns at once, at most.
    pub fn bytes(cols: usize, matrices: usize) -> usize {
        let len = cols.div_ceil(2);
        let panels = most_panels(len, matrices);
        let of_panel = WIDTH * len * size_of::<Pair>() + MAX_TILES * blocks(len) * size_of::<TileScale>();
        matrices * (panels * of_panel + ROWS * WIDTH * size_of::<f32>())
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
            rounded[some.len()..].fill([[0; 2]; BLOCK / 2]);
            for (b, (panel, scales)) in blocks {
                let cols = b * BLOCK..((b + 1) * BLOCK).min(m.cols);
                let len = cols.len().div_ceil(2);
                if is_half && m.tiles(some.clone()).is_none() {
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

/// `out = clamp(m · x, bounds)` of all rows that were rounded or, of two matrices, `gelu_tanh(a · x) ⊙ (b · x)`; then `finish` works
/// on each finished part of a row: `finish(activation row, columns, values)`.
pub fn project<const M: usize>(
    (k, words): Tables<'_>,
    (pool, scratch): (&mut Pool, &[Mutex<Scratch>]),
    acts: &Acts,
    out: &mut [f32],
    matrices: [&Matrix; M],
    bounds: [f32; 2],
    finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
) {
    const { assert!(M == 1 || M == 2) };
    let (x, n, m) = (acts.rows(), acts.n, matrices[0]);
    assert!(matrices.iter().all(|m| m.cols.div_ceil(2) == x.len), "activations of another width");
    assert!(matrices.iter().all(|other| other.rows == m.rows), "matrices of different heights");
    let panels = most_panels(x.len, M).min(m.rows.div_ceil(4 * pool.threads() * WIDTH));
    pool.tiles(&mut [Output::new(out, n, m.rows, n, panels * WIDTH)], |worker, _, mut tile| {
        let Scratch { panels, scales, out } = &mut *lock(&scratch[worker]);
        let (rows, cols) = (tile.rows(), tile.cols());
        let padded = cols.len().next_multiple_of(TILE);
        let (of_one, scales_of_one) = (x.len * padded, blocks(x.len) * padded / TILE);
        grow(scales, M * scales_of_one);
        let panels = panels.take(M * of_one);
        let places = panels.chunks_exact_mut(of_one).zip(scales.chunks_exact_mut(scales_of_one));
        for (m, (panels, scales)) in matrices.iter().zip(places) {
            pack((k, words), m, cols.clone(), panels, scales);
        }
        let out = out.take(M * ROWS * WIDTH);
        for first in rows.clone().step_by(ROWS) {
            let part = first..(first + ROWS).min(rows.end);
            for start in (0..cols.len()).step_by(WIDTH) {
                let width = (cols.len() - start).min(WIDTH);
                let tiles = width.div_ceil(TILE);
                let (first, rest) = out[..M * part.len() * tiles * TILE].split_at_mut(part.len() * tiles * TILE);
                let panel = |i: usize| Panel {
                    tiles,
                    pairs: &panels[i * of_one + start * x.len..][..x.len * tiles * TILE],
                    scales: &scales[i * scales_of_one + start / TILE * blocks(x.len)..][..blocks(x.len) * tiles],
                };
                let columns = cols.start + start..cols.start + start + width;
                let x = x.part(part.clone());
                let is_whole = M == 1 && width == tiles * TILE;
                if is_whole {
                    let mut to = tile.columns(columns.clone());
                    (words.gemm)(panel(0), x, Start::Zero, bounds, first, Some(&mut to.part(part.clone())));
                    for i in part.clone() {
                        finish(i, columns.clone(), to.row(i));
                    }
                    continue;
                }
                (words.gemm)(panel(0), x, Start::Zero, bounds, first, None);
                if M == 2 {
                    (words.gemm)(panel(1), x, Start::Zero, bounds, rest, None);
                    (k.gelu_mul)(first, rest);
                }
                for (i, out) in part.clone().zip(first.chunks_exact_mut(tiles * TILE)) {
                    let out = &mut out[..width];
                    finish(i, columns.clone(), out);
                    copy_row(&mut tile.row(i)[start..start + width], out);
                }
            }
        }
    });
}
