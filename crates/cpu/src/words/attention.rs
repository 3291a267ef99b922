//! Attention of all rows to all, in products of 16-bit integers.
//!
//! Head by head: keys and values of one are rounded to panels of [`KEYS`], which stay in the second cache while all queries
//! pass. A key is a block, and so are the values of a panel's keys in one dimension. A task takes [`ROWS`] queries at a
//! time past all keys, softmax online: scores, their exponentials rounded as a block, and the weighted values lie in the first
//! cache.

use std::sync::Mutex;

use super::{BLOCK, Lines, MAX_TILES, Pair, Panel, Rows, Start, Steps, UNBOUNDED, WordKernels};
use crate::acts::grow;
use crate::kernels::TILE;
use crate::moe::lock;
use crate::pool::{Output, Pool};

/// Keys of a panel.
const KEYS: usize = MAX_TILES * TILE;
/// Queries that pass the panels together.
const ROWS: usize = 48;
/// The largest head: a key is one block.
const MAX_HEAD_DIM: usize = BLOCK;

/// Whether heads of this width are attended to here.
pub fn takes(head_dim: usize) -> bool {
    head_dim <= MAX_HEAD_DIM
}

/// Keys and values of a head.
#[derive(Default)]
pub struct Head {
    /// By panels: `[len, 64]`.
    keys: Lines<Pair>,
    /// `[64]`.
    key_steps: Lines<f32>,
    /// By panels: `[32, width]`, in as many parts as the width takes.
    values: Lines<Pair>,
    /// `[width]`.
    value_steps: Lines<f32>,
}

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    queries: Vec<Pair>,
    query_steps: Vec<f32>,
    scores: Lines<f32>,
    powers: Vec<Pair>,
    power_steps: Vec<f32>,
    /// By parts, `[ROWS, 16 · tiles]`.
    out: Lines<f32>,
    max: Vec<f32>,
    sum: Vec<f32>,
}

/// Queries, keys and values, `[n, n_heads, d]` each.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Rows.
    pub n: usize,
    /// Heads.
    pub n_heads: usize,
    /// Values per head, at most [`MAX_HEAD_DIM`].
    pub d: usize,
}

impl Operands<'_> {
    /// Where a row of a head is.
    fn at(&self, row: usize, head: usize) -> std::ops::Range<usize> {
        let start = (row * self.n_heads + head) * self.d;
        start..start + self.d
    }

    /// Pairs of a key.
    fn len(&self) -> usize {
        self.d.div_ceil(2)
    }

    /// Values' dimensions in whole tiles.
    fn width(&self) -> usize {
        self.d.next_multiple_of(TILE)
    }
}

/// Parts of a head's dimensions that a panel takes at once: where each starts, and its tiles.
fn parts(width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..width).step_by(MAX_TILES * TILE).map(move |start| (start, ((width - start) / TILE).min(MAX_TILES)))
}

impl Head {
    /// Lengths of the fields for `n` rows of heads of `d`, in their order.
    fn lengths(n: usize, d: usize) -> [usize; 4] {
        let (panels, width) = (n.div_ceil(KEYS), d.next_multiple_of(TILE));
        [panels * d.div_ceil(2) * KEYS, panels * KEYS, panels * KEYS / 2 * width, panels * width]
    }

    /// Bytes of the same.
    pub fn bytes(n: usize, d: usize) -> usize {
        let [keys, key_steps, values, value_steps] = Self::lengths(n, d);
        (keys + values) * size_of::<Pair>() + (key_steps + value_steps) * size_of::<f32>()
    }

    /// Rounds keys and values of a head.
    fn round(&mut self, words: &WordKernels, pool: &mut Pool, io: &Operands<'_>, head: usize) {
        let (len, width) = (io.len(), io.width());
        let [keys, key_steps, values, value_steps] = Self::lengths(io.n, io.d);
        let keys = self.keys.take(keys).chunks_exact_mut(len * KEYS);
        let keys = keys.zip(self.key_steps.take(key_steps).chunks_exact_mut(KEYS));
        let values = self.values.take(values).chunks_exact_mut(KEYS / 2 * width);
        let values = values.zip(self.value_steps.take(value_steps).chunks_exact_mut(width));
        let panels: Vec<_> = keys.zip(values).map(Mutex::new).collect();
        pool.run(panels.len(), |_, panel| {
            let ((keys, key_steps), (values, value_steps)) = &mut *lock(&panels[panel]);
            let rows = panel * KEYS..((panel + 1) * KEYS).min(io.n);
            round_keys(words, io, head, rows.clone(), (keys, key_steps));
            round_values(words, io, head, rows, (values, value_steps));
        });
    }

    fn keys(&self, io: &Operands<'_>, panel: usize) -> Panel<'_> {
        let size = io.len() * KEYS;
        Panel {
            tiles: MAX_TILES,
            pairs: &self.keys.get()[panel * size..(panel + 1) * size],
            d: &self.key_steps.get()[panel * KEYS..(panel + 1) * KEYS],
        }
    }

    fn values(&self, io: &Operands<'_>, panel: usize, (start, tiles): (usize, usize)) -> Panel<'_> {
        let at = panel * io.width() + start;
        Panel {
            tiles,
            pairs: &self.values.get()[at * (KEYS / 2)..(at + tiles * TILE) * (KEYS / 2)],
            d: &self.value_steps.get()[at..at + tiles * TILE],
        }
    }
}

fn round_keys(
    words: &WordKernels,
    io: &Operands<'_>,
    head: usize,
    rows: std::ops::Range<usize>,
    (panel, steps): (&mut [Pair], &mut [f32]),
) {
    let mut key = [[0; 2]; MAX_HEAD_DIM / 2];
    let key = &mut key[..io.len()];
    if rows.len() < KEYS {
        panel.fill([0; 2]);
        steps.fill(0.0);
    }
    for (r, row) in rows.enumerate() {
        steps[r] = (words.round)(&io.k[io.at(row, head)], UNBOUNDED, Steps::Any, key);
        for (to, pair) in panel.chunks_exact_mut(KEYS).zip(&*key) {
            to[r] = *pair;
        }
    }
}

fn round_values(
    words: &WordKernels,
    io: &Operands<'_>,
    head: usize,
    rows: std::ops::Range<usize>,
    (panel, steps): (&mut [Pair], &mut [f32]),
) {
    let (mut column, mut rounded) = ([0.0; KEYS], [[0; 2]; KEYS / 2]);
    if io.d < io.width() {
        panel.fill([0; 2]);
        steps.fill(0.0);
    }
    for (start, tiles) in parts(io.width()) {
        let width = tiles * TILE;
        let panel = &mut panel[start * (KEYS / 2)..][..width * (KEYS / 2)];
        for c in start..(start + width).min(io.d) {
            for (value, row) in column.iter_mut().zip(rows.clone()) {
                *value = io.v[io.at(row, head).start + c];
            }
            column[rows.len()..].fill(0.0);
            steps[c] = (words.round)(&column, UNBOUNDED, Steps::Any, &mut rounded);
            for (to, pair) in panel.chunks_exact_mut(width).zip(rounded) {
                to[c - start] = pair;
            }
        }
    }
}

/// See `Backend::attend_all`.
pub fn attend_all(
    words: &WordKernels,
    pool: &mut Pool,
    scratch: &[Mutex<Scratch>],
    keys_and_values: &mut Head,
    out: &mut [f32],
    io: &Operands<'_>,
) {
    let Operands { n, n_heads, d, .. } = *io;
    assert!(d <= MAX_HEAD_DIM, "a head of {d}");
    for head in 0..n_heads {
        keys_and_values.round(words, pool, io, head);
        let keys_and_values = &*keys_and_values;
        let out = Output::new(out, n, n_heads * d, ROWS, d).columns(head * d..(head + 1) * d);
        pool.tiles(&mut [out], |worker, _, mut tile| {
            let mut scratch = lock(&scratch[worker]);
            let rows = tile.rows.clone();
            scratch.attend(words, keys_and_values, io, head, rows.clone());
            for (r, i) in rows.enumerate() {
                scratch.finish(io.width(), r, tile.row(i));
            }
        });
    }
}

impl Scratch {
    /// Bytes for heads of `d`: queries, scores, their powers, sums.
    pub fn bytes(d: usize) -> usize {
        let pairs = d.div_ceil(2) + KEYS / 2;
        ROWS * (pairs * size_of::<Pair>() + (KEYS + d.next_multiple_of(TILE) + 4) * size_of::<f32>())
    }

    /// Leaves weighted values and sums of some queries of a head.
    fn attend(
        &mut self,
        words: &WordKernels,
        stored: &Head,
        io: &Operands<'_>,
        head: usize,
        rows: std::ops::Range<usize>,
    ) {
        let (m, len, width) = (rows.len(), io.len(), io.width());
        self.take(words, io, head, rows);
        let queries = Rows { len, pairs: &self.queries[..m * len], d: &self.query_steps[..m] };
        let sums = self.out.take(ROWS * width);
        for (panel, first) in (0..io.n).step_by(KEYS).enumerate() {
            let seen = (io.n - first).min(KEYS);
            let scores = self.scores.take(m * KEYS);
            (words.gemm)(stored.keys(io, panel), queries, Start::Zero, UNBOUNDED, scores);
            for (r, scores) in scores.chunks_exact(KEYS).enumerate() {
                let before = self.max[r];
                let p = &mut self.powers[r * KEYS / 2..(r + 1) * KEYS / 2];
                let powers = (words.powers)(&scores[..seen], before, p);
                self.power_steps[r] = powers.d;
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
            let powers = Rows { len: KEYS / 2, pairs: &self.powers[..m * KEYS / 2], d: &self.power_steps[..m] };
            for (start, tiles) in parts(width) {
                let out = &mut sums[start * ROWS..][..m * tiles * TILE];
                (words.gemm)(stored.values(io, panel, (start, tiles)), powers, Start::Kept, UNBOUNDED, out);
            }
        }
    }

    /// Rounds queries, in units of which a score is a power of two, and starts their sums.
    fn take(&mut self, words: &WordKernels, io: &Operands<'_>, head: usize, rows: std::ops::Range<usize>) {
        let len = io.len();
        grow(&mut self.queries, ROWS * len);
        grow(&mut self.query_steps, ROWS);
        grow(&mut self.powers, ROWS * KEYS / 2);
        grow(&mut self.power_steps, ROWS);
        grow(&mut self.max, ROWS);
        grow(&mut self.sum, ROWS);
        self.out.take(ROWS * io.width()).fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        for ((row, query), step) in rows.zip(self.queries.chunks_exact_mut(len)).zip(&mut self.query_steps) {
            *step = std::f32::consts::LOG2_E * (words.round)(&io.q[io.at(row, head)], UNBOUNDED, Steps::Any, query);
        }
    }

    /// What is left of row `r`: its values over their sum.
    fn finish(&self, width: usize, r: usize, out: &mut [f32]) {
        let scale = self.sum[r].recip();
        for ((start, tiles), out) in parts(width).zip(out.chunks_mut(MAX_TILES * TILE)) {
            let from = &self.out.get()[start * ROWS + r * tiles * TILE..];
            out.iter_mut().zip(from).for_each(|(out, v)| *out = v * scale);
        }
    }
}
