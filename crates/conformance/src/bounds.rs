//! How far a backend may be from the exact result: derived from length, magnitude and rounding, never copied
//! from a run.
//!
//! Every value carries `exact`, a `limit` for its own error and a `typical` error. With `u = 2^-24` (f32):
//!
//! - A sum of `n` products errs by at most `γ(n)·Σ|w x|`, `γ(n) = min(n, 8√n)·u` (Higham and Mary, "A new
//!   approach to probabilistic rounding error analysis": the root with probability `1 − 2n·e^(−λ²/2)`, λ = 8).
//! - Independent rounding errors `|δ_i| ≤ b_i` of mean zero sum to at most `min(Σ b_i, K·√(Σ b_i²))`: Hoeffding's
//!   inequality, exceeded with probability `2·e^(−K²/2) < 2e-12` for `K = 7.5`. Uniform ones have a root mean square of
//!   `√(Σ b_i²/3)`, so over 64 and more values the root of the summed squares stays below `typical = √(Σ b_i²)`.
//! - Integer activations of `s` steps: a block is `d·v`, `d` that of the row, `max/s`, times a power of two, the least that
//!   the block fits, from `2^-24` on: at most `2·amax/s`. So `b_i = |w_i|·d/2`, and a hair more for the rounding of `d`. A bf16 or f16 copy of the activations errs less than 127 steps do (`2^-9·|x| < amax/254`).
//! - f16 storage: `2^-11·|x|`, and `2^-25` below the least normal f16. Q8_0 storage: `amax/254`, and both errors of its
//!   f16 scale, times 127 at most.

use crate::definitions;

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;
/// Half a step of f16 relative to the value.
pub const F16: f64 = 1.0 / 2048.0;
/// Hoeffding's factor for a probability of 1e-12.
const K: f64 = 7.5;
/// Errors below this are underflow, which nobody needs.
const FLOOR: f64 = 1e-24;
/// `exp`, `tanh`, `cos` of f32: a few units in the last place, vectorised or not.
const FUNCTION: f64 = 16.0 * U;
/// Values that share a power of two when activations are rounded to integers.
pub const ACTIVATION_BLOCK: usize = 32;

/// Rounding of sums of `n` f32 products.
pub fn gamma(n: usize) -> f64 {
    // Four more for the scales around them.
    let n = n as f64 + 4.0;
    n.min(8.0 * n.sqrt()) * U
}

/// Values with the errors they may have.
#[derive(Clone, Debug, Default)]
pub struct Approx {
    /// The definition's result.
    pub exact: Vec<f64>,
    /// Largest error of each.
    pub limit: Vec<f64>,
    /// Root mean square of each error, from above.
    pub typical: Vec<f64>,
}

impl Approx {
    /// Values as they are.
    pub fn exact(exact: Vec<f64>) -> Self {
        let none = vec![0.0; exact.len()];
        Approx { exact, limit: none.clone(), typical: none }
    }

    /// Values with a relative error.
    pub fn relative(exact: Vec<f64>, error: f64) -> Self {
        let limit: Vec<f64> = exact.iter().map(|v| v.abs() * error + FLOOR).collect();
        Approx { typical: limit.clone(), exact, limit }
    }

    /// Appends another row.
    pub fn append(&mut self, mut row: Approx) {
        self.exact.append(&mut row.exact);
        self.limit.append(&mut row.limit);
        self.typical.append(&mut row.typical);
    }

    /// Value `at`, `len` times.
    pub fn repeated(&self, at: usize, len: usize) -> Approx {
        Approx {
            exact: vec![self.exact[at]; len],
            limit: vec![self.limit[at]; len],
            typical: vec![self.typical[at]; len],
        }
    }

    /// Element by element: `f(exact, error) → (exact, error)` for the limit and the typical error.
    fn map(&self, f: impl Fn(f64, f64) -> (f64, f64)) -> Approx {
        let pick = |errors: &[f64]| self.exact.iter().zip(errors).map(|(&x, &e)| f(x, e)).unzip();
        let (exact, limit) = pick(&self.limit);
        let (_, typical): (Vec<f64>, Vec<f64>) = pick(&self.typical);
        Approx { exact, limit, typical }
    }

    /// `gelu_tanh`: its slope is below 1.13.
    pub fn gelu(&self) -> Approx {
        self.map(|x, e| (definitions::gelu_tanh(x), 1.13 * e + FUNCTION * x.abs() + FLOOR))
    }

    /// `softcap`: its slope is below 1.
    pub fn softcap(&self, cap: f64) -> Approx {
        self.map(|x, e| (definitions::softcap(x, cap), e + FUNCTION * cap.min(x.abs()) + FLOOR))
    }

    /// `clamp` to `[low, high]`: brings values closer to each other, never apart.
    pub fn clamp(&self, [low, high]: [f64; 2]) -> Approx {
        self.map(|x, e| (x.max(low).min(high), e))
    }

    /// `v · σ(v)`, whose slope is 1.1 at most.
    pub fn silu(&self) -> Approx {
        self.map(|x, e| {
            let exact = definitions::sigmoid_times(x, x);
            (exact, 1.1 * e + 2.0 * FUNCTION * exact.abs() + FLOOR)
        })
    }

    /// What is positive: brings values closer to each other, never apart.
    pub fn positive(&self) -> Approx {
        self.map(|x, e| (x.max(0.0), e))
    }

    /// Times a constant.
    pub fn scale(&self, factor: f64) -> Approx {
        self.map(|x, e| (x * factor, (e + U * x.abs()) * factor.abs() + FLOOR))
    }

    /// Element by element product.
    pub fn times(&self, other: &Approx) -> Approx {
        let both = |a: &[f64], b: &[f64]| {
            let error = |i: usize| {
                let (x, y) = (self.exact[i].abs(), other.exact[i].abs());
                a[i] * y + b[i] * x + a[i] * b[i] + U * x * y + FLOOR
            };
            (0..a.len()).map(error).collect()
        };
        Approx {
            exact: self.exact.iter().zip(&other.exact).map(|(a, b)| a * b).collect(),
            limit: both(&self.limit, &other.limit),
            typical: both(&self.typical, &other.typical),
        }
    }

    /// Element by element sum.
    pub fn plus(&self, other: &Approx) -> Approx {
        let exact: Vec<f64> = self.exact.iter().zip(&other.exact).map(|(a, b)| a + b).collect();
        let both = |a: &[f64], b: &[f64]| (0..a.len()).map(|i| a[i] + b[i] + U * exact[i].abs()).collect();
        let (limit, typical) = (both(&self.limit, &other.limit), both(&self.typical, &other.typical));
        Approx { exact, limit, typical }
    }
}

/// How a product's inputs are rounded before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// As f32.
    Kept,
    /// Rounded in blocks of [`ACTIVATION_BLOCK`] to so many steps of the row's largest value, or of a power of two below it.
    Rounded(u32),
}

/// A matrix in f64 with what its terms may weigh.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Values per row.
    pub cols: usize,
    /// `[rows, cols]`.
    pub values: Vec<f64>,
    /// Of each value, the size of the terms it may be computed from. A format with a minimum computes `d·q − m` in
    /// which both may be larger than the value.
    pub terms: Vec<f64>,
}

/// `rms`: a sum of squares has no cancellation, the root halves its error, three factors are multiplied.
pub fn rms(x: &[f64], weight: Option<&[f64]>, eps: f64) -> Approx {
    Approx::relative(definitions::rms(x, weight, eps), gamma(x.len()) + 8.0 * U)
}

/// `matrix · x`: the sum's own rounding, new rounding of the inputs, and the errors they came with.
pub fn product(matrix: &Weights, x: &Approx, inputs: Inputs) -> Approx {
    let n = matrix.cols;
    let size: Vec<f64> = x.exact.iter().zip(&x.limit).map(|(v, e)| v.abs() + e).collect();
    let step = match inputs {
        Inputs::Kept => vec![0.0; n],
        Inputs::Rounded(steps) => activation_halves(&size, steps),
    };
    let whole: Vec<f64> = size.iter().zip(&step).map(|(size, step)| size + step).collect();
    let step_squares: Vec<f64> = step.iter().map(|s| s * s).collect();
    let typical_squares: Vec<f64> = x.typical.iter().map(|t| t * t).collect();
    let inherits = x.limit.iter().any(|&e| e > 0.0);
    let mut out = Approx { exact: definitions::product(&matrix.values, &x.exact), ..Approx::default() };
    for (row, terms) in matrix.values.chunks_exact(n).zip(matrix.terms.chunks_exact(n)) {
        let rounding = gamma(n) * sum(terms, &whole, f64::abs) + FLOOR;
        let (mut limit, mut squares) = (rounding, 0.0);
        if inputs != Inputs::Kept {
            let new_squares = sum(row, &step_squares, |w| w * w);
            limit += sum(row, &step, f64::abs).min(K * new_squares.sqrt());
            squares += new_squares;
        }
        if inherits {
            limit += sum(row, &x.limit, f64::abs);
            squares += sum(row, &typical_squares, |w| w * w);
        }
        out.limit.push(limit);
        out.typical.push(rounding + squares.sqrt());
    }
    out
}

/// Half the steps of activations of these sizes, rounded as [`Inputs::Rounded`].
fn activation_halves(size: &[f64], steps: u32) -> Vec<f64> {
    let row = largest(size);
    let of_block = |block: &[f64]| {
        let amax = largest(block);
        let d = (2.0 * amax).clamp(row / 2f64.powi(24), row) / f64::from(steps);
        std::iter::repeat_n(d / 2.0 * (1.0 + 16.0 * U) + U * amax + FLOOR, block.len())
    };
    size.chunks(ACTIVATION_BLOCK).flat_map(of_block).collect()
}

/// The largest magnitude.
fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max: f64, v| max.max(v.abs()))
}

/// Most values that share a step when they are rounded to 16 bits.
pub const WORD_BLOCK: usize = 128;
/// Steps that the size of such a block has at most.
const WORD_NORM: f64 = 46335.0;
/// Steps that its largest value has at most.
const WORD_MOST: f64 = 16383.0;

/// The step of a block of 16-bit integers, and a hair more for its own rounding.
pub fn word_step(block: &[f64]) -> f64 {
    let size = block.iter().map(|v| v * v).sum::<f64>().sqrt();
    let amax = largest(block);
    (size / WORD_NORM).max(amax / WORD_MOST) * (1.0 + 16.0 * U) + 2.0 * U * amax + FLOOR
}

/// `matrix · x`, both rounded to 16 bits in blocks, the weights to powers of two, which are up to twice the steps asked for.
pub fn words_product(matrix: &Weights, x: &[f64]) -> Approx {
    let halves = |row: &[f64], steps: f64| -> Vec<f64> {
        let half = |block: &[f64]| std::iter::repeat_n(word_step(block) * steps / 2.0, block.len());
        row.chunks(WORD_BLOCK).flat_map(half).collect()
    };
    rounded_product(matrix, x, &halves(x, 1.0), |row| halves(row, 2.0))
}

/// A product of rows that came with errors, `of_exact` what it is of their exact values.
pub fn inherited(of_exact: Approx, matrix: &Weights, x: &Approx) -> Approx {
    let squares: Vec<f64> = x.typical.iter().map(|t| t * t).collect();
    let mut out = of_exact;
    let errors = out.limit.iter_mut().zip(&mut out.typical);
    for (row, (limit, typical)) in matrix.values.chunks_exact(matrix.cols).zip(errors) {
        *limit += sum(row, &x.limit, f64::abs);
        *typical += sum(row, &squares, |w| w * w).sqrt();
    }
    out
}

/// Weights that share a step when they are rounded to 8 bits.
const WEIGHT_GROUP: usize = 32;

/// `matrix · x`, both rounded to 8 bits: the weights in groups whose largest is 127 steps.
pub fn bytes_product(matrix: &Weights, x: &[f64]) -> Approx {
    let halves = |row: &[f64]| -> Vec<f64> {
        let half = |group: &[f64]| std::iter::repeat_n(largest(group) / 254.0 * (1.0 + 16.0 * U) + FLOOR, group.len());
        row.chunks(WEIGHT_GROUP).flat_map(half).collect()
    };
    let size: Vec<f64> = x.iter().map(|x| x.abs()).collect();
    rounded_product(matrix, x, &activation_halves(&size, 127), halves)
}

/// `matrix · x`, both rounded, by `of_x` at most and by what `of_row` says of a row of weights.
fn rounded_product(matrix: &Weights, x: &[f64], of_x: &[f64], of_row: impl Fn(&[f64]) -> Vec<f64>) -> Approx {
    let whole: Vec<f64> = x.iter().zip(of_x).map(|(x, half)| x.abs() + half).collect();
    let squares = |values: &[f64]| -> Vec<f64> { values.iter().map(|v| v * v).collect() };
    let (x_squares, whole_squares) = (squares(of_x), squares(&whole));
    let mut out = Approx { exact: definitions::product(&matrix.values, x), ..Approx::default() };
    for row in matrix.values.chunks_exact(matrix.cols) {
        let of_row = of_row(row);
        let row_whole: Vec<f64> = row.iter().zip(&of_row).map(|(w, half)| w.abs() + half).collect();
        let own = gamma(matrix.cols) * sum(&row_whole, &whole, f64::abs) + FLOOR;
        let by_x = sum(row, of_x, f64::abs).min(K * sum(row, &x_squares, |w| w * w).sqrt());
        let by_row = sum(&of_row, &whole, f64::abs).min(K * sum(&of_row, &whole_squares, |w| w * w).sqrt());
        out.limit.push(own + by_x + by_row);
        let both = sum(row, &x_squares, |w| w * w) + sum(&of_row, &whole_squares, |w| w * w);
        out.typical.push(own + both.sqrt());
    }
    out
}

/// `Σ f(a_i)·b_i`, in lanes: most of the suite's time is here.
fn sum(a: &[f64], b: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            lanes[i] += f(a[i]) * b[i];
        }
    }
    lanes.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(&a, b)| f(a) * b).sum::<f64>()
}

/// `rope(rms(x))`, every part of the head by its own table: each output is the sum of two products with a table of f32.
pub fn rms_rope(x: &[f64], weight: Option<&[f64]>, eps: f64, rope: Option<&[[Vec<f64>; 2]]>) -> Approx {
    let normed = definitions::rms(x, weight, eps);
    let relative = gamma(x.len()) + 12.0 * U;
    let Some(tables) = rope else { return Approx::relative(normed, relative) };
    let part = x.len() / tables.len();
    let mut all = Approx::default();
    for (normed, [cos, sin]) in normed.chunks_exact(part).zip(tables) {
        let half = part / 2;
        let exact = definitions::rope(normed, cos, sin);
        let limit: Vec<f64> = (0..part)
            .map(|i| {
                let (here, there) = (normed[i].abs(), normed[(i + half) % part].abs());
                relative * (here * cos[i % half].abs() + there * sin[i % half].abs()) + FLOOR
            })
            .collect();
        all.append(Approx { exact, typical: limit.clone(), limit });
    }
    all
}

/// How a cache rounds what it stores: what each value's error is proportional to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storage {
    /// Whatever the value: half of the least f16.
    pub always: f64,
    /// Times the value.
    pub of_value: f64,
    /// Times the largest value.
    pub of_largest: f64,
}

impl Storage {
    /// Largest errors of the values of one stored row.
    pub fn steps(self, row: &[f64]) -> Vec<f64> {
        let amax = row.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        row.iter().map(|v| self.always + self.of_value * v.abs() + self.of_largest * amax).collect()
    }
}

/// What is rounded on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounded {
    /// Nothing.
    Nothing,
    /// The shares of keys, in blocks of up to [`WORD_BLOCK`].
    Shares,
}

/// One position's key and value of one head, and how far the stored ones may be from them.
#[derive(Clone, Debug)]
pub struct Cached {
    /// `[head_dim]`.
    pub key: Vec<f64>,
    /// `[head_dim]`.
    pub key_steps: Vec<f64>,
    /// `[head_dim]`.
    pub value: Vec<f64>,
    /// `[head_dim]`.
    pub value_steps: Vec<f64>,
}

/// One query's attention over the positions it sees.
///
/// To first order `∂out/∂s_j = p_j·(v_j − out)`. A score's error is the storage error of its key (independent from
/// key to key), the rounding of the query (common to all keys) and the sum's rounding; what is beyond the first
/// order is at most a factor `e^(2E)`, `E` the largest error of a score.
pub fn attention(query: &[f64], seen: &[&Cached], query_steps: &[f64], rounded: Rounded) -> Approx {
    let keys: Vec<&[f64]> = seen.iter().map(|c| c.key.as_slice()).collect();
    let values: Vec<&[f64]> = seen.iter().map(|c| c.value.as_slice()).collect();
    let scores = definitions::scores(query, &keys);
    let shares = definitions::softmax(&scores);
    let largest = scores.iter().fold(0.0, |m: f64, s| m.max(s.abs()));
    let (mut of_key, mut of_query, mut of_sum, mut worst) = (Vec::new(), Vec::new(), Vec::new(), 0f64);
    for cached in seen {
        let (mut key_squares, mut query_squares, mut size) = (0.0, 0.0, 0.0);
        for i in 0..query.len() {
            key_squares += (query[i] * cached.key_steps[i]).powi(2);
            query_squares += (query_steps[i] * cached.key[i]).powi(2);
            size += (query[i] * cached.key[i]).abs();
        }
        of_key.push(key_squares.sqrt());
        of_query.push(query_squares.sqrt());
        // The maximum is taken off before exp, which rounds what is left.
        of_sum.push(gamma(query.len()) * size + 4.0 * U * largest);
        worst = worst.max(K * (key_squares.sqrt() + query_squares.sqrt()) + gamma(query.len()) * size);
    }
    let beyond = (2.0 * worst).exp();
    let mut out = Approx { exact: definitions::mix(&shares, &values), ..Approx::default() };
    for d in 0..query.len() {
        let (mut from_keys, mut from_others, mut from_sums) = (0.0, 0.0, 0.0);
        let (mut stored, mut stored_squares, mut size) = (0.0, 0.0, 0.0);
        for (j, cached) in seen.iter().enumerate() {
            let reach = shares[j] * (cached.value[d] - out.exact[d]).abs();
            from_keys += (reach * of_key[j]).powi(2);
            from_others += reach * of_query[j];
            from_sums += reach * of_sum[j];
            stored += shares[j] * cached.value_steps[d];
            stored_squares += (shares[j] * cached.value_steps[d]).powi(2);
            size += shares[j] * cached.value[d].abs();
        }
        let scores = from_keys.sqrt() + from_others;
        let own = (gamma(seen.len()) + FUNCTION) * size + FLOOR;
        let (mut shared, mut shared_squares) = (0.0, 0.0);
        if rounded == Rounded::Shares {
            // A step of a block's largest share at most, which is below the size of all.
            let half = shares.iter().map(|p| p * p).sum::<f64>().sqrt() / (2.0 * WORD_MOST);
            shared = half * seen.iter().map(|c| c.value[d].abs() + c.value_steps[d]).sum::<f64>();
            shared_squares =
                half * half * seen.iter().map(|c| (c.value[d].abs() + c.value_steps[d]).powi(2)).sum::<f64>();
        }
        let shared_limit = shared.min(K * shared_squares.sqrt());
        let limit = beyond * (K * scores + from_sums) + stored.min(K * stored_squares.sqrt()) + shared_limit + own;
        out.limit.push(limit);
        // A row's outputs share the errors of its scores, which may be few: no averaging, so three deviations. Where
        // the first order says nothing, neither does a typical error.
        let typical = beyond * (3.0 * scores + from_sums) + stored_squares.sqrt() + shared_squares.sqrt() + own;
        out.typical.push(if beyond < 2.0 { typical } else { limit });
    }
    out
}

/// `x · σ(y)`: the sigmoid's relative error is that of its exponential.
pub fn sigmoid_times(x: &[f64], y: &[f64]) -> Approx {
    let exact = x.iter().zip(y).map(|(x, y)| definitions::sigmoid_times(*x, *y)).collect();
    Approx::relative(exact, 2.0 * FUNCTION)
}

/// `layer_norm(x)`. With `z` the normed values and `s` the root, `dz_f = (e_f − mean(e) − z_f · mean(z·e)) / s` to first
/// order, and `mean(z·e) ≤ rms(e)` as `rms(z) ≤ 1`; the mean's own rounding is an error of all values alike, and enters the
/// variance squared.
pub fn layer_norm(x: &Approx, weight: &[f64], bias: &[f64], eps: f64) -> Approx {
    let n = x.exact.len() as f64;
    let exact = definitions::layer_norm(&x.exact, weight, bias, eps);
    let normed = definitions::layer_norm(&x.exact, &vec![1.0; weight.len()], &vec![0.0; weight.len()], eps);
    let mean = x.exact.iter().sum::<f64>() / n;
    let root = (x.exact.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
    let size = x.exact.iter().map(|v| v.abs()).sum::<f64>() / n;
    let shift = x.limit.iter().sum::<f64>() / n + gamma(x.exact.len()) * size;
    let rms = (x.limit.iter().map(|e| e * e).sum::<f64>() / n).sqrt();
    let of_root = rms / root + (shift / root).powi(2) + gamma(x.exact.len()) + 8.0 * U;
    let limit: Vec<f64> = (0..weight.len())
        .map(|f| {
            let of_value = (x.limit[f] + shift + U * (x.exact[f].abs() + mean.abs())) / root;
            (of_value + normed[f].abs() * of_root) * weight[f].abs() * (1.0 + 2.0 * of_root)
                + U * exact[f].abs()
                + FLOOR
        })
        .collect();
    Approx { exact, typical: limit.clone(), limit }
}

/// `softmax(scores) · V`, as in [`attention`]: to first order `∂out/∂s_j = p_j·(v_j − out)`, beyond it a factor `e^(2E)`.
pub fn weighted(scores: &Approx, values: &[&[f64]]) -> Approx {
    let shares = definitions::softmax(&scores.exact);
    let largest = scores.exact.iter().fold(0.0, |m: f64, s| m.max(s.abs()));
    let worst = scores.limit.iter().copied().fold(0.0, f64::max);
    let exact = definitions::mix(&shares, values);
    let limit: Vec<f64> = (0..exact.len())
        .map(|d| {
            let (mut from_scores, mut size) = (0.0, 0.0);
            for (j, value) in values.iter().enumerate() {
                from_scores += shares[j] * (value[d] - exact[d]).abs() * (scores.limit[j] + 4.0 * U * largest);
                size += shares[j] * value[d].abs();
            }
            (2.0 * worst).exp() * from_scores + (gamma(values.len()) + FUNCTION) * size + FLOOR
        })
        .collect();
    Approx { exact, typical: limit.clone(), limit }
}

/// Weights of chosen experts, given the scores' errors: each share moves by at most `e^(2E)`.
pub fn route_weights(routes: &[(usize, f64)], scores: &Approx) -> Approx {
    let error = |limits: &[f64]| (2.0 * limits.iter().copied().fold(0.0, f64::max)).exp_m1() + 2.0 * FUNCTION;
    let exact: Vec<f64> = routes.iter().map(|r| r.1).collect();
    let (limit, typical) = (error(&scores.limit), error(&scores.typical));
    Approx {
        limit: exact.iter().map(|g| g.abs() * limit).collect(),
        typical: exact.iter().map(|g| g.abs() * typical).collect(),
        exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds as the fast path does and compares with the bound it is given.
    #[test]
    fn eight_bit_inputs_stay_within_their_bound_and_half_of_it_would_be_too_little() {
        let mut rng = crate::cases::Rng::new(5);
        let cols = 1536;
        let values = rng.normal(8 * cols, 1.0);
        let x = rng.normal(cols, 1.0);
        let largest = |values: &[f64]| values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let row = largest(&x);
        let rounded: Vec<f64> = x
            .chunks(ACTIVATION_BLOCK)
            .flat_map(|block| {
                let d = row / 127.0 * (largest(block) / row).log2().ceil().exp2();
                block.iter().map(move |v| (v / d).round() * d).collect::<Vec<_>>()
            })
            .collect();
        let weights = Weights { cols, terms: values.iter().map(|v| v.abs()).collect(), values };
        let expected = product(&weights, &Approx::exact(x), Inputs::Rounded(127));
        let found = definitions::product(&weights.values, &rounded);
        let errors: Vec<f64> = found.iter().zip(&expected.exact).map(|(f, e)| (f - e).abs()).collect();
        assert!(errors.iter().zip(&expected.limit).all(|(e, l)| e <= l), "{errors:?}");
        let root = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let share = root(&errors) / root(&expected.typical);
        assert!((0.3..1.0).contains(&share), "errors are {share} of the typical bound");
    }

    #[test]
    fn errors_add_and_multiply() {
        let x = Approx { exact: vec![2.0], limit: vec![0.1], typical: vec![0.01] };
        let product = x.times(&x);
        assert!((product.limit[0] - 0.41).abs() < 1e-5, "{product:?}");
        assert!((x.plus(&x).limit[0] - 0.2).abs() < 1e-5);
    }
}
