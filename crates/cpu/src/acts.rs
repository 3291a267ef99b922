//! Activations as the matrix kernels want them: f32 rows and, for integer dots, their 8-bit form.
//!
//! They are made once per operation and shared by all its products. Memory grows on first use and stays.

use crate::kernels::Kernels;
use crate::pool::{Output, Pool};
use crate::rows;

/// Rows of activations, normed, and their 8-bit form where it was asked for.
#[derive(Default)]
pub struct Acts {
    /// Rows.
    pub n: usize,
    /// Columns.
    pub cols: usize,
    /// `[n, cols]`.
    pub x: Vec<f32>,
    q: Vec<i8>,
    d: Vec<f32>,
    sum: Vec<i32>,
    neg: [Vec<i32>; 2],
    dsum: [Vec<f32>; 2],
    wide: Vec<f32>,
    lane: Vec<i32>,
    widened: bool,
}

/// One row in 8 bits: `x ≈ d · q` in blocks of 32.
#[derive(Clone, Copy)]
pub struct Row8<'a> {
    /// `[cols]`.
    pub q: &'a [i8],
    /// `[cols / 32]`.
    pub d: &'a [f32],
    /// Sums of 16 `q`: `[cols / 16]`.
    pub sum: &'a [i32],
    /// `−8 · Σ q` of 16: an offset's share, up to a shift.
    pub neg16: &'a [i32],
    /// `−8 · Σ q` of 32.
    pub neg32: &'a [i32],
    /// `d · Σ q` of 16: what a minimum is multiplied with.
    pub dsum16: &'a [f32],
    /// `d · Σ q` of 32.
    pub dsum32: &'a [f32],
    /// `d` of every four values; empty unless [`Acts::widen`] was called.
    pub wide: &'a [f32],
    /// `−8 · Σ q` of every four values; empty likewise.
    pub lane: &'a [i32],
}

/// Rows in 8 bits.
#[derive(Clone, Copy)]
pub struct Rows8<'a> {
    /// Values per row.
    pub cols: usize,
    /// `[n, cols]`.
    pub q: &'a [i8],
    /// `[n, cols / 32]`.
    pub d: &'a [f32],
    /// `[n, cols / 16]`.
    pub sum: &'a [i32],
    /// `−8 · Σ q` of 16: an offset's share, up to a shift.
    pub neg16: &'a [i32],
    /// `−8 · Σ q` of 32.
    pub neg32: &'a [i32],
    /// `d · Σ q` of 16: what a minimum is multiplied with.
    pub dsum16: &'a [f32],
    /// `d · Σ q` of 32.
    pub dsum32: &'a [f32],
    /// `d` of every four values; empty unless [`Acts::widen`] was called.
    pub wide: &'a [f32],
    /// `−8 · Σ q` of every four values; empty likewise.
    pub lane: &'a [i32],
}

impl<'a> Rows8<'a> {
    /// Row `i`.
    pub fn row(&self, i: usize) -> Row8<'a> {
        let c = self.cols;
        Row8 {
            q: part(self.q, i, c),
            d: part(self.d, i, c / 32),
            sum: part(self.sum, i, c / 16),
            neg16: part(self.neg16, i, c / 16),
            neg32: part(self.neg32, i, c / 32),
            dsum16: part(self.dsum16, i, c / 16),
            dsum32: part(self.dsum32, i, c / 32),
            wide: if self.wide.is_empty() { &[] } else { part(self.wide, i, c / 4) },
            lane: if self.lane.is_empty() { &[] } else { part(self.lane, i, c / 4) },
        }
    }
}

/// Row `i` of rows of `len`.
fn part<T>(all: &[T], i: usize, len: usize) -> &[T] {
    &all[i * len..(i + 1) * len]
}

/// Grows `v` to at least `len`; never shrinks, so it allocates on first use only.
pub fn grow<T: Clone + Default>(v: &mut Vec<T>, len: usize) {
    if v.len() < len {
        v.resize(len, T::default());
    }
}

impl Acts {
    /// Takes `n` rows of `x`, normed by `weight` and `eps` where there is a norm.
    pub fn load(
        &mut self,
        k: &Kernels,
        pool: &mut Pool,
        x: &[f32],
        cols: usize,
        n: usize,
        norm: Option<(&[f32], f32)>,
    ) {
        (self.n, self.cols) = (n, cols);
        grow(&mut self.x, n * cols);
        let out = Output::new(&mut self.x, n, cols, 8, cols);
        pool.tiles(&mut [out], |_, _, mut tile| {
            for i in tile.rows.clone() {
                let (x, out) = (&x[i * cols..(i + 1) * cols], tile.row(i));
                match norm {
                    Some((weight, eps)) => rows::rms_norm(k, out, x, Some(weight), eps),
                    None => out.copy_from_slice(x),
                }
            }
        });
    }

    /// Rows that another set holds, in the given order.
    pub fn permute(&mut self, from: &Acts, order: &[usize]) {
        let cols = from.cols;
        (self.n, self.cols) = (order.len(), cols);
        grow(&mut self.x, order.len() * cols);
        for (out, &row) in self.x.chunks_exact_mut(cols.max(1)).zip(order) {
            out.copy_from_slice(&from.x[row * cols..(row + 1) * cols]);
        }
    }

    /// Makes the 8-bit form.
    ///
    /// # Panics
    /// If the columns aren't a multiple of 32.
    pub fn quantise(&mut self, k: &Kernels) {
        assert!(self.cols.is_multiple_of(32), "{} columns in blocks of 32", self.cols);
        let len = self.n * self.cols;
        grow(&mut self.q, len);
        grow(&mut self.d, len / 32);
        grow(&mut self.sum, len / 16);
        self.widened = false;
        (k.quantise)(&self.x[..len], &mut self.q[..len], &mut self.d[..len / 32], &mut self.sum[..len / 16]);
        for (per, (neg, dsum)) in [1, 2].into_iter().zip(self.neg.iter_mut().zip(&mut self.dsum)) {
            grow(neg, len / 16 / per);
            grow(dsum, len / 16 / per);
            let sums = self.sum[..len / 16].chunks_exact(per).zip(neg.iter_mut().zip(dsum));
            for (i, (sums, (neg, dsum))) in sums.enumerate() {
                let sum: i32 = sums.iter().sum();
                *neg = -8 * sum;
                *dsum = self.d[i * per / 2] * sum as f32;
            }
        }
    }

    /// Makes what the kernels for single rows want besides.
    pub fn widen(&mut self) {
        let len = self.n * self.cols;
        grow(&mut self.wide, len / 4);
        grow(&mut self.lane, len / 4);
        self.widened = true;
        let blocks = self.wide.as_chunks_mut::<8>().0.iter_mut().zip(self.lane.as_chunks_mut::<8>().0);
        for ((wide, lane), (q, &d)) in blocks.zip(self.q[..len].as_chunks::<32>().0.iter().zip(&self.d)) {
            wide.fill(d);
            for (lane, q) in lane.iter_mut().zip(q.as_chunks::<4>().0) {
                *lane = -8 * q.iter().map(|&q| i32::from(q)).sum::<i32>();
            }
        }
    }

    /// Row `i` in f32.
    pub fn row(&self, i: usize) -> &[f32] {
        part(&self.x, i, self.cols)
    }

    /// Rows in 8 bits; [`Acts::quantise`] must have been called.
    pub fn rows8(&self, rows: std::ops::Range<usize>) -> Rows8<'_> {
        let c = self.cols;
        let at = |len: usize| rows.start * len..rows.end * len;
        Rows8 {
            cols: c,
            q: &self.q[at(c)],
            d: &self.d[at(c / 32)],
            sum: &self.sum[at(c / 16)],
            neg16: &self.neg[0][at(c / 16)],
            neg32: &self.neg[1][at(c / 32)],
            dsum16: &self.dsum[0][at(c / 16)],
            dsum32: &self.dsum[1][at(c / 32)],
            wide: if self.widened { &self.wide[at(c / 4)] } else { &[] },
            lane: if self.widened { &self.lane[at(c / 4)] } else { &[] },
        }
    }
}
