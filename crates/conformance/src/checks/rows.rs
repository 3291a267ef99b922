//! Operations on rows without a large matrix: memory, norms, RoPE, embeddings.

use carat_tensor::backend::{Norm, Rope, UNBOUNDED};
use carat_tensor::{Backend, TokenId};

use super::{EPS, Harness, SENTINEL, stack};
use crate::bounds::{self, Approx, U};
use crate::cases::{self, Fill, Matrix, ROWS, Rng, f32s};

/// Row lengths of norms, also ones that no vector length divides.
const NORM_WIDTHS: [usize; 8] = [1, 7, 16, 33, 64, 96, 256, 1536];

pub fn check<B: Backend>(h: &mut Harness<'_, B>) {
    let mut rng = Rng::new(1);
    memory(h);
    for fill in Fill::ALL {
        // The number of rows matters for ordinary values, the values for few rows.
        for n in ROWS.into_iter().filter(|&n| fill == Fill::Normal || n <= 2) {
            for d in NORM_WIDTHS {
                rms_norm(h, &mut rng, fill, n, d);
                add_rms_norm(h, &mut rng, fill, n, d);
                sum_rms_norms(h, &mut rng, fill, n, d);
            }
            for (groups, d) in [(1, 32), (3, 64), (5, 256)] {
                combine_per_layer(h, &mut rng, fill, n, groups, d);
            }
            for (n_heads, head_dim) in [(1, 16), (2, 32), (3, 64), (8, 256), (4, 512)] {
                norm_heads(h, &mut rng, fill, n, (n_heads, head_dim), 1);
            }
            for (n_heads, head_dim) in [(1, 4), (2, 12), (3, 64), (16, 72)] {
                norm_heads(h, &mut rng, fill, n, (n_heads, head_dim), 2);
            }
        }
    }
    for (half, first) in [(8, 0), (16, 5), (128, 511), (256, 131_072 - 17), (33, 262_143 - 17)] {
        ROWS.into_iter().for_each(|n| rope_table(h, half, first, n));
    }
    for cols in [32, 256, 512] {
        for dtype in cases::dtypes_of(cols) {
            gather(h, &mut rng, Matrix::random(&mut Rng::new(cols as u64), dtype, 19, cols, 0.5));
        }
    }
}

fn memory<B: Backend>(h: &mut Harness<'_, B>) {
    h.report.begin("buffer", "len=9".into());
    let fresh = h.backend.buffer(9).expect("conformance: memory for 9 values");
    let mut values = [SENTINEL; 9];
    h.backend.download(&fresh, 0, &mut values);
    h.report.compare(&values, &Approx::relative(vec![0.0; 9], 0.0));

    let numbers: Vec<f64> = (1..=20).map(f64::from).collect();
    let x = h.buffer(&numbers);
    h.report.begin("download", "at=6 len=5".into());
    let mut values = [0.0; 5];
    h.backend.download(&x, 6, &mut values);
    h.report.compare(&values, &Approx::relative(numbers[6..11].to_vec(), 0.0));

    h.report.begin("copy", "at=3 len=8".into());
    let mut out = h.output(8);
    h.backend.copy(&mut out, &x, 3, 8);
    h.compare(&out, &Approx::relative(numbers[3..11].to_vec(), 0.0));
}

fn rms_norm<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, fill: Fill, n: usize, d: usize) {
    let (x, weight) = (fill.rows(rng, n, d), rng.normal(d, 1.0));
    let (input, norm) = (h.buffer(&x), h.vector(&weight));
    for within in [UNBOUNDED, BOUNDS] {
        h.report.begin("rms_norm", format!("n={n} d={d} {fill:?} {within:?}"));
        let mut out = h.output(n * d);
        h.backend.rms_norm(&mut out, &input, within, Norm { weight: &norm, eps: EPS }, n);
        let rows = x.chunks_exact(d).map(|x| bounds::rms(&clamped(x, within), Some(&weight), f64::from(EPS)));
        h.compare(&out, &stack(rows));
    }
}

fn add_rms_norm<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, fill: Fill, n: usize, d: usize) {
    let (x, residual, weight) = (rng.normal(n * d, 3.0), fill.rows(rng, n, d), rng.normal(d, 1.0));
    let (input, norm) = (h.buffer(&residual), h.vector(&weight));
    let scale = 0.73f32;
    for within in [UNBOUNDED, BOUNDS] {
        h.report.begin("add_rms_norm", format!("n={n} d={d} {fill:?} {within:?}"));
        let mut out = h.buffer(&x);
        h.backend.add_rms_norm(&mut out, &input, within, Norm { weight: &norm, eps: EPS }, scale, n);
        let rows = x.chunks_exact(d).zip(residual.chunks_exact(d)).map(|(x, r)| {
            let normed = bounds::rms(&clamped(r, within), Some(&weight), f64::from(EPS));
            Approx::exact(x.to_vec()).plus(&normed).scale(f64::from(scale))
        });
        h.compare(&out, &stack(rows));
    }
}

/// Some bounds of what is normed.
const BOUNDS: [f32; 2] = [-0.5, 1.25];

/// What a norm sees of values within these.
fn clamped(x: &[f64], within: [f32; 2]) -> Vec<f64> {
    Approx::exact(x.to_vec()).clamp(within.map(f64::from)).exact
}

fn sum_rms_norms<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, fill: Fill, n: usize, d: usize) {
    h.report.begin("sum_rms_norms", format!("n={n} d={d} {fill:?}"));
    let (a, b) = (fill.rows(rng, n, d), rng.normal(n * d, 2.0));
    let (weight_a, weight_b) = (rng.normal(d, 1.0), rng.normal(d, 1.0));
    let (input_a, input_b) = (h.buffer(&a), h.buffer(&b));
    let (norm_a, norm_b) = (h.vector(&weight_a), h.vector(&weight_b));
    let mut out = h.output(n * d);
    let norm = |weight| Norm { weight, eps: EPS };
    h.backend.sum_rms_norms(&mut out, &input_a, norm(&norm_a), &input_b, norm(&norm_b), n);
    let rows = a.chunks_exact(d).zip(b.chunks_exact(d)).map(|(a, b)| {
        bounds::rms(a, Some(&weight_a), f64::from(EPS)).plus(&bounds::rms(b, Some(&weight_b), f64::from(EPS)))
    });
    h.compare(&out, &stack(rows));
}

fn combine_per_layer<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, fill: Fill, n: usize, groups: usize, d: usize) {
    h.report.begin("combine_per_layer", format!("n={n} groups={groups} d={d} {fill:?}"));
    // `groups` counts all rows of the norm's length: those of every layer of every token.
    let rows = n * groups;
    let (p, ctx, weight) = (rng.normal(rows * d, 1.0), fill.rows(rng, rows, d), rng.normal(d, 1.0));
    let ctx_scale = 1536f32.powf(-0.5);
    let (mut out, input, norm) = (h.buffer(&p), h.buffer(&ctx), h.vector(&weight));
    h.backend.combine_per_layer(&mut out, &input, ctx_scale, Norm { weight: &norm, eps: EPS }, rows);
    let rows = p.chunks_exact(d).zip(ctx.chunks_exact(d)).map(|(p, ctx)| {
        let scaled: Vec<f64> = ctx.iter().map(|v| v * f64::from(ctx_scale)).collect();
        Approx::exact(p.to_vec())
            .plus(&bounds::rms(&scaled, Some(&weight), f64::from(EPS)))
            .scale(std::f64::consts::FRAC_1_SQRT_2)
    });
    h.compare(&out, &stack(rows));
}

fn norm_heads<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    fill: Fill,
    n: usize,
    (n_heads, head_dim): (usize, usize),
    parts: usize,
) {
    let half = head_dim / parts / 2;
    let x = fill.rows(rng, n * n_heads, head_dim);
    let weight = rng.normal(head_dim, 1.0);
    let norm = h.vector(&weight);
    // Angles of any size; the last frequencies do not turn, as in full layers.
    let angles: Vec<f64> = rng.normal(n * parts * half, 3.0);
    let turn = |i: usize, f: fn(f64) -> f64| {
        let row = &angles[i * half..(i + 1) * half];
        let still = |j| parts == 1 && j >= half * 3 / 4;
        row.iter().enumerate().map(|(j, &a)| f64::from(f(if still(j) { 0.0 } else { a }) as f32)).collect()
    };
    let table: Vec<[Vec<f64>; 2]> = (0..n * parts).map(|i| [turn(i, f64::cos), turn(i, f64::sin)]).collect();
    let flat: Vec<f64> = table.iter().flatten().flatten().copied().collect();
    let buffer = h.buffer(&flat);
    for (with_weight, with_rope) in [(true, true), (true, false), (false, true), (false, false)] {
        let (weighs, turns) = (with_weight, with_rope);
        h.report.begin(
            "norm_heads",
            format!("n={n} heads={n_heads} head_dim={head_dim} parts={parts} weight={weighs} rope={turns} {fill:?}"),
        );
        let mut out = h.buffer(&x);
        let rope = with_rope.then_some(Rope { table: &buffer, parts });
        h.backend.norm_heads(&mut out, with_weight.then_some(&norm), EPS, rope, n_heads, head_dim, n);
        let rows = x.chunks_exact(head_dim).enumerate().map(|(row, x)| {
            let i = row / n_heads;
            let rope = with_rope.then_some(&table[i * parts..(i + 1) * parts]);
            bounds::rms_rope(x, with_weight.then_some(weight.as_slice()), f64::from(EPS), rope)
        });
        h.compare(&out, &stack(rows));
    }
}

fn rope_table<B: Backend>(h: &mut Harness<'_, B>, half: usize, first: usize, n: usize) {
    h.report.begin("rope_table", format!("half={half} first={first} n={n}"));
    // A quarter of the frequencies is zero, as in full layers.
    let frequency = |i: usize| if i < half * 3 / 4 { 1e4f64.powf(-(i as f64) / half as f64) } else { 0.0 };
    let frequencies = f32s(&(0..half).map(frequency).collect::<Vec<_>>());
    let mut out = h.output(n * 2 * half);
    h.backend.rope_table(&mut out, &frequencies, first, n);
    let mut expected = Approx::default();
    for position in first..first + n {
        // The angle is one f32 product, so it is the same number everywhere.
        let angles = frequencies.iter().map(|f| f64::from(position as f32 * f));
        let (cos, sin): (Vec<f64>, Vec<f64>) = angles.map(|a| (a.cos(), a.sin())).unzip();
        for exact in [cos, sin] {
            let limit = vec![4.0 * U; half];
            expected.append(Approx { exact, typical: limit.clone(), limit });
        }
    }
    h.compare(&out, &expected);
}

fn gather<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, table: Matrix) {
    let cols = table.weights.cols;
    let scale = 39.25f32;
    let step = table.tensor.dtype.block_len().max(32);
    let matrix = h.matrix(&table);
    for n in ROWS {
        for range in [0..cols, cols - step..cols] {
            h.report.begin("gather", format!("{} n={n} cols={range:?}", table.tensor.name));
            let ids: Vec<TokenId> = (0..n).map(|_| TokenId(rng.below(19) as u32)).collect();
            let mut out = h.output(n * range.len());
            h.backend.gather(&mut out, &matrix, &ids, range.clone(), scale);
            let mut expected = Approx::default();
            for id in &ids {
                let at = id.index() * cols;
                let values = &table.weights.values[at + range.start..at + range.end];
                let terms = &table.weights.terms[at + range.start..at + range.end];
                let exact: Vec<f64> = values.iter().map(|v| v * f64::from(scale)).collect();
                // A value is worked out in f32 by four operations at most.
                let limit: Vec<f64> = terms.iter().map(|t| 4.0 * U * t * f64::from(scale)).collect();
                expected.append(Approx { exact, typical: limit.clone(), limit });
            }
            h.compare(&out, &expected);
        }
    }
}
