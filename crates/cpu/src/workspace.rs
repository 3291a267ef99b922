//! How much memory the backend takes for itself: activations a second time, as the kernels want them, the experts'
//! intermediates, and what each thread unpacks and attends in.
//!
//! It is taken when it is first needed and kept: every vector is as long as the work that asks most of it. The lengths here are
//! those that `acts.rs`, `moe.rs`, `matmul.rs`, `attention.rs` and `words/` grow their vectors to; a test of the program holds the
//! sum to what it really takes.

use carat_tensor::DType;
use carat_tensor::backend::{AttentionWork, EncoderWork, ExpertWork, ProductWork, Work};

use crate::attention;
use crate::ints::{Block, Eight};
use crate::kernels::{Kernels, TILE};
use crate::matmul;
use crate::words::{self, WordKernels};

/// What lengths depend on, beside the work.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// Kernels.
    pub kernels: &'static Kernels,
    /// Threads that work.
    pub threads: usize,
    /// Whether quantised weights meet integers.
    pub integer: bool,
    /// Whether encoders' products are of 8-bit integers, where they can be.
    pub coarse: bool,
    /// Kernels of 16-bit integers, where products and attention of many rows may be of these.
    pub words: Option<&'static WordKernels>,
}

/// Bytes at most.
pub fn bytes(cpu: Cpu, text: &Work, encoders: &[&EncoderWork]) -> usize {
    let mut most = Most { cpu, bytes: [0; USES] };
    most.text(text);
    for encoder in encoders {
        encoder.products.iter().for_each(|product| most.product(product));
        encoder.attention.iter().for_each(|attention| most.attention(attention));
    }
    let (shared, of_a_thread) = most.bytes.split_at(Use::Strips as usize);
    shared.iter().sum::<usize>() + cpu.threads * of_a_thread.iter().sum::<usize>()
}

/// What grows by itself.
#[derive(Clone, Copy)]
enum Use {
    /// Activations in f32.
    Rows,
    /// The same as integers, with scales and sums.
    Ints,
    /// What these leave.
    Rest,
    /// All of the experts.
    Experts,
    /// Activations as words.
    Words,
    /// Scales of what goes into feed-forwards.
    Outer,
    /// Keys and values of a head as words.
    Head,
    /// Of each thread, as what follows: strips of weights as integers.
    Strips,
    /// A strip in f32.
    Strip,
    /// The strips' products.
    Products,
    Attention,
    /// Weights as words, and their products.
    Panels,
    WordAttention,
}
const USES: usize = Use::WordAttention as usize + 1;

/// The most that any work so far takes for each use.
struct Most {
    cpu: Cpu,
    bytes: [usize; USES],
}

impl Most {
    fn raise(&mut self, of: Use, bytes: usize) {
        self.bytes[of as usize] = bytes.max(self.bytes[of as usize]);
    }

    /// The integer form of activations, where such weights meet it.
    fn integers(&self, quantised: bool) -> Option<Integers> {
        (self.cpu.integer && quantised).then_some(Integers { in_pairs: self.cpu.kernels.in_pairs })
    }

    fn text(&mut self, work: &Work) {
        let integer = self.integers(work.quantised);
        let floats = (work.rows * work.plain_cols).max(work.finest_rows * work.cols);
        self.unpacked(integer, (work.rows, work.cols), work.fine_cols, floats);
        self.raise(Use::Rest, integer.map_or(0, |ints| ints.bytes(work.finest_rows * work.cols)));
        self.raise(Use::Experts, work.experts.map_or(0, |experts| expert_bytes(integer, work, experts)));
        self.raise(Use::Attention, attention::scratch_bytes(work.head_dim));
        if self.cpu.words.is_some() && work.half_cols > 0 && words::product::takes(DType::BF16, work.rows, false) {
            self.words((work.rows, work.half_cols), 2);
        }
        if self.cpu.words.is_some()
            && work.kv_is_rounded
            && words::attention::takes(work.rows, work.group, work.head_dim)
        {
            self.raise(Use::Head, words::attention::Head::bytes(work.positions, work.head_dim));
            self.raise(Use::WordAttention, words::attention::Scratch::bytes(work.head_dim));
        }
    }

    fn product(&mut self, work: &ProductWork) {
        let ProductWork { rows, cols, width, dtype, bounded } = *work;
        if self.cpu.coarse && bounded && matmul::rounds(self.cpu.words, dtype, cols, rows) {
            self.unpacked(self.integers(true), (rows, cols), 0, 0);
        } else if self.cpu.words.is_some() && words::product::takes(dtype, rows, bounded) {
            self.raise(Use::Rows, if bounded { 0 } else { 4 * rows * cols });
            self.words((rows, cols), 1);
            if bounded && width > cols {
                self.raise(Use::Outer, words::product::scale_bytes(rows, cols));
                self.raise(Use::Panels, words::product::Scratch::bytes(cols, 2, true));
            }
        } else {
            let floats = if dtype.is_quantised() { 0 } else { rows * cols };
            self.unpacked(self.integers(dtype.is_quantised()), (rows, cols), cols, floats);
        }
    }

    /// Products by 16-bit integers with so many matrices at once.
    fn words(&mut self, (rows, cols): (usize, usize), matrices: usize) {
        self.raise(Use::Words, words::product::Acts::bytes(rows, cols));
        self.raise(Use::Panels, words::product::Scratch::bytes(cols, matrices, false));
    }

    fn attention(&mut self, work: &AttentionWork) {
        if self.cpu.words.is_some() && words::attention::takes(work.rows, 1, work.head_dim) {
            self.raise(Use::Head, words::attention::Head::bytes(work.rows, work.head_dim));
            self.raise(Use::WordAttention, words::attention::Scratch::bytes(work.head_dim));
        } else {
            self.raise(Use::Attention, attention::scratch_bytes(work.head_dim));
        }
    }

    /// Products with weights that are unpacked to strips; `floats` is how many values some of them want in f32.
    fn unpacked(&mut self, integer: Option<Integers>, (rows, cols): (usize, usize), fine_cols: usize, floats: usize) {
        let tiles = self.cpu.kernels.tiles;
        self.raise(Use::Rows, 4 * if integer.is_some() { floats } else { rows * cols });
        self.raise(Use::Products, 4 * tiles * rows * TILE);
        match integer {
            Some(ints) => {
                self.raise(Use::Ints, ints.bytes(rows * cols) + rows * fine_cols);
                // With scales and minima.
                self.raise(Use::Strips, cols * tiles * (TILE + 2 * 4 * TILE / SHORTEST_GROUP));
                // A row that is normed or brought within bounds.
                self.raise(Use::Strip, cols * 4);
            }
            // And a row of it.
            None => self.raise(Use::Strip, cols * 4 * (TILE + 1)),
        }
    }
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
        // Scales, their powers of two, sums, and these times offsets and scales, and in 16 bits.
        len + pairs + 4 * (2 * by_32 + by_16 + 2 * (by_16 + by_32)) + len / 256 * size_of::<Eight>()
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
    let sorted = 3 * size_of::<usize>() + size_of::<u32>() + size_of::<f32>();
    acts(integer, routes, d_model, d_model.min(work.fine_cols))
        + acts(integer, routes, width, width.min(work.fine_cols))
        + rest
        + 4 * rows * n_experts
        + routes * sorted
}
