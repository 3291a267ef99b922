//! How much memory the backend takes for itself: activations a second time, as the kernels want them, the experts'
//! intermediates, and what each thread unpacks and attends in.
//!
//! It is taken when it is first needed and kept. The lengths here are those that `acts.rs`, `moe.rs`, `matmul.rs` and
//! `attention.rs` grow their vectors to; a test of the program holds the sum to what it really takes. Encoders whose
//! products are of 16-bit integers (`words/`) hold most activations in half of what is counted for them here, and take a part
//! of the rest for the keys and values of a head.

use carat_tensor::backend::{ExpertWork, Work};

use crate::attention;
use crate::ints::Block;
use crate::kernels::{Kernels, TILE};

/// Bytes at most, on so many threads; `integer` says whether quantised weights meet integers.
pub fn bytes(kernels: &Kernels, threads: usize, integer: bool, work: &Work) -> usize {
    let integer = (integer && work.quantised).then_some(Integers { in_pairs: kernels.in_pairs });
    let experts = work.experts.map_or(0, |experts| expert_bytes(integer, work, experts));
    // Strips of weights as integers with scales and minima, or one in f32, a row of it, and the strips' products.
    let strip = integer.map_or(4 * (TILE + 1), |_| kernels.tiles * (TILE + 2 * 4 * TILE / SHORTEST_GROUP));
    let worker = work.cols * strip + 4 * kernels.tiles * work.rows * TILE + attention::scratch_bytes(work.head_dim);
    let rest = integer.map_or(0, |ints| ints.bytes(work.finest_rows * work.cols));
    acts(integer, work.rows, work.cols, work.fine_cols) + rest + experts + threads * worker
}

/// Weights that share a scale, and perhaps a minimum.
const SHORTEST_GROUP: usize = 16;

/// Activations as integers.
#[derive(Clone, Copy)]
struct Integers {
    /// As 16-bit ones too, and in blocks.
    in_pairs: bool,
}

impl Integers {
    /// One plane of bytes, with scales and sums.
    fn bytes(self, len: usize) -> usize {
        let (by_16, by_32) = (len / 16, len / 32);
        let pairs = if self.in_pairs { 2 * len + by_32 * size_of::<Block>() } else { 0 };
        len + pairs + 4 * (by_32 + by_16 + 2 * (by_16 + by_32))
    }
}

/// Rows in f32 and, for integer products, as integers with scales and sums.
fn acts(integer: Option<Integers>, rows: usize, cols: usize, fine_cols: usize) -> usize {
    let len = rows * cols;
    4 * len + integer.map_or(0, |ints| ints.bytes(len) + rows * fine_cols)
}

fn expert_bytes(integer: Option<Integers>, work: &Work, experts: ExpertWork) -> usize {
    let ExpertWork { n_experts, top_k, width, d_model } = experts;
    let (rows, routes) = (work.rows, work.rows * top_k);
    let rest = integer.map_or(0, |ints| ints.bytes(work.finest_rows * top_k * (d_model + width)));
    let sorted = 2 * size_of::<usize>() + size_of::<u32>() + size_of::<f32>();
    acts(integer, routes, d_model, d_model)
        + acts(integer, routes, width, width)
        + rest
        + 4 * (routes * d_model + rows * n_experts)
        + routes * sorted
}
