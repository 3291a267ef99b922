//! Activations as the matrix kernels want them: f32 rows and, for integer dots, their integer form.
//!
//! They are made once per operation and shared by all its products. Memory grows on first use and stays.

use std::sync::Mutex;

use carat_tensor::backend::Rounding;

use crate::ints::{IntRows, Ints};
use crate::kernels::Kernels;
use crate::matmul::{Matrix, Scratch};
use crate::moe::lock;
use crate::pages::{LARGE, large_pages};
use crate::pool::Pool;
use crate::rows;

/// What some products want of their input.
#[derive(Clone, Copy, PartialEq)]
pub struct Wanted {
    /// Whether in f32.
    pub floats: bool,
    /// How as integers, if so.
    pub rounding: Option<Rounding>,
}

impl Wanted {
    /// In f32 alone.
    pub const FLOATS: Wanted = Wanted { floats: true, rounding: None };
    /// As integers of 8 bits alone.
    pub const COARSE: Wanted = Wanted { floats: false, rounding: Some(Rounding::Coarse) };

    /// By products with `matrices`, of which quantised ones meet integers where there is a rounding.
    pub fn by<'m>(integer: Option<Rounding>, mut matrices: impl Iterator<Item = &'m Matrix> + Clone) -> Self {
        let floats = integer.is_none() || matrices.clone().any(|m| !m.dtype.is_quantised());
        Wanted { floats, rounding: integer.filter(|_| matrices.any(|m| m.dtype.is_quantised())) }
    }
}

/// What becomes of rows before they are taken.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// Nothing.
    Nothing,
    /// They are normed, by a weight and an epsilon.
    Norm(&'a [f32], f32),
    /// They are brought within bounds.
    Clamp([f32; 2]),
}

/// Rows of activations, normed, and their integer form where it was asked for.
#[derive(Default)]
pub struct Acts {
    /// Rows.
    pub n: usize,
    /// Columns.
    pub cols: usize,
    /// `[n, cols]`, where they were asked for.
    pub x: Vec<f32>,
    ints: Ints,
    /// What 15 bits leave, where that is asked for.
    rest: Ints,
    finest: bool,
}

impl Acts {
    /// Takes `n` rows of `x` in the wanted forms; `scratch` of each worker.
    pub fn load(
        &mut self,
        k: &Kernels,
        (pool, scratch): (&mut Pool, &[Mutex<Scratch>]),
        x: &[f32],
        (n, cols): (usize, usize),
        before: Before<'_>,
        wanted: Wanted,
    ) {
        (self.n, self.cols) = (n, cols);
        let x = |i: usize| &x[i * cols..(i + 1) * cols];
        let make = |i: usize, out: &mut [f32]| match before {
            Before::Nothing => out.copy_from_slice(x(i)),
            Before::Norm(weight, eps) => rows::rms_norm(k, out, x(i), weight, eps),
            Before::Clamp(bounds) => {
                out.copy_from_slice(x(i));
                rows::clamp(out, bounds);
            }
        };
        if let Some(rounding) = wanted.rounding
            && !wanted.floats
            // What integers leave is made of the rows.
            && rounding != Rounding::Finest
        {
            self.finest = false;
            self.ints.quantise(k, pool, (n, cols), rounding != Rounding::Coarse, |worker, i, take| {
                if matches!(before, Before::Nothing) {
                    return take(x(i));
                }
                let mut scratch = lock(&scratch[worker]);
                let row = scratch.decoded(cols);
                make(i, row);
                take(row);
            });
            return;
        }
        grow(&mut self.x, n * cols);
        pool.for_rows(&mut self.x, n, cols, make);
        if let Some(rounding) = wanted.rounding {
            self.quantise(k, pool, rounding);
        }
    }

    /// Takes rows that another set holds, in the given order.
    pub fn permute(&mut self, pool: &mut Pool, from: &Acts, order: &[usize]) {
        (self.n, self.cols) = (order.len(), from.cols);
        grow(&mut self.x, self.n * self.cols);
        pool.for_rows(&mut self.x, self.n, self.cols, |i, row| row.copy_from_slice(from.row(order[i])));
    }

    /// The same of the integer form that was made of them, which becomes these rows'.
    pub fn permute_ints(&mut self, pool: &mut Pool, from: &Acts, order: &[usize]) {
        (self.n, self.cols, self.finest) = (order.len(), from.cols, from.finest);
        self.ints.permute(pool, &from.ints, from.cols, order);
        if self.finest {
            self.rest.permute(pool, &from.rest, from.cols, order);
        }
    }

    /// Makes the integer form: 15 bits or 8, or 15 and 7 of what they leave.
    ///
    /// # Panics
    /// If the columns aren't a multiple of 32.
    pub fn quantise(&mut self, k: &Kernels, pool: &mut Pool, rounding: Rounding) {
        let (n, cols) = (self.n, self.cols);
        let x = &self.x[..n * cols];
        self.finest = rounding == Rounding::Finest;
        self.ints.quantise(k, pool, (n, cols), rounding != Rounding::Coarse, |_, i, take| {
            take(&x[i * cols..(i + 1) * cols]);
        });
        if self.finest {
            self.rest.rest_of(k, pool, x, cols, &self.ints);
        }
    }

    /// Row `i` in f32.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.x[i * self.cols..(i + 1) * self.cols]
    }

    /// Rows in f32.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> &[f32] {
        &self.x[rows.start * self.cols..rows.end * self.cols]
    }

    /// Rows as integers; [`Acts::quantise`] must have been called.
    pub fn int_rows(&self, rows: std::ops::Range<usize>) -> IntRows<'_> {
        self.ints.rows(self.cols, rows)
    }

    /// What [`Acts::int_rows`] leave of the same rows, to be added, where [`Rounding::Finest`] was asked for: in steps of a
    /// 128th, none above 64 but by rounding.
    pub fn rest_rows(&self, rows: std::ops::Range<usize>) -> Option<IntRows<'_>> {
        self.finest.then(|| self.rest.rows(self.cols, rows))
    }
}

/// Grows `v` to at least `len`; never shrinks, so it allocates on first use only.
pub fn grow<T: Clone + Default>(v: &mut Vec<T>, len: usize) {
    if v.len() < len {
        v.reserve_exact(len - v.len());
        if len * size_of::<T>() >= LARGE {
            large_pages(v.spare_capacity_mut());
        }
        v.resize(len, T::default());
    }
}
