//! Activations as the matrix kernels want them: f32 rows and, for integer dots, their integer form.
//!
//! They are made once per operation and shared by all its products. Memory grows on first use and stays.

use carat_tensor::backend::Rounding;

use crate::kernels::Kernels;
use crate::pool::{Output, Pool};
use crate::rows;

/// Rows of activations, normed, and their integer form where it was asked for.
#[derive(Default)]
pub struct Acts {
    /// Rows.
    pub n: usize,
    /// Columns.
    pub cols: usize,
    /// `[n, cols]`.
    pub x: Vec<f32>,
    ints: Ints,
    /// What 15 bits leave, where that is asked for.
    rest: Ints,
    finest: bool,
}

/// Memory of [`IntRows`].
#[derive(Default)]
struct Ints {
    q: Vec<i8>,
    low: Vec<i8>,
    wide: Vec<i16>,
    blocks: Vec<Block>,
    d: Vec<f32>,
    sum: Vec<i32>,
    neg: [Vec<i32>; 2],
    dsum: [Vec<f32>; 2],
    fine: bool,
    in_pairs: bool,
}

/// Rows as integers: `x ≈ d · v` in blocks of 32, `v` of 8 bits (`v = q`) or of 15 (`v = 128 · q + low`).
#[derive(Clone, Copy)]
pub struct IntRows<'a> {
    /// Values per row.
    pub cols: usize,
    /// The upper 8 bits, `[n, cols]`; never −128.
    pub q: &'a [i8],
    /// The lower 7 bits, −64 to 63, `[n, cols]`; empty where `v` has 8 bits.
    pub low: &'a [i8],
    /// `v` as one, of every four values the even ones first, `[n, cols]`; empty where the kernels don't want it.
    pub wide: &'a [i16],
    /// The same in blocks of 32, with all that goes with them, `[n, cols / 32]`; empty where the kernels don't want it.
    pub blocks: &'a [Block],
    /// `[n, cols / 32]`.
    pub d: &'a [f32],
    /// Sums of 16 `v`: `[n, cols / 16]`.
    pub sum: &'a [i32],
    /// `−8 · Σ v` of 16: an offset's share, up to a shift.
    pub neg16: &'a [i32],
    /// `−8 · Σ v` of 32.
    pub neg32: &'a [i32],
    /// `d · Σ v` of 16: what a minimum is multiplied with.
    pub dsum16: &'a [f32],
    /// `d · Σ v` of 32.
    pub dsum32: &'a [f32],
}

/// 32 activations of a row with all that kernels need of them that multiply in pairs: one address a row.
#[derive(Clone, Copy, Default)]
pub struct Block {
    /// `q` and `low`.
    pub planes: [[i8; 32]; 2],
    /// Of each plane, `−8 · Σ` of the first and of the last two of every four values: what 16-bit sums of products with
    /// weights of an offset start from, up to a shift.
    pub start32: [[i16; 2]; 2],
    /// The same of each 16.
    pub start16: [[[i16; 2]; 2]; 2],
    /// As in [`IntRows`].
    pub d: f32,
    /// As in [`IntRows`].
    pub dsum32: f32,
    /// As in [`IntRows`].
    pub dsum16: [f32; 2],
}

impl Block {
    /// Makes the starts of a plane.
    fn start_up(&mut self, plane: usize) {
        for (start, values) in self.start16[plane].iter_mut().zip(self.planes[plane].as_chunks::<16>().0) {
            let mut sums = [0; 4];
            for quad in values.as_chunks::<4>().0 {
                sums.iter_mut().zip(quad).for_each(|(sum, &v)| *sum += i16::from(v));
            }
            *start = [-8 * (sums[0] + sums[1]), -8 * (sums[2] + sums[3])];
        }
        let [a, b] = self.start16[plane];
        self.start32[plane] = [a[0] + b[0], a[1] + b[1]];
    }
}

impl<'a> IntRows<'a> {
    /// Row `i` alone.
    pub fn row(&self, i: usize) -> IntRows<'a> {
        let c = self.cols;
        IntRows {
            cols: c,
            q: part(self.q, i, c),
            low: part(self.low, i, if self.is_fine() { c } else { 0 }),
            wide: part(self.wide, i, if self.wide.is_empty() { 0 } else { c }),
            blocks: part(self.blocks, i, if self.blocks.is_empty() { 0 } else { c / 32 }),
            d: part(self.d, i, c / 32),
            sum: part(self.sum, i, c / 16),
            neg16: part(self.neg16, i, c / 16),
            neg32: part(self.neg32, i, c / 32),
            dsum16: part(self.dsum16, i, c / 16),
            dsum32: part(self.dsum32, i, c / 32),
        }
    }

    /// Whether values have 15 bits.
    pub fn is_fine(&self) -> bool {
        !self.low.is_empty()
    }

    /// Value `k` of all.
    pub fn value(&self, k: usize) -> i32 {
        match self.low.get(k) {
            Some(&low) => 128 * i32::from(self.q[k]) + i32::from(low),
            None => i32::from(self.q[k]),
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

    /// Makes the integer form: 15 bits or 8, or 15 and 7 of what they leave.
    ///
    /// # Panics
    /// If the columns aren't a multiple of 32.
    pub fn quantise(&mut self, k: &Kernels, rounding: Rounding) {
        assert!(self.cols.is_multiple_of(32), "{} columns in blocks of 32", self.cols);
        let x = &self.x[..self.n * self.cols];
        self.finest = rounding == Rounding::Finest;
        self.ints.quantise(k, x, rounding != Rounding::Coarse);
        if self.finest {
            self.rest.rest_of(k, x, &self.ints);
        }
    }

    /// Row `i` in f32.
    pub fn row(&self, i: usize) -> &[f32] {
        part(&self.x, i, self.cols)
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

impl Ints {
    fn quantise(&mut self, k: &Kernels, x: &[f32], fine: bool) {
        let len = x.len();
        self.fine = fine;
        let low = if fine { len } else { 0 };
        grow(&mut self.q, len);
        grow(&mut self.low, low);
        grow(&mut self.d, len / 32);
        grow(&mut self.sum, len / 16);
        let (q, low, d) = (&mut self.q[..len], &mut self.low[..low], &mut self.d[..len / 32]);
        (k.quantise)(x, q, low, d, &mut self.sum[..len / 16]);
        self.sum_up(len);
        self.pair(k, len);
    }

    /// Makes what kernels want that multiply in pairs.
    fn pair(&mut self, k: &Kernels, len: usize) {
        self.in_pairs = k.in_pairs;
        if k.in_pairs {
            self.widen(len);
            self.block(len);
        }
    }

    /// Makes [`IntRows::wide`].
    fn widen(&mut self, len: usize) {
        grow(&mut self.wide, len);
        let quads = self.wide[..len].as_chunks_mut::<4>().0.iter_mut().zip(self.q.as_chunks::<4>().0);
        if self.fine {
            for ((wide, q), low) in quads.zip(self.low.as_chunks::<4>().0) {
                let v = |i: usize| 128 * i16::from(q[i]) + i16::from(low[i]);
                *wide = [v(0), v(2), v(1), v(3)];
            }
        } else {
            quads.for_each(|(wide, q)| *wide = [q[0], q[2], q[1], q[3]].map(i16::from));
        }
    }

    /// Makes [`IntRows::blocks`].
    fn block(&mut self, len: usize) {
        grow(&mut self.blocks, len / 32);
        let q = self.q[..len].as_chunks::<32>().0;
        for (b, (block, q)) in self.blocks.iter_mut().zip(q).enumerate() {
            block.planes[0] = *q;
            block.d = self.d[b];
            block.dsum32 = self.dsum[1][b];
            block.dsum16 = [self.dsum[0][2 * b], self.dsum[0][2 * b + 1]];
            block.start_up(0);
        }
        if self.fine {
            for (block, low) in self.blocks.iter_mut().zip(self.low[..len].as_chunks::<32>().0) {
                block.planes[1] = *low;
                block.start_up(1);
            }
        }
    }

    /// What `of`, 15 bits of `x`, leaves.
    fn rest_of(&mut self, k: &Kernels, x: &[f32], of: &Ints) {
        let len = x.len();
        self.fine = false;
        grow(&mut self.q, len);
        grow(&mut self.d, len / 32);
        grow(&mut self.sum, len / 16);
        let upper = of.q.as_chunks::<16>().0.iter().zip(of.low.as_chunks::<16>().0);
        let lower = self.q.as_chunks_mut::<16>().0.iter_mut().zip(&mut self.sum);
        for (i, (x, ((high, low), (rest, sum)))) in x.as_chunks::<16>().0.iter().zip(upper.zip(lower)).enumerate() {
            let d = f64::from(of.d[i / 2]);
            self.d[i / 2] = of.d[i / 2] / 128.0;
            let inverse = if d == 0.0 { 0.0 } else { 128.0 / d };
            *sum = 0;
            for i in 0..16 {
                // A product of 24 and 15 bits: whole in f64 alone.
                let left = f64::from(x[i]) - d * f64::from(128 * i32::from(high[i]) + i32::from(low[i]));
                let steps = (left * inverse + 128.5) as i32 - 128;
                rest[i] = steps as i8;
                *sum += steps;
            }
        }
        self.sum_up(len);
        self.pair(k, len);
    }

    /// The sums' shares in products.
    fn sum_up(&mut self, len: usize) {
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

    fn rows(&self, cols: usize, rows: std::ops::Range<usize>) -> IntRows<'_> {
        let c = cols;
        let at = |len: usize| rows.start * len..rows.end * len;
        IntRows {
            cols: c,
            q: &self.q[at(c)],
            low: if self.fine { &self.low[at(c)] } else { &[] },
            wide: if self.in_pairs { &self.wide[at(c)] } else { &[] },
            blocks: if self.in_pairs { &self.blocks[at(c / 32)] } else { &[] },
            d: &self.d[at(c / 32)],
            sum: &self.sum[at(c / 16)],
            neg16: &self.neg[0][at(c / 16)],
            neg32: &self.neg[1][at(c / 32)],
            dsum16: &self.dsum[0][at(c / 16)],
            dsum32: &self.dsum[1][at(c / 32)],
        }
    }
}
