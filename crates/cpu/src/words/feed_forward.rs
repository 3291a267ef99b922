//! Feed-forwards between bounds, with weights of 16 bits or of 8 in blocks.
//!
//! What is inside is several times as wide as what goes in and comes out. It is rounded as soon as a block of it is made, while
//! the first cache has it, and never written in f32: that would be twice as much to write, and to read again.

use std::sync::Mutex;

use super::product::{self, Acts, Packed, Scratch, Tables, WIDTH};
use super::{BLOCK, LINE, Pair, Rows, Scale, Start, Steps};
use crate::acts::grow;
use crate::kernels::TILE;
use crate::matmul::Matrix;
use crate::moe::lock;
use crate::pool::{Output, Pool, Tile};

/// Rows whose blocks are made together.
const ROWS: usize = 25;

/// A matrix, and the bounds of its products.
pub type Clipped<'a> = (&'a Matrix, [f32; 2]);

/// `down · a`, `a = gelu_tanh(gate · x) ⊙ (up · x)` or, without a gate, `silu(up · x)`.
pub struct FeedForward<'a> {
    /// Bounds of what goes in.
    pub input: [f32; 2],
    /// `[ff, d]`.
    pub gate: Option<Clipped<'a>>,
    /// `[ff, d]`.
    pub up: Clipped<'a>,
    /// Bounds of what is inside.
    pub inner: [f32; 2],
    /// `[d, ff]`.
    pub down: Clipped<'a>,
}

impl FeedForward<'_> {
    /// `out = down · a` for `n` rows of `x`; these are rounded to `room` and `scales`, and what is inside to `inner`.
    ///
    /// # Panics
    /// If `room` is too small ([`product::room`]).
    pub fn run(
        &self,
        tables: Tables<'_>,
        (pool, scratch): (&mut Pool, &[Mutex<Scratch>]),
        (inner, room, scales): (&mut Acts, &mut [Pair], &mut Vec<Scale>),
        (x, n): (&[f32], usize),
        out: &mut [f32],
    ) {
        let cols = self.up.0.cols;
        let (n_pairs, n_scales) = product::lengths(n, cols);
        grow(scales, n_scales);
        let start = room.as_ptr().align_offset(LINE);
        let to = (&mut room[start..start + n_pairs], &mut scales[..n_scales]);
        let x = product::round(tables.1, pool, (x, n, cols), self.input, to);
        match self.gate {
            Some(gate) => self.activate(tables, (pool, scratch), x, [gate, self.up], inner),
            None => self.activate(tables, (pool, scratch), x, [self.up], inner),
        }
        let (down, bounds) = self.down;
        product::project(tables, (pool, scratch), inner.rows(), out, [down], bounds, |_, _, _| ());
    }

    /// Makes `a` of rounded rows.
    fn activate<const M: usize>(
        &self,
        (k, words): Tables<'_>,
        (pool, scratch): (&mut Pool, &[Mutex<Scratch>]),
        x: Rows<'_>,
        clipped: [Clipped<'_>; M],
        inner: &mut Acts,
    ) {
        const { assert!(M == 1 || M == 2) };
        let matrices = clipped.map(|(m, _)| m);
        let (n, width) = (x.count(), product::check(x, &matrices));
        let threads = pool.threads();
        let some = product::blocks_at_once(x.len, M).min(width.div_ceil(4 * threads * BLOCK));
        let (pairs, scales) = inner.room(n, width);
        let (stride, blocks) = (pairs.len() / n, scales.len() / n);
        let pairs = Output::new(pairs, n, stride, n, some * BLOCK / 2).columns(0..width.div_ceil(2));
        let scales = Output::new(scales, n, blocks, n, some);
        pool.tiles_of_both((pairs, scales), |worker, mut pairs, mut tile_scales| {
            let Scratch { panels, scales, out } = &mut *lock(&scratch[worker]);
            let cols = 2 * pairs.cols().start..(2 * pairs.cols().end).min(width);
            let packed = Packed::new((k, words), &matrices, &cols, (panels, scales));
            let (values, sums) = out.take(product::SUMS).split_at_mut(ROWS * BLOCK);
            let (sums, more) = sums.split_at_mut(ROWS * WIDTH);
            for first in (0..n).step_by(ROWS) {
                let part = first..(first + ROWS).min(n);
                let x = x.part(part.clone());
                let mut values = Tile::of(&mut values[..part.len() * BLOCK], BLOCK);
                for start in (0..cols.len()).step_by(BLOCK) {
                    let len = (cols.len() - start).min(BLOCK);
                    for at in (0..len).step_by(WIDTH) {
                        let panel = packed.panel(0, start + at);
                        let width = panel.tiles * TILE;
                        let (sums, more) = (&mut sums[..part.len() * width], &mut more[..part.len() * width]);
                        let mut to = values.columns(at..at + width);
                        let out = (M == 2).then_some(&mut to);
                        (words.gemm)(panel, x, Start::Zero, clipped[0].1, sums, out);
                        if M == 2 {
                            (words.gemm)(packed.panel(1, start + at), x, Start::Zero, clipped[1].1, more, None);
                        }
                        for (i, (sums, more)) in sums.chunks_exact(width).zip(more.chunks_exact(width)).enumerate() {
                            if M == 2 {
                                (k.gelu_mul)(to.row(i), more);
                            } else {
                                (k.sigmoid_mul)(to.row(i), sums, sums);
                            }
                        }
                    }
                    let (block, place) = ((cols.start + start) / BLOCK, (cols.start + start) / 2);
                    let (of_pairs, of_scale) = (place - pairs.cols().start, block - tile_scales.cols().start);
                    for i in part.clone() {
                        let q = &mut pairs.row(i)[of_pairs..of_pairs + len.div_ceil(2)];
                        let x = &values.row(i - part.start)[..len];
                        tile_scales.row(i)[of_scale] = (words.round)(x, self.inner, Steps::Any, q);
                    }
                }
            }
        });
    }
}
