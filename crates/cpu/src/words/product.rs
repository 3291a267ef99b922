//! Products of many rows with weights of 16 bits, or of 8 in blocks, between bounds.
//!
//! A task makes some columns of the output: it rounds weight rows to panels that stay in the second cache together, and takes
//! the activations through all of them by [`ROWS`], whose sums stay in the first.

use std::sync::Mutex;

use carat_tensor::DType;

use super::{BLOCK, Lines, MAX_TILES, Pair, Panel, Rows, Start, Steps, UNBOUNDED, WordKernels, blocks};
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
const ROWS: usize = 48;
/// Rows rounded by a task.
const ROUNDED: usize = 16;

/// Activations of a product, rounded.
#[derive(Default)]
pub struct Acts {
    n: usize,
    /// Pairs of a row.
    len: usize,
    pairs: Vec<Pair>,
    d: Vec<f32>,
}

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    panels: Lines<Pair>,
    steps: Lines<f32>,
    out: Lines<f32>,
}

/// Whether products of so many rows with such weights are made here.
pub fn takes(dtype: DType, n: usize) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::Q8_0) && n > PLAIN_ROWS
}

impl Acts {
    /// Pairs and steps of `n` rows.
    fn lengths(n: usize, cols: usize) -> (usize, usize) {
        let len = cols.div_ceil(2);
        (n * len, n * blocks(len))
    }

    /// Bytes of the same.
    pub fn bytes(n: usize, cols: usize) -> usize {
        let (pairs, steps) = Self::lengths(n, cols);
        pairs * size_of::<Pair>() + steps * size_of::<f32>()
    }

    /// Takes `n` rows of `x`, brought within bounds.
    pub fn round(&mut self, k: &WordKernels, pool: &mut Pool, x: &[f32], (n, cols): (usize, usize), bounds: [f32; 2]) {
        let len = cols.div_ceil(2);
        let blocks = blocks(len);
        (self.n, self.len) = (n, len);
        let (n_pairs, n_steps) = Self::lengths(n, cols);
        grow(&mut self.pairs, n_pairs);
        grow(&mut self.d, n_steps);
        let parts = self.pairs[..n_pairs].chunks_mut(ROUNDED * len).zip(self.d[..n_steps].chunks_mut(ROUNDED * blocks));
        let parts: Vec<_> = parts.map(Mutex::new).collect();
        pool.run(parts.len(), |_, part| {
            let (pairs, d) = &mut *lock(&parts[part]);
            let rows = pairs.chunks_exact_mut(len).zip(d.chunks_exact_mut(blocks));
            for ((pairs, d), x) in rows.zip(x[part * ROUNDED * cols..].chunks_exact(cols)) {
                for ((pairs, d), x) in pairs.chunks_mut(BLOCK / 2).zip(d).zip(x.chunks(BLOCK)) {
                    *d = (k.round)(x, bounds, Steps::Any, pairs);
                }
            }
        });
    }

    fn rows(&self) -> Rows<'_> {
        let Acts { n, len, .. } = *self;
        Rows { len, pairs: &self.pairs[..n * len], d: &self.d[..n * blocks(len)] }
    }
}

/// Panels of a task, of rows of `len` pairs.
fn most_panels(len: usize) -> usize {
    (PANEL_BYTES / (len * WIDTH * size_of::<Pair>())).max(1)
}

impl Scratch {
    /// Bytes for a matrix of `cols` columns, at most.
    pub fn bytes(cols: usize) -> usize {
        let len = cols.div_ceil(2);
        let rows = most_panels(len) * WIDTH;
        rows * (len * size_of::<Pair>() + blocks(len) * size_of::<f32>()) + ROWS * WIDTH * size_of::<f32>()
    }

    /// Rounds rows of a matrix to panels, one after another.
    fn pack(&mut self, k: &Kernels, words: &WordKernels, m: &Matrix, rows: std::ops::Range<usize>) {
        let len = m.cols.div_ceil(2);
        let blocks = blocks(len);
        let panels = self.panels.take(len * rows.len().next_multiple_of(TILE));
        let steps = self.steps.take(blocks * rows.len().next_multiple_of(TILE));
        let (mut decoded, mut rounded) = ([0.0; BLOCK], [[[0; 2]; BLOCK / 2]; TILE]);
        let size = |cols: usize| m.dtype.row_bytes(cols).expect("blocks here are whole ones of the type");
        let kind = if m.dtype.is_quantised() { Steps::Any } else { Steps::PowersOfTwo };
        for start in (0..rows.len()).step_by(WIDTH) {
            let some = rows.start + start..(rows.start + start + WIDTH).min(rows.end);
            let width = some.len().next_multiple_of(TILE);
            let panel = &mut panels[start * len..][..len * width];
            let steps = &mut steps[start * blocks..][..blocks * width];
            if width > some.len() {
                steps.fill(0.0);
            }
            // A tile's rows block by block: what they are spread over stays in the first cache.
            for (tile, rows) in m.row_bytes(some).chunks(TILE * m.row_bytes).enumerate() {
                let blocks = panel.chunks_mut(BLOCK / 2 * width).zip(steps.chunks_exact_mut(width)).enumerate();
                rounded[rows.len() / m.row_bytes..].fill([[0; 2]; BLOCK / 2]);
                for (b, (panel, steps)) in blocks {
                    let cols = b * BLOCK..((b + 1) * BLOCK).min(m.cols);
                    let (x, len) = (&mut decoded[..cols.len()], cols.len().div_ceil(2));
                    let bytes = size(cols.start)..size(cols.end);
                    let next = bytes.end..size((cols.end + BLOCK).min(m.cols));
                    let rows = rows.chunks_exact(m.row_bytes).zip(&mut rounded);
                    for ((row, q), step) in rows.zip(&mut steps[tile * TILE..]) {
                        (k.prefetch)(&row[next.clone()]);
                        (k.decode)(m.dtype, &row[bytes.clone()], x);
                        *step = (words.round)(x, UNBOUNDED, kind, &mut q[..len]);
                    }
                    (words.spread)(&rounded, len, width, &mut panel[tile * TILE..]);
                }
            }
        }
    }
}

/// `out = clamp(m · x, bounds)` of all rows that were rounded.
pub fn project(
    (k, words): (&Kernels, &WordKernels),
    pool: &mut Pool,
    scratch: &[Mutex<Scratch>],
    acts: &Acts,
    out: &mut [f32],
    m: &Matrix,
    bounds: [f32; 2],
) {
    let (x, n) = (acts.rows(), acts.n);
    assert_eq!(x.len, m.cols.div_ceil(2), "activations of another width");
    let panels = most_panels(x.len).min(m.rows.div_ceil(4 * pool.threads() * WIDTH));
    pool.tiles(&mut [Output::new(out, n, m.rows, n, panels * WIDTH)], |worker, _, mut tile| {
        let scratch = &mut *lock(&scratch[worker]);
        let (rows, cols) = (tile.rows.clone(), tile.cols.clone());
        scratch.pack(k, words, m, cols.clone());
        let Scratch { panels, steps, out, .. } = scratch;
        let (panels, steps, out) = (panels.get(), steps.get(), out.take(ROWS * WIDTH));
        for first in rows.clone().step_by(ROWS) {
            let part = first..(first + ROWS).min(rows.end);
            for start in (0..cols.len()).step_by(WIDTH) {
                let width = (cols.len() - start).min(WIDTH);
                let tiles = width.div_ceil(TILE);
                let panel = Panel {
                    tiles,
                    pairs: &panels[start * x.len..][..x.len * tiles * TILE],
                    d: &steps[start * blocks(x.len)..][..blocks(x.len) * tiles * TILE],
                };
                let out = &mut out[..part.len() * tiles * TILE];
                (words.gemm)(panel, x.part(part.clone()), Start::Zero, bounds, out);
                for (i, out) in part.clone().zip(out.chunks_exact(tiles * TILE)) {
                    copy_row(&mut tile.row(i)[start..start + width], &out[..width]);
                }
            }
        }
    });
}
