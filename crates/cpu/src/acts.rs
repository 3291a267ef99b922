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
}

impl<'a> Rows8<'a> {
    /// Row `i`.
    pub fn row(&self, i: usize) -> Row8<'a> {
        let (blocks, sums) = (self.cols / 32, self.cols / 16);
        Row8 {
            q: &self.q[i * self.cols..(i + 1) * self.cols],
            d: &self.d[i * blocks..(i + 1) * blocks],
            sum: &self.sum[i * sums..(i + 1) * sums],
        }
    }
}

/// Grows `v` to at least `len`; never shrinks, so it allocates on first use only.
pub fn grow<T: Clone + Default>(v: &mut Vec<T>, len: usize) {
    if v.len() < len {
        v.resize(len, T::default());
    }
}

impl Acts {
    /// Takes `n` rows of `x`, normed by `weight` and `eps` where there is a norm.
    pub fn load(&mut self, k: &Kernels, pool: &mut Pool, x: &[f32], cols: usize, n: usize, norm: Option<(&[f32], f32)>) {
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
    pub fn quantise(&mut self, k: &Kernels, pool: &mut Pool) {
        assert!(self.cols.is_multiple_of(32), "{} columns in blocks of 32", self.cols);
        let len = self.n * self.cols;
        grow(&mut self.q, len);
        grow(&mut self.d, len / 32);
        grow(&mut self.sum, len / 16);
        let _ = pool;
        (k.quantise)(&self.x[..len], &mut self.q[..len], &mut self.d[..len / 32], &mut self.sum[..len / 16]);
    }

    /// Row `i` in f32.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.x[i * self.cols..(i + 1) * self.cols]
    }

    /// Rows in 8 bits; [`Acts::quantise`] must have been called.
    pub fn rows8(&self, rows: std::ops::Range<usize>) -> Rows8<'_> {
        let c = self.cols;
        Rows8 {
            cols: c,
            q: &self.q[rows.start * c..rows.end * c],
            d: &self.d[rows.start * c / 32..rows.end * c / 32],
            sum: &self.sum[rows.start * c / 16..rows.end * c / 16],
        }
    }
}
