//! How much memory the backend takes for itself: activations a second time, as the kernels want them, the experts'
//! intermediates, and what each thread unpacks and attends in.
//!
//! It is taken when it is first needed and kept. The lengths here are those that `acts.rs`, `moe.rs`, `matmul.rs` and
//! `attention.rs` grow their vectors to; a test of the program holds the sum to what it really takes.

use carat_tensor::backend::{ExpertWork, Work};

use crate::attention;
use crate::kernels::TILE;

/// Bytes at most, on so many threads; `integer` says whether quantised weights meet integers.
pub fn bytes(threads: usize, integer: bool, work: &Work) -> usize {
    let integer = integer && work.quantised;
    let experts = work.experts.map_or(0, |experts| expert_bytes(integer, work, experts));
    // A strip of decoded weights and a row of them, the products of a strip and of its gate.
    let worker = 4 * (work.cols * (TILE + 1) + 2 * work.rows * TILE) + attention::scratch_bytes(work.head_dim);
    let rest = if integer { int_bytes(work.finest_rows * work.cols) } else { 0 };
    acts(integer, work.rows, work.cols, work.fine_cols) + rest + experts + threads * worker
}

/// Rows in f32 and, for integer products, as integers with scales and sums.
fn acts(integer: bool, rows: usize, cols: usize, fine_cols: usize) -> usize {
    let len = rows * cols;
    4 * len + if integer { int_bytes(len) + rows * fine_cols } else { 0 }
}

/// One plane of bytes, with scales and sums.
fn int_bytes(len: usize) -> usize {
    let (by_16, by_32) = (len / 16, len / 32);
    len + 4 * (by_32 + by_16 + 2 * (by_16 + by_32))
}

fn expert_bytes(integer: bool, work: &Work, experts: ExpertWork) -> usize {
    let ExpertWork { n_experts, top_k, width, d_model } = experts;
    let (rows, routes) = (work.rows, work.rows * top_k);
    let rest = if integer { int_bytes(work.finest_rows * top_k * (d_model + width)) } else { 0 };
    let sorted = 2 * size_of::<usize>() + size_of::<u32>() + size_of::<f32>();
    acts(integer, routes, d_model, d_model)
        + acts(integer, routes, width, width)
        + rest
        + 4 * (routes * d_model + rows * n_experts)
        + routes * sorted
}
