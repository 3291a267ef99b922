//! Activation rows as kernels of interleaved weights go through them: planes of bytes, and what goes with them; and what blocked
//! products take of them.
#![allow(unsafe_code, reason = "lengths are checked once for all rows, not at each of many places")]

use crate::ints::{Eight, IntRows};
use crate::kernels::{PackedTile, TILE};

/// Activation rows from `first` on in up to three planes of bytes, each 128 times as fine as the one before: two of `x`, one
/// of its rest. [`Planes::new`] has seen them.
#[derive(Clone, Copy)]
pub struct Planes<'a> {
    x: &'a IntRows<'a>,
    rest: &'a IntRows<'a>,
    first: usize,
}

impl<'a> Planes<'a> {
    /// `n` rows of `P` planes.
    ///
    /// # Panics
    /// Unless they are there, with all sums and scales.
    pub fn new<const P: usize>(x: &'a IntRows<'a>, rest: &'a IntRows<'a>, n: usize) -> Self {
        let cols = x.cols;
        let planes = [x.q, x.low, rest.q];
        assert!(planes[..P].iter().all(|plane| plane.len() >= n * cols), "{n} rows of {P} planes of {cols} values");
        for x in [x, rest] {
            assert!(x.exps.len() >= n * (cols / 32) && x.dsum32.len() >= n * (cols / 32));
            assert!(x.neg16.len() >= n * (cols / 16) && x.neg32.len() >= n * (cols / 32));
        }
        assert!(!cols.is_multiple_of(256) || x.eights.len() >= n * (cols / 256));
        Planes { x, rest, first: 0 }
    }

    /// All rows but the first ones.
    #[inline]
    pub fn after(self, rows: usize) -> Self {
        Planes { first: self.first + rows, ..self }
    }

    /// The rest's plane alone.
    #[inline]
    pub fn of_rest(self) -> Self {
        Planes { x: self.rest, ..self }
    }

    /// Columns.
    #[inline]
    pub fn cols(&self) -> usize {
        self.x.cols
    }

    /// What row `i` counts in ([`IntRows::unit`]), all of so many planes together.
    #[inline]
    pub fn unit<const P: usize>(&self, i: usize) -> f32 {
        if P == 3 { self.rest } else { self.x }.unit(self.first + i)
    }

    /// Plane `p` of the first row, from column `at` on.
    #[inline]
    pub fn of_plane(&self, p: usize, at: usize) -> *const i8 {
        [self.x.q, self.x.low, self.rest.q][p].as_ptr().wrapping_add(self.first * self.x.cols + at)
    }

    /// [`IntRows::neg32`] or [`IntRows::neg16`] of group `g` of so many columns of row `i`, all planes together.
    #[inline]
    pub fn negative<const P: usize, const GROUP: usize>(&self, i: usize, g: usize) -> i32 {
        let of = |x: &IntRows<'_>| self.of_group::<GROUP, _>(if GROUP == 32 { x.neg32 } else { x.neg16 }, i, g);
        if P == 3 { 128 * of(self.x) + of(self.rest) } else { of(self.x) }
    }

    /// Scale of the 32 columns from `32 · g` on of row `i` ([`IntRows::exps`]): the same for all planes, each in its unit.
    #[inline]
    pub fn exp(&self, i: usize, g: usize) -> i32 {
        self.of_group::<32, _>(self.x.exps, i, g)
    }

    /// `d · Σ v` of the same, all three planes together.
    #[inline]
    pub fn weighted(&self, i: usize, g: usize) -> f32 {
        self.of_group::<32, _>(self.x.dsum32, i, g) + self.of_group::<32, _>(self.rest.dsum32, i, g)
    }

    /// The sums of block `b` of 256 columns of row `i`.
    #[inline]
    pub fn eight(&self, i: usize, b: usize) -> &Eight {
        let at = (self.first + i) * (self.x.cols / 256) + b;
        debug_assert!(at < self.x.eights.len());
        // SAFETY: as in `of_group`, of types whose blocks have 256 columns.
        unsafe { self.x.eights.get_unchecked(at) }
    }

    /// What row `i` has for group `g`.
    #[inline]
    fn of_group<const GROUP: usize, T: Copy>(&self, values: &[T], i: usize, g: usize) -> T {
        let at = (self.first + i) * (self.x.cols / GROUP) + g;
        debug_assert!(at < values.len());
        // SAFETY: `new` has seen the rows' values, and callers' groups lie within a row, as every tile has
        // `cols / block` blocks.
        unsafe { *values.get_unchecked(at) }
    }
}

/// What blocked products of tiles in groups of `4 · QUADS` weights with `n` rows take of the sums of each group,
/// `−32 · Σ v` of 16 or `−8 · Σ v` of 32, and `d · Σ v`.
///
/// # Panics
/// Unless all that such products read is there.
pub fn group_sums<'a, const QUADS: usize, const OFFSET: i32, const FINE: bool>(
    tiles: &[&PackedTile],
    x: &IntRows<'a>,
    n: usize,
) -> (&'a [i32], &'a [f32]) {
    let groups = x.cols / (4 * QUADS);
    for tile in tiles {
        assert!(tile.q.len() >= x.cols * TILE && tile.scale.len() >= groups * TILE);
        assert!(OFFSET != 0 || tile.min.len() >= groups * TILE);
    }
    assert!(x.q.len() >= n * x.cols && (!FINE || x.low.len() == x.q.len()));
    assert!([x.d.len(), x.exps.len()].into_iter().all(|len| len >= n * (x.cols / 32)));
    let (negative, weighted) = if QUADS == 8 { (x.neg32, x.dsum32) } else { (x.neg16, x.dsum16) };
    assert!(negative.len() >= n * groups && weighted.len() >= n * groups);
    (negative, weighted)
}
