//! Quantisers that search for scales, against what ggml's leave as error on the same values.
//!
//! ggml's errors are printed by `data/make_ggml_errors.py`, which makes the same values.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use carat_tensor::DType;
use carat_tensor::quant::{decode_row, encode_row, encode_row_weighted};

const ROWS: usize = 64;
const COLS: usize = 1024;

/// Numerical Recipes' LCG: 24 bits of each state as [0, 1).
fn uniform(n: usize, seed: u32) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    (0..n).map(|_| next()).collect()
}

/// A sum of twelve is nearly normal; a product of two such has heavy tails.
fn values(heavy: bool) -> Vec<f32> {
    let normal = |seed| -> Vec<f64> {
        uniform(12 * ROWS * COLS, seed).chunks(12).map(|twelve| twelve.iter().sum::<f64>() - 6.0).collect()
    };
    let mut values = normal(1);
    if heavy {
        values.iter_mut().zip(normal(2)).for_each(|(v, by)| *v *= by.abs());
    }
    values.into_iter().map(|v| (0.02 * v) as f32).collect()
}

fn importance() -> Vec<f32> {
    uniform(COLS, 3).into_iter().map(|u| (u.powi(4) * 10.0 + 0.01) as f32).collect()
}

/// `sqrt(Σ w (x' − x)² / Σ w x²)`.
fn error(dtype: DType, heavy: bool, weighted: bool) -> f64 {
    let (x, w) = (values(heavy), importance());
    let mut bytes = vec![0; dtype.row_bytes(COLS).unwrap()];
    let mut back = vec![0.0; COLS];
    let (mut wrong, mut all) = (0.0, 0.0);
    for row in x.chunks(COLS) {
        if weighted {
            encode_row_weighted(dtype, row, &w, &mut bytes);
        } else {
            encode_row(dtype, row, &mut bytes);
        }
        decode_row(dtype, &bytes, &mut back);
        for ((&x, &back), &w) in row.iter().zip(&back).zip(&w) {
            let (x, back, w) = (f64::from(x), f64::from(back), if weighted { f64::from(w) } else { 1.0 });
            wrong += w * (back - x) * (back - x);
            all += w * x * x;
        }
    }
    (wrong / all).sqrt()
}

#[test]
fn quantisers_err_no_more_than_ggmls() {
    for (dtype, heavy, weighted, ggml) in [
        (DType::Q4K, false, false, 0.070292),
        (DType::Q4K, false, true, 0.060323),
        (DType::Q4K, true, false, 0.090156),
        (DType::Q4K, true, true, 0.077616),
        (DType::Q6K, false, false, 0.017518),
        (DType::Q6K, false, true, 0.015167),
        (DType::Q6K, true, false, 0.023349),
        (DType::Q6K, true, true, 0.020783),
        (DType::Q4_0, false, false, 0.084116),
        (DType::Q4_0, false, true, 0.072956),
        (DType::Q4_0, true, false, 0.112928),
        (DType::Q4_0, true, true, 0.101605),
    ] {
        let ours = error(dtype, heavy, weighted);
        println!("{dtype} heavy={heavy} weighted={weighted}: {ours:.6}, ggml's {ggml:.6}, ratio {:.4}", ours / ggml);
        assert!(ours <= ggml * 1.0001, "{dtype} heavy={heavy} weighted={weighted}: {ours} instead of {ggml}");
    }
}
