//! The material of the cases: reproducible random numbers, inputs of every temper, weights of every type.
//!
//! Quantised weights are random bytes with sane scales written into each block, so that every code of a
//! format occurs, whatever an encoder would choose. Their values come from `carat_tensor::quant`.

use carat_tensor::{Bytes, DType, Tensor, quant};

use crate::bounds::Weights;

/// Row counts: one, few, and more than any tile.
pub const ROWS: [usize; 4] = [1, 2, 3, 17];
/// Row lengths: one block, several, odd numbers of blocks, real widths.
pub const WIDTHS: [usize; 5] = [32, 64, 96, 256, 1536];

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        (self.bits() % below as u64) as usize
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `len` normal values, each an f32.
    pub fn normal(&mut self, len: usize, deviation: f64) -> Vec<f64> {
        let mut values = Vec::with_capacity(len + 1);
        while values.len() < len {
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt() * deviation;
            let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
            values.extend([radius * cos, radius * sin].map(|v| f64::from(v as f32)));
        }
        values.truncate(len);
        values
    }
}

/// Tempers of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Normal, deviation 1.
    Normal,
    /// All zero.
    Zeros,
    /// Normal, deviation 1e4.
    Large,
    /// Normal with one value a thousand times larger.
    Outlier,
    /// Below the least normal f32: reciprocals overflow.
    Subnormal,
    /// Alternating zero rows and normal ones.
    ZeroRows,
}

impl Fill {
    /// Every temper.
    pub const ALL: [Fill; 6] = [Fill::Normal, Fill::Zeros, Fill::Large, Fill::Outlier, Fill::Subnormal, Fill::ZeroRows];

    /// `[n, cols]` values, each an f32.
    pub fn rows(self, rng: &mut Rng, n: usize, cols: usize) -> Vec<f64> {
        let mut x = rng.normal(n * cols, 1.0);
        match self {
            Fill::Normal => {}
            Fill::Zeros => x.fill(0.0),
            Fill::Large => x.iter_mut().for_each(|v| *v = f64::from((*v * 1e4) as f32)),
            Fill::Outlier => x.chunks_exact_mut(cols).for_each(|row| row[cols / 3] = 1000.0),
            Fill::Subnormal => x.iter_mut().for_each(|v| *v = f64::from((*v * 1e-39) as f32)),
            Fill::ZeroRows => x.chunks_exact_mut(cols).step_by(2).for_each(|row| row.fill(0.0)),
        }
        x
    }
}

/// Values as the backend takes them.
pub fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Where a block's scales are.
enum Scales {
    /// An f16 at this byte.
    Half(usize),
    /// An f16 at this byte and a minimum, f16 as well, at that.
    HalfAndMin(usize, usize),
    /// An f16 in the top nibbles of four words from this byte on.
    Nibbles(usize),
    /// So many f32 at the start.
    Singles(usize),
    /// A power of two at the start (E8M0).
    Power,
    /// Four 8-bit floats at the start (E4M3 without sign).
    Bytes,
}

/// Where the scales and minima of a block are, and how large its largest code is; `None` for plain types.
///
/// Offsets are those of the block structs in ggml (`ggml-common.h`).
const fn scales(dtype: DType) -> Option<(Scales, f64)> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => None,
        DType::Q4_0 => Some((Scales::Half(0), 8.0)),
        DType::Q4_1 => Some((Scales::HalfAndMin(0, 2), 15.0)),
        DType::Q5_0 => Some((Scales::Half(0), 16.0)),
        DType::Q5_1 => Some((Scales::HalfAndMin(0, 2), 31.0)),
        DType::Q8_0 => Some((Scales::Half(0), 128.0)),
        DType::Q2K => Some((Scales::HalfAndMin(80, 82), 15.0 * 3.0)),
        DType::Q3K => Some((Scales::Half(108), 32.0 * 4.0)),
        DType::Q4K => Some((Scales::HalfAndMin(0, 2), 63.0 * 15.0)),
        DType::Q5K => Some((Scales::HalfAndMin(0, 2), 63.0 * 31.0)),
        DType::Q6K => Some((Scales::Half(208), 128.0 * 32.0)),
        DType::Iq4Nl => Some((Scales::Half(0), 127.0)),
        DType::Iq4Xs => Some((Scales::Half(0), 32.0 * 127.0)),
        DType::Iq2Xxs | DType::Iq2Xs | DType::Iq2S => Some((Scales::Half(0), 15.5 * 0.25 * 43.0)),
        DType::Iq3Xxs => Some((Scales::Half(0), 15.5 * 0.5 * 62.0)),
        DType::Iq3S => Some((Scales::Half(0), 31.0 * 15.0)),
        DType::Iq1S => Some((Scales::Half(0), 15.0 * 1.125)),
        DType::Iq1M => Some((Scales::Nibbles(48), 15.0 * 1.125)),
        DType::Mxfp4 => Some((Scales::Power, 6.0)),
        DType::Nvfp4 => Some((Scales::Bytes, 6.0)),
        DType::F4F32 => Some((Scales::Singles(2), 6.0)),
        DType::I8F32 => Some((Scales::Singles(1), 128.0)),
        DType::F8F32 => Some((Scales::Singles(1), 448.0)),
    }
}

/// Gives a block of random bits a scale at which its largest value is about `size`.
fn set_scale(rng: &mut Rng, dtype: DType, scales: &Scales, largest: f64, size: f64, block: &mut [u8]) {
    // Every fourth scale is negative, every sixteenth zero.
    let sign = [1.0, 1.0, 1.0, -1.0][rng.below(4)] * f64::from(u8::from(rng.below(16) > 0));
    let d = sign * (0.5 + rng.unit()) * size / largest;
    let half = |v: f64| half::f16::from_f64(v).to_le_bytes();
    match *scales {
        Scales::Half(at) => block[at..at + 2].copy_from_slice(&half(d)),
        Scales::HalfAndMin(at, min_at) => {
            // Types with 6- or 4-bit minima subtract them, the others add the f16.
            let m = match dtype {
                DType::Q4_1 | DType::Q5_1 => -d * largest / 2.0,
                DType::Q2K => d * 1.5,
                DType::Q4K => d * 7.5,
                _ => d * 15.5,
            };
            block[at..at + 2].copy_from_slice(&half(d));
            block[min_at..min_at + 2].copy_from_slice(&half(m));
        }
        Scales::Nibbles(at) => {
            let bits = half::f16::from_f64(d).to_bits();
            for (i, word) in block[at..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                word[1] = (word[1] & 15) | (((bits >> (4 * i)) as u8 & 15) << 4);
            }
        }
        Scales::Singles(n) => {
            for (scale, part) in block.as_chunks_mut::<4>().0.iter_mut().zip([1.0, 0.75]).take(n) {
                *scale = ((d * part) as f32).to_le_bytes();
            }
        }
        Scales::Power => block[0] = (127.0 + d.abs().max(f64::MIN_POSITIVE).log2()).clamp(0.0, 254.0) as u8,
        Scales::Bytes => {
            for byte in &mut block[..4] {
                // A byte's steps of eight are powers of two; 56 is 1.
                let d = (0.5 + rng.unit()) * size / largest;
                *byte = (56.0 + 8.0 * d.log2()).clamp(0.0, 126.0) as u8;
            }
        }
    }
    if matches!(dtype, DType::F8F32) {
        // Two of the codes are not numbers.
        block[4..].iter_mut().filter(|q| **q & 0x7f == 0x7f).for_each(|q| *q ^= 1);
    }
}

/// A matrix as a backend takes it and as the definitions take it.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// `[rows, cols]` of the stored type.
    pub tensor: Tensor,
    /// The same, decoded.
    pub weights: Weights,
}

impl Matrix {
    /// Random weights of size about `deviation`.
    ///
    /// # Panics
    /// If rows of `cols` values can't be made of whole blocks.
    pub fn random(rng: &mut Rng, dtype: DType, rows: usize, cols: usize, deviation: f64) -> Matrix {
        let len = rows * dtype.row_bytes(cols).expect("conformance: a case with rows of whole blocks");
        let mut bytes = Vec::with_capacity(len + 8);
        match scales(dtype) {
            None => {
                for v in rng.normal(rows * cols, deviation) {
                    match dtype {
                        DType::F16 => bytes.extend(half::f16::from_f64(v).to_le_bytes()),
                        DType::BF16 => bytes.extend(half::bf16::from_f64(v).to_le_bytes()),
                        _ => bytes.extend((v as f32).to_le_bytes()),
                    }
                }
            }
            Some((scales, largest)) => {
                while bytes.len() < len {
                    bytes.extend(rng.bits().to_le_bytes());
                }
                bytes.truncate(len);
                for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                    set_scale(rng, dtype, &scales, largest, 2.0 * deviation, block);
                }
            }
        }
        Matrix::from_bytes(dtype, rows, cols, bytes)
    }

    /// Plain f32 weights.
    pub fn from_values(rows: usize, cols: usize, values: &[f64]) -> Matrix {
        let bytes = values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
        Matrix::from_bytes(DType::F32, rows, cols, bytes)
    }

    fn from_bytes(dtype: DType, rows: usize, cols: usize, bytes: Vec<u8>) -> Matrix {
        let mut decoded = vec![0f32; rows * cols];
        let row_bytes = bytes.len() / rows;
        for (row, out) in bytes.chunks_exact(row_bytes).zip(decoded.chunks_exact_mut(cols)) {
            quant::decode_row(dtype, row, out);
        }
        let values: Vec<f64> = decoded.into_iter().map(f64::from).collect();
        // Codes of a block spread over their whole range (they are random), so `|d·q| + |m|` is at most eight
        // times the largest value of 32 neighbours.
        let spread = if dtype.block_len() > 1 { 8.0 } else { 0.0 };
        let terms = values
            .chunks(32)
            .flat_map(|block| {
                let amax = block.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                block.iter().map(move |v| v.abs() + spread * amax)
            })
            .collect();
        let data = Bytes::from_vec(bytes);
        let tensor = Tensor { name: format!("{dtype} {rows}x{cols}"), dtype, shape: vec![rows, cols], data };
        Matrix { tensor, weights: Weights { cols, values, terms } }
    }

    /// Some rows of it.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Weights {
        let cols = self.weights.cols;
        let range = rows.start * cols..rows.end * cols;
        Weights { cols, values: self.weights.values[range.clone()].to_vec(), terms: self.weights.terms[range].to_vec() }
    }
}

/// Types whose blocks fit rows of `cols` values.
pub fn dtypes_of(cols: usize) -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(move |t| t.row_bytes(cols).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_have_the_size_asked_for_in_every_type() {
        for dtype in DType::ALL {
            let matrix = Matrix::random(&mut Rng::new(1), dtype, 16, 512, 0.05);
            let squares: f64 = matrix.weights.values.iter().map(|v| v * v).sum();
            let deviation = (squares / matrix.weights.values.len() as f64).sqrt();
            assert!((0.01..0.25).contains(&deviation), "{dtype}: {deviation}");
        }
    }
}
