//! Operations around a matrix product: projections, the gated feed-forward, per-layer input, logits.

use carat_tensor::backend::{Norm, Projection};
use carat_tensor::{Backend, DType};

use super::{EPS, Harness, stack};
use crate::bounds::{self, Approx};
use crate::cases::{self, Fill, Matrix, ROWS, Rng, WIDTHS};

pub fn check<B: Backend>(h: &mut Harness<'_, B>) {
    let mut rng = Rng::new(2);
    for cols in WIDTHS {
        for dtype in cases::dtypes_of(cols) {
            for n in ROWS {
                project(h, &mut rng, Fill::Normal, n, cols, &[(dtype, 37)]);
                gated_project(h, &mut rng, Fill::Normal, n, cols, dtype, 40);
                gated_input(h, &mut rng, Fill::Normal, n, cols, dtype);
                logits(h, &mut rng, Fill::Normal, n, cols, dtype, 65);
            }
            project(h, &mut rng, Fill::Normal, 33, cols, &[(dtype, 64), (dtype, 1), (dtype, 16)]);
            project(h, &mut rng, Fill::Normal, 3, cols, &[(dtype, 33), (DType::F32, 9), (DType::Q8_0, 8)]);
            rows_of_a_matrix(h, &mut rng, cols, dtype);
        }
    }
    for dtype in DType::ALL {
        for fill in Fill::ALL {
            for n in [1, 5] {
                project(h, &mut rng, fill, n, 512, &[(dtype, 24)]);
                gated_project(h, &mut rng, fill, n, 512, dtype, 24);
                gated_input(h, &mut rng, fill, n, 512, dtype);
                logits(h, &mut rng, fill, n, 512, dtype, 24);
            }
        }
    }
}

/// Weights as small as real ones: products of normal rows are about as large as the rows.
fn random(rng: &mut Rng, dtype: DType, rows: usize, cols: usize) -> Matrix {
    Matrix::random(rng, dtype, rows, cols, (cols as f64).powf(-0.5))
}

/// Projections of `[n, cols]` by matrices of these types and row counts, with and without a norm.
fn project<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    fill: Fill,
    n: usize,
    cols: usize,
    matrices: &[(DType, usize)],
) {
    let x = fill.rows(rng, n, cols);
    let weight = rng.normal(cols, 1.0);
    let matrices: Vec<Matrix> = matrices.iter().map(|&(dtype, rows)| random(rng, dtype, rows, cols)).collect();
    let names: Vec<&str> = matrices.iter().map(|m| m.tensor.name.as_str()).collect();
    let names = names.join(" + ");
    let (input, norm) = (h.buffer(&x), h.vector(&weight));
    let loaded: Vec<B::Matrix> = matrices.iter().map(|m| h.matrix(m)).collect();
    for with_norm in [false, true] {
        h.report.begin("project", format!("n={n} {names} norm={with_norm} {fill:?}"));
        let mut outs: Vec<B::Buffer> = matrices.iter().map(|m| h.output(n * m.tensor.shape[0])).collect();
        let mut projections: Vec<Projection<'_, B::Matrix, B::Buffer>> =
            loaded.iter().zip(&mut outs).map(|(matrix, out)| Projection { matrix, out }).collect();
        let norm = with_norm.then_some(Norm { weight: &norm, eps: EPS });
        h.backend.project(&mut projections, &input, norm, n);
        for (matrix, out) in matrices.iter().zip(&outs) {
            let inputs = h.inputs(matrix.tensor.dtype);
            let rows = x.chunks_exact(cols).map(|x| {
                let x = match with_norm {
                    true => bounds::rms(x, Some(&weight), f64::from(EPS)),
                    false => Approx::exact(x.to_vec()),
                };
                bounds::product(&matrix.weights, &x, inputs)
            });
            h.compare(out, &stack(rows));
        }
    }
}

/// A view of some rows computes as those rows do.
fn rows_of_a_matrix<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, cols: usize, dtype: DType) {
    let matrix = random(rng, dtype, 50, cols);
    let whole = h.matrix(&matrix);
    let x = rng.normal(2 * cols, 1.0);
    let input = h.buffer(&x);
    for range in [0..16, 7..31, 49..50] {
        h.report.begin("rows", format!("{} rows={range:?}", matrix.tensor.name));
        let part = h.backend.rows(&whole, range.clone());
        let mut out = h.output(2 * range.len());
        h.backend.project(&mut [Projection { matrix: &part, out: &mut out }], &input, None, 2);
        let (weights, inputs) = (matrix.rows(range), h.inputs(dtype));
        let rows = x.chunks_exact(cols).map(|x| bounds::product(&weights, &Approx::exact(x.to_vec()), inputs));
        h.compare(&out, &stack(rows));
    }
}

fn gated_project<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    fill: Fill,
    n: usize,
    cols: usize,
    dtype: DType,
    ff: usize,
) {
    let (gate, up) = (random(rng, dtype, ff, cols), random(rng, dtype, ff, cols));
    h.report.begin("gated_project", format!("n={n} {} {fill:?}", gate.tensor.name));
    let (x, weight) = (fill.rows(rng, n, cols), rng.normal(cols, 1.0));
    let (input, norm) = (h.buffer(&x), h.vector(&weight));
    let (gate_matrix, up_matrix) = (h.matrix(&gate), h.matrix(&up));
    let mut out = h.output(n * ff);
    h.backend.gated_project(&mut out, &gate_matrix, &up_matrix, &input, Norm { weight: &norm, eps: EPS }, n);
    let inputs = h.inputs(dtype);
    let rows = x.chunks_exact(cols).map(|x| {
        let x = bounds::rms(x, Some(&weight), f64::from(EPS));
        let product = |m: &Matrix| bounds::product(&m.weights, &x, inputs);
        product(&gate).gelu().times(&product(&up))
    });
    h.compare(&out, &stack(rows));
}

fn gated_input<B: Backend>(h: &mut Harness<'_, B>, rng: &mut Rng, fill: Fill, n: usize, cols: usize, dtype: DType) {
    let (rows, p_at, p_stride) = (32, 64, 160);
    let matrix = random(rng, dtype, rows, cols);
    h.report.begin("gated_input", format!("n={n} {} {fill:?}", matrix.tensor.name));
    let (x, p) = (fill.rows(rng, n, cols), rng.normal(n * p_stride, 1.0));
    let (input, per_layer, loaded) = (h.buffer(&x), h.buffer(&p), h.matrix(&matrix));
    let mut out = h.output(n * rows);
    h.backend.gated_input(&mut out, &loaded, &input, &per_layer, p_at, p_stride, n);
    let inputs = h.inputs(dtype);
    let expected = x.chunks_exact(cols).zip(p.chunks_exact(p_stride)).map(|(x, p)| {
        let gate = bounds::product(&matrix.weights, &Approx::exact(x.to_vec()), inputs).gelu();
        gate.times(&Approx::exact(p[p_at..p_at + rows].to_vec()))
    });
    h.compare(&out, &stack(expected));
}

fn logits<B: Backend>(
    h: &mut Harness<'_, B>,
    rng: &mut Rng,
    fill: Fill,
    n: usize,
    cols: usize,
    dtype: DType,
    vocab: usize,
) {
    // Large enough for the cap to matter.
    let matrix = Matrix::random(rng, dtype, vocab, cols, 20.0 * (cols as f64).powf(-0.5));
    let (x, weight) = (fill.rows(rng, n, cols), rng.normal(cols, 1.0));
    let (input, norm, loaded) = (h.buffer(&x), h.vector(&weight), h.matrix(&matrix));
    let inputs = h.inputs(dtype);
    for softcap in [None, Some(30.0f32)] {
        h.report.begin("logits", format!("n={n} {} softcap={softcap:?} {fill:?}", matrix.tensor.name));
        let mut out = h.output(n * vocab);
        h.backend.logits(&mut out, &loaded, &input, Norm { weight: &norm, eps: EPS }, softcap, n);
        let rows = x.chunks_exact(cols).map(|x| {
            let x = bounds::rms(x, Some(&weight), f64::from(EPS));
            let logits = bounds::product(&matrix.weights, &x, inputs);
            softcap.map_or(logits.clone(), |cap| logits.softcap(f64::from(cap)))
        });
        h.compare(&out, &stack(rows));
    }
}
