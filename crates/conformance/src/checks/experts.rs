//! Mixture of experts. What a router chose can only be seen through the experts, so both are checked
//! together: with scores far enough apart that rounding can't change the choice, and with exact ties.

use carat_tensor::backend::{Experts, Norm, Router, Stack};
use carat_tensor::{Backend, DType};

use super::{EPS, Harness, stack};
use crate::bounds::{self, Approx, Inputs, Weights};
use crate::cases::{self, Matrix, ROWS, Rng};
use crate::definitions;

/// One layer of experts.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    d: usize,
    ff: usize,
    n_experts: usize,
    top_k: usize,
    router: DType,
    /// Type of gate and up, type of down.
    weights: (DType, DType),
    /// Gate and up of one expert follow each other in one tensor, or each has a tensor.
    fused: bool,
    /// Every score is equal to its neighbour's.
    ties: bool,
}

pub fn check<B: Backend>(h: &mut Harness<'_, B>) {
    let mut rng = Rng::new(4);
    let case = Case {
        n: 3,
        d: 64,
        ff: 32,
        n_experts: 4,
        top_k: 2,
        router: DType::F32,
        weights: (DType::F32, DType::F32),
        fused: true,
        ties: false,
    };
    for n in ROWS.into_iter().chain([40]) {
        for (n_experts, top_k) in [(1, 1), (4, 2), (5, 5), (16, 8)] {
            for fused in [true, false] {
                run(h, &mut rng, Case { n, n_experts, top_k, fused, ..case });
                run(h, &mut rng, Case { n, n_experts, top_k, fused, weights: (DType::Q4_0, DType::Q4_0), ..case });
            }
            run(h, &mut rng, Case { n, n_experts, top_k, ties: true, ..case });
        }
    }
    // The down projection of 26B has rows of 704 values, where no format of 256 fits.
    for dtype in cases::dtypes_of(256) {
        for n in [1, 17] {
            let down = if dtype.row_bytes(96).is_some() { dtype } else { DType::Q8_0 };
            run(h, &mut rng, Case { n, d: 256, ff: 96, n_experts: 8, weights: (dtype, down), ..case });
            run(h, &mut rng, Case { n, d: 256, ff: 256, weights: (dtype, dtype), ..case });
        }
    }
    run(h, &mut rng, Case { n: 17, d: 256, router: DType::BF16, weights: (DType::BF16, DType::BF16), ..case });
    // As many experts as rows are interleaved in groups.
    for n in [1, 17] {
        run(h, &mut rng, Case { n, n_experts: 64, router: DType::Q8_0, ..case });
    }
}

fn run<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, case: Case) {
    let Case { n, d, ff, n_experts, .. } = case;
    h.report.begin("route + experts", format!("{case:?}"));
    let router_scale: Vec<f64> = rng.normal(d, (d as f64).powf(-0.5));
    let expert_scale: Vec<f64> = (0..n_experts).map(|_| f64::from((0.5 + rng.unit()) as f32)).collect();
    let proj = match case.ties {
        true => tied(rng, n_experts, d),
        false => Matrix::random(rng, case.router, n_experts, d, 2.0),
    };
    let route = |x: &[f64]| {
        let scaled = bounds::rms(x, Some(&router_scale), f64::from(EPS));
        let scores = bounds::product(&proj.weights, &scaled, Inputs::Kept);
        let routes = definitions::route(&scores.exact, case.top_k, &expert_scale);
        (routes, scores)
    };
    let mut x = Vec::new();
    for _ in 0..n {
        x.extend(match case.ties {
            // One value alone: every score is one product, the same in whatever order terms are added.
            true => {
                let mut row = vec![0.0; d];
                row[rng.below(d)] = 1.0;
                row
            }
            false => clear_row(rng, d, |x| {
                let (routes, scores) = route(x);
                is_clear(&routes, &scores)
            }),
        });
    }

    let norm_weight = rng.normal(d, 1.0);
    let random = |rng: &mut Rng, dtype, rows, cols| Matrix::random(rng, dtype, rows, cols, (cols as f64).powf(-0.5));
    let (gate_up, down) =
        (random(rng, case.weights.0, n_experts * 2 * ff, d), random(rng, case.weights.1, n_experts * d, ff));
    // Separate tensors: the same rows, all gates before all ups.
    let (up_first, stride) = if case.fused { (ff, 2 * ff) } else { (n_experts * ff, ff) };
    let whole = h.matrix(&gate_up);
    let (gate_matrix, up_matrix, up_at) = match case.fused {
        true => (h.backend.rows(&whole, 0..n_experts * 2 * ff), h.backend.rows(&whole, 0..n_experts * 2 * ff), ff),
        false => {
            let half = n_experts * ff;
            (h.backend.rows(&whole, 0..half), h.backend.rows(&whole, half..2 * half), 0)
        }
    };
    let down_matrix = h.matrix(&down);

    let (scale, per_expert_scale) = (h.vector(&router_scale), h.vector(&expert_scale));
    let (proj_matrix, norm, input) = (h.matrix(&proj), h.vector(&norm_weight), h.buffer(&x));
    let mut routes = B::Routes::default();
    let router =
        Router { proj: &proj_matrix, scale: &scale, per_expert_scale: &per_expert_scale, top_k: case.top_k, eps: EPS };
    h.backend.route(&mut routes, &input, router, n);
    let mut out = h.output(n * d);
    let experts = Experts {
        gate: Stack { matrix: &gate_matrix, first: 0, stride, rows: ff },
        up: Stack { matrix: &up_matrix, first: up_at, stride, rows: ff },
        down: Stack { matrix: &down_matrix, first: 0, stride: d, rows: d },
    };
    h.backend.experts(&mut out, &input, Norm { weight: &norm, eps: EPS }, experts, &routes, n);

    let (up_inputs, down_inputs) = (h.inputs(case.weights.0), h.inputs(case.weights.1));
    let part = |matrix: &Matrix, first: usize, rows: usize| -> Weights { matrix.rows(first..first + rows) };
    let rows = x.chunks_exact(d).map(|x| {
        let (routes, scores) = route(x);
        let weights = bounds::route_weights(&routes, &scores);
        let e = bounds::rms(x, Some(&norm_weight), f64::from(EPS));
        let mut sum = Approx::exact(vec![0.0; d]);
        for (slot, &(expert, _)) in routes.iter().enumerate() {
            let gate = bounds::product(&part(&gate_up, expert * stride, ff), &e, up_inputs);
            let up = bounds::product(&part(&gate_up, up_first + expert * stride, ff), &e, up_inputs);
            let result = bounds::product(&part(&down, expert * d, d), &gate.gelu().times(&up), down_inputs);
            sum = sum.plus(&result.times(&weights.repeated(slot, d)));
        }
        sum
    });
    h.compare(&out, &stack(rows));
}

/// Rows in equal pairs: experts 0 and 1 always score the same, 2 and 3, and so on.
fn tied(rng: &mut Rng, n_experts: usize, d: usize) -> Matrix {
    let mut values = Vec::new();
    for _ in 0..n_experts.div_ceil(2) {
        let row = rng.normal(d, 20.0);
        values.extend_from_slice(&row);
        values.extend_from_slice(&row);
    }
    values.truncate(n_experts * d);
    Matrix::from_values(n_experts, d, &values)
}

/// A row whose routes rounding can't change.
fn clear_row(rng: &mut Rng, d: usize, is_clear: impl Fn(&[f64]) -> bool) -> Vec<f64> {
    for _ in 0..1000 {
        let row = rng.normal(d, 1.0);
        if is_clear(&row) {
            return row;
        }
    }
    panic!("conformance: no row of {d} values routes clearly");
}

/// Whether every chosen score is further from every other than both may err.
fn is_clear(routes: &[(usize, f64)], scores: &Approx) -> bool {
    let chosen = |e: usize| routes.iter().any(|r| r.0 == e);
    let experts = 0..scores.exact.len();
    experts.clone().filter(|&a| chosen(a)).all(|a| {
        let mut others = experts.clone().filter(|&b| !chosen(b));
        others.all(|b| scores.exact[a] - scores.limit[a] > scores.exact[b] + scores.limit[b])
    })
}
