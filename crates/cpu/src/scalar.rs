//! The definition of every kernel, in plain Rust. Other instruction sets must agree with these functions.
//!
//! Integer dots are exact in i32; f32 dots accumulate in f64. Formats are those of [`crate::unpack`], packed tiles
//! those of [`crate::kernels`].

use carat_tensor::{DType, quant};

use crate::interleaved::{self, Tiles};
use crate::ints::{Eight, IntRows, Sums};
use crate::kernels::{PackedTile, TILE};
use crate::pool::Tile;
use crate::unpack::{Unpacked, form, unpack};
use crate::words::BLOCK;

/// The largest activation in 8 bits.
const COARSE_STEPS: f32 = 127.0;
/// The same in 15 bits: the lower 7 add 128 steps to each of the upper 8.
const FINE_STEPS: f32 = 127.0 * 128.0;

/// The magnitude of the largest value; infinite or NaN if one is.
pub fn largest(x: &[f32]) -> f32 {
    // The bits of magnitudes are in their order, and NaN, which maxima of numbers drop, comes last.
    f32::from_bits(x.iter().fold(0, |max, v| max.max(v.abs().to_bits())))
}

/// How the blocks of a row are scaled: each by the row's scale times the least power of two that its values fit,
/// from `2^-RANGE` on. A scale of its own would be up to twice as fine, but of blocks that weigh less than the row's largest;
/// and powers of two cost a product no multiplication.
#[derive(Clone, Copy)]
pub struct RowScale {
    /// The largest value.
    pub largest: f32,
    /// What its block counts in.
    pub d: f32,
    /// The reciprocal.
    pub inverse: f32,
}

/// How many powers of two a block's scale may be below the row's.
pub const RANGE: u32 = 24;

/// Rows whose largest value is below this are zeros: all scales, of what 15 bits leave, too, are normal numbers.
pub const TINY: f32 = 1e-24;

impl RowScale {
    /// Of a row with this largest value in 15 bits, or in 8. Where it has no integers but zeros, the scale that makes it what
    /// it is: 0, or NaN where a value is not finite.
    pub fn new(largest: f32, fine: bool) -> Result<Self, f32> {
        let steps = if fine { FINE_STEPS } else { COARSE_STEPS };
        match largest {
            _ if !largest.is_finite() => Err(f32::NAN),
            _ if largest < TINY => Err(0.0),
            _ => Ok(RowScale { largest, d: largest / steps, inverse: steps / largest }),
        }
    }

    /// Scale and its reciprocal of a block with this largest value.
    pub fn of_block(self, max: f32) -> (f32, f32) {
        // Whole powers of two between them: the difference of exponents, and one less if that of mantissas is below.
        let below = ((self.largest.to_bits() - max.to_bits()) >> 23).min(RANGE) << 23;
        (f32::from_bits(self.d.to_bits() - below), f32::from_bits(self.inverse.to_bits() + below))
    }
}

/// Activations of a row to integers, in blocks of 32 (ties to even). Without `low`, 8 bits: `q = round(x / d)`. With `low`, 15:
/// `128 · q + low = round(x / d)`. `d` is `scale`'s, `sum` holds the sums of 16 integers each.
pub fn quantise(x: &[f32], scale: RowScale, q: &mut [i8], low: &mut [i8], d: &mut [f32], sum: &mut [i32]) {
    for (b, ((x, q), (d, sum))) in
        x.chunks_exact(32).zip(q.chunks_exact_mut(32)).zip(d.iter_mut().zip(sum.chunks_exact_mut(2))).enumerate()
    {
        let inverse;
        (*d, inverse) = scale.of_block(largest(x));
        sum.fill(0);
        for (i, (q, &x)) in q.iter_mut().zip(x).enumerate() {
            let value = (x * inverse).round_ties_even() as i32;
            sum[i / 16] += value;
            *q = if low.is_empty() { value } else { (value + 64) >> 7 } as i8;
            if let Some(low) = low.get_mut(32 * b + i) {
                *low = (value - 128 * i32::from(*q)) as i8;
            }
        }
    }
}

/// What products want of the sums of 16 integers each, of blocks with these scales and powers: see [`IntRows`].
pub fn sum_up(sum: &[i32], d: &[f32], exps: &[i32], out: Sums<'_>) {
    let Sums { neg16, neg32, dsum16, dsum32, eights } = out;
    let of_16 = neg16.as_chunks_mut::<2>().0.iter_mut().zip(dsum16.as_chunks_mut::<2>().0);
    let of_32 = neg32.iter_mut().zip(dsum32);
    let sums = sum.as_chunks::<2>().0;
    for (((sums, &d), (neg16, dsum16)), (neg32, dsum32)) in sums.iter().zip(d).zip(of_16).zip(of_32) {
        let both = sums[0] + sums[1];
        *neg16 = sums.map(|sum| -32 * sum);
        *dsum16 = sums.map(|sum| d * sum as f32);
        (*neg32, *dsum32) = (-8 * both, d * both as f32);
    }
    let blocks = sums.chunks_exact(8).zip(exps.chunks_exact(8));
    eights.iter_mut().zip(blocks).for_each(|(eight, (sums, exps))| *eight = Eight::new(sums, exps));
}

/// `out[r] = w[r] · x` for quantised rows, with the activations' `rest` where they have 22 bits:
/// `Σ_groups scale · d · (q · v − offset · Σv) − min · d · Σv` of each part.
pub fn matvec(
    dtype: DType,
    rows: &[u8],
    x: IntRows<'_>,
    rest: Option<IntRows<'_>>,
    _scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    in_parts(matvec_part, dtype, rows, x, rest, out);
}

/// [`matvec`] of one part.
fn matvec_part(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    let form = form(dtype).expect("only quantised types reach the integer kernels");
    let row_bytes = dtype.row_bytes(x.cols).expect("the matrix was made with whole blocks");
    let (group, len) = (form.group, dtype.block_len());
    let mut block = Unpacked::new();
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        let mut total = 0.0f32;
        for (b, bytes) in row.chunks_exact(dtype.block_bytes()).enumerate() {
            unpack(dtype, bytes, &mut block);
            for g in 0..len / group {
                let at = b * len + g * group;
                let (mut dot, mut sum) = (0, 0);
                for (k, &w) in block.q[g * group..(g + 1) * group].iter().enumerate() {
                    let v = x.value(at + k);
                    dot += i32::from(w) * v;
                    sum += v;
                }
                let d = x.d[at / 32];
                total += block.scale[g] * d * (dot - form.offset * sum) as f32 - block.min[g] * d * sum as f32;
            }
        }
        *out = total;
    }
}

/// [`matvec`] by `part` for each part.
pub fn in_parts(
    part: impl Fn(DType, &[u8], IntRows<'_>, &mut [f32]),
    dtype: DType,
    rows: &[u8],
    x: IntRows<'_>,
    rest: Option<IntRows<'_>>,
    out: &mut [f32],
) {
    const ROWS: usize = 16;
    let Some(rest) = rest else {
        return part(dtype, rows, x, out);
    };
    let row_bytes = dtype.row_bytes(x.cols).expect("the matrix was made with whole blocks");
    for (rows, out) in rows.chunks(ROWS * row_bytes).zip(out.chunks_mut(ROWS)) {
        let mut more = [0.0; ROWS];
        let more = &mut more[..out.len()];
        part(dtype, rows, x, out);
        part(dtype, rows, rest, more);
        out.iter_mut().zip(more).for_each(|(out, more)| *out += *more);
    }
}

/// `out[i, r] = w[r] · x[i]` for rows in tiles of 16 ([`crate::interleaved`]), with the activations' `rest` where they have
/// 22 bits; `out` `[n, 16 · tiles]`.
pub fn matvec_tiles(tiles: Tiles<'_>, x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut Tile<'_>) {
    let rows = interleaved::rows_of(tiles);
    for i in out.rows() {
        in_parts(matvec_part, tiles.dtype, &rows, x.row(i), rest.map(|rest| rest.row(i)), out.row(i));
    }
}

/// Unpacks up to 16 rows into a tile.
pub fn pack(dtype: DType, rows: &[u8], cols: usize, tile: &mut PackedTile) {
    let form = form(dtype).expect("only quantised types reach the integer kernels");
    let row_bytes = dtype.row_bytes(cols).expect("the matrix was made with whole blocks");
    tile.reset(form, cols);
    let (group, len) = (form.group, dtype.block_len());
    let mut block = Unpacked::new();
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        for (b, bytes) in row.chunks_exact(dtype.block_bytes()).enumerate() {
            unpack(dtype, bytes, &mut block);
            let quads = &mut tile.q[b * len * TILE..(b + 1) * len * TILE];
            for (quad, q) in quads.chunks_exact_mut(4 * TILE).zip(block.q.chunks_exact(4)) {
                quad[4 * r..4 * r + 4].copy_from_slice(q);
            }
            for g in 0..len / group {
                tile.scale[(b * len / group + g) * TILE + r] = block.scale[g];
                if form.has_min {
                    tile.min[(b * len / group + g) * TILE + r] = block.min[g];
                }
            }
        }
    }
}

/// Rounds columns of 16 rows to 8 bits in groups of 32, as many as there is room for in a tile's `q` and `scale`: the largest of a
/// group is 127 steps. Groups of values below [`TINY`] are zeros, and where one is not finite the scale is NaN. Inlined, so that
/// each instruction set's own function compiles it to vectors.
#[inline(always)]
pub fn pack_floats(rows: &[[f32; BLOCK]; TILE], q: &mut [u8], scale: &mut [f32]) {
    for (g, (q, scale)) in q.chunks_exact_mut(32 * TILE).zip(scale.chunks_exact_mut(TILE)).enumerate() {
        for (r, (row, scale)) in rows.iter().zip(scale).enumerate() {
            let x = &row.as_chunks::<32>().0[g];
            let inverse;
            (*scale, inverse) = match RowScale::new(largest(x), false) {
                Ok(scale) => (scale.d, scale.inverse),
                Err(scale) => (scale, 0.0),
            };
            let bytes = x.map(|x| ((x * inverse).round_ties_even() as i32 + 128) as u8);
            for (quads, bytes) in q.as_chunks_mut::<{ 4 * TILE }>().0.iter_mut().zip(bytes.as_chunks().0) {
                quads.as_chunks_mut::<4>().0[r] = *bytes;
            }
        }
    }
}

/// `out[t, i, r] = w[t, r] · x[i]` for the 16 rows of each tile and all activation rows, `out` `[tiles, n, 16]`.
pub fn gemm(tiles: &[PackedTile], x: &IntRows<'_>, out: &mut [f32]) {
    by_tile(one_tile, tiles, x, out);
}

/// [`gemm`] by one that takes a tile.
pub fn by_tile(
    gemm: impl Fn(&PackedTile, &IntRows<'_>, &mut [f32]),
    tiles: &[PackedTile],
    x: &IntRows<'_>,
    out: &mut [f32],
) {
    let len = out.len() / tiles.len();
    tiles.iter().zip(out.chunks_exact_mut(len)).for_each(|(tile, out)| gemm(tile, x, out));
}

fn one_tile(tile: &PackedTile, x: &IntRows<'_>, out: &mut [f32]) {
    let form = tile.form;
    for (i, out) in out.chunks_exact_mut(TILE).enumerate() {
        let x = x.row(i);
        out.fill(0.0);
        for g in 0..x.cols / form.group {
            let at = g * form.group;
            let d = x.d[at / 32];
            for (r, out) in out.iter_mut().enumerate() {
                let (mut dot, mut sum) = (0, 0);
                for k in at..at + form.group {
                    let (w, v) = (i32::from(tile.q[k / 4 * 4 * TILE + 4 * r + k % 4]), x.value(k));
                    dot += w * v;
                    sum += v;
                }
                let min = if form.has_min { tile.min[g * TILE + r] } else { 0.0 };
                *out += tile.scale[g * TILE + r] * d * (dot - form.offset * sum) as f32 - min * d * sum as f32;
            }
        }
    }
}

/// A row of any type as f32.
pub fn decode(dtype: DType, row: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F8F32 => quant::decode_row(dtype, row, out),
        _ => {
            let form = form(dtype).expect("all other types are quantised");
            let mut block = Unpacked::new();
            for (out, bytes) in out.chunks_mut(dtype.block_len()).zip(row.chunks_exact(dtype.block_bytes())) {
                unpack(dtype, bytes, &mut block);
                for (i, (out, &q)) in out.iter_mut().zip(&block.q).enumerate() {
                    let g = i / form.group;
                    *out = block.scale[g] * (i32::from(q) - form.offset) as f32 - block.min[g];
                }
            }
        }
    }
}

/// `a · b`.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f64; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for l in 0..8 {
            lanes[l] += f64::from(a[l]) * f64::from(b[l]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    (lanes.iter().sum::<f64>() + rest) as f32
}

/// `out[r] = w[r] · x` in f32 for plain types.
pub fn matvec_f32(dtype: DType, rows: &[u8], x: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
    let row_bytes = dtype.row_bytes(x.len()).expect("the matrix was made with whole blocks");
    crate::acts::grow(scratch, x.len());
    let scratch = &mut scratch[..x.len()];
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        decode(dtype, row, scratch);
        *out = dot(scratch, x);
    }
}

/// `out[i, r] = Σ_k tile[k, r] · x[i, k]`: `tile` `[cols, 16]`, `x` `[n, cols]`, `out` `[n, 16]`.
pub fn gemm_f32(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(TILE)) {
        let mut sums = [0.0f64; TILE];
        for (w, &x) in tile.chunks_exact(TILE).zip(x) {
            for (sum, &w) in sums.iter_mut().zip(w) {
                *sum += f64::from(w) * f64::from(x);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    }
}

/// `scores[m, j] = q[m] · k[j]`: `q` `[_, d]`, `k` `[b, d]`, `scores` `[_, b]`.
pub fn scores(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]) {
    let b = k.len() / d;
    for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(b)) {
        for (s, k) in scores.iter_mut().zip(k.chunks_exact(d)) {
            *s = dot(q, k);
        }
    }
}

/// `out[m] += Σ_j p[m, j] · v[j]`: `p` `[_, b]`, `v` `[b, d]`, `out` `[_, d]`.
pub fn weighted_sum(p: &[f32], v: &[f32], d: usize, out: &mut [f32]) {
    let b = v.len() / d;
    for (p, out) in p.chunks_exact(b).zip(out.chunks_exact_mut(d)) {
        for (&p, v) in p.iter().zip(v.chunks_exact(d)) {
            for (out, &v) in out.iter_mut().zip(v) {
                *out += p * v;
            }
        }
    }
}

/// `s = exp(s − max)` in place; returns the sum. `max` is at least the largest of `s`.
pub fn exp_sum(s: &mut [f32], max: f32) -> f32 {
    let mut sum = 0.0;
    for s in s {
        *s = (*s - max).exp();
        sum += *s;
    }
    sum
}

/// `0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))` (transformers `gelu_pytorch_tanh`).
pub fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh())
}

/// `gate = gelu_tanh(gate) ⊙ up`.
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, &up) in gate.iter_mut().zip(up) {
        *gate = gelu_tanh(*gate) * up;
    }
}

/// `out = x ⊙ σ(gate)`, `σ(v) = 1 / (1 + e^(−v))`.
pub fn sigmoid_mul(out: &mut [f32], x: &[f32], gate: &[f32]) {
    for ((out, x), &gate) in out.iter_mut().zip(x).zip(gate) {
        *out = x / (1.0 + (-gate).exp());
    }
}

/// `x = cap · tanh(x / cap)`.
pub fn softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * (*x / cap).tanh();
    }
}

/// `Σ x²`.
pub fn sum_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

/// Reads everything once; what it returns means nothing.
pub fn read_all(x: &[u64]) -> u64 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut lanes = [0; 16];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane ^= x;
        }
    }
    lanes.iter().chain(rest).fold(0, |all, x| all ^ x)
}

/// `rounds` integer dots of 32 values.
pub fn dot_rounds(rounds: usize) -> i32 {
    let (w, x) = ([3u8; 32], [1i8; 32]);
    (0..rounds).fold(0i32, |sum, _| {
        let (w, x) = std::hint::black_box((&w, &x));
        w.iter().zip(x).fold(sum, |sum, (&w, &x)| sum.wrapping_add(i32::from(w) * i32::from(x)))
    })
}
