//! Operations of encoders of sounds: subsampling, sigmoids, causal convolution, attention to a few rows before.

use carat_tensor::Backend;
use carat_tensor::backend::{Near, Norm, Subsampling, halved};

use super::{EPS, Harness, stack};
use crate::bounds::{self, Approx, Inputs, U, Weights};
use crate::cases::Rng;
use crate::definitions;

pub fn check<B: Backend>(h: &mut Harness<'_, B>) {
    let mut rng = Rng::new(8);
    // One time and one frequency, odd and even numbers, filters that fill no tile, and the published layers.
    for (n, bands, channels, filters) in
        [(1, 1, 1, 1), (2, 3, 2, 5), (7, 8, 1, 16), (12, 5, 3, 20), (9, 128, 1, 128), (5, 64, 128, 32)]
    {
        subsample(h, &mut rng, Subsampling { n, bands, channels, filters });
    }
    for len in [1, 7, 32, 1000, 40_000] {
        silu(h, &mut rng, len);
    }
    for (n, d) in [(1, 1), (3, 7), (17, 100), (40, 1024)] {
        glu(h, &mut rng, n, d);
        add_bias(h, &mut rng, n, d);
        for taps in [1, 2, 5] {
            causal_conv(h, &mut rng, n, d, taps);
        }
    }
    for (n_heads, head_dim) in [(1, 8), (3, 12), (2, 72), (8, 128)] {
        for (n, reach) in [(1, 12), (5, 1), (11, 12), (40, 12), (70, 3)] {
            // Scores that the cap leaves alone, and some that it bends.
            for spread in [2.0, 150.0] {
                attend_near(h, &mut rng, [n_heads, head_dim, reach], n, spread);
            }
        }
    }
}

fn subsample<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, shape: Subsampling) {
    let Subsampling { n, bands, channels, filters } = shape;
    let cols = 9 * channels;
    let values = rng.normal(filters * cols, (cols as f64).powf(-0.5));
    let (x, weight) = (rng.normal(n * bands * channels, 1.0), rng.normal(filters, 1.0));
    let (input, loaded, norm) = (h.buffer(&x), h.vector(&values), h.vector(&weight));
    h.report.begin("subsample", format!("{shape:?}"));
    let mut out = h.output(halved(n) * halved(bands) * filters);
    h.backend.subsample(&mut out, &input, &loaded, Norm { weight: &norm, eps: EPS }, shape);
    let matrix = Weights { cols, terms: values.iter().map(|v| v.abs()).collect(), values };
    let places = (0..halved(n)).flat_map(|t| (0..halved(bands)).map(move |m| (t, m)));
    h.compare(
        &out,
        &stack(places.map(|(t, m)| {
            let under = definitions::around(&x, [n, bands, channels], 2 * t, 2 * m);
            let filtered = bounds::product(&matrix, &Approx::exact(under), Inputs::Kept);
            bounds::layer_norm(&filtered, &weight, &vec![0.0; filters], f64::from(EPS)).positive()
        })),
    );
}

fn silu<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, len: usize) {
    h.report.begin("silu", format!("len={len}"));
    let x = rng.normal(len, 4.0);
    let mut out = h.buffer(&x);
    h.backend.silu(&mut out, len);
    h.compare(&out, &Approx::exact(x).silu());
}

fn glu<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, n: usize, d: usize) {
    h.report.begin("glu", format!("n={n} d={d}"));
    let x = rng.normal(2 * n * d, 4.0);
    let (input, mut out) = (h.buffer(&x), h.output(n * d));
    h.backend.glu(&mut out, &input, d, n);
    h.compare(&out, &stack(x.chunks_exact(2 * d).map(|row| bounds::sigmoid_times(&row[..d], &row[d..]))));
}

fn add_bias<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, n: usize, d: usize) {
    h.report.begin("add_bias", format!("n={n} d={d}"));
    let (x, bias) = (rng.normal(n * d, 2.0), rng.normal(d, 1.0));
    let (mut out, vector) = (h.buffer(&x), h.vector(&bias));
    h.backend.add_bias(&mut out, &vector, n);
    h.compare(
        &out,
        &stack(x.chunks_exact(d).map(|row| Approx::exact(row.to_vec()).plus(&Approx::exact(bias.clone())))),
    );
}

fn causal_conv<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, n: usize, d: usize, k: usize) {
    h.report.begin("causal_conv", format!("n={n} d={d} taps={k}"));
    let (x, taps) = (rng.normal(n * d, 1.0), rng.normal(d * k, 1.0));
    let (input, vector, mut out) = (h.buffer(&x), h.vector(&taps), h.output(n * d));
    h.backend.causal_conv(&mut out, &input, &vector, d, n);
    let (mut exact, mut limit) = (Vec::new(), Vec::new());
    for i in 0..n {
        for c in 0..d {
            let terms = (0..k).filter(|j| i + j + 1 >= k).map(|j| taps[c * k + j] * x[(i + j + 1 - k) * d + c]);
            exact.push(terms.clone().sum());
            limit.push(bounds::gamma(k) * terms.map(f64::abs).sum::<f64>());
        }
    }
    h.compare(&out, &Approx { exact, typical: limit.clone(), limit });
}

fn attend_near<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    [n_heads, head_dim, reach]: [usize; 3],
    n: usize,
    spread: f64,
) {
    let (d, width, cap) = (head_dim, n_heads * head_dim, 50.0f32);
    h.report.begin("attend_near", format!("heads={n_heads} head_dim={d} reach={reach} n={n} spread={spread}"));
    let [q, k, v] = [spread / (d as f64).sqrt(), 0.7, 1.0].map(|deviation| rng.normal(n * width, deviation));
    let (scale, relative) = (rng.normal(d, 1.0), rng.normal(reach * width, 0.7));
    let (queries, keys, values) = (h.buffer(&q), h.buffer(&k), h.buffer(&v));
    let (scales, distances, mut out) = (h.vector(&scale), h.vector(&relative), h.output(n * width));
    let near = Near { n_heads, head_dim: d, reach, scale: &scales, relative: &distances, softcap: cap };
    h.backend.attend_near(&mut out, &queries, &keys, &values, near, n);
    let of_head = |all: &[f64], row: usize, head: usize| all[row * width + head * d..][..d].to_vec();
    let attended = (0..n * n_heads).map(|at| {
        let (i, head) = (at / n_heads, at % n_heads);
        let query: Vec<f64> = of_head(&q, i, head).iter().zip(&scale).map(|(q, s)| q * s).collect();
        let seen = (i + 1).saturating_sub(reach)..=i;
        let mut scores = Approx::default();
        for j in seen.clone() {
            let (key, distance) = (of_head(&k, j, head), of_head(&relative, i - j, head));
            let terms = query.iter().zip(key.iter().zip(distance).map(|(key, r)| key + r)).map(|(q, key)| q * key);
            // Both factors of a term are rounded once.
            let error = (bounds::gamma(d) + 2.0 * U) * terms.clone().map(f64::abs).sum::<f64>();
            scores.append(Approx { exact: vec![terms.sum()], limit: vec![error], typical: vec![error] });
        }
        let seen_values: Vec<Vec<f64>> = seen.map(|j| of_head(&v, j, head)).collect();
        let seen_values: Vec<&[f64]> = seen_values.iter().map(Vec::as_slice).collect();
        bounds::weighted(&scores.softcap(f64::from(cap)), &seen_values)
    });
    h.compare(&out, &stack(attended));
}
