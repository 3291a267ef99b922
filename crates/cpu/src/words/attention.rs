//! Attention in products of 16-bit integers: of all rows to all, or of many queries to a cache.
//!
//! Head by head, and of a long cache [`SEGMENT`] positions after another: keys and values are rounded to panels of [`KEYS`],
//! which stay in the second cache while all queries pass. 128 values of a key are a block, and so are the values of a panel's
//! keys in one dimension. A task takes some [`ROWS`] query rows (queries × heads of the group) past the keys they see, softmax
//! online: scores, their exponentials rounded as a block, and the weighted values lie in the first cache.

use std::ops::Range;
use std::sync::Mutex;

use carat_tensor::backend::UNBOUNDED;

use super::{BLOCK, Lines, MAX_TILES, Pair, Panel, Powers, Rows, Scale, Start, Steps, TileScale, WordKernels, blocks};
use crate::acts::grow;
use crate::attention::{Stored, View};
use crate::kernels::{self, TILE};
use crate::moe::lock;
use crate::pool::{Output, Pool};

/// Keys of a panel.
const KEYS: usize = MAX_TILES * TILE;
/// Query rows that pass the panels together.
const ROWS: usize = 50;
/// The largest head.
const MAX_HEAD_DIM: usize = 4 * BLOCK;
/// Positions whose keys and values are rounded at a time.
const SEGMENT: usize = 32 * KEYS;
/// Fewer query rows are not worth the rounding of keys and values.
const WORTH: usize = 64;

/// Whether `n` queries of heads of `d`, `group` of them to one of the keys, are attended to here.
pub fn takes(n: usize, group: usize, d: usize) -> bool {
    d <= MAX_HEAD_DIM && group <= ROWS && n * group >= WORTH
}

/// Keys and values of a segment of a head.
#[derive(Default)]
pub struct Head {
    /// By panels: `[len, 64]`.
    keys: Lines<Pair>,
    /// `[blocks, 4]`.
    key_scales: Vec<TileScale>,
    /// By panels: `[32, width]`, in as many parts as the width takes.
    values: Lines<Pair>,
    /// `[width / 16]`.
    value_scales: Vec<TileScale>,
    /// Where there are several segments, of each task the largest scores and the sums so far.
    carried: Vec<f32>,
}

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    /// Keys, then values of a panel, `[64, d]` each.
    decoded: Vec<f32>,
    queries: Vec<Pair>,
    query_scales: Vec<Scale>,
    scores: Lines<f32>,
    powers: Vec<Pair>,
    power_scales: Vec<Scale>,
    /// By parts, `[ROWS, 16 · tiles]`.
    out: Lines<f32>,
    max: Vec<f32>,
    sum: Vec<f32>,
}

/// What an instruction set has.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// For 16-bit integers.
    pub words: &'static WordKernels,
    /// All others.
    pub all: &'static kernels::Kernels,
}

/// Pairs and blocks of a key, and values' dimensions in whole tiles.
#[derive(Clone, Copy)]
struct Lengths {
    len: usize,
    blocks: usize,
    width: usize,
}

impl Lengths {
    fn new(d: usize) -> Self {
        let len = d.div_ceil(2);
        Lengths { len, blocks: blocks(len), width: d.next_multiple_of(TILE) }
    }
}

/// Parts of a head's dimensions that a panel takes at once: where each starts, and its tiles.
fn parts(width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..width).step_by(MAX_TILES * TILE).map(move |start| (start, ((width - start) / TILE).min(MAX_TILES)))
}

impl Head {
    /// Lengths of the fields for `n` positions of heads of `d`, in their order.
    fn lengths(n: usize, d: usize) -> [usize; 4] {
        let (panels, Lengths { len, blocks, width }) = (n.div_ceil(KEYS), Lengths::new(d));
        [panels * len * KEYS, panels * blocks * MAX_TILES, panels * KEYS / 2 * width, panels * width / TILE]
    }

    /// Bytes of the same, but for what is carried.
    pub fn bytes(n: usize, d: usize) -> usize {
        let [keys, key_scales, values, value_scales] = Self::lengths(n.min(SEGMENT), d);
        (keys + values) * size_of::<Pair>() + (key_scales + value_scales) * size_of::<TileScale>()
    }

    /// Rounds keys and values of some positions of a head.
    fn round(
        &mut self,
        k: Kernels,
        pool: &mut Pool,
        scratch: &[Mutex<Scratch>],
        stored: &impl Stored,
        (head, d): (usize, usize),
        positions: Range<usize>,
    ) {
        let Lengths { len, blocks, width } = Lengths::new(d);
        let [keys, key_scales, values, value_scales] = Self::lengths(positions.len(), d);
        grow(&mut self.key_scales, key_scales);
        grow(&mut self.value_scales, value_scales);
        let keys = self.keys.take(keys).chunks_exact_mut(len * KEYS);
        let keys = keys.zip(self.key_scales.chunks_exact_mut(blocks * MAX_TILES));
        let values = self.values.take(values).chunks_exact_mut(KEYS / 2 * width);
        let values = values.zip(self.value_scales.chunks_exact_mut(width / TILE));
        let panels: Vec<_> = keys.zip(values).map(Mutex::new).collect();
        pool.run(panels.len(), |worker, panel| {
            let decoded = &mut lock(&scratch[worker]).decoded;
            grow(decoded, 2 * KEYS * d);
            let (keys, values) = decoded.split_at_mut(KEYS * d);
            let first = positions.start + panel * KEYS;
            let read = first..(first + KEYS).min(positions.end);
            let n = read.len();
            stored.read(k.all, head, read, positions.end, (&mut keys[..n * d], &mut values[..n * d]));
            let (to_keys, to_values) = &mut *lock(&panels[panel]);
            round_keys(k.words, &keys[..n * d], d, (to_keys.0, to_keys.1));
            round_values(k.words, &values[..n * d], d, (to_values.0, to_values.1));
        });
    }

    fn keys(&self, d: usize, panel: usize) -> Panel<'_> {
        let Lengths { len, blocks, .. } = Lengths::new(d);
        Panel {
            tiles: MAX_TILES,
            pairs: &self.keys.get()[panel * len * KEYS..(panel + 1) * len * KEYS],
            scales: &self.key_scales[panel * blocks * MAX_TILES..(panel + 1) * blocks * MAX_TILES],
        }
    }

    fn values(&self, width: usize, panel: usize, (start, tiles): (usize, usize)) -> Panel<'_> {
        let at = panel * width + start;
        Panel {
            tiles,
            pairs: &self.values.get()[at * (KEYS / 2)..(at + tiles * TILE) * (KEYS / 2)],
            scales: &self.value_scales[at / TILE..at / TILE + tiles],
        }
    }
}

/// Rounds up to 64 keys of `d` to a panel.
fn round_keys(words: &WordKernels, keys: &[f32], d: usize, (panel, scales): (&mut [Pair], &mut [TileScale])) {
    let mut rounded = [[[0; 2]; BLOCK / 2]; TILE];
    if keys.len() < KEYS * d {
        panel.fill([0; 2]);
        scales.fill(TileScale::default());
    }
    for (tile, keys) in keys.chunks(TILE * d).enumerate() {
        rounded[keys.len() / d..].fill([[0; 2]; BLOCK / 2]);
        let blocks = panel.chunks_mut(BLOCK / 2 * KEYS).zip(scales.chunks_exact_mut(MAX_TILES));
        for (b, (panel, scales)) in blocks.enumerate() {
            let dims = b * BLOCK..((b + 1) * BLOCK).min(d);
            let len = dims.len().div_ceil(2);
            for (r, (key, q)) in keys.chunks_exact(d).zip(&mut rounded).enumerate() {
                scales[tile].set(r, (words.round)(&key[dims.clone()], UNBOUNDED, Steps::Any, &mut q[..len]));
            }
            (words.spread)(&rounded, len, KEYS, &mut panel[tile * TILE..]);
        }
    }
}

/// The same of values, dimension by dimension.
fn round_values(words: &WordKernels, values: &[f32], d: usize, (panel, scales): (&mut [Pair], &mut [TileScale])) {
    let width = d.next_multiple_of(TILE);
    let (mut columns, mut rounded) = ([[0.0; KEYS]; TILE], [[[0; 2]; BLOCK / 2]; TILE]);
    if d < width {
        scales.fill(TileScale::default());
    }
    for (start, tiles) in parts(width) {
        let panel = &mut panel[start * (KEYS / 2)..][..tiles * TILE * (KEYS / 2)];
        for first in (start..(start + tiles * TILE).min(d)).step_by(TILE) {
            // By lines of the rows.
            let end = (first + TILE).min(d);
            for (r, row) in values.chunks_exact(d).enumerate() {
                columns.iter_mut().zip(&row[first..end]).for_each(|(column, &value)| column[r] = value);
            }
            rounded[end - first..].fill([[0; 2]; BLOCK / 2]);
            for (r, (column, q)) in columns[..end - first].iter().zip(&mut rounded).enumerate() {
                scales[first / TILE].set(r, (words.round)(column, UNBOUNDED, Steps::Any, &mut q[..KEYS / 2]));
            }
            (words.spread)(&rounded, KEYS / 2, tiles * TILE, &mut panel[first - start..]);
        }
    }
}

/// See `Backend::attention` and `Backend::attend_all`.
pub fn attend(
    k: Kernels,
    pool: &mut Pool,
    scratch: &[Mutex<Scratch>],
    keys_and_values: &mut Head,
    (out, q): (&mut [f32], &[f32]),
    stored: &impl Stored,
    view: View<'_>,
) {
    let View { shape, d, group, .. } = view;
    assert!(d <= MAX_HEAD_DIM && group <= ROWS, "{group} heads of {d}");
    let (queries, width) = (ROWS / group, group * d);
    let seen = view.keys(0..shape.n);
    for head in 0..view.n_kv_heads {
        for start in seen.clone().step_by(SEGMENT) {
            let segment = start..(start + SEGMENT).min(seen.end);
            keys_and_values.round(k, pool, scratch, stored, (head, d), segment.clone());
            let (is_first, is_last) = (segment.start == seen.start, segment.end == seen.end);
            let mut carried = std::mem::take(&mut keys_and_values.carried);
            if !(is_first && is_last) {
                grow(&mut carried, 2 * ROWS * shape.n.div_ceil(queries));
            }
            let carry: Vec<_> = carried.chunks_exact_mut(2 * ROWS).map(Mutex::new).collect();
            let out = Output::new(out, shape.n, shape.n_heads * d, queries, width);
            let out = out.columns(head * width..(head + 1) * width);
            let segment = Segment { positions: segment, stored: keys_and_values };
            pool.tiles(&mut [out], |worker, _, mut tile| {
                let mut scratch = lock(&scratch[worker]);
                let rows = tile.rows();
                let carry = carry.get(rows.start / queries);
                scratch.take(k.words, q, &view, head, rows.clone());
                if let (false, Some(carry)) = (is_first, carry) {
                    let carry = lock(carry);
                    scratch.max.copy_from_slice(&carry[..ROWS]);
                    scratch.sum.copy_from_slice(&carry[ROWS..]);
                    for (i, at) in rows.clone().enumerate() {
                        scratch.put_back(d, i * group, tile.row(at));
                    }
                }
                scratch.attend(k.words, &segment, &view, rows.clone());
                for (i, at) in rows.enumerate() {
                    scratch.give(d, i * group, is_last, tile.row(at));
                }
                if let (false, Some(carry)) = (is_last, carry) {
                    let mut carry = lock(carry);
                    carry[..ROWS].copy_from_slice(&scratch.max);
                    carry[ROWS..].copy_from_slice(&scratch.sum);
                }
            });
            drop(carry);
            keys_and_values.carried = carried;
        }
    }
}

/// Positions and what is stored of them.
struct Segment<'a> {
    positions: Range<usize>,
    stored: &'a Head,
}

impl Scratch {
    /// Bytes for heads of `d`: keys and values, queries, scores, their powers, sums.
    pub fn bytes(d: usize) -> usize {
        let Lengths { len, blocks, width } = Lengths::new(d);
        let pairs = len + KEYS / 2;
        2 * KEYS * d * size_of::<f32>()
            + ROWS
                * (pairs * size_of::<Pair>()
                    + (blocks + 1) * size_of::<Scale>()
                    + (KEYS + width + 2) * size_of::<f32>())
    }

    /// Adds what some queries see of a segment to their weighted values and sums.
    fn attend(&mut self, words: &WordKernels, segment: &Segment<'_>, view: &View<'_>, queries: Range<usize>) {
        let Lengths { len, blocks, width } = Lengths::new(view.d);
        let (m, group) = (queries.len() * view.group, view.group);
        let rows = Rows { len, stride: len, pairs: &self.queries[..m * len], scales: &self.query_scales[..m * blocks] };
        let sums = self.out.take(ROWS * width);
        // What some of them see, by panels.
        let within = |seen: Range<usize>, from: usize, to: usize| {
            seen.start.clamp(from, to) - from..seen.end.clamp(from, to) - from
        };
        let seen = within(view.keys(queries.clone()), segment.positions.start, segment.positions.end);
        for panel in seen.start / KEYS..seen.end.div_ceil(KEYS) {
            let first = segment.positions.start + panel * KEYS;
            let end = (first + KEYS).min(segment.positions.end);
            let scores = self.scores.take(m * KEYS);
            (words.gemm)(segment.stored.keys(view.d, panel), rows, Start::Zero, UNBOUNDED, scores, None);
            let (mut of_rows, mut see_none) = ([Powers::default(); ROWS], [false; ROWS]);
            for (r, scores) in scores.chunks_exact_mut(KEYS).enumerate() {
                let query = queries.start + r / group;
                let seen = within(view.keys(query..query + 1), first, end);
                scores[..seen.start].fill(f32::NEG_INFINITY);
                scores[seen.end..].fill(f32::NEG_INFINITY);
                (of_rows[r].max, see_none[r]) = (self.max[r], seen.is_empty());
            }
            (words.powers)(scores, KEYS, &mut self.powers[..m * KEYS / 2], &mut of_rows[..m]);
            for (r, powers) in of_rows[..m].iter().enumerate() {
                if see_none[r] {
                    self.powers[r * KEYS / 2..(r + 1) * KEYS / 2].fill([0; 2]);
                    self.power_scales[r] = Scale::default();
                    continue;
                }
                let before = self.max[r];
                self.power_scales[r] = powers.scale;
                self.max[r] = powers.max;
                if powers.max > before {
                    let shrink = (before - powers.max).exp2();
                    self.sum[r] *= shrink;
                    for (start, tiles) in parts(width) {
                        let at = start * ROWS + r * tiles * TILE;
                        sums[at..at + tiles * TILE].iter_mut().for_each(|v| *v *= shrink);
                    }
                }
                self.sum[r] += powers.sum;
            }
            let powers = Rows {
                len: KEYS / 2,
                stride: KEYS / 2,
                pairs: &self.powers[..m * KEYS / 2],
                scales: &self.power_scales[..m],
            };
            for (start, tiles) in parts(width) {
                let out = &mut sums[start * ROWS..][..m * tiles * TILE];
                (words.gemm)(
                    segment.stored.values(width, panel, (start, tiles)),
                    powers,
                    Start::Kept,
                    UNBOUNDED,
                    out,
                    None,
                );
            }
        }
    }

    /// Rounds queries, in units of which a score is a power of two, and starts their sums.
    fn take(&mut self, words: &WordKernels, q: &[f32], view: &View<'_>, head: usize, queries: Range<usize>) {
        let Lengths { len, blocks, width } = Lengths::new(view.d);
        grow(&mut self.queries, ROWS * len);
        grow(&mut self.query_scales, ROWS * blocks);
        grow(&mut self.powers, ROWS * KEYS / 2);
        grow(&mut self.power_scales, ROWS);
        grow(&mut self.max, ROWS);
        grow(&mut self.sum, ROWS);
        self.out.take(ROWS * width).fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        let rows = queries.flat_map(|i| (0..view.group).map(move |h| (i, h)));
        let to = self.queries.chunks_exact_mut(len).zip(self.query_scales.chunks_exact_mut(blocks));
        for ((i, h), (rounded, scales)) in rows.zip(to) {
            let query = q[view.query(i, head * view.group + h)].chunks(BLOCK);
            for ((block, rounded), scale) in query.zip(rounded.chunks_mut(BLOCK / 2)).zip(scales) {
                *scale = (words.round)(block, UNBOUNDED, Steps::Any, rounded);
                scale.d *= std::f32::consts::LOG2_E;
            }
        }
    }

    /// Writes weighted values of the rows from `first` on, `[heads, d]`; over their sums where these are complete.
    fn give(&self, d: usize, first: usize, is_complete: bool, out: &mut [f32]) {
        for (r, out) in (first..).zip(out.chunks_exact_mut(d)) {
            let scale = if is_complete { self.sum[r].recip() } else { 1.0 };
            for ((start, tiles), out) in parts(d.next_multiple_of(TILE)).zip(out.chunks_mut(MAX_TILES * TILE)) {
                let from = &self.out.get()[start * ROWS + r * tiles * TILE..];
                out.iter_mut().zip(from).for_each(|(out, v)| *out = v * scale);
            }
        }
    }

    /// Takes back what [`Self::give`] gave of incomplete ones.
    fn put_back(&mut self, d: usize, first: usize, from: &[f32]) {
        let width = d.next_multiple_of(TILE);
        let sums = self.out.take(ROWS * width);
        for (r, from) in (first..).zip(from.chunks_exact(d)) {
            for ((start, tiles), from) in parts(width).zip(from.chunks(MAX_TILES * TILE)) {
                sums[start * ROWS + r * tiles * TILE..][..from.len()].copy_from_slice(from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use carat_tensor::backend::{Attention, KvForm, KvSpec, KvType};

    use super::*;
    use crate::attention;
    use crate::kernels::{available, table};
    use crate::kv::Kv;
    use crate::words::tests::values;

    /// What is carried from segment to segment, where some queries see none of the first or nothing but the last.
    #[test]
    fn segments_together_are_what_floats_make_of_all() {
        let (n, d, n_heads) = (70, 48, 2);
        let capacity = 2 * SEGMENT + 100;
        let spec = KvSpec { n_kv_heads: 1, head_dim: d, capacity, form: KvForm::Pair, dtype: KvType::F16 };
        let mut kv = Kv::new(spec).unwrap();
        for (p, (key, value)) in
            values(capacity * d, 1).chunks_exact(d).zip(values(capacity * d, 2).chunks_exact(d)).enumerate()
        {
            // Whose share of what a query sees is not lost among thousands.
            let key: Vec<f32> = key.iter().map(|v| if p % 97 == 0 { 2.0 * v } else { *v }).collect();
            kv.write(0, p, &key, value);
        }
        let q = values(n * n_heads * d, 3);
        let mut pool = Pool::new(2).unwrap();
        for (isa, words) in available().into_iter().filter_map(|isa| Some((isa, table(isa)?.words?))) {
            let k = Kernels { words, all: table(isa).unwrap() };
            for (first, window) in [
                (capacity - n, None),
                (capacity - n, Some(SEGMENT + 500)),
                (SEGMENT - 10, None),
                (SEGMENT + 30, Some(40)),
                (0, None),
            ] {
                let shape = Attention { n, first, n_heads, window, blocks: &[] };
                let view = View::of_cache(&kv, shape);
                assert!(takes(n, view.group, d));
                let scratch: Vec<Mutex<Scratch>> = (0..2).map(|_| Mutex::default()).collect();
                let (mut found, mut expected) = (vec![f32::NAN; q.len()], vec![0.0; q.len()]);
                attend(k, &mut pool, &scratch, &mut Head::default(), (&mut found, &q), &kv, view);
                let scratch: Vec<Mutex<attention::Scratch>> = (0..2).map(|_| Mutex::default()).collect();
                attention::attend(k.all, &mut pool, &scratch, &mut Vec::new(), (&mut expected, &q), &kv, view);
                // Half a step of a key is 7e-5 of these, of which 48 in a score, whose error is that of its exponential.
                for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert!((found - expected).abs() < 1e-3, "{isa} {first} {window:?} {at}: {found}, {expected}");
                }
            }
        }
    }
}
