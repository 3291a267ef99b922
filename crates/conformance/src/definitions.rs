//! The operations as plain f64 maths over slices: what every backend is measured against.
//!
//! Written from the formulas in `carat_tensor::backend` and nothing else: no blocking, no fusion, no code
//! shared with a backend. A matrix is `[rows, cols]` row-major. Speed does not matter here, being obviously
//! right does.

use std::ops::Range;

/// `x · (mean(x²) + eps)^(-1/2) ⊙ weight`.
pub fn rms(x: &[f64], weight: Option<&[f64]>, eps: f64) -> Vec<f64> {
    let mean_square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let factor = (mean_square + eps).powf(-0.5);
    x.iter().enumerate().map(|(i, v)| v * factor * weight.map_or(1.0, |w| w[i])).collect()
}

/// `(x − mean) · (variance + eps)^(-1/2) ⊙ weight + bias`.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let factor = (variance + eps).powf(-0.5);
    x.iter().enumerate().map(|(i, v)| (v - mean) * factor * weight[i] + bias[i]).collect()
}

/// `matrix · x`.
pub fn product(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

/// `a · b`, in eight partial sums: f64 has digits to spare.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| lanes[i] += a[i] * b[i]);
    }
    lanes.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
pub fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// `x · σ(y)`, `σ(y) = 1 / (1 + e^(−y))`.
pub fn sigmoid_times(x: f64, y: f64) -> f64 {
    x / (1.0 + (-y).exp())
}

/// The places `[channels, 3, 3]` of `x` `[n, bands, channels]` around time `t` and frequency `m`, zeros beyond its ends.
pub fn around(x: &[f64], [n, bands, channels]: [usize; 3], t: usize, m: usize) -> Vec<f64> {
    let value = |time: isize, band: isize, c: usize| {
        let inside = (0..n as isize).contains(&time) && (0..bands as isize).contains(&band);
        if inside { x[(time as usize * bands + band as usize) * channels + c] } else { 0.0 }
    };
    let mut places = Vec::new();
    for c in 0..channels {
        for i in -1..=1 {
            places.extend((-1..=1).map(|j| value(t as isize + i, m as isize + j, c)));
        }
    }
    places
}

/// `cap · tanh(x / cap)`.
pub fn softcap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

/// `e^(s − max) / Σ e^(s − max)`.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

/// `x·cos + rotate_half(x)·sin`: element `i` of the first half turns with element `i + len/2`.
pub fn rope(x: &[f64], cos: &[f64], sin: &[f64]) -> Vec<f64> {
    let half = x.len() / 2;
    let first = (0..half).map(|i| x[i] * cos[i] - x[i + half] * sin[i]);
    let second = (0..half).map(|i| x[i + half] * cos[i] + x[i] * sin[i]);
    first.chain(second).collect()
}

/// Positions of keys up to `last` that a query at `query` sees: its own and earlier ones, of its block also later ones, and
/// none before the window.
pub fn visible(query: usize, last: usize, window: Option<usize>, blocks: &[Range<usize>]) -> Vec<usize> {
    let of_one_block = |key: usize| blocks.iter().any(|block| block.contains(&query) && block.contains(&key));
    let within = |key: usize| window.is_none_or(|window| key + window > query);
    (0..=last).filter(|&key| within(key) && (key <= query || of_one_block(key))).collect()
}

/// The key that a cache of values and rotated dimensions stands for: dimensions turned by RoPE from the key,
/// all others from the value.
pub fn key_of_value(key: &[f64], value: &[f64], pairs: usize) -> Vec<f64> {
    let half = key.len() / 2;
    (0..key.len()).map(|i| if i % half < pairs { key[i] } else { value[i] }).collect()
}

/// One query's scores over keys.
pub fn scores(query: &[f64], keys: &[&[f64]]) -> Vec<f64> {
    keys.iter().map(|key| dot(query, key)).collect()
}

/// `Σ_j weight_j · value_j`.
pub fn mix(weights: &[f64], values: &[&[f64]]) -> Vec<f64> {
    let mut sum = vec![0.0; values[0].len()];
    for (p, value) in weights.iter().zip(values) {
        sum.iter_mut().zip(*value).for_each(|(sum, v)| *sum += p * v);
    }
    sum
}

/// The `top_k` largest of `softmax(scores)` (ties: lowest index), renormalised to sum 1, times each expert's
/// scale: `(expert, weight)`, largest first.
pub fn route(scores: &[f64], top_k: usize, per_expert_scale: &[f64]) -> Vec<(usize, f64)> {
    let shares = softmax(scores);
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]).then(a.cmp(&b)));
    order.truncate(top_k);
    let sum: f64 = order.iter().map(|&e| shares[e]).sum();
    order.into_iter().map(|e| (e, shares[e] / sum * per_expert_scale[e])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: &[f64], expected: &[f64]) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "found {found:?}, expected {expected:?}");
        }
        assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn rms_divides_by_the_root_mean_square() {
        check(&rms(&[3.0, 4.0], Some(&[1.0, 2.0]), 0.0), &[3.0 / 12.5f64.sqrt(), 8.0 / 12.5f64.sqrt()]);
    }

    /// Values of `torch.nn.functional.gelu(x, approximate="tanh")`.
    #[test]
    fn gelu_agrees_with_torch() {
        check(&[-1.0, 0.5, 2.0].map(gelu_tanh), &[-0.158808, 0.345714, 1.954598]);
    }

    #[test]
    fn rope_by_a_right_angle_swaps_the_halves() {
        check(&rope(&[1.0, 2.0, 3.0, 4.0], &[0.0, 0.0], &[1.0, 1.0]), &[-3.0, -4.0, 1.0, 2.0]);
    }

    #[test]
    fn a_window_counts_the_query_itself() {
        assert_eq!(visible(9, 20, Some(4), &[]), [6, 7, 8, 9]);
        assert_eq!(visible(2, 20, Some(4), &[]), [0, 1, 2]);
        assert_eq!(visible(2, 20, None, &[]), [0, 1, 2]);
    }

    #[test]
    fn a_block_is_seen_whole_but_for_what_the_window_hides() {
        assert_eq!(visible(4, 20, Some(2), &[1..3, 3..7]), [3, 4, 5, 6]);
        assert_eq!(visible(6, 20, Some(2), &[1..3, 3..7]), [5, 6]);
        assert_eq!(visible(2, 20, None, &[1..3, 3..7]), [0, 1, 2]);
    }

    /// Values of `torch.nn.functional.layer_norm`.
    #[test]
    fn layer_norms_are_about_the_mean() {
        let found = layer_norm(&[1.0, 2.0, 6.0], &[1.0, 2.0, 0.5], &[0.0, 1.0, -1.0], 0.0);
        check(
            &found,
            &[
                -2.0 / 14f64.sqrt() * 3f64.sqrt(),
                1.0 - 2.0 * 3f64.sqrt() / 14f64.sqrt(),
                1.5 * 3f64.sqrt() / 14f64.sqrt() - 1.0,
            ],
        );
    }

    #[test]
    fn ties_go_to_the_lowest_expert() {
        let routes = route(&[0.0, 1.0, 1.0, 1.0], 2, &[1.0, 1.0, 4.0, 1.0]);
        assert_eq!(routes, [(1, 0.5), (2, 2.0)]);
    }
}
