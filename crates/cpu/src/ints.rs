//! Rows of activations as integers: what they are, and how they are made.
//!
//! Every row is on its own, so many are made on all threads.

use std::sync::Mutex;

use crate::acts::grow;
use crate::kernels::Kernels;
use crate::moe::lock;
use crate::pool::Pool;
use crate::scalar::{self, RowScale};
use crate::words::Lines;

/// Memory of [`IntRows`].
#[derive(Default)]
pub struct Ints {
    q: Plane<0>,
    low: Plane<1024>,
    wide: Vec<i16>,
    blocks: Vec<Block>,
    d: Vec<f32>,
    exps: Vec<i32>,
    sum: Vec<i32>,
    neg: [Vec<i32>; 2],
    dsum: [Vec<f32>; 2],
    eights: Vec<Eight>,
    fine: bool,
    in_pairs: bool,
}

/// Rows as integers: `x ≈ d · v` in blocks of 32, `v` of 8 bits (`v = q`) or of 15 (`v = 128 · q + low`). The scales of a row
/// differ by powers of two ([`scalar::RowScale`]).
#[derive(Clone, Copy, PartialEq)]
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
    /// Each `d` as a power of two times the row's unit ([`IntRows::unit`]), as what is added to a float's bits to multiply
    /// it, `[n, cols / 32]`; never negative.
    pub exps: &'a [i32],
    /// Sums of 16 `v`: `[n, cols / 16]`.
    pub sum: &'a [i32],
    /// `−32 · Σ v` of 16: an offset's share, up to a shift.
    pub neg16: &'a [i32],
    /// `−8 · Σ v` of 32, likewise.
    pub neg32: &'a [i32],
    /// `d · Σ v` of 16: what a minimum is multiplied with.
    pub dsum16: &'a [f32],
    /// `d · Σ v` of 32.
    pub dsum32: &'a [f32],
    /// The same in 16 bits, `[n, cols / 256]`; empty where a row has no whole number of them.
    pub eights: &'a [Eight],
}

/// The sums of 256 activations, for 16-bit dots with as many minima.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Eight {
    /// `d · Σ v` of 32 each, in units of the row times a power of two: the least that leaves the largest one room.
    pub sums: [i16; 8],
    /// The power, as [`IntRows::exps`] has them.
    pub exp: i32,
}

/// How many a row has.
fn eights_of(cols: usize) -> usize {
    if cols.is_multiple_of(256) { cols / 256 } else { 0 }
}

impl Eight {
    /// Of sums of 16, and the blocks' powers.
    pub fn new(sums: &[[i32; 2]], exps: &[i32]) -> Self {
        let power = |exp: i32| f32::from_bits((127_u32 << 23).wrapping_add_signed(exp));
        let sums: [f32; 8] = std::array::from_fn(|i| (sums[i][0] + sums[i][1]) as f32 * power(exps[i]));
        let exp = Self::exp_of(scalar::largest(&sums).to_bits());
        Eight { sums: sums.map(|sum| (sum * power(-exp)).round_ties_even() as i16), exp }
    }

    /// [`Eight::exp`], from the bits of the largest magnitude.
    #[inline]
    pub fn exp_of(largest: u32) -> i32 {
        ((largest >> 23).cast_signed() - 127 - 14).max(0) << 23
    }
}

/// What products want of sums; each as in [`IntRows`].
#[allow(missing_docs, reason = "the fields of the same names carry the documentation")]
pub struct Sums<'a> {
    pub neg16: &'a mut [i32],
    pub neg32: &'a mut [i32],
    pub dsum16: &'a mut [f32],
    pub dsum32: &'a mut [f32],
    pub eights: &'a mut [Eight],
}

/// 32 activations of a row with all that kernels need of them that multiply in pairs: one address a row.
#[derive(Clone, Copy, Default, PartialEq)]
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
            exps: part(self.exps, i, c / 32),
            sum: part(self.sum, i, c / 16),
            neg16: part(self.neg16, i, c / 16),
            neg32: part(self.neg32, i, c / 32),
            dsum16: part(self.dsum16, i, c / 16),
            dsum32: part(self.dsum32, i, c / 32),
            eights: part(self.eights, i, eights_of(c)),
        }
    }

    /// What row `i` counts in: below all its `d`, by powers of two. Of a row of zeros 0, and NaN of one that is no number.
    pub fn unit(&self, i: usize) -> f32 {
        let first = i * (self.cols / 32);
        f32::from_bits(self.d[first].to_bits() - self.exps[first].cast_unsigned())
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

/// Values that are worth a task.
const TASK: usize = 16 << 10;

impl Ints {
    /// Makes `n` rows of `cols` of 8 bits, or of 15, each of what `show(worker, i, take)` shows to `take`.
    ///
    /// # Panics
    /// If the columns aren't a multiple of 32.
    pub fn quantise(
        &mut self,
        k: &Kernels,
        pool: &mut Pool,
        (n, cols): (usize, usize),
        fine: bool,
        show: impl Fn(usize, usize, &mut dyn FnMut(&[f32])) + Sync,
    ) {
        assert!(cols.is_multiple_of(32), "{cols} columns in blocks of 32");
        self.fine = fine;
        self.fill(k, pool, n * cols, cols, |worker, part, at| {
            for i in 0..at.len() / cols {
                show(worker, at.start / cols + i, &mut |x| part.quantise(k, i, x));
            }
        });
    }

    /// Makes what `of`, 15 bits of `x`, leaves.
    pub fn rest_of(&mut self, k: &Kernels, pool: &mut Pool, x: &[f32], cols: usize, of: &Ints) {
        self.fine = false;
        self.fill(k, pool, x.len(), cols, |_, part, at| {
            let blocks = at.start / 32..at.end / 32;
            part.rest_of(&x[at.clone()], (&of.q.get()[at.clone()], &of.low.get()[at], &of.d[blocks]));
        });
    }

    /// Makes all of `len` values, whose integers, scales and sums `integers(worker, part, at)` makes of what lies at `at`.
    fn fill(
        &mut self,
        k: &Kernels,
        pool: &mut Pool,
        len: usize,
        cols: usize,
        integers: impl Fn(usize, &mut Part<'_>, std::ops::Range<usize>) + Sync,
    ) {
        self.in_pairs = k.in_pairs;
        self.all(len, cols).run(pool, len, cols, |worker, part, at| {
            integers(worker, part, at);
            part.find_units(cols);
            part.sum_up(k);
            if k.in_pairs {
                part.widen();
                part.block();
            }
        });
    }

    /// Takes rows of `cols` that another set holds, in the given order.
    pub fn permute(&mut self, pool: &mut Pool, from: &Ints, cols: usize, order: &[usize]) {
        (self.fine, self.in_pairs) = (from.fine, from.in_pairs);
        let len = order.len() * cols;
        self.all(len, cols).run(pool, len, cols, |_, part, at| {
            for (i, &row) in order[at.start / cols..at.end / cols].iter().enumerate() {
                part.copy(i, &from.rows(cols, row..row + 1));
            }
        });
    }

    /// Room for `len` values in rows of `cols`.
    fn all(&mut self, len: usize, cols: usize) -> Part<'_> {
        let [low, pairs] = [self.fine, self.in_pairs].map(|is_used| if is_used { len } else { 0 });
        let [neg16, neg32] = &mut self.neg;
        let [dsum16, dsum32] = &mut self.dsum;
        Part {
            q: self.q.take(len),
            low: self.low.take(low),
            wide: room(&mut self.wide, pairs),
            blocks: room(&mut self.blocks, pairs / 32),
            d: room(&mut self.d, len / 32),
            exps: room(&mut self.exps, len / 32),
            sum: room(&mut self.sum, len / 16),
            neg: [room(neg16, len / 16), room(neg32, len / 32)],
            dsum: [room(dsum16, len / 16), room(dsum32, len / 32)],
            eights: room(&mut self.eights, len / cols * eights_of(cols)),
        }
    }

    /// Rows of `cols`.
    pub fn rows(&self, cols: usize, rows: std::ops::Range<usize>) -> IntRows<'_> {
        let c = cols;
        let at = |len: usize| rows.start * len..rows.end * len;
        IntRows {
            cols: c,
            q: &self.q.get()[at(c)],
            low: if self.fine { &self.low.get()[at(c)] } else { &[] },
            wide: if self.in_pairs { &self.wide[at(c)] } else { &[] },
            blocks: if self.in_pairs { &self.blocks[at(c / 32)] } else { &[] },
            d: &self.d[at(c / 32)],
            exps: &self.exps[at(c / 32)],
            sum: &self.sum[at(c / 16)],
            neg16: &self.neg[0][at(c / 16)],
            neg32: &self.neg[1][at(c / 32)],
            dsum16: &self.dsum[0][at(c / 16)],
            dsum32: &self.dsum[1][at(c / 32)],
            eights: &self.eights[at(eights_of(c))],
        }
    }
}

/// Rounds a row in 15 bits or, without `low`, in 8. Where a value is not finite its scales are NaN, and with them all products, and
/// the integers are 0, as those of a row of zeros are.
pub fn quantise_row(k: &Kernels, x: &[f32], q: &mut [i8], low: &mut [i8], d: &mut [f32], sum: &mut [i32]) {
    match RowScale::new((k.largest)(x), !low.is_empty()) {
        Ok(scale) => (k.quantise)(x, scale, q, low, d, sum),
        Err(scale) => {
            q.fill(0);
            low.fill(0);
            sum.fill(0);
            d.fill(scale);
        }
    }
}

/// A plane of bytes, whose first lies `AT` bytes after a multiple of 4096. Rows of so many columns, or a multiple, have all their
/// lines in the same places of the first cache, eight of them, which eight rows fill: those of another plane belong elsewhere.
type Plane<const AT: usize> = Lines<i8, 4096, AT>;

/// The first `len` values, which it grows to if need be.
fn room<T: Clone + Default>(v: &mut Vec<T>, len: usize) -> &mut [T] {
    grow(v, len);
    &mut v[..len]
}

/// Row `i` of rows of `len`.
fn row<T>(all: &mut [T], i: usize, len: usize) -> &mut [T] {
    &mut all[i * len..(i + 1) * len]
}

/// Some rows to be made; what isn't wanted is empty.
struct Part<'a> {
    q: &'a mut [i8],
    low: &'a mut [i8],
    wide: &'a mut [i16],
    blocks: &'a mut [Block],
    d: &'a mut [f32],
    exps: &'a mut [i32],
    sum: &'a mut [i32],
    neg: [&'a mut [i32]; 2],
    dsum: [&'a mut [f32]; 2],
    eights: &'a mut [Eight],
}

impl<'a> Part<'a> {
    /// Has all of the `len` values made by `make(worker, part, which)` of some rows of `cols`, on all threads where it is worth that.
    fn run(
        mut self,
        pool: &mut Pool,
        len: usize,
        cols: usize,
        make: impl Fn(usize, &mut Part<'_>, std::ops::Range<usize>) + Sync,
    ) {
        let task = cols * TASK.div_ceil(cols);
        if len <= task || pool.threads() == 1 {
            return make(0, &mut self, 0..len);
        }
        let mut parts = Vec::with_capacity(len.div_ceil(task));
        while parts.len() * task < len {
            let (part, rest) = self.split_at(task.min(len - parts.len() * task));
            parts.push(Mutex::new(part));
            self = rest;
        }
        pool.run(parts.len(), |worker, i| make(worker, &mut lock(&parts[i]), i * task..(i * task + task).min(len)));
    }

    /// Rounds `x` to row `i`.
    fn quantise(&mut self, k: &Kernels, i: usize, x: &[f32]) {
        let (cols, low) = (x.len(), if self.low.is_empty() { 0 } else { x.len() });
        let (q, low) = (row(self.q, i, cols), row(self.low, i, low));
        quantise_row(k, x, q, low, row(self.d, i, cols / 32), row(self.sum, i, cols / 16));
    }

    /// Makes row `i` one of another set.
    fn copy(&mut self, i: usize, x: &IntRows<'_>) {
        fn copy<T: Copy>(to: &mut [T], i: usize, from: &[T]) {
            row(to, i, from.len()).copy_from_slice(from);
        }
        copy(self.q, i, x.q);
        copy(self.low, i, x.low);
        copy(self.wide, i, x.wide);
        copy(self.blocks, i, x.blocks);
        copy(self.d, i, x.d);
        copy(self.exps, i, x.exps);
        copy(self.sum, i, x.sum);
        copy(self.neg[0], i, x.neg16);
        copy(self.neg[1], i, x.neg32);
        copy(self.dsum[0], i, x.dsum16);
        copy(self.dsum[1], i, x.dsum32);
        copy(self.eights, i, x.eights);
    }

    /// The first `len` values and the others.
    fn split_at(self, len: usize) -> (Part<'a>, Part<'a>) {
        /// At `at` of all or, where there are none, of none.
        fn cut<T>(all: &mut [T], at: usize) -> (&mut [T], &mut [T]) {
            all.split_at_mut(at.min(all.len()))
        }
        let (q, low, wide) = (cut(self.q, len), cut(self.low, len), cut(self.wide, len));
        let (blocks, sum) = (cut(self.blocks, len / 32), cut(self.sum, len / 16));
        let (d, exps) = (cut(self.d, len / 32), cut(self.exps, len / 32));
        let ([neg16, neg32], [dsum16, dsum32]) = (self.neg, self.dsum);
        let (neg16, neg32) = (cut(neg16, len / 16), cut(neg32, len / 32));
        let (dsum16, dsum32) = (cut(dsum16, len / 16), cut(dsum32, len / 32));
        let eights = cut(self.eights, len / 256);
        let first = Part {
            q: q.0,
            low: low.0,
            wide: wide.0,
            blocks: blocks.0,
            d: d.0,
            exps: exps.0,
            sum: sum.0,
            neg: [neg16.0, neg32.0],
            dsum: [dsum16.0, dsum32.0],
            eights: eights.0,
        };
        let rest = Part {
            q: q.1,
            low: low.1,
            wide: wide.1,
            blocks: blocks.1,
            d: d.1,
            exps: exps.1,
            sum: sum.1,
            neg: [neg16.1, neg32.1],
            dsum: [dsum16.1, dsum32.1],
            eights: eights.1,
        };
        (first, rest)
    }

    /// Makes [`IntRows::wide`].
    fn widen(&mut self) {
        let quads = self.wide.as_chunks_mut::<4>().0.iter_mut().zip(self.q.as_chunks::<4>().0);
        if !self.low.is_empty() {
            for ((wide, q), low) in quads.zip(self.low.as_chunks::<4>().0) {
                let v = |i: usize| 128 * i16::from(q[i]) + i16::from(low[i]);
                *wide = [v(0), v(2), v(1), v(3)];
            }
        } else {
            quads.for_each(|(wide, q)| *wide = [q[0], q[2], q[1], q[3]].map(i16::from));
        }
    }

    /// Makes [`IntRows::blocks`].
    fn block(&mut self) {
        let q = self.q.as_chunks::<32>().0;
        for (b, (block, q)) in self.blocks.iter_mut().zip(q).enumerate() {
            block.planes[0] = *q;
            block.d = self.d[b];
            block.dsum32 = self.dsum[1][b];
            block.dsum16 = [self.dsum[0][2 * b], self.dsum[0][2 * b + 1]];
            block.start_up(0);
        }
        for (block, low) in self.blocks.iter_mut().zip(self.low.as_chunks::<32>().0) {
            block.planes[1] = *low;
            block.start_up(1);
        }
    }

    /// The integers that 15 bits of `x` leave.
    fn rest_of(&mut self, x: &[f32], (high, low, d): (&[i8], &[i8], &[f32])) {
        let upper = high.as_chunks::<16>().0.iter().zip(low.as_chunks::<16>().0);
        let lower = self.q.as_chunks_mut::<16>().0.iter_mut().zip(&mut *self.sum);
        for (i, (x, ((high, low), (rest, sum)))) in x.as_chunks::<16>().0.iter().zip(upper.zip(lower)).enumerate() {
            self.d[i / 2] = d[i / 2] / 128.0;
            let d = f64::from(d[i / 2]);
            *sum = 0;
            if d.is_nan() || d == 0.0 {
                rest.fill(0);
                continue;
            }
            let inverse = 128.0 / d;
            for i in 0..16 {
                // A product of 24 and 15 bits: whole in f64 alone.
                let left = f64::from(x[i]) - d * f64::from(128 * i32::from(high[i]) + i32::from(low[i]));
                let steps = (left * inverse + 128.5) as i32 - 128;
                rest[i] = steps as i8;
                *sum += steps;
            }
        }
    }

    /// Makes [`IntRows::exps`].
    fn find_units(&mut self, cols: usize) {
        let per_row = cols / 32;
        for (d, exps) in self.d.chunks_exact(per_row).zip(self.exps.chunks_exact_mut(per_row)) {
            // The row's own scale, as its largest block has it; a row that has none is zero or no number.
            let scale = scalar::largest(d);
            if !scale.is_normal() {
                exps.fill(0);
                continue;
            }
            let unit = scale.to_bits() - (scalar::RANGE << 23);
            exps.iter_mut().zip(d).for_each(|(exp, d)| *exp = (d.to_bits() - unit).cast_signed());
        }
    }

    /// What products want of the sums.
    fn sum_up(&mut self, k: &Kernels) {
        let ([neg16, neg32], [dsum16, dsum32]) = (&mut self.neg, &mut self.dsum);
        let out = Sums { neg16, neg32, dsum16, dsum32, eights: self.eights };
        (k.sum_up)(self.sum, self.d, self.exps, out);
    }
}
