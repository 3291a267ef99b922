//! Rows as 16-bit integers in blocks, and sums of their products that fit 32 bits.
//!
//! A block of up to [`BLOCK`] values is rounded to steps of its own size: `x ≈ d · q` with `‖q‖ ≤ 2^15.5`. By Cauchy and
//! Schwarz no sum of products of two such blocks, nor a part of it, is beyond `2^31`. The steps of a weight's block are a
//! power of two: bf16 has 8 bits, so all but the smallest of a block are kept as they are. An instruction multiplies twice as
//! many of these as floats, and they err a tenth of what bf16 does.
//!
//! Where a processor adds beside multiplying, fewer products are enough. Of neighbouring pairs `a, b` of a row and `v, w`
//! of another, `a·v + b·w = (a + w)·(b + v) − a·b − v·w`, and what is taken away again is of one row alone: the sum of the
//! products of its neighbours, made once as it is rounded. Integers wrap around, so the result is the same to the bit. Source:
//! S. Winograd, A New Algorithm for Inner Product, IEEE Transactions on Computers C-17 (1968).
//!
//! The definitions of the kernels are here; a backend that has faster ones has them in its table. What is made of them:
//! products ([`product`]), feed-forwards ([`feed_forward`]) and attention ([`attention`]).

pub mod attention;
pub mod feed_forward;
pub mod product;

use carat_tensor::DType;
use carat_tensor::backend::UNBOUNDED;

use crate::acts::grow;
use crate::kernels::TILE;
use crate::pool::Tile;
use crate::rows;
use crate::scalar::{self, TINY, largest};

/// Most values that share a step.
pub const BLOCK: usize = 128;
/// Size of a block in steps: with what rounding adds to each of 128 values, at most `√(2^31 − 1)`.
pub const NORM: f32 = 46335.0;
/// The largest integer: two together are of 16 bits still.
pub const MOST: f32 = 16383.0;
/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Most tiles of a panel.
pub const MAX_TILES: usize = 4;

/// Two neighbours in a row: what an instruction multiplies at once in a lane.
pub type Pair = [i16; 2];

/// What a block's steps may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// As small as possible.
    Any,
    /// The same, of the powers of two.
    PowersOfTwo,
}

/// What a block's integers are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Scale {
    /// The step.
    pub d: f32,
    /// `Σ_k q[2k] · q[2k + 1]` of the block's pairs, the last with nothing where they are odd.
    pub neighbours: i32,
}

/// The same of a block of 16 rows.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct TileScale {
    /// Steps.
    pub d: [f32; TILE],
    /// As in [`Scale`].
    pub neighbours: [i32; TILE],
}

impl TileScale {
    /// Sets that of row `r`.
    pub fn set(&mut self, r: usize, Scale { d, neighbours }: Scale) {
        (self.d[r], self.neighbours[r]) = (d, neighbours);
    }
}

/// Rows of activations.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Pairs of a row; one that is filled up with a zero where the values are odd.
    pub len: usize,
    /// From row to row.
    pub stride: usize,
    /// `[n, stride]`, of the last row `len`.
    pub pairs: &'a [Pair],
    /// `[n, blocks]`.
    pub scales: &'a [Scale],
}

impl<'a> Rows<'a> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.scales.len() / blocks(self.len)
    }

    /// Some of the rows, one at least.
    pub fn part(&self, rows: std::ops::Range<usize>) -> Rows<'a> {
        let blocks = blocks(self.len);
        Rows {
            pairs: &self.pairs[rows.start * self.stride..(rows.end - 1) * self.stride + self.len],
            scales: &self.scales[rows.start * blocks..rows.end * blocks],
            ..*self
        }
    }
}

/// Blocks of a row of so many pairs.
pub fn blocks(pairs: usize) -> usize {
    pairs.div_ceil(BLOCK / 2)
}

/// Rows that others are multiplied with, interleaved; those that fill up the last tile are zero.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    /// Tiles of 16 rows, at most [`MAX_TILES`].
    pub tiles: usize,
    /// `[len, 16 · tiles]`.
    pub pairs: &'a [Pair],
    /// `[blocks, tiles]`.
    pub scales: &'a [TileScale],
}

/// Memory that begins with a line of the cache, as a vector across two lines is read twice, or `AT` values after a multiple of
/// `PERIOD` bytes. It grows and stays.
#[derive(Default)]
pub struct Lines<T, const PERIOD: usize = LINE, const AT: usize = 0>(Vec<T>);

impl<T: Copy + Default, const PERIOD: usize, const AT: usize> Lines<T, PERIOD, AT> {
    fn start(&self) -> usize {
        self.0.as_ptr().align_offset(PERIOD) + AT
    }

    /// Room for `len` values.
    pub fn take(&mut self, len: usize) -> &mut [T] {
        grow(&mut self.0, len + PERIOD / size_of::<T>() + AT);
        let start = self.start();
        &mut self.0[start..start + len]
    }

    /// The values; none before there was room for some.
    pub fn get(&self) -> &[T] {
        self.0.get(self.start()..).unwrap_or_default()
    }
}

/// What sums start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Zero,
    /// What is there.
    Kept,
}

/// Exponentials of a row of scores, rounded as a block.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Powers {
    /// The largest score, or the one that was here before.
    pub max: f32,
    /// The sum of the exponentials, before rounding.
    pub sum: f32,
    /// Of their block.
    pub scale: Scale,
}

/// [`WordKernels::gemm`].
pub type Gemm = fn(Panel<'_>, Rows<'_>, Start, bounds: [f32; 2], sums: &mut [f32], out: Option<&mut Tile<'_>>);

/// The kernels; those of [`SCALAR`] define them.
pub struct WordKernels {
    /// Rounds up to [`BLOCK`] values, brought within bounds. `q` has a zero more where the values are odd.
    pub round: fn(x: &[f32], bounds: [f32; 2], steps: Steps, q: &mut [Pair]) -> Scale,
    /// The same of weights, F16 or BF16, in steps that are powers of two.
    pub round_halves: fn(DType, row: &[u8], q: &mut [Pair]) -> Scale,
    /// Brings the first `len` pairs of 16 rows to a panel's tile: `panel[k · width + r] = rows[r][k]`.
    pub spread: fn(rows: &[[Pair; BLOCK / 2]; TILE], len: usize, width: usize, panel: &mut [Pair]),
    /// `sums[i, r] += Σ_b d[b, r] · d[i, b] · Σ_k panel[k, r] · x[i, k]`, brought within bounds; `sums` `[n, 16 · tiles]`. Where
    /// there is an `out` of as many rows and columns, it alone gets the finished ones, and `sums` holds some that aren't.
    pub gemm: Gemm,
    /// `p = round(2^(score − max))` in steps of [`power_steps`] for each row of so many scores, [`BLOCK`] at most; `max` is the
    /// largest of them and what it was before.
    pub powers: fn(scores: &[f32], len: usize, p: &mut [Pair], rows: &mut [Powers]),
    /// Whether products with weights in 16 bits are as fast so as with both sides rounded to 8, which is coarser.
    pub outrun_bytes: bool,
}

/// The definitions.
pub static SCALAR: WordKernels = WordKernels { round, round_halves, spread, gemm, powers, outrun_bytes: false };

fn round(x: &[f32], bounds: [f32; 2], steps: Steps, q: &mut [Pair]) -> Scale {
    let mut bounded = [0.0; BLOCK];
    let x = {
        let bounded = &mut bounded[..x.len()];
        bounded.copy_from_slice(x);
        rows::clamp(bounded, bounds);
        &*bounded
    };
    let max = largest(x);
    q.fill([0; 2]);
    if !max.is_finite() {
        return Scale { d: f32::NAN, neighbours: 0 };
    }
    if max < TINY {
        return Scale::default();
    }
    let squares: f32 = x.iter().map(|x| (x / max) * (x / max)).sum();
    let inverse = inverse(max, max * squares.sqrt(), steps);
    for (q, &x) in q.as_flattened_mut().iter_mut().zip(x) {
        *q = (x * inverse).round_ties_even() as i16;
    }
    Scale { d: inverse.recip(), neighbours: neighbours(q) }
}

fn round_halves(dtype: DType, row: &[u8], q: &mut [Pair]) -> Scale {
    let mut decoded = [0.0; BLOCK];
    let decoded = &mut decoded[..row.len() / size_of::<u16>()];
    scalar::decode(dtype, row, decoded);
    round(decoded, UNBOUNDED, Steps::PowersOfTwo, q)
}

fn dot(a: Pair, b: Pair) -> i32 {
    i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1])
}

fn neighbours(q: &[Pair]) -> i32 {
    q.as_chunks().0.iter().map(|&[a, b]| dot(a, b)).sum()
}

fn spread(rows: &[[Pair; BLOCK / 2]; TILE], len: usize, width: usize, panel: &mut [Pair]) {
    for (k, panel) in panel.chunks_mut(width).take(len).enumerate() {
        for (to, row) in panel.iter_mut().zip(rows) {
            *to = row[k];
        }
    }
}

/// One over the step of a block with this largest value and this size.
pub fn inverse(max: f32, size: f32, steps: Steps) -> f32 {
    let inverse = (NORM / size).min(MOST / max);
    match steps {
        Steps::Any => inverse,
        // Neither it nor its inverse is subnormal: `max` is not tiny.
        Steps::PowersOfTwo => f32::from_bits(inverse.to_bits() & 0xff80_0000),
    }
}

fn gemm(
    panel: Panel<'_>,
    x: Rows<'_>,
    start: Start,
    bounds: [f32; 2],
    sums: &mut [f32],
    mut out: Option<&mut Tile<'_>>,
) {
    let width = panel.tiles * TILE;
    for (i, sums) in sums.chunks_exact_mut(width).enumerate() {
        if start == Start::Zero {
            sums.fill(0.0);
        }
        let x = x.part(i..i + 1);
        let weights = panel.pairs.chunks(BLOCK / 2 * width).zip(panel.scales.chunks_exact(panel.tiles));
        for ((x, scale), (weights, scales)) in x.pairs.chunks(BLOCK / 2).zip(x.scales).zip(weights) {
            let steps = scales.iter().flat_map(|tile| tile.d);
            for ((r, sum), step) in sums.iter_mut().enumerate().zip(steps) {
                let products = x.iter().zip(weights.chunks_exact(width)).map(|(&x, weights)| dot(x, weights[r]));
                *sum += step * scale.d * products.sum::<i32>() as f32;
            }
        }
        rows::clamp(sums, bounds);
        if let Some(out) = &mut out {
            let first = out.rows().start;
            out.row(first + i).copy_from_slice(sums);
        }
    }
}

fn powers(scores: &[f32], len: usize, p: &mut [Pair], rows: &mut [Powers]) {
    for ((scores, p), row) in scores.chunks_exact(len).zip(p.chunks_exact_mut(len.div_ceil(2))).zip(rows) {
        *row = powers_of_row(scores, row.max, p);
    }
}

fn powers_of_row(scores: &[f32], max: f32, p: &mut [Pair]) -> Powers {
    let max = scores.iter().fold(max, |max, &score| max.max(score));
    let mut values = [0.0; BLOCK];
    let values = &mut values[..scores.len()];
    for (value, &score) in values.iter_mut().zip(scores) {
        *value = (score - max).exp2();
    }
    let sum = values.iter().sum();
    let (inverse, d) = power_steps(sum);
    p.fill([0; 2]);
    for (p, value) in p.as_flattened_mut().iter_mut().zip(values) {
        *p = (*value * inverse).round_ties_even() as i16;
    }
    Powers { max, sum, scale: Scale { d, neighbours: neighbours(p) } }
}

/// Exponentials of this size together are none beside those of the largest score, which is among the others.
pub const NOTHING: f32 = 1.0 / (1u64 << 40) as f32;

/// One over the step of a block of exponentials with this sum, and the step. None is above 1, nor above the sum, so their size is
/// at most the root of the sum, whose power of two is had without taking a root.
pub fn power_steps(sum: f32) -> (f32, f32) {
    if sum.is_nan() || sum < NOTHING {
        return (0.0, if sum.is_nan() { f32::NAN } else { 0.0 });
    }
    // `sum < 2^above`, so its root is below `2^(above / 2)`, and the largest at most `2^min(above, 0)`. What is taken away leaves
    // room for rounding.
    let above = (sum.to_bits() >> 23) as i32 - 126;
    let steps = (15 - (above >> 1)).min(14 - above.min(0));
    let power = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
    (power(steps) * (MOST / 16384.0), power(-steps) * (16384.0 / MOST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{available, other_avx512, table};

    const LENGTHS: [usize; 10] = [1, 2, 15, 16, 17, 63, 64, 65, 127, 128];

    fn kernels() -> impl Iterator<Item = (crate::kernels::Isa, &'static WordKernels)> {
        let tables = available().into_iter().filter_map(table).chain(other_avx512());
        tables.filter_map(|table| Some((table.isa, table.words?)))
    }

    /// Values of −1 to 1, by the multiples of the golden ratio.
    pub(super) fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed * 1000 + 1) as f64 * 0.618_033_988_749_895).fract() as f32 * 2.0 - 1.0).collect()
    }

    fn rounded(k: &WordKernels, x: &[f32], steps: Steps) -> (Vec<Pair>, f32) {
        let mut q = vec![[7; 2]; x.len().div_ceil(2)];
        let scale = (k.round)(x, UNBOUNDED, steps, &mut q);
        assert_eq!(scale.neighbours, neighbours(&q), "{} values", x.len());
        (q, scale.d)
    }

    #[test]
    fn a_value_is_at_most_half_a_step_away_and_a_step_as_small_as_said() {
        for (isa, k) in kernels() {
            for (len, scale) in LENGTHS.into_iter().flat_map(|len| [1.0, 3e-20, 1e25].map(|scale| (len, scale))) {
                let mut x: Vec<f32> = values(len, len).iter().map(|x| x * scale).collect();
                for peak in [1.0, 50.0] {
                    x[len / 2] *= peak;
                    for steps in [Steps::Any, Steps::PowersOfTwo] {
                        let what = format!("{isa} {len} values of {scale} {peak} {steps:?}");
                        let (q, d) = rounded(k, &x, steps);
                        let q = q.as_flattened();
                        for (x, &q) in x.iter().zip(q) {
                            let error = (f64::from(*x) - f64::from(d) * f64::from(q)).abs();
                            assert!(error <= 0.5001 * f64::from(d) + 1e-7 * f64::from(x.abs()), "{what}: {x} as {q}");
                        }
                        assert!(q[len..].iter().all(|&q| q == 0), "{what}: no zero at the end");
                        let size = q.iter().map(|&q| f64::from(q).powi(2)).sum::<f64>().sqrt();
                        let most = q.iter().map(|&q| i32::from(q).abs()).max().unwrap();
                        assert!(size * size <= f64::from(i32::MAX) && most <= MOST as i32, "{what}: {size}, {most}");
                        let least = if steps == Steps::Any { 0.999 } else { 0.499 };
                        let filled = (size / f64::from(NORM)).max(f64::from(most) / f64::from(MOST));
                        assert!(filled >= least, "{what}: {filled} of what there is room for");
                    }
                }
            }
        }
    }

    #[test]
    fn values_of_bf16_are_kept_but_for_the_smallest() {
        for (isa, k) in kernels() {
            let x: Vec<f32> = values(128, 3).iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
            let (q, d) = rounded(k, &x, Steps::PowersOfTwo);
            for (x, &q) in x.iter().zip(q.as_flattened()) {
                assert!(x.abs() < 0.07 || f32::from(q) * d == *x, "{isa}: {x} as {q} · {d}");
            }
        }
    }

    #[test]
    fn halves_are_rounded_as_their_values() {
        for (isa, k) in kernels() {
            for (len, peak) in LENGTHS.into_iter().flat_map(|len| [0.0, 1e-30, 1.0, 300.0].map(|peak| (len, peak))) {
                let mut x = values(len, len);
                x[len / 2] *= peak;
                for dtype in [DType::F16, DType::BF16] {
                    let bytes: Vec<u8> = x
                        .iter()
                        .flat_map(|&x| match dtype {
                            DType::F16 => half::f16::from_f32(x).to_le_bytes(),
                            _ => half::bf16::from_f32(x).to_le_bytes(),
                        })
                        .collect();
                    let mut decoded = vec![0.0; len];
                    scalar::decode(dtype, &bytes, &mut decoded);
                    let mut q = vec![[7; 2]; len.div_ceil(2)];
                    let scale = (k.round_halves)(dtype, &bytes, &mut q);
                    let mut expected = vec![[7; 2]; len.div_ceil(2)];
                    let of_values = round(&decoded, UNBOUNDED, Steps::PowersOfTwo, &mut expected);
                    assert_eq!((scale, q), (of_values, expected), "{isa} {len} values in {dtype:?}, {peak}");
                }
            }
            let infinite = half::bf16::INFINITY.to_le_bytes().repeat(BLOCK);
            assert!((k.round_halves)(DType::BF16, &infinite, &mut [[0; 2]; BLOCK / 2]).d.is_nan(), "{isa}");
        }
    }

    #[test]
    fn rows_become_columns() {
        for (isa, k) in kernels() {
            for (len, width) in [(1, 16), (7, 16), (8, 64), (61, 48), (64, 64), (32, 32)] {
                let rows: [[Pair; BLOCK / 2]; TILE] =
                    std::array::from_fn(|r| std::array::from_fn(|k| [(100 * r + k) as i16, -(k as i16)]));
                let mut panel = vec![[7; 2]; (len - 1) * width + TILE];
                (k.spread)(&rows, len, width, &mut panel);
                for (at, &found) in panel.iter().enumerate() {
                    let (k, r) = (at / width, at % width);
                    let expected = if r < TILE { rows[r][k] } else { [7; 2] };
                    assert_eq!(found, expected, "{isa} pair {k} of row {r}, {len} of {width}");
                }
            }
        }
    }

    #[test]
    fn bounds_hold_before_rounding() {
        for (isa, k) in kernels() {
            let (x, mut q) = (values(100, 5), [[0; 2]; 50]);
            let Scale { d, .. } = (k.round)(&x, [0.25, 0.5], Steps::Any, &mut q);
            for (x, &q) in x.iter().zip(q.as_flattened()) {
                assert!((f32::from(q) * d - x.clamp(0.25, 0.5)).abs() <= 0.51 * d, "{isa}: {x} as {q} · {d}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for (isa, k) in kernels() {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = values(64, 1);
                x[33] = value;
                assert!(rounded(k, &x, Steps::Any).1.is_nan(), "{isa}: {value} is rounded");
            }
            let mut scores = values(64, 2);
            scores[40] = f32::NAN;
            let mut p = [[0; 2]; 32];
            let mut powers = [Powers { max: 3.0, ..Powers::default() }];
            (k.powers)(&scores, 64, &mut p, &mut powers);
            let [powers] = powers;
            assert!(powers.sum.is_nan() && powers.scale.d.is_nan(), "{isa}: {powers:?}");
            assert_eq!(rounded(k, &[0.0; 20], Steps::Any), (vec![[0; 2]; 10], 0.0), "{isa}: zeros");
        }
    }

    /// Products of `n` rows of `x` with `16 · tiles` rows, and what f64 makes of the same integers.
    fn check_product(k: &WordKernels, what: &str, (tiles, n, len): (usize, usize, usize), pairs: [Vec<Pair>; 2]) {
        let (width, count) = (tiles * TILE, blocks(len));
        let [weights, x] = pairs;
        let d = values(n * count, 2).into_iter().map(|v| 1.5 + v);
        let x_blocks = x.chunks(len).flat_map(|row| row.chunks(BLOCK / 2));
        let scales: Vec<_> = d.zip(x_blocks).map(|(d, q)| Scale { d, neighbours: neighbours(q) }).collect();
        let mut tile_scales = vec![TileScale::default(); count * tiles];
        for (at, v) in values(count * width, 1).into_iter().enumerate() {
            let (b, r) = (at / width, at % width);
            let column = weights[r..].iter().step_by(width).skip(b * (BLOCK / 2)).take(BLOCK / 2);
            let neighbours = neighbours(&column.copied().collect::<Vec<_>>());
            tile_scales[b * tiles + r / TILE].set(r % TILE, Scale { d: 1.5 + v, neighbours });
        }
        let panel = Panel { tiles, pairs: &weights, scales: &tile_scales };
        let rows = Rows { len, stride: len, pairs: &x, scales: &scales };
        let mut out = vec![1e3; n * width];
        (k.gemm)(panel, rows, Start::Kept, [-1e9, 2e9], &mut out, None);
        // The same, brought among other values.
        let (mut sums, mut all) = (vec![1e3; n * width], vec![7.0; (n + 2) * (width + 5)]);
        let mut tile = Tile::of(&mut all, width + 5);
        let mut there = tile.columns(3..3 + width);
        (k.gemm)(panel, rows, Start::Kept, [-1e9, 2e9], &mut sums, Some(&mut there.part(1..n + 1)));
        for (i, row) in all.chunks_exact(width + 5).enumerate() {
            let expected =
                if (1..=n).contains(&i) { &out[(i - 1) * width..i * width] } else { &[7.0; MAX_TILES * TILE][..width] };
            assert!(row[3..3 + width] == *expected, "{what} row {i} where it is wanted");
            assert!(row[..3].iter().chain(&row[3 + width..]).all(|&beside| beside == 7.0), "{what} row {i} beside it");
        }
        for (at, found) in out.into_iter().enumerate() {
            let (i, r) = (at / width, at % width);
            let (mut sum, mut size) = (1e3, 1e3);
            for k in 0..len {
                let (x, w) = (x[i * len + k], weights[k * width + r]);
                let dot: f64 = (0..2).map(|h| f64::from(x[h]) * f64::from(w[h])).sum();
                let b = k / (BLOCK / 2);
                let scale = f64::from(tile_scales[b * tiles + r / TILE].d[r % TILE]);
                let scaled = dot * scale * f64::from(scales[i * count + b].d);
                (sum, size) = (sum + scaled, size + scaled.abs());
            }
            let bound = f64::from(f32::EPSILON) * (2.0 * count as f64 + 4.0) * size;
            let expected = sum.clamp(-1e9, 2e9);
            assert!((f64::from(found) - expected).abs() <= bound, "{what} row {i}, {r}: {found}, expected {expected}");
        }
    }

    #[test]
    fn products_are_those_of_the_integers() {
        for (isa, k) in kernels() {
            for tiles in 1..=MAX_TILES {
                for (n, len) in [(1, 1), (6, 32), (7, 64), (13, 65), (6, 200)] {
                    let pairs = [len * tiles * TILE, n * len].map(|n| {
                        let halves = values(2 * n, n).into_iter().map(|v| (v * 3000.0) as i16).collect::<Vec<_>>();
                        halves.as_chunks::<2>().0.to_vec()
                    });
                    check_product(k, &format!("{isa} {tiles} tiles, {n} × {len}"), (tiles, n, len), pairs);
                }
            }
        }
    }

    #[test]
    fn the_largest_blocks_have_room() {
        for (isa, k) in kernels() {
            for (len, sign) in [(128, 1.0), (128, -1.0), (2, 1.0), (64, -1.0)] {
                let (x, _) = rounded(k, &vec![sign; len], Steps::Any);
                let (w, _) = rounded(k, &vec![1.0; len], Steps::Any);
                let weights = w.iter().flat_map(|&pair| [pair; MAX_TILES * TILE]).collect();
                check_product(k, &format!("{isa} {len} equal values"), (MAX_TILES, 6, x.len()), [weights, x.repeat(6)]);
            }
        }
    }

    #[test]
    fn powers_are_those_of_two() {
        for (isa, k) in kernels() {
            for len in LENGTHS {
                // Whole groups of rows, and others.
                for (n, before) in [(1, -5.0), (3, f32::NEG_INFINITY), (4, 9.0), (6, 60.0), (9, -5.0)] {
                    let scores: Vec<f32> = values(n * len, 9).iter().map(|v| 20.0 * v).collect();
                    let mut p = vec![[5; 2]; n * len.div_ceil(2)];
                    // What was before is another for each row.
                    let mut rows: Vec<_> =
                        (0..n).map(|i| Powers { max: before - i as f32, ..Powers::default() }).collect();
                    (k.powers)(&scores, len, &mut p, &mut rows);
                    for (i, (p, powers)) in p.chunks_exact(len.div_ceil(2)).zip(rows).enumerate() {
                        let what = format!("{isa} row {i} of {n} × {len}, {before} before");
                        check_powers(&what, &scores[i * len..(i + 1) * len], before - i as f32, p, powers);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_powers_do_not_touch_each_other() {
        for (isa, k) in kernels() {
            let mut scores: Vec<f32> = values(64 * 8, 4).iter().map(|v| 20.0 * v).collect();
            scores[64 + 7] = f32::NAN;
            scores[2 * 64..3 * 64].fill(f32::NEG_INFINITY);
            scores[6 * 64..7 * 64].fill(-1e4);
            let (mut p, mut rows) = (vec![[5; 2]; 32 * 8], [Powers { max: 2.0, ..Powers::default() }; 8]);
            (k.powers)(&scores, 64, &mut p, &mut rows);
            for (i, row) in rows.iter().enumerate() {
                match i {
                    1 => assert!(row.sum.is_nan() && row.scale.d.is_nan(), "{isa}: {row:?}"),
                    // Nothing beside what was before.
                    2 | 6 => assert!(row.max == 2.0 && row.sum < 1e-30 && row.scale.d == 0.0, "{isa}: {row:?}"),
                    _ => check_powers(&format!("{isa} {i}"), &scores[i * 64..][..64], 2.0, &p[i * 32..][..32], *row),
                }
            }
        }
    }

    fn check_powers(what: &str, scores: &[f32], before: f32, p: &[Pair], powers: Powers) {
        let most = scores.iter().fold(before, |max, &s| max.max(s));
        assert_eq!(powers.max, most, "{what}");
        let exact: Vec<f64> = scores.iter().map(|&s| f64::from(s - most).exp2()).collect();
        let sum = exact.iter().sum::<f64>();
        assert!((f64::from(powers.sum) - sum).abs() <= 2e-6 * sum, "{what}: {powers:?}, expected {sum}");
        assert_eq!(powers.scale.neighbours, neighbours(p), "{what}");
        assert!(p.as_flattened().iter().all(|&p| f32::from(p) <= MOST), "{what}: {p:?}");
        // What is a 2^40th of the largest may be nothing.
        let size = ((2.0 * sum).sqrt() / 2.0).max(2.0 * sum.min(1.0));
        let step = (size / f64::from(MOST)).max(2f64.powi(-39));
        for (p, exact) in p.as_flattened().iter().zip(&exact) {
            let found = f64::from(*p) * f64::from(powers.scale.d);
            assert!((found - exact).abs() <= 0.51 * step + 2e-6 * exact, "{what}: {found} {exact}");
        }
    }
}
