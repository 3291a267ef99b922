//! Mixture of experts: routing, and products grouped by expert.
//!
//! Rows are sorted by expert, so that each expert's weights are read once for all rows that chose it.

use std::sync::Mutex;

use carat_tensor::backend::{Experts, Rounding};

use crate::acts::{Acts, Wanted, grow};
use crate::kernels::{Kernels, TILE};
use crate::matmul::{Integers, Matrix, Product, Scratch};
use crate::pool::{Output, Pool};

/// The experts each row chose and their weights, `[n, top_k]`.
#[derive(Default)]
pub struct Routes {
    pub(crate) top_k: usize,
    pub(crate) expert: Vec<u32>,
    pub(crate) weight: Vec<f32>,
}

impl Routes {
    /// Chooses for `n` rows of router logits `[n, n_experts]`: softmax, the `top_k` largest (ties: lowest index)
    /// renormalised, times `scale[expert]`. Where the softmax is no number, the weights are none.
    pub(crate) fn choose(&mut self, logits: &mut [f32], scale: &[f32], top_k: usize) {
        self.top_k = top_k;
        self.expert.clear();
        self.weight.clear();
        for logits in logits.chunks_exact_mut(scale.len()) {
            let max = logits.iter().fold(f32::NEG_INFINITY, |max, &v| max.max(v));
            logits.iter_mut().for_each(|v| *v = (*v - max).exp());
            // The comparisons that choose would drop it.
            let has_nan = logits.iter().any(|p| p.is_nan());
            let first = self.weight.len();
            for _ in 0..top_k {
                let mut best = 0;
                for (e, &p) in logits.iter().enumerate() {
                    if p > logits[best] {
                        best = e;
                    }
                }
                self.expert.push(best as u32);
                self.weight.push(logits[best]);
                logits[best] = f32::NEG_INFINITY;
            }
            let sum = if has_nan { f32::NAN } else { self.weight[first..].iter().sum() };
            for (weight, &e) in self.weight[first..].iter_mut().zip(&self.expert[first..]) {
                *weight = *weight / sum * scale[e as usize];
            }
        }
    }
}

/// Memory of the expert products.
#[derive(Default)]
pub struct Workspace {
    /// Routes by expert: indices into `[n, top_k]`.
    order: Vec<usize>,
    /// Activation row of each.
    rows: Vec<usize>,
    /// Where in this order each row's routes stand, ascending, `[n, top_k]`.
    places: Vec<usize>,
    /// Where each chosen expert's routes begin, and the end.
    cuts: Vec<usize>,
    chosen: Vec<usize>,
    /// The rows in the order of their routes; then, in f32, what the experts make of them, `[routes, d]`.
    acts: Acts,
    hidden: Acts,
}

impl Workspace {
    fn sort(&mut self, routes: &Routes) {
        self.order.clear();
        self.order.extend(0..routes.expert.len());
        self.order.sort_unstable_by_key(|&route| (routes.expert[route], route));
        self.rows.clear();
        self.rows.extend(self.order.iter().map(|route| route / routes.top_k));
        self.places.clear();
        self.places.resize(self.order.len(), 0);
        for (place, &route) in self.order.iter().enumerate() {
            self.places[route] = place;
        }
        self.places.chunks_exact_mut(routes.top_k).for_each(<[usize]>::sort_unstable);
        self.cuts.clear();
        self.chosen.clear();
        for (slot, &route) in self.order.iter().enumerate() {
            let expert = routes.expert[route] as usize;
            if self.chosen.last() != Some(&expert) {
                self.chosen.push(expert);
                self.cuts.push(slot);
            }
        }
        self.cuts.push(self.order.len());
    }

    /// `out[i] = Σ_j g_j · down_j · (gelu_tanh(gate_j · e_i) ⊙ (up_j · e_i))` for the rows `e` of `acts`, there as gate and up
    /// want them.
    #[allow(clippy::too_many_arguments, reason = "the operation's own operands")]
    pub fn run(
        &mut self,
        k: &'static Kernels,
        integer: Option<Rounding>,
        pool: &mut Pool,
        scratch: &[Mutex<Scratch>],
        (out, e): (&mut [f32], &Acts),
        experts: &Experts<'_, Matrix>,
        routes: &Routes,
    ) {
        if routes.expert.is_empty() {
            return;
        }
        self.sort(routes);
        let (gate, up, down) = (&experts.gate, &experts.up, &experts.down);
        let (slots, ff, d) = (self.order.len(), gate.rows, down.rows);
        let largest = self.cuts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let wanted = Wanted::by(integer, [gate.matrix, up.matrix].into_iter());
        if wanted.rounding.is_some() {
            self.acts.permute_ints(pool, e, &self.rows);
        }
        if wanted.floats {
            self.acts.permute(pool, e, &self.rows);
        }
        (self.hidden.n, self.hidden.cols) = (slots, ff);
        grow(&mut self.hidden.x, slots * ff);
        let (cuts, chosen) = (&self.cuts, &self.chosen);
        let expert_of = |row: usize| chosen[cuts.partition_point(|&cut| cut <= row) - 1];
        let product = Product { kernels: k, integers: Integers::by(integer), acts: &self.acts };
        let tile_cols = product.task_rows(gate.matrix, largest, pool.threads()).min(ff.next_multiple_of(TILE));
        let output = Output::with_cuts(&mut self.hidden.x, cuts, ff, tile_cols);
        pool.tiles(&mut [output], |worker, _, mut tile| {
            let expert = expert_of(tile.rows().start);
            let first = (gate.first + expert * gate.stride, up.first + expert * up.stride);
            product.fill_gated((gate.matrix, up.matrix), first, &mut tile, &mut lock(&scratch[worker]));
        });
        if let Some(rounding) = Wanted::by(integer, std::iter::once(down.matrix)).rounding {
            self.hidden.quantise(k, pool, rounding);
        }
        let y = &mut self.acts.x;
        grow(y, slots * d);
        let product = Product { kernels: k, integers: Integers::by(integer), acts: &self.hidden };
        let tile_cols = product.task_rows(down.matrix, largest, pool.threads()).min(d.next_multiple_of(TILE));
        pool.tiles(&mut [Output::with_cuts(y, cuts, d, tile_cols)], |worker, _, mut tile| {
            let expert = expert_of(tile.rows().start);
            let first = down.first + expert * down.stride;
            product.fill(down.matrix, first, &mut tile, &mut lock(&scratch[worker]), |_, _, _| {});
        });
        // Places are in order of expert and route, so a row's sum has the same order whatever else is in the batch.
        let (y, order, places, top_k) = (&self.acts.x, &self.order, &self.places, routes.top_k);
        pool.for_rows(out, e.n, d, |i, out| {
            out.fill(0.0);
            for &place in &places[i * top_k..(i + 1) * top_k] {
                let weight = routes.weight[order[place]];
                out.iter_mut().zip(&y[place * d..(place + 1) * d]).for_each(|(out, y)| *out += weight * y);
            }
        });
    }
}

/// A worker's own memory: never contended.
pub fn lock<T>(scratch: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_a_score_that_is_no_number_has_no_weights() {
        let (n_experts, top_k) = (4, 2);
        for bad in 0..n_experts {
            for value in [f32::NAN, f32::INFINITY] {
                let mut logits = [1.0, 3.0, 2.0, 0.0].repeat(2);
                logits[bad] = value;
                let mut routes = Routes::default();
                routes.choose(&mut logits, &[1.0; 4], top_k);
                let (of_bad, of_good) = routes.weight.split_at(top_k);
                assert!(of_bad.iter().all(|weight| weight.is_nan()), "{value} at {bad}: {of_bad:?}");
                assert_eq!(routes.expert[top_k..], [1, 2]);
                assert!((of_good[0] - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6, "{of_good:?}");
            }
        }
    }
}
