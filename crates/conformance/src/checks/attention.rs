//! Keys, values and attention: chunks written one after another into a ring until it has gone round, read by
//! the rows of the chunk and by the last row alone.

use std::collections::BTreeMap;
use std::ops::Range;

use carat_tensor::Backend;
use carat_tensor::backend::{Attention, KvForm, KvSpec, KvType};

use super::{Harness, stack};
use crate::Exactness;
use crate::bounds::{self, Approx, Cached, F16, Rounded, Storage};
use crate::cases::Rng;
use crate::definitions;

/// Chunks written in order: single tokens, few, more than a tile.
const CHUNKS: [usize; 7] = [1, 3, 17, 1, 9, 2, 1];
/// The largest of them.
const LARGEST_CHUNK: usize = 17;

/// One layer and how it is used.
#[derive(Clone, Debug)]
struct Case {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    form: KvForm,
    dtype: KvType,
    window: Option<usize>,
    /// Deviation of scores.
    spread: f64,
    chunks: Vec<usize>,
    /// Positions that see each other, each within one chunk.
    blocks: Vec<Range<usize>>,
}

pub fn check<B: Backend>(h: &mut Harness<'_, B>) {
    let mut rng = Rng::new(3);
    // (heads, KV heads, head width, rotated pairs of the compact form)
    let shapes = [
        (1, 1, 16, None),
        (2, 1, 32, Some(16)),
        (4, 2, 64, Some(16)),
        (8, 8, 32, None),
        (6, 2, 96, None),
        (4, 1, 128, Some(32)),
        (8, 1, 256, None),
        (8, 2, 512, Some(64)),
    ];
    for (n_heads, n_kv_heads, head_dim, pairs) in shapes {
        for dtype in [KvType::F32, KvType::F16, KvType::Q8_0] {
            if dtype == KvType::Q8_0 && head_dim % 32 != 0 {
                continue;
            }
            let pair = Case {
                n_heads,
                n_kv_heads,
                head_dim,
                form: KvForm::Pair,
                dtype,
                window: None,
                spread: 2.0,
                chunks: CHUNKS.to_vec(),
                blocks: Vec::new(),
            };
            run(h, &mut rng, &Case { window: Some(11), ..pair.clone() });
            // Chunks begin at 0, 1, 4, 21, 22, 31 and 33: a block at a chunk's end, two side by side, one longer than the
            // window, one after which its chunk goes on.
            let blocks = vec![2..4, 5..7, 7..20, 24..29];
            run(h, &mut rng, &Case { window: Some(11), blocks: blocks.clone(), ..pair.clone() });
            run(h, &mut rng, &Case { window: Some(3), blocks, ..pair.clone() });
            if let Some(pairs) = pairs {
                let form = KvForm::ValueAndRotated { pairs };
                run(h, &mut rng, &Case { form, ..pair.clone() });
                run(h, &mut rng, &Case { form, window: Some(1), ..pair.clone() });
            }
            run(h, &mut rng, &pair);
        }
    }
    for dtype in [KvType::F32, KvType::F16, KvType::Q8_0] {
        let long = Case {
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 64,
            form: KvForm::Pair,
            dtype,
            window: None,
            spread: 2.0,
            chunks: vec![130, 1, 129, 17, 1],
            blocks: Vec::new(),
        };
        run(h, &mut rng, &long);
        run(h, &mut rng, &Case { window: Some(100), ..long.clone() });
        // Whole blocks of keys that only some of the queries see.
        run(h, &mut rng, &Case { window: Some(100), blocks: vec![3..128, 131..260], ..long.clone() });
        run(h, &mut rng, &Case { blocks: vec![40..41, 70..130], ..long.clone() });
        // Scores that overflow exp without the maximum taken off, and queries of zero.
        run(h, &mut rng, &Case { spread: 150.0, chunks: CHUNKS.to_vec(), ..long.clone() });
        run(h, &mut rng, &Case { spread: 0.0, chunks: CHUNKS.to_vec(), ..long });
    }
}

fn storage(dtype: KvType) -> Storage {
    let least = F16 * F16 / 8.0;
    match dtype {
        KvType::F32 => Storage { always: 0.0, of_value: 0.0, of_largest: 0.0 },
        KvType::F16 => Storage { always: least, of_value: F16, of_largest: 0.0 },
        KvType::Q8_0 => Storage { always: 127.0 * least, of_value: F16, of_largest: 1.0 / 254.0 },
    }
}

/// Adds what rounding these values to 16 bits in blocks errs.
fn add_words(steps: &mut [f64], values: &[f64]) {
    for (steps, block) in steps.chunks_mut(bounds::WORD_BLOCK).zip(values.chunks(bounds::WORD_BLOCK)) {
        let half = bounds::word_step(block) / 2.0;
        steps.iter_mut().for_each(|step| *step += half);
    }
}

/// Keys and values as the cache holds them, per position and KV head.
struct Model {
    stored: BTreeMap<usize, Vec<Cached>>,
}

impl Model {
    fn write(&mut self, case: &Case, first: usize, k: &[f64], v: &[f64]) {
        let row = case.n_kv_heads * case.head_dim;
        for (i, (k, v)) in k.chunks_exact(row).zip(v.chunks_exact(row)).enumerate() {
            let heads = k.chunks_exact(case.head_dim).zip(v.chunks_exact(case.head_dim));
            let heads = heads.map(|(key, value)| {
                let (key_steps, value_steps) = (storage(case.dtype).steps(key), storage(case.dtype).steps(value));
                let (key, key_steps) = match case.form {
                    KvForm::Pair => (key.to_vec(), key_steps),
                    KvForm::ValueAndRotated { pairs } => (
                        definitions::key_of_value(key, value, pairs),
                        definitions::key_of_value(&key_steps, &value_steps, pairs),
                    ),
                };
                Cached { key, key_steps, value: value.to_vec(), value_steps }
            });
            self.stored.insert(first + i, heads.collect());
        }
    }

    /// What is stored, with the errors of rounding it to 16 bits in blocks: of a key's neighbours, and of one dimension of
    /// as many positions' values, none larger than the largest there is.
    fn in_words(&self, head_dim: usize) -> BTreeMap<usize, Vec<Cached>> {
        let mut stored = self.stored.clone();
        let heads = stored.values().next().map_or(0, Vec::len);
        for head in 0..heads {
            let size = |v: &f64, step: &f64| v.abs() + step;
            let largest: Vec<f64> = (0..head_dim)
                .map(|c| {
                    let all = stored.values().map(|heads| size(&heads[head].value[c], &heads[head].value_steps[c]));
                    all.fold(0.0, f64::max)
                })
                .collect();
            for heads in stored.values_mut() {
                let Cached { key, key_steps, value_steps, .. } = &mut heads[head];
                let sizes: Vec<f64> = key.iter().zip(&*key_steps).map(|(v, step)| size(v, step)).collect();
                add_words(key_steps, &sizes);
                for (step, &largest) in value_steps.iter_mut().zip(&largest) {
                    *step += bounds::word_step(&[largest; bounds::WORD_BLOCK]) / 2.0;
                }
            }
        }
        stored
    }

    /// Rows `[n, n_heads, head_dim]` of queries from `first` on.
    fn attend(&self, case: &Case, exactness: Exactness, first: usize, q: &[f64]) -> Approx {
        let last = first + q.len() / (case.n_heads * case.head_dim) - 1;
        // Queries may be rounded as a cache that holds less than f32 rounds keys; and both, shares and values to words.
        let (rounding, words) = match exactness {
            Exactness::Reference => (storage(KvType::F32), false),
            Exactness::Fast(_) => (storage(case.dtype), case.dtype != KvType::F32),
        };
        let group = case.n_heads / case.n_kv_heads;
        let in_words: BTreeMap<usize, Vec<Cached>>;
        let stored = if words {
            in_words = self.in_words(case.head_dim);
            &in_words
        } else {
            &self.stored
        };
        let rounded = if words { Rounded::Shares } else { Rounded::Nothing };
        stack(q.chunks_exact(case.head_dim).enumerate().map(|(i, query)| {
            let (position, head) = (first + i / case.n_heads, i % case.n_heads);
            let seen = definitions::visible(position, last, case.window, &case.blocks);
            let seen: Vec<&Cached> = seen.iter().map(|p| &stored[p][head / group]).collect();
            let mut steps = rounding.steps(query);
            if words {
                add_words(&mut steps, query);
            }
            bounds::attention(query, &seen, &steps, rounded)
        }))
    }
}

fn run<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, case: &Case) {
    let total: usize = case.chunks.iter().sum();
    let largest = case.chunks.iter().copied().max().unwrap_or(LARGEST_CHUNK);
    // One window and the chunk being written: full rings go round, full layers never do.
    let capacity = case.window.map_or(total, |window| window + largest - 1);
    let spec =
        KvSpec { n_kv_heads: case.n_kv_heads, head_dim: case.head_dim, capacity, form: case.form, dtype: case.dtype };
    let mut kv = h.backend.kv(spec).expect("conformance: memory for a small cache");
    let mut model = Model { stored: BTreeMap::new() };
    let row = case.n_kv_heads * case.head_dim;
    let mut first = 0;
    for &n in &case.chunks {
        let (k, v) = (rng.normal(n * row, 1.0), rng.normal(n * row, 1.0));
        let deviation = case.spread / (case.head_dim as f64).sqrt();
        let q = rng.normal(n * case.n_heads * case.head_dim, deviation);
        let (keys, values, queries) = (h.buffer(&k), h.buffer(&v), h.buffer(&q));
        h.backend.kv_write(&mut kv, &keys, &values, first, n);
        model.write(case, first, &k, &v);

        let within = |block: &&Range<usize>| block.start >= first && block.end <= first + n;
        let blocks: Vec<Range<usize>> = case.blocks.iter().filter(within).cloned().collect();
        let mut shape = Attention { n, first, n_heads: case.n_heads, window: case.window, blocks: &blocks };
        h.report.begin("attention", describe(case, shape));
        let mut out = h.output(q.len());
        h.backend.attention(&mut out, &queries, &kv, shape);
        h.compare(&out, &model.attend(case, h.exactness, first, &q));

        if n > 1 {
            // As a layer does whose earlier rows nobody reads.
            (shape.n, shape.first) = (1, first + n - 1);
            h.report.begin("attention", format!("last row alone, {}", describe(case, shape)));
            let q = &q[(n - 1) * case.n_heads * case.head_dim..];
            let (queries, mut out) = (h.buffer(q), h.output(q.len()));
            h.backend.attention(&mut out, &queries, &kv, shape);
            h.compare(&out, &model.attend(case, h.exactness, shape.first, q));
        }
        first += n;
    }
}

fn describe(case: &Case, shape: Attention<'_>) -> String {
    format!(
        "blocks={:?} heads={}/{} head_dim={} {:?} {:?} window={:?} spread={} first={} n={}",
        shape.blocks,
        case.n_heads,
        case.n_kv_heads,
        case.head_dim,
        case.form,
        case.dtype,
        case.window,
        case.spread,
        shape.first,
        shape.n
    )
}
