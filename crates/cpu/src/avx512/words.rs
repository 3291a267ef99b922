//! Kernels for 16-bit integers in blocks ([`crate::words`]).
//!
//! A product takes six activation rows and four tiles at a time: of 32 registers 24 hold sums, four weights and one a pair of
//! activations, so ten loads serve 24 `vpdpwssd`. Or it takes five, and two pairs at once ([`crate::words`]): 20 registers hold
//! sums, eight weights, two activations, and two what is multiplied. Of a Zen 4's four units two multiply and all add; a
//! `vpdpwssd` and two `vpaddw` do what two `vpdpwssd` do otherwise, which with a third of the sums made plainly all the same gives
//! every unit as much to do: measured, 13.3 cycles a pair instead of 20.
//!
//! `2^x` is `2^n · p(f)`, `n = round(x)`, `f = x − n`, `p` of degree 5 with a relative error of 8e-8 at `|f| ≤ ½`.

use std::arch::asm;
use std::arch::x86_64::*;

use carat_tensor::DType;

use super::pack::transpose;
use super::plain::widen;
use super::{load, load_some, mask};
use crate::kernels::TILE;
use crate::pool::Tile;
use crate::words::{
    BLOCK, MOST, NOTHING, Pair, Panel, Powers, Rows, SCALAR, Scale, Start, Steps, TileScale, blocks, inverse,
    power_steps,
};

/// Activation rows per pass.
const ROWS: usize = 6;
/// The same of those that take two pairs at once.
const ROWS_ASIDE: usize = 5;

/// The last tiles of `T` are multiplied plainly in every row: about a third of the sums with one more of four in two of five rows.
const fn plain<const T: usize>() -> usize {
    if T > 2 { 1 } else { 0 }
}

/// Sums of squares between these are as good as in f64, and have roots.
const FEW: f32 = 1e-24;
const MANY: f32 = 1e38;

/// See [`crate::words::WordKernels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn round(x: &[f32], bounds: [f32; 2], steps: Steps, q: &mut [Pair]) -> Scale {
    let [low, high] = bounds.map(|bound| _mm512_set1_ps(bound));
    let values = |at: usize| {
        let x = &x[at.min(x.len())..(at + 16).min(x.len())];
        // Bounds need not hold zero.
        _mm512_maskz_mov_ps(mask(x.len()), clamp(load_some(x), [low, high]))
    };
    round_block(values, steps, q).unwrap_or_else(|| (SCALAR.round)(x, bounds, steps, q))
}

/// See [`crate::words::WordKernels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn round_halves(dtype: DType, row: &[u8], q: &mut [Pair]) -> Scale {
    let values = |at: usize| {
        let halves = &row[(2 * at).min(row.len())..(2 * at + 32).min(row.len())];
        widen(dtype, halves, halves.len() / 2)
    };
    round_block(values, Steps::PowersOfTwo, q).unwrap_or_else(|| (SCALAR.round_halves)(dtype, row, q))
}

/// Rounds a block, of which `values` says 16 at a time, zeros after the last; none if its size asks for care, or is no number.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn round_block(values: impl Fn(usize) -> __m512, steps: Steps, q: &mut [Pair]) -> Option<Scale> {
    let block: [__m512; BLOCK / 16] = std::array::from_fn(|i| values(16 * i));
    let (mut max, mut squares) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
    for (i, &x) in block.iter().enumerate() {
        max[i % 2] = _mm512_max_ps(max[i % 2], _mm512_abs_ps(x));
        squares[i % 2] = _mm512_fmadd_ps(x, x, squares[i % 2]);
    }
    let max = _mm512_reduce_max_ps(_mm512_max_ps(max[0], max[1]));
    let squares = _mm512_reduce_add_ps(_mm512_add_ps(squares[0], squares[1]));
    if !(FEW..MANY).contains(&squares) {
        return None;
    }
    let inverse = inverse(max, squares.sqrt(), steps);
    let scale = _mm512_set1_ps(inverse);
    let mut neighbours = _mm256_setzero_si256();
    for (i, &x) in block.iter().enumerate() {
        let Some(q) = q.get_mut(8 * i..).filter(|q| !q.is_empty()) else { break };
        neighbours = store_words(neighbours, words(x, scale), q);
    }
    Some(Scale { d: inverse.recip(), neighbours: sum_neighbours(neighbours) })
}

/// Stores up to eight pairs of words to where there are pairs; [`add_neighbours`] of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_words(neighbours: __m256i, words: __m256i, q: &mut [Pair]) -> __m256i {
    // SAFETY: eight pairs, or as many words as the mask names.
    unsafe {
        match q.len() {
            8.. => _mm256_storeu_si256(q.as_mut_ptr().cast(), words),
            some => _mm256_mask_storeu_epi16(q.as_mut_ptr().cast(), mask(2 * some), words),
        }
    }
    add_neighbours(neighbours, words)
}

/// Adds the products of neighbouring pairs, each twice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn add_neighbours(sums: __m256i, words: __m256i) -> __m256i {
    _mm256_dpwssd_epi32(sums, words, _mm256_shuffle_epi32::<0b10_11_00_01>(words))
}

/// What [`add_neighbours`] added, once. Twice it is no more than a block's size squared, which has room.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sum_neighbours(sums: __m256i) -> i32 {
    _mm512_reduce_add_epi32(_mm512_zextsi256_si512(sums)) / 2
}

/// See [`crate::words::WordKernels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn spread(rows: &[[Pair; BLOCK / 2]; TILE], len: usize, width: usize, panel: &mut [Pair]) {
    assert!(len <= BLOCK / 2 && panel.len() >= (len.max(1) - 1) * width + TILE);
    for k in (0..len - len % 8).step_by(8) {
        // SAFETY: eight of a row's pairs, of which there are `BLOCK / 2`.
        let eight = std::array::from_fn(|r| unsafe { _mm256_loadu_si256(rows[r].as_ptr().add(k).cast()) });
        for (column, panel) in transpose(&eight).into_iter().zip(panel[k * width..].chunks_mut(width)) {
            assert!(panel.len() >= TILE);
            // SAFETY: as many pairs as rows, just checked.
            unsafe { _mm512_storeu_si512(panel.as_mut_ptr().cast(), column) }
        }
    }
    for k in len - len % 8..len {
        for (to, row) in panel[k * width..k * width + TILE].iter_mut().zip(rows) {
            *to = row[k];
        }
    }
}

/// `round(x · scale)`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn words(x: __m512, scale: __m512) -> __m256i {
    _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x, scale)))
}

/// Brings values within bounds; what is no number stays none.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn clamp(x: __m512, [low, high]: [__m512; 2]) -> __m512 {
    // The second operand is what these give where there is NaN.
    _mm512_min_ps(high, _mm512_max_ps(low, x))
}

/// See [`crate::words::WordKernels`]; `ASIDE` for a processor that adds beside multiplying.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn gemm<const ASIDE: bool>(
    panel: Panel<'_>,
    x: Rows<'_>,
    start: Start,
    bounds: [f32; 2],
    sums: &mut [f32],
    out: Option<&mut Tile<'_>>,
) {
    match panel.tiles {
        1 => tiled::<1, ASIDE>(panel, x, start, bounds, sums, out),
        2 => tiled::<2, ASIDE>(panel, x, start, bounds, sums, out),
        3 => tiled::<3, ASIDE>(panel, x, start, bounds, sums, out),
        4 => tiled::<4, ASIDE>(panel, x, start, bounds, sums, out),
        tiles => unreachable!("a panel of {tiles} tiles"),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn tiled<const T: usize, const ASIDE: bool>(
    panel: Panel<'_>,
    x: Rows<'_>,
    start: Start,
    bounds: [f32; 2],
    sums: &mut [f32],
    out: Option<&mut Tile<'_>>,
) {
    let (n, width, blocks) = (sums.len() / (T * TILE), T * TILE, blocks(x.len));
    assert!(panel.pairs.len() >= x.len * width && panel.scales.len() >= blocks * T);
    assert!(x.stride >= x.len && x.scales.len() >= n * blocks);
    assert!(n == 0 || x.pairs.len() >= (n - 1) * x.stride + x.len);
    let kept = Place { data: sums.as_mut_ptr(), stride: width };
    let out = out.map(|out| {
        assert!(out.rows().len() == n && out.cols().len() == width, "sums of another shape than what they are for");
        let (data, stride) = out.address();
        Place { data, stride }
    });
    let is_bounded = bounds[0] > f32::NEG_INFINITY || bounds[1] < f32::INFINITY;
    for b in 0..blocks {
        let (is_last, is_new) = (b + 1 == blocks, b == 0 && start == Start::Zero);
        let block = Block {
            panel,
            x,
            b,
            blocks,
            pairs: b * (BLOCK / 2)..((b + 1) * (BLOCK / 2)).min(x.len),
            kept,
            kept_lanes: if is_new { 0 } else { u16::MAX },
            to: out.filter(|_| is_last).unwrap_or(kept),
            next: out.filter(|_| b + 2 == blocks),
            bounds: (is_last && is_bounded).then_some(bounds),
        };
        let mut i = 0;
        // SAFETY: rows and scales of the block, and of the places, were checked to be there: `n` of each.
        unsafe {
            while ASIDE && i + ROWS_ASIDE <= n {
                block.five_aside::<T>(i);
                i += ROWS_ASIDE;
            }
            while !ASIDE && i + ROWS <= n {
                block.six::<T>(i);
                i += ROWS;
            }
            while i < n {
                block.one::<T>(i);
                i += 1;
            }
        }
    }
}

/// Where rows of sums lie.
#[derive(Clone, Copy)]
struct Place {
    data: *mut f32,
    stride: usize,
}

impl Place {
    fn row(&self, i: usize) -> *mut f32 {
        self.data.wrapping_add(i * self.stride)
    }
}

/// A block of all rows, the lengths of what it is of checked. Its functions have no loops over sums: those that the compiler
/// does not undo keep the sums in memory. Nor have they slices, whose checks took a twentieth of the time.
///
/// # Safety
/// Of its functions: the rows they are for are some of the product's.
struct Block<'a> {
    panel: Panel<'a>,
    x: Rows<'a>,
    b: usize,
    blocks: usize,
    pairs: std::ops::Range<usize>,
    /// Sums of the blocks before.
    kept: Place,
    /// None or all.
    kept_lanes: __mmask16,
    /// Where the sums go.
    to: Place,
    /// Where they will go after the next block: these lines are asked for.
    next: Option<Place>,
    bounds: Option<[f32; 2]>,
}

impl Block<'_> {
    /// Adds six rows from `i` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn six<const T: usize>(&self, i: usize) {
        self.ask::<T>(i, ROWS);
        let zero = [_mm512_setzero_si512(); T];
        let (mut s0, mut s1, mut s2, mut s3, mut s4, mut s5) = (zero, zero, zero, zero, zero, zero);
        let (x0, x1, x2) = (self.row(i), self.row(i + 1), self.row(i + 2));
        let (x3, x4, x5) = (self.row(i + 3), self.row(i + 4), self.row(i + 5));
        for line in (0..self.pairs.len()).step_by(16) {
            for c in ROWS..2 * ROWS {
                // A line of the rows that come next. It may lie anywhere.
                _mm_prefetch::<_MM_HINT_T0>(x0.wrapping_add(c * self.x.stride + line).cast());
            }
            for k in line..(line + 16).min(self.pairs.len()) {
                let w = self.weights(k);
                // SAFETY: `k` is one of the block's pairs, of which every row has that many.
                unsafe {
                    dots(&mut s0, &w, x0.add(k));
                    dots(&mut s1, &w, x1.add(k));
                    dots(&mut s2, &w, x2.add(k));
                    dots(&mut s3, &w, x3.add(k));
                    dots(&mut s4, &w, x4.add(k));
                    dots(&mut s5, &w, x5.add(k));
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.add(&s0, i);
            self.add(&s1, i + 1);
            self.add(&s2, i + 2);
            self.add(&s3, i + 3);
            self.add(&s4, i + 4);
            self.add(&s5, i + 5);
            self.bound::<T>(i, ROWS);
        }
    }

    /// Adds five rows from `i` on, of neighbouring pairs at once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn five_aside<const T: usize>(&self, i: usize) {
        self.ask::<T>(i, ROWS_ASIDE);
        let (some, more) = (plain::<T>(), plain::<T>() + usize::from(T > 3));
        let (less, less_more) = (self.less_neighbours::<T>(some), self.less_neighbours::<T>(more));
        let (mut s0, mut s1, mut s2, mut s3, mut s4) = (less, less, less_more, less, less_more);
        let (x0, x1, x2, x3, x4) = (self.row(i), self.row(i + 1), self.row(i + 2), self.row(i + 3), self.row(i + 4));
        let even = self.pairs.len() & !1;
        for line in (0..even).step_by(16) {
            for c in ROWS_ASIDE..2 * ROWS_ASIDE {
                // As in `six`.
                _mm_prefetch::<_MM_HINT_T0>(x0.wrapping_add(c * self.x.stride + line).cast());
            }
            for k in (line..(line + 16).min(even)).step_by(2) {
                let (v, w) = (self.weights::<T>(k), self.weights::<T>(k + 1));
                // SAFETY: `k` and the one after it are of the block's pairs, of which every row has that many.
                unsafe {
                    dots_aside(&mut s0, &v, &w, x0.add(k), some);
                    dots_aside(&mut s1, &v, &w, x1.add(k), some);
                    dots_aside(&mut s2, &v, &w, x2.add(k), more);
                    dots_aside(&mut s3, &v, &w, x3.add(k), some);
                    dots_aside(&mut s4, &v, &w, x4.add(k), more);
                }
            }
        }
        if even < self.pairs.len() {
            let w = self.weights::<T>(even);
            // SAFETY: as above.
            unsafe {
                dots(&mut s0, &w, x0.add(even));
                dots(&mut s1, &w, x1.add(even));
                dots(&mut s2, &w, x2.add(even));
                dots(&mut s3, &w, x3.add(even));
                dots(&mut s4, &w, x4.add(even));
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.add_aside(&mut s0, i, some);
            self.add_aside(&mut s1, i + 1, some);
            self.add_aside(&mut s2, i + 2, more);
            self.add_aside(&mut s3, i + 3, some);
            self.add_aside(&mut s4, i + 4, more);
            self.bound::<T>(i, ROWS_ASIDE);
        }
    }

    /// Asks for the lines of some rows that are written soon: they are read before, and a write waits no less than a read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn ask<const T: usize>(&self, i: usize, rows: usize) {
        if let Some(next) = self.next {
            for row in i..i + rows {
                for t in 0..T {
                    let line = next.row(row).wrapping_add(t * TILE);
                    // SAFETY: a hint, of any address.
                    unsafe {
                        asm!("prefetchw [{line}]", line = in(reg) line, options(readonly, nostack, preserves_flags))
                    }
                }
            }
        }
    }

    /// What sums of the panel's rows start from: less the products of their neighbours, but in the last tiles.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn less_neighbours<const T: usize>(&self, plain: usize) -> [__m512i; T] {
        let zero = _mm512_setzero_si512();
        let less = |t: usize| {
            // SAFETY: `tiled` has checked that there are scales of every block.
            let TileScale { neighbours, .. } = unsafe { &*self.panel.scales.as_ptr().add(self.b * T + t) };
            // SAFETY: 16 integers, which begin a line.
            _mm512_sub_epi32(zero, unsafe { _mm512_load_si512(neighbours.as_ptr().cast()) })
        };
        let mut all = [zero; T];
        all[0] = less(0);
        if T > 1 + plain {
            all[1] = less(1);
        }
        if T > 2 + plain {
            all[2] = less(2);
        }
        if T > 3 + plain {
            all[3] = less(3);
        }
        all
    }

    /// The same of row `i`; then adds its sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn add_aside<const T: usize>(&self, sums: &mut [__m512i; T], i: usize, plain: usize) {
        // SAFETY: the caller's promise.
        let neighbours = _mm512_set1_epi32(unsafe { self.scale(i) }.neighbours);
        sums[0] = _mm512_sub_epi32(sums[0], neighbours);
        if T > 1 + plain {
            sums[1] = _mm512_sub_epi32(sums[1], neighbours);
        }
        if T > 2 + plain {
            sums[2] = _mm512_sub_epi32(sums[2], neighbours);
        }
        if T > 3 + plain {
            sums[3] = _mm512_sub_epi32(sums[3], neighbours);
        }
        // SAFETY: the caller's promise.
        unsafe { self.add(sums, i) }
    }

    /// Adds row `i`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn one<const T: usize>(&self, i: usize) {
        let (mut sums, x) = ([_mm512_setzero_si512(); T], self.row(i));
        for k in 0..self.pairs.len() {
            // SAFETY: as in `six`.
            unsafe { dots(&mut sums, &self.weights(k), x.add(k)) }
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.add(&sums, i);
            self.bound::<T>(i, 1);
        }
    }

    /// The block's pairs of a row.
    #[inline]
    fn row(&self, i: usize) -> *const Pair {
        self.x.pairs.as_ptr().wrapping_add(i * self.x.stride + self.pairs.start)
    }

    /// The block's scale of a row.
    #[inline]
    unsafe fn scale(&self, i: usize) -> &Scale {
        // SAFETY: the caller's promise.
        unsafe { &*self.x.scales.as_ptr().add(i * self.blocks + self.b) }
    }

    /// Pair `k` of all rows of the panel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn weights<const T: usize>(&self, k: usize) -> [__m512i; T] {
        let at = (self.pairs.start + k) * T * TILE;
        debug_assert!(at + T * TILE <= self.panel.pairs.len());
        let at = self.panel.pairs.as_ptr().wrapping_add(at);
        // SAFETY: `tiled` has checked that the panel has `16 · T` pairs for each of a row's.
        let tile = |t: usize| unsafe { _mm512_loadu_si512(at.add(t * TILE).cast()) };
        let mut w = [_mm512_setzero_si512(); T];
        w[0] = tile(0);
        if T > 1 {
            w[1] = tile(1);
        }
        if T > 2 {
            w[2] = tile(2);
        }
        if T > 3 {
            w[3] = tile(3);
        }
        w
    }

    /// Brings sums of row `i` to scale, and adds them to what was kept.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn add<const T: usize>(&self, sums: &[__m512i; T], i: usize) {
        let (kept, to) = (self.kept.row(i), self.to.row(i));
        // SAFETY: the caller's promise; `tiled` has checked that there are scales of every block.
        let (d, scales) = unsafe { (_mm512_set1_ps(self.scale(i).d), self.panel.scales.as_ptr().add(self.b * T)) };
        // SAFETY: a row of sums has `T` tiles in both places, and a block as many scales.
        let total = |t: usize, sums: __m512i| unsafe {
            let kept = _mm512_maskz_loadu_ps(self.kept_lanes, kept.add(t * TILE));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_mul_ps(load(&(*scales.add(t)).d), d), kept)
        };
        // SAFETY: as above.
        let put = |t: usize, sums: __m512i| unsafe { _mm512_storeu_ps(to.add(t * TILE), total(t, sums)) };
        put(0, sums[0]);
        if T > 1 {
            put(1, sums[1]);
        }
        if T > 2 {
            put(2, sums[2]);
        }
        if T > 3 {
            put(3, sums[3]);
        }
    }

    /// Brings finished sums of some rows from `i` on within bounds.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn bound<const T: usize>(&self, i: usize, rows: usize) {
        if let Some([low, high]) = self.bounds {
            let bounds = [_mm512_set1_ps(low), _mm512_set1_ps(high)];
            for row in i..i + rows {
                for t in 0..T {
                    let to = self.to.row(row).wrapping_add(t * TILE);
                    // SAFETY: the caller's promise, and a row of sums has `T` tiles.
                    unsafe { _mm512_storeu_ps(to, clamp(_mm512_loadu_ps(to), bounds)) }
                }
            }
        }
    }
}

/// A pair in every lane.
///
/// # Safety
/// The pair is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn every(x: *const Pair) -> __m512i {
    // SAFETY: the caller's promise.
    _mm512_set1_epi32(unsafe { x.cast::<i32>().read_unaligned() })
}

/// Adds the products of a pair with those of a panel's rows.
///
/// # Safety
/// The pair is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn dots<const T: usize>(sums: &mut [__m512i; T], w: &[__m512i; T], x: *const Pair) {
    // SAFETY: the caller's promise.
    let x = unsafe { every(x) };
    sums[0] = dot(sums[0], w[0], x);
    if T > 1 {
        sums[1] = dot(sums[1], w[1], x);
    }
    if T > 2 {
        sums[2] = dot(sums[2], w[2], x);
    }
    if T > 3 {
        sums[3] = dot(sums[3], w[3], x);
    }
}

/// The same of neighbouring pairs at once, with those of `v` and `w`: of all but the last `plain` tiles, for as many products, too
/// much by those of neighbours.
///
/// # Safety
/// Both pairs are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn dots_aside<const T: usize>(
    sums: &mut [__m512i; T],
    v: &[__m512i; T],
    w: &[__m512i; T],
    x: *const Pair,
    plain: usize,
) {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (every(x), every(x.add(1))) };
    sums[0] = two(sums[0], [a, b], [v[0], w[0]], false);
    if T > 1 {
        sums[1] = two(sums[1], [a, b], [v[1], w[1]], T <= 1 + plain);
    }
    if T > 2 {
        sums[2] = two(sums[2], [a, b], [v[2], w[2]], T <= 2 + plain);
    }
    if T > 3 {
        sums[3] = two(sums[3], [a, b], [v[3], w[3]], T <= 3 + plain);
    }
}

/// Adds the products of neighbouring pairs; if not plainly, for one of them, too much by those of neighbours.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn two(sum: __m512i, [a, b]: [__m512i; 2], [v, w]: [__m512i; 2], plain: bool) -> __m512i {
    if plain {
        return dot(dot(sum, v, a), w, b);
    }
    dot(sum, _mm512_add_epi16(a, w), _mm512_add_epi16(b, v))
}

/// `_mm512_dpwssd_epi32`, of which the compiler makes two instructions for the sake of processors where these are faster.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn dot(mut sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
    // SAFETY: an instruction of AVX-512 VNNI, on registers.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {w}, {x}",
            sum = inout(zmm_reg) sum, w = in(zmm_reg) w, x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// `2^x` for `x` of 0 at most; what is below −125 counts as that.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn power(x: __m512) -> __m512 {
    // To this an integer is added by rounding, and stands in the lowest bits.
    let shift = _mm512_set1_ps(1.5 * (1 << 23) as f32);
    // The second operand is what a maximum with NaN gives.
    let x = _mm512_max_ps(_mm512_set1_ps(-125.0), x);
    let n = _mm512_add_ps(x, shift);
    let f = _mm512_sub_ps(x, _mm512_sub_ps(n, shift));
    let mut p = _mm512_set1_ps(0.001_327_647_2);
    for c in [0.009_675_541, 0.055_507_13, 0.240_221_2, 0.693_146_94, 1.000_000_1] {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    }
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(n));
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent))
}

/// See [`crate::words::WordKernels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn powers(scores: &[f32], len: usize, p: &mut [Pair], rows: &mut [Powers]) {
    let pairs = len.div_ceil(2);
    assert!(len <= BLOCK && scores.len() >= rows.len() * len && p.len() >= rows.len() * pairs);
    // The usual number, four rows at once.
    let whole = if len == FOUR_OF { rows.len() / 4 * 4 } else { 0 };
    let (fours, rest) = rows.split_at_mut(whole);
    let (scores, rest_scores) = scores.split_at(whole * len);
    let (p, rest_p) = p.split_at_mut(whole * pairs);
    let fours = fours.as_chunks_mut::<4>().0;
    for ((scores, p), rows) in scores.as_chunks().0.iter().zip(p.as_chunks_mut().0).zip(fours) {
        powers_of_four(scores, p, rows);
    }
    for ((scores, p), row) in rest_scores.chunks_exact(len).zip(rest_p.chunks_exact_mut(pairs)).zip(rest) {
        *row = powers_of_row(scores, row.max, p);
    }
}

/// Scores of a row, four of which are taken at once.
const FOUR_OF: usize = 64;

/// Powers of four rows. One by one each would wait for its largest score, then for its sum, then for its step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn powers_of_four(scores: &[f32; 4 * FOUR_OF], p: &mut [Pair; 2 * FOUR_OF], rows: &mut [Powers; 4]) {
    let x: [[__m512; 4]; 4] = std::array::from_fn(|r| std::array::from_fn(|i| load(&scores[FOUR_OF * r + 16 * i..])));
    // From here on a row's value stands four times in a quarter of a vector.
    let four = |rows: [__m512; 4], f: fn(__m512, __m512) -> __m512| {
        let half = |a, b| f(_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
        let (low, high) = (half(rows[0], rows[1]), half(rows[2], rows[3]));
        let all = f(_mm512_shuffle_f32x4::<0b10_00_10_00>(low, high), _mm512_shuffle_f32x4::<0b11_01_11_01>(low, high));
        let all = f(all, _mm512_permute_ps::<0b10_11_00_01>(all));
        f(all, _mm512_permute_ps::<0b01_00_11_10>(all))
    };
    let every = |v: __m512| {
        [
            _mm512_shuffle_f32x4::<0b00_00_00_00>(v, v),
            _mm512_shuffle_f32x4::<0b01_01_01_01>(v, v),
            _mm512_shuffle_f32x4::<0b10_10_10_10>(v, v),
            _mm512_shuffle_f32x4::<0b11_11_11_11>(v, v),
        ]
    };
    let most = x.map(|[a, b, c, d]| _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)));
    // SAFETY: 64 bytes, of four floats or integers each.
    let before = unsafe { _mm512_loadu_ps(rows.as_ptr().cast()) };
    let max = _mm512_max_ps(four(most, |a, b| _mm512_max_ps(a, b)), _mm512_permute_ps::<0>(before));
    let all = every(max);
    let powers: [[__m512; 4]; 4] = std::array::from_fn(|r| x[r].map(|x| power(_mm512_sub_ps(x, all[r]))));
    let sums = powers.map(|[a, b, c, d]| _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
    let sum = four(sums, |a, b| _mm512_add_ps(a, b));
    let (inverse, step) = power_steps_of_four(sum);
    let all = every(inverse);
    let neighbours: [__m512; 4] = std::array::from_fn(|r| {
        let mut neighbours = _mm256_setzero_si256();
        for (i, &power) in powers[r].iter().enumerate() {
            neighbours = store_words(neighbours, words(power, all[r]), &mut p[FOUR_OF / 2 * r + 8 * i..][..8]);
        }
        _mm512_castsi512_ps(_mm512_zextsi256_si512(neighbours))
    });
    let add = |a, b| _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
    // Each was added twice.
    let neighbours = _mm512_castsi512_ps(_mm512_srai_epi32::<1>(_mm512_castps_si512(four(neighbours, add))));
    let both = |mask: u16, a, b| _mm512_mask_blend_ps(mask, a, b);
    let row = both(0x8888, both(0x4444, both(0x2222, max, sum), step), neighbours);
    // SAFETY: 64 bytes of plain numbers, in the order of the fields.
    unsafe { _mm512_storeu_ps(rows.as_mut_ptr().cast(), row) }
}

/// [`power_steps`] of every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn power_steps_of_four(sum: __m512) -> (__m512, __m512) {
    let set = |v: i32| _mm512_set1_epi32(v);
    let above = _mm512_sub_epi32(_mm512_srai_epi32::<23>(_mm512_castps_si512(sum)), set(126));
    let by_sum = _mm512_sub_epi32(set(15), _mm512_srai_epi32::<1>(above));
    let by_most = _mm512_sub_epi32(set(14), _mm512_min_epi32(above, set(0)));
    let steps = _mm512_min_epi32(by_sum, by_most);
    let power = |exponent| _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(exponent, set(127))));
    let inverse = _mm512_mul_ps(power(steps), _mm512_set1_ps(MOST / 16384.0));
    let step = _mm512_mul_ps(power(_mm512_sub_epi32(set(0), steps)), _mm512_set1_ps(16384.0 / MOST));
    let is_some = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(sum, _mm512_set1_ps(NOTHING));
    let is_none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(sum, sum);
    let step = _mm512_mask_blend_ps(is_none, _mm512_maskz_mov_ps(is_some, step), sum);
    (_mm512_maskz_mov_ps(is_some, inverse), step)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn powers_of_row(scores: &[f32], max: f32, p: &mut [Pair]) -> Powers {
    let mut most = _mm512_set1_ps(max);
    for scores in scores.chunks(16) {
        most = _mm512_mask_max_ps(most, mask(scores.len()), most, load_some(scores));
    }
    let max = _mm512_reduce_max_ps(most);
    let (all, mut sum) = (_mm512_set1_ps(max), _mm512_setzero_ps());
    let mut values = [_mm512_setzero_ps(); BLOCK / 16];
    for (value, scores) in values.iter_mut().zip(scores.chunks(16)) {
        *value = _mm512_maskz_mov_ps(mask(scores.len()), power(_mm512_sub_ps(load_some(scores), all)));
        sum = _mm512_add_ps(sum, *value);
    }
    let sum = _mm512_reduce_add_ps(sum);
    let (inverse, step) = power_steps(sum);
    let mut neighbours = _mm256_setzero_si256();
    for (value, p) in values.into_iter().zip(p.chunks_mut(8)) {
        neighbours = store_words(neighbours, words(value, _mm512_set1_ps(inverse)), p);
    }
    Powers { max, sum, scale: Scale { d: step, neighbours: sum_neighbours(neighbours) } }
}
