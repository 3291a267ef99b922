//! Attention over a cache, or over rows that see each other: blocks of keys decoded once for all query rows that share
//! them, softmax online.
//!
//! A task takes one KV head, a block of queries (each with all its query heads) and, when there are too few of those
//! for the threads, a part of the keys; parts are merged at the end. Keys outside every query's window are never
//! touched.

use std::ops::Range;
use std::sync::Mutex;

use carat_tensor::backend::{Attention, KvForm};

use crate::acts::grow;
use crate::kernels::{Ahead, Kernels};
use crate::kv::Kv;
use crate::moe::lock;
use crate::pool::{Output, Pool};

/// Keys decoded at a time: keys and values of 32 × 512 stay in L2.
const BLOCK: usize = 32;
/// Values of query rows (queries × heads of the group) that share a decoded block, and most of these rows: the narrower a
/// head, the less work a block is for each of them, and the more must share it.
const ROW_VALUES: usize = 32 * 512;
const MAX_ROWS: usize = 128;
/// A part of the keys is at least this long.
const MIN_PART: usize = 128;

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    q: Vec<f32>,
    /// Queries without the dimensions that RoPE turns, and these alone, where keys are stored so.
    still: Vec<f32>,
    turned: Vec<f32>,
    turned_scores: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    /// `[rows, head_dim]`, not yet divided by the sums.
    out: Vec<f32>,
    /// Largest score per row so far.
    max: Vec<f32>,
    /// Sum of exponentials per row.
    sum: Vec<f32>,
}

/// Query rows of a task.
fn rows(head_dim: usize) -> usize {
    (ROW_VALUES / head_dim).clamp(1, MAX_ROWS)
}

/// Bytes of a worker's memory for heads of `head_dim`: queries, whole and in parts, and what they read, keys and values, scores and
/// sums.
pub fn scratch_bytes(head_dim: usize) -> usize {
    let rows = rows(head_dim);
    4 * (4 * rows * head_dim + 2 * BLOCK * head_dim + 2 * rows * BLOCK + 2 * rows)
}

/// Where keys and values are.
pub trait Stored: Sync {
    /// Decodes the keys and values of some positions of a head, `[positions, head_dim]` each. `end` is where those that
    /// will be asked for end.
    fn read(&self, k: &Kernels, head: usize, positions: Range<usize>, end: usize, out: (&mut [f32], &mut [f32]));

    /// See [`Kv::halves`].
    fn halves(&self, _head: usize, _positions: Range<usize>) -> Option<(&[u8], &[u8])> {
        None
    }

    /// The pairs of dimensions that a key in halves has, where the others are the value's ([`KvForm::ValueAndRotated`]).
    fn rotated(&self) -> Option<usize> {
        None
    }
}

impl Stored for Kv {
    fn read(&self, k: &Kernels, head: usize, positions: Range<usize>, end: usize, out: (&mut [f32], &mut [f32])) {
        Kv::read(self, k, head, positions, end, out.0, out.1);
    }

    fn halves(&self, head: usize, positions: Range<usize>) -> Option<(&[u8], &[u8])> {
        Kv::halves(self, head, positions)
    }

    fn rotated(&self) -> Option<usize> {
        match self.spec().form {
            KvForm::ValueAndRotated { pairs } if self.has_halves() => Some(pairs),
            _ => None,
        }
    }
}

/// Keys and values of rows that see each other, `[n, n_heads, d]`.
pub struct Rows<'a> {
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Heads of both, and of the queries.
    pub n_heads: usize,
    /// Values per head.
    pub d: usize,
}

impl Stored for Rows<'_> {
    fn read(&self, _: &Kernels, head: usize, positions: Range<usize>, _: usize, out: (&mut [f32], &mut [f32])) {
        let (keys, values) = out;
        let to = keys.chunks_exact_mut(self.d).zip(values.chunks_exact_mut(self.d));
        for (i, (key, value)) in positions.zip(to) {
            let at = (i * self.n_heads + head) * self.d;
            key.copy_from_slice(&self.k[at..at + self.d]);
            value.copy_from_slice(&self.v[at..at + self.d]);
        }
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy)]
enum Sight {
    /// Those up to its own or its block's end, within the window.
    Causal,
    /// All.
    All,
}

/// What queries see, and how heads go together.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The queries.
    pub shape: Attention<'a>,
    sight: Sight,
    /// Values per head.
    pub d: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Query heads per KV head.
    pub group: usize,
}

impl<'a> View<'a> {
    /// Of a cache.
    ///
    /// # Panics
    /// If the cache is too small for what is seen of it.
    pub fn of_cache(kv: &Kv, shape: Attention<'a>) -> Self {
        let spec = kv.spec();
        let group = shape.n_heads / spec.n_kv_heads;
        let view = View { shape, sight: Sight::Causal, d: spec.head_dim, n_kv_heads: spec.n_kv_heads, group };
        let visible = view.keys(0..shape.n);
        assert!(visible.len() <= spec.capacity, "positions {visible:?} are not all in a cache of {}", spec.capacity);
        view
    }

    /// Of `n` rows that see each other.
    pub fn of_all(n: usize, rows: &Rows<'_>) -> Self {
        let shape = Attention { n, first: 0, n_heads: rows.n_heads, window: None, blocks: &[] };
        View { shape, sight: Sight::All, d: rows.d, n_kv_heads: rows.n_heads, group: 1 }
    }

    /// Positions that some of the queries see.
    pub fn keys(&self, queries: Range<usize>) -> Range<usize> {
        if let Sight::All = self.sight {
            return 0..self.shape.n;
        }
        // Neither end of what a query sees lies before that of an earlier query.
        let first = self.shape.first;
        self.shape.visible(first + queries.start).start..self.shape.visible(first + queries.end - 1).end
    }

    /// Where a head's query is among all.
    pub fn query(&self, i: usize, head: usize) -> Range<usize> {
        let start = (i * self.shape.n_heads + head) * self.d;
        start..start + self.d
    }
}

/// How an attention is cut.
#[derive(Clone, Copy)]
struct Plan {
    /// Queries per task.
    queries: usize,
    /// Parts of the keys.
    parts: usize,
}

impl Plan {
    fn new(view: View<'_>, threads: usize) -> Self {
        let n = view.shape.n;
        let queries = (rows(view.d) / view.group).clamp(1, n.max(1));
        let units = view.n_kv_heads * n.div_ceil(queries);
        let mut plan = Plan { queries, parts: 1 };
        if units < 2 * threads {
            let keys = view.keys(0..n).len();
            plan.parts = (2 * threads).div_ceil(units).min(keys / MIN_PART).max(1);
        }
        plan
    }

    /// Part `p` of those positions, in whole blocks.
    fn part(&self, keys: Range<usize>, p: usize) -> Range<usize> {
        let size = keys.len().div_ceil(self.parts).next_multiple_of(BLOCK);
        (keys.start + p * size).min(keys.end)..(keys.start + (p + 1) * size).min(keys.end)
    }
}

/// `out[i, h] = softmax(q[i, h] · K) · V`; `partial` is memory for parts.
pub fn attend(
    k: &'static Kernels,
    pool: &mut Pool,
    scratch: &[Mutex<Scratch>],
    partial: &mut Vec<f32>,
    (out, q): (&mut [f32], &[f32]),
    kv: &impl Stored,
    view: View<'_>,
) {
    let View { shape, d, n_kv_heads, group, .. } = view;
    let (plan, width) = (&Plan::new(view, pool.threads()), shape.n_heads * d);
    if plan.parts == 1 {
        let output = Output::new(out, shape.n, width, plan.queries, group * d);
        pool.tiles(&mut [output], |worker, _, mut tile| {
            let mut scratch = lock(&scratch[worker]);
            let (queries, head) = (tile.rows(), tile.cols().start / (group * d));
            run(k, &view, &mut scratch, q, kv, head, queries.clone(), view.keys(queries.clone()));
            for (row, i) in queries.enumerate() {
                let from = &scratch.out[row * group * d..(row + 1) * group * d];
                let sums = &scratch.sum[row * group..(row + 1) * group];
                for ((out, from), sum) in tile.row(i).chunks_exact_mut(d).zip(from.chunks_exact(d)).zip(sums) {
                    let scale = 1.0 / sum;
                    out.iter_mut().zip(from).for_each(|(out, v)| *out = v * scale);
                }
            }
        });
        return;
    }
    // One record per (query block, KV head, part): rows of `d` values, then maxima, then sums.
    let rows = plan.queries * group;
    let record = rows * (d + 2);
    let records = shape.n.div_ceil(plan.queries) * n_kv_heads * plan.parts;
    grow(partial, records * record);
    pool.tiles(&mut [Output::new(partial, records, record, 1, record)], |worker, _, mut tile| {
        let mut scratch = lock(&scratch[worker]);
        let index = tile.rows().start;
        let (part, head, block) =
            (index % plan.parts, index / plan.parts % n_kv_heads, index / plan.parts / n_kv_heads);
        let queries = block * plan.queries..((block + 1) * plan.queries).min(shape.n);
        let keys = plan.part(view.keys(queries.clone()), part);
        run(k, &view, &mut scratch, q, kv, head, queries.clone(), keys);
        let used = queries.len() * group;
        let record = tile.row(index);
        record[..used * d].copy_from_slice(&scratch.out[..used * d]);
        record[rows * d..rows * d + used].copy_from_slice(&scratch.max[..used]);
        record[rows * (d + 1)..rows * (d + 1) + used].copy_from_slice(&scratch.sum[..used]);
    });
    for i in 0..shape.n {
        for h in 0..shape.n_heads {
            let unit = i / plan.queries * n_kv_heads + h / group;
            let row = i % plan.queries * group + h % group;
            let parts = &partial[unit * plan.parts * record..(unit + 1) * plan.parts * record];
            merge(parts, record, rows, row, &mut out[i * width + h * d..i * width + (h + 1) * d]);
        }
    }
}

/// `Σ_p e^(max_p − max) · out_p / Σ_p e^(max_p − max) · sum_p`.
fn merge(parts: &[f32], record: usize, rows: usize, row: usize, out: &mut [f32]) {
    let d = out.len();
    let max_at = |part: &[f32]| part[rows * d + row];
    let max = parts.chunks_exact(record).map(max_at).fold(f32::NEG_INFINITY, f32::max);
    let weight = |part: &[f32]| (max_at(part) - max).exp();
    let sum: f32 = parts.chunks_exact(record).map(|part| weight(part) * part[rows * (d + 1) + row]).sum();
    out.fill(0.0);
    for part in parts.chunks_exact(record) {
        let scale = weight(part) / sum;
        out.iter_mut().zip(&part[row * d..(row + 1) * d]).for_each(|(out, v)| *out += scale * v);
    }
}

/// Attends queries to keys of one head; leaves weighted values, maxima and sums in the scratch.
#[allow(clippy::too_many_arguments, reason = "one private call site's loop body")]
fn run(
    k: &Kernels,
    view: &View<'_>,
    s: &mut Scratch,
    q: &[f32],
    kv: &impl Stored,
    head: usize,
    queries: Range<usize>,
    keys: Range<usize>,
) {
    let (d, group) = (view.d, view.group);
    let rows = queries.len() * group;
    grow(&mut s.q, rows * d);
    grow(&mut s.keys, BLOCK * d);
    grow(&mut s.values, BLOCK * d);
    grow(&mut s.scores, rows * BLOCK);
    grow(&mut s.out, rows * d);
    grow(&mut s.max, rows);
    grow(&mut s.sum, rows);
    s.out[..rows * d].fill(0.0);
    s.max[..rows].fill(f32::NEG_INFINITY);
    s.sum[..rows].fill(0.0);
    for (row, i) in queries.clone().enumerate() {
        let from = view.query(i, head * group).start;
        s.q[row * group * d..(row + 1) * group * d].copy_from_slice(&q[from..from + group * d]);
    }
    if let (Some(pairs), Some(_)) = (kv.rotated(), &k.halves) {
        s.part_queries(rows, d, pairs);
    }
    for start in keys.clone().step_by(BLOCK) {
        let block = start..(start + BLOCK).min(keys.end);
        let b = block.len();
        let scores = &mut s.scores[..rows * b];
        let stored = k.halves.as_ref().and_then(|kernels| Some((kernels, kv.halves(head, block.clone())?)));
        match (stored, kv.rotated()) {
            (Some((kernels, (keys, values))), None) => {
                (kernels.scores)(&s.q[..rows * d], keys, d, Ahead(values), scores);
            }
            (Some((kernels, (keys, values))), Some(pairs)) => {
                (kernels.scores)(&s.still[..rows * d], values, d, Ahead(keys), scores);
                let more = &mut s.turned_scores[..rows * b];
                (kernels.scores)(&s.turned[..rows * 2 * pairs], keys, 2 * pairs, Ahead(&[]), more);
                scores.iter_mut().zip(more).for_each(|(score, more)| *score += *more);
            }
            (None, _) => {
                kv.read(k, head, block.clone(), keys.end, (&mut s.keys, &mut s.values));
                (k.scores)(&s.q[..rows * d], &s.keys[..b * d], d, scores);
            }
        }
        for (row, scores) in scores.chunks_exact_mut(b).enumerate() {
            let query = queries.start + row / group;
            let seen = view.keys(query..query + 1);
            let (from, to) = (seen.start.clamp(block.start, block.end), seen.end.clamp(block.start, block.end));
            scores[..from - block.start].fill(f32::NEG_INFINITY);
            scores[to - block.start..].fill(f32::NEG_INFINITY);
            let max = scores.iter().fold(s.max[row], |max, &v| max.max(v));
            // Maxima drop what is no number; sums of powers keep it.
            if max == f32::NEG_INFINITY && !scores.iter().any(|score| score.is_nan()) {
                scores.fill(0.0);
                continue;
            }
            let shrink = (s.max[row] - max).exp();
            s.sum[row] = s.sum[row] * shrink + (k.exp_sum)(scores, max);
            s.max[row] = max;
            if shrink != 1.0 {
                s.out[row * d..(row + 1) * d].iter_mut().for_each(|v| *v *= shrink);
            }
        }
        let (powers, out) = (&s.scores[..rows * b], &mut s.out[..rows * d]);
        match stored {
            Some((kernels, (_, values))) => {
                let next = block.end..(block.end + BLOCK).min(keys.end);
                // What the next scores begin with.
                let next =
                    kv.halves(head, next).map(|(keys, values)| if kv.rotated().is_none() { keys } else { values });
                (kernels.weighted_sum)(powers, values, d, Ahead(next.unwrap_or_default()), out);
            }
            None => (k.weighted_sum)(powers, &s.values[..b * d], d, out),
        }
    }
}

impl Scratch {
    /// Parts `rows` queries into the dimensions that RoPE turns, `0..pairs` and as many from the middle on, and the others.
    fn part_queries(&mut self, rows: usize, d: usize, pairs: usize) {
        grow(&mut self.still, rows * d);
        grow(&mut self.turned, rows * 2 * pairs);
        grow(&mut self.turned_scores, rows * BLOCK);
        self.still[..rows * d].copy_from_slice(&self.q[..rows * d]);
        for (still, turned) in self.still.chunks_exact_mut(d).zip(self.turned.chunks_exact_mut(2 * pairs)).take(rows) {
            for (dims, turned) in [0..pairs, d / 2..d / 2 + pairs].into_iter().zip(turned.chunks_exact_mut(pairs)) {
                turned.copy_from_slice(&still[dims.clone()]);
                still[dims].fill(0.0);
            }
        }
    }
}
