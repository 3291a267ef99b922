//! Operations of encoders: products between bounds, gates, sums of rows, norms about the mean, attention of all rows to all.

use carat_tensor::backend::{Clip, ClippedFeedForward, ClippedProjection, LayerNorm, Pooling, Projection, Rounding};
use carat_tensor::{Backend, DType};

use super::{Harness, stack};
use crate::Exactness;
use crate::bounds::{self, Approx, Cached, Rounded, U};
use crate::cases::{self, Fill, Matrix, ROWS, Rng};

pub fn check<B: Backend>(h: &mut Harness<'_, B>) {
    let mut rng = Rng::new(7);
    // Widths of heads and feed-forwards that no vector length divides, and whole blocks.
    for cols in [24, 72, 100, 256, 1152] {
        for dtype in cases::dtypes_of(cols) {
            for n in ROWS {
                clipped_project(h, &mut rng, n, cols, dtype, 37);
            }
        }
    }
    // Widths of whole blocks, of parts of one, and of less than a vector.
    for (d, width) in [(96, 256), (64, 320), (72, 200), (40, 24), (32, 512)] {
        for dtype in cases::dtypes_of(d).filter(|dtype| dtype.row_bytes(width).is_some()) {
            for n in [1, 9, 60] {
                for how in [(false, true), (true, true), (true, false)] {
                    feed_forward(h, &mut rng, (n, d, width), dtype, how);
                }
            }
        }
    }
    for len in [1, 7, 32, 1000, 40_000] {
        gate(h, &mut rng, len);
        add(h, &mut rng, len);
    }
    for (n_heads, head_dim) in [(1, 8), (2, 12), (3, 64), (2, 72), (1, 128)] {
        for n in [1, 2, 17, 33, 150] {
            attend_all(h, &mut rng, (n_heads, head_dim), n, 2.0);
        }
        attend_all(h, &mut rng, (n_heads, head_dim), 40, 150.0);
        attend_all(h, &mut rng, (n_heads, head_dim), 40, 0.0);
    }
    for (n, d) in [(1, 1), (3, 24), (17, 100), (2, 6912)] {
        for mean in [0.0, 0.6, -40.0] {
            layer_norm(h, &mut rng, n, d, mean);
        }
    }
    for (n, per, d) in [(1, 9, 24), (5, 9, 72), (70, 9, 1152), (3, 1, 7), (4, 4, 33)] {
        pool(h, &mut rng, n, per, d);
    }
}

fn clipped_project<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    n: usize,
    cols: usize,
    dtype: DType,
    rows: usize,
) {
    let matrix = Matrix::random(rng, dtype, rows, cols, (cols as f64).powf(-0.5));
    let x = Fill::Normal.rows(rng, n, cols);
    let (input, loaded) = (h.buffer(&x), h.matrix(&matrix));
    let bounded = Clip { input: [-0.5, 1.25], output: [-0.75, 0.25] };
    for clip in [Clip::NONE, bounded, Clip { output: Clip::NONE.output, ..bounded }] {
        h.report.begin("clipped_project", format!("n={n} {} {clip:?}", matrix.tensor.name));
        // A second one of the same rows, within other bounds.
        let clips = [clip, Clip { input: [-1.0, 0.75], ..clip }];
        let mut outs = clips.map(|_| h.output(n * rows));
        let mut projections: Vec<_> =
            outs.iter_mut().zip(clips).map(|(out, clip)| projection(&loaded, out, clip)).collect();
        h.backend.clipped_project(&mut projections, &input, n);
        for (out, clip) in outs.iter().zip(clips) {
            let expected = x.chunks_exact(cols).map(|x| clipped(h, &matrix, &Approx::exact(x.to_vec()), clip));
            let expected = stack(expected);
            h.compare(out, &expected);
        }
    }
}

fn projection<'a, M, B>(matrix: &'a M, out: &'a mut B, clip: Clip) -> ClippedProjection<'a, M, B> {
    ClippedProjection { projection: Projection { matrix, out }, clip }
}

/// A row's product between bounds.
fn clipped<B: Backend>(h: &Harness<'_, B>, matrix: &Matrix, x: &Approx, clip: Clip) -> Approx {
    let (x, dtype) = (x.clamp(clip.input.map(f64::from)), matrix.tensor.dtype);
    let inherited = |product| bounds::inherited(product, &matrix.weights, &x);
    let product = match (h.exactness, dtype) {
        (Exactness::Fast(Rounding::Coarse), DType::F16 | DType::BF16) => {
            inherited(bounds::bytes_product(&matrix.weights, &x.exact))
        }
        (Exactness::Fast(_), DType::F16 | DType::BF16) => inherited(bounds::words_product(&matrix.weights, &x.exact)),
        _ => bounds::product(&matrix.weights, &x, h.inputs(dtype)),
    };
    product.clamp(clip.output.map(f64::from))
}

/// A feed-forward between bounds of `n` rows, with a gate or without one. `one_input` says whether gate and up have bounds of what
/// goes in together.
fn feed_forward<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    (n, d, width): (usize, usize, usize),
    dtype: DType,
    (gated, one_input): (bool, bool),
) {
    let mut matrix = |rows, cols| Matrix::random(rng, dtype, rows, cols, (cols as f64).powf(-0.5));
    let [gate, up, down] = [matrix(width, d), matrix(width, d), matrix(d, width)];
    let what = format!("n={n} d={d} {} gated={gated} one_input={one_input}", up.tensor.name);
    h.report.begin("clipped_feed_forward", what);
    let of_up = Clip { input: [-1.5, 2.0], output: [-1.25, 1.5] };
    let of_gate = Clip { input: if one_input { of_up.input } else { [-1.0, 1.5] }, output: [-2.0, 1.75] };
    let of_down = Clip { input: [-0.75, 1.0], output: [-0.5, 0.25] };
    let x = Fill::Normal.rows(rng, n, d);
    let input = h.buffer(&x);
    let loaded = [&gate, &up, &down].map(|matrix| h.matrix(matrix));
    let (mut gate_out, mut up_out, mut out) = (h.output(n * width), h.output(n * width), h.output(n * d));
    let ffn = ClippedFeedForward {
        width,
        gate: gated.then(|| projection(&loaded[0], &mut gate_out, of_gate)),
        up: projection(&loaded[1], &mut up_out, of_up),
        down: projection(&loaded[2], &mut out, of_down),
    };
    h.backend.clipped_feed_forward(ffn, &input, n);
    let expected = x.chunks_exact(d).map(|x| {
        let x = Approx::exact(x.to_vec());
        let up = clipped(h, &up, &x, of_up);
        let inner = if gated { clipped(h, &gate, &x, of_gate).gelu().times(&up) } else { up.silu() };
        clipped(h, &down, &inner, of_down)
    });
    let expected = stack(expected);
    h.compare(&out, &expected);
}

fn gate<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, len: usize) {
    h.report.begin("gate", format!("len={len}"));
    let (gate, up) = (rng.normal(len, 2.0), rng.normal(len, 1.0));
    let (mut out, input) = (h.buffer(&gate), h.buffer(&up));
    h.backend.gate(&mut out, &input, len);
    h.compare(&out, &Approx::exact(gate).gelu().times(&Approx::exact(up)));
}

fn layer_norm<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, n: usize, d: usize, mean: f64) {
    const EPS: f32 = 1e-5;
    h.report.begin("layer_norm", format!("n={n} d={d} mean={mean}"));
    let x: Vec<f64> = rng.normal(n * d, 0.3).iter().map(|v| f64::from((v + mean) as f32)).collect();
    let (weight, bias) = (rng.normal(d, 1.0), rng.normal(d, 1.0));
    let (input, vectors) = (h.buffer(&x), (h.vector(&weight), h.vector(&bias)));
    let mut out = h.output(n * d);
    h.backend.layer_norm(&mut out, &input, LayerNorm { weight: &vectors.0, bias: &vectors.1, eps: EPS }, n);
    h.compare(
        &out,
        &stack(
            x.chunks_exact(d).map(|x| bounds::layer_norm(&Approx::exact(x.to_vec()), &weight, &bias, f64::from(EPS))),
        ),
    );
}

fn add<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, len: usize) {
    h.report.begin("add", format!("len={len}"));
    let (x, y) = (rng.normal(len, 2.0), rng.normal(len, 1.0));
    let (mut out, input) = (h.buffer(&x), h.buffer(&y));
    h.backend.add(&mut out, &input, len);
    h.compare(&out, &Approx::exact(x).plus(&Approx::exact(y)));
}

fn attend_all<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, heads: (usize, usize), n: usize, spread: f64) {
    let (n_heads, d) = heads;
    h.report.begin("attend_all", format!("heads={n_heads} head_dim={d} n={n} spread={spread}"));
    let width = n_heads * d;
    let q = rng.normal(n * width, spread / (d as f64).sqrt());
    let (k, v) = (rng.normal(n * width, 1.0), rng.normal(n * width, 1.0));
    let (queries, keys, values) = (h.buffer(&q), h.buffer(&k), h.buffer(&v));
    let mut out = h.output(n * width);
    h.backend.attend_all(&mut out, &queries, &keys, &values, n_heads, d, n);
    // Nothing is rounded where precision forbids it.
    let (step, rounded): (fn(&[f64]) -> f64, _) = match h.exactness {
        Exactness::Reference => (|_| 0.0, Rounded::Nothing),
        Exactness::Fast(_) => (bounds::word_step, Rounded::Shares),
    };
    let of_head = |head: usize| -> Vec<Cached> {
        let row = |all: &[f64], i: usize| all[i * width + head * d..i * width + (head + 1) * d].to_vec();
        let column = |block: usize, c: usize| -> Vec<f64> {
            let rows = block * bounds::WORD_BLOCK..((block + 1) * bounds::WORD_BLOCK).min(n);
            rows.map(|i| v[i * width + head * d + c]).collect()
        };
        let value_steps: Vec<Vec<f64>> = (0..n.div_ceil(bounds::WORD_BLOCK))
            .map(|block| (0..d).map(|c| step(&column(block, c)) / 2.0).collect())
            .collect();
        let of = |i| {
            let key = row(&k, i);
            let key_steps = vec![step(&key) / 2.0; d];
            Cached { key, key_steps, value: row(&v, i), value_steps: value_steps[i / bounds::WORD_BLOCK].clone() }
        };
        (0..n).map(of).collect()
    };
    let heads: Vec<Vec<Cached>> = (0..n_heads).map(of_head).collect();
    let rows = q.chunks_exact(d).enumerate().map(|(i, query)| {
        let seen: Vec<&Cached> = heads[i % n_heads].iter().collect();
        bounds::attention(query, &seen, &vec![step(query) / 2.0; d], rounded)
    });
    h.compare(&out, &stack(rows));
}

fn pool<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, n: usize, per: usize, d: usize) {
    let x = rng.normal(n * per * d, 1.0);
    // Every row once, the members of a sum far apart.
    let rows: Vec<usize> = (0..n).flat_map(|i| (0..per).map(move |j| j * n + i)).collect();
    let factor = (d as f32).sqrt() / per as f32;
    let (bias, scale) = (rng.normal(d, 3.0), rng.normal(d, 1.0));
    let (input, vectors) = (h.buffer(&x), (h.vector(&bias), h.vector(&scale)));
    for standard in [None, Some((&vectors.0, &vectors.1))] {
        h.report.begin("pool", format!("n={n} per={per} d={d} standard={}", standard.is_some()));
        let mut out = h.output(n * d);
        h.backend.pool(&mut out, &input, Pooling { rows: &rows, per, d, factor, standard });
        let expected = rows.chunks_exact(per).map(|rows| {
            let sum = |c: usize, f: fn(f64) -> f64| rows.iter().map(|r| f(x[r * d + c])).sum::<f64>();
            let exact = (0..d).map(|c| sum(c, |v| v)).collect();
            let limit: Vec<f64> = (0..d).map(|c| bounds::gamma(per) * sum(c, f64::abs)).collect();
            let pooled = Approx { exact, typical: limit.clone(), limit }.scale(f64::from(factor));
            if standard.is_none() {
                return pooled;
            }
            let minus = Approx::exact(bias.iter().map(|b| -b).collect());
            pooled.plus(&minus).times(&Approx::relative(scale.clone(), U))
        });
        h.compare(&out, &stack(expected));
    }
}
