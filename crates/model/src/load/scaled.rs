//! Weights whose scales lie in tensors of their own, brought into blocks.
//!
//! Quantised Hugging Face checkpoints hold a matrix as codes and scales apart, and sometimes a second scale for the
//! whole. Kernels want both side by side, so such a matrix is rearranged in memory when it is loaded; no value
//! changes. The type is the smallest that holds every code and every scale exactly.
//!
//! | stored as | codes | scales | becomes |
//! | --- | --- | --- | --- |
//! | `pack-quantized` | `_packed`: up to 8 bits in `i32` words | per group or row, with or without `_zero_point` | Q4_0, Q8_0 or I8 x F32 |
//! | `int-quantized` | I8 | per row or the whole | Q8_0 or I8 x F32 |
//! | `float-quantized`, `fp8` | F8_E4M3 | the whole, per row, or per block of rows and columns | F8_E4M3 x F32 |
//! | `nvfp4-pack-quantized`, NVFP4 | `_packed` or U8: two 4-bit floats a byte | F8_E4M3 per 16, times one or more factors | F4_E2M1 x F32 |
//! | `mxfp4-pack-quantized` | as above | U8, a power of two per 32 | MXFP4 |
//!
//! Sources: compressed-tensors `compressors/`, transformers `integrations/finegrained_fp8.py`, llama.cpp
//! `conversion/base.py`.

mod find;

use carat_tensor::quant::e4m3;
use carat_tensor::{Bytes, DType, Tensor};
use carat_weights::{StoredType, TensorInfo, Weights, release};
use half::{bf16, f16};

use super::quantization::Quantization;
use crate::ModelError;
use find::{Finder, WIDTHS};

/// Values of a block that is made; scales must not change within.
const BLOCK: usize = 32;

/// A matrix as codes and scales.
pub(super) struct Scaled<'a> {
    name: String,
    shape: Vec<usize>,
    codes: Codes<'a>,
    scales: Grid<'a>,
    second: Second,
}

/// What every scale is multiplied with or divided by: one number for the whole matrix or one for each expert, or none.
enum Second {
    Times(Vec<f32>),
    Over(Vec<f32>),
}

#[derive(Clone, Copy)]
enum Codes<'a> {
    /// Unsigned integers of `bits` in little-endian words of 32 bits, lowest first; rows begin a word. Zero points are
    /// packed likewise, but along rows.
    Packed { words: &'a [u8], bits: usize, zeros: Option<&'a [u8]> },
    /// Signed bytes.
    Int8(&'a [u8]),
    /// Floats of one byte.
    Float8(&'a [u8]),
    /// Floats of half a byte, low nibble first.
    Float4(&'a [u8]),
}

/// How a scale is stored.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    F32,
    F16,
    BF16,
    /// An 8-bit float.
    E4M3,
    /// A power of two.
    E8M0,
}

/// Scales for rows and columns of one matrix, or of several that follow each other.
struct Grid<'a> {
    data: &'a [u8],
    kind: Kind,
    /// Scales per row of scales.
    width: usize,
    /// Rows of weights, and of scales, of each of the matrices.
    rows: (usize, usize),
    /// Weights that share a scale, in rows and columns.
    step: (usize, usize),
}

impl Grid<'_> {
    fn at(&self, row: usize, col: usize) -> f32 {
        let (matrix, row) = (row / self.rows.0, row % self.rows.0);
        let i = (matrix * self.rows.1 + row / self.step.0) * self.width + col / self.step.1;
        let two = || [self.data[2 * i], self.data[2 * i + 1]];
        match self.kind {
            Kind::F32 => f32::from_le_bytes([0, 1, 2, 3].map(|k| self.data[4 * i + k])),
            Kind::F16 => f16::from_le_bytes(two()).to_f32(),
            Kind::BF16 => bf16::from_le_bytes(two()).to_f32(),
            Kind::E4M3 => e4m3(self.data[i]),
            Kind::E8M0 => power(self.data[i]),
        }
    }
}

/// `2^(e − 127)`.
fn power(e: u8) -> f32 {
    if e == 0 { f32::from_bits(0x0040_0000) } else { f32::from_bits(u32::from(e) << 23) }
}

impl<'a> Scaled<'a> {
    /// The matrix `name` of this shape, if the file holds it as codes and scales.
    ///
    /// # Errors
    /// If codes are there and what belongs to them is missing or doesn't fit.
    pub fn find(
        weights: &'a Weights,
        name: &str,
        shape: &[usize],
        quantization: &Quantization,
    ) -> Result<Option<Self>, ModelError> {
        let found = Self::look(weights, name, shape, quantization)?;
        if found.is_some() {
            for end in ["", PACKED].into_iter().chain(COMPANIONS) {
                weights.ignore(&format!("{name}{end}"));
            }
        }
        Ok(found)
    }

    /// As [`Scaled::find`], which also notes that the tensors are used.
    fn look(
        weights: &'a Weights,
        name: &str,
        shape: &[usize],
        quantization: &Quantization,
    ) -> Result<Option<Self>, ModelError> {
        let packed = weights.get(&format!("{name}{PACKED}"));
        let Some(info) = packed.or_else(|| weights.get(name)) else { return Ok(None) };
        let StoredType::Other(stored) = info.dtype else { return Ok(None) };
        let finder = Finder { weights, name, shape, quantization };
        let codes = finder.codes(info, stored, packed.is_some())?;
        let scales = finder.scales(codes)?;
        let found = Scaled { name: name.into(), shape: shape.into(), codes, scales, second: finder.second()? };
        found.check(quantization)?;
        Ok(Some(found))
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    fn refuse(&self, found: impl Into<String>, expected: impl Into<String>) -> ModelError {
        layout(&self.name, found, expected)
    }

    fn check(&self, quantization: &Quantization) -> Result<(), ModelError> {
        if self.shape.contains(&0) {
            return Err(self.refuse(format!("shape {:?}", self.shape), "at least one row and column"));
        }
        let (_, step) = self.scales.step;
        let needed = if matches!(self.codes, Codes::Float4(_)) { BLOCK / 2 } else { BLOCK };
        if !self.cols().is_multiple_of(BLOCK) {
            return Err(self.refuse(format!("rows of {}", self.cols()), format!("a multiple of {BLOCK}")));
        }
        if step < self.cols() && !step.is_multiple_of(needed) {
            return Err(self.refuse(format!("a scale for every {step} columns"), format!("multiples of {needed}")));
        }
        if let Codes::Packed { bits, .. } = self.codes {
            quantization.check_group(&self.name, bits, step, self.cols())?;
        }
        Ok(())
    }

    /// The scale of a weight.
    fn scale(&self, row: usize, col: usize) -> f32 {
        let scale = self.scales.at(row, col);
        let rows = self.shape.iter().rev().nth(1).copied().unwrap_or(1);
        let of = |values: &[f32]| values.get(row / rows).or(values.first()).copied();
        match &self.second {
            Second::Times(values) => scale * of(values).unwrap_or(1.0),
            Second::Over(values) => scale / of(values).unwrap_or(1.0),
        }
    }

    /// Whether scales are those of MXFP4's blocks, and nothing else is to be applied.
    fn is_mxfp4(&self) -> bool {
        let alone = matches!(&self.second, Second::Times(values) if values.is_empty());
        alone && self.scales.kind == Kind::E8M0 && self.scales.step == (1, BLOCK)
    }

    /// The smallest type that holds codes and scales exactly.
    pub fn dtype(&self) -> DType {
        let halves = || {
            let steps = self.cols().div_ceil(self.scales.step.1);
            let exact = |row, col: usize| {
                let scale = self.scale(row, col * self.scales.step.1);
                f16::from_f32(scale).to_f32().to_bits() == scale.to_bits()
            };
            (0..self.rows()).all(|row| (0..steps).all(|col| exact(row, col)))
        };
        match self.codes {
            Codes::Float8(_) => DType::F8F32,
            Codes::Float4(_) if self.is_mxfp4() => DType::Mxfp4,
            Codes::Float4(_) => DType::F4F32,
            Codes::Packed { bits: ..=4, zeros: None, .. } if halves() => DType::Q4_0,
            Codes::Packed { .. } | Codes::Int8(_) if halves() => DType::Q8_0,
            Codes::Packed { .. } | Codes::Int8(_) => DType::I8F32,
        }
    }

    /// The matrix in blocks of `dtype`: that of [`Scaled::dtype`], or I8 x F32 where it gave an integer type.
    pub fn tensor(&self, dtype: DType) -> Result<Tensor, ModelError> {
        let row_bytes = dtype.row_bytes(self.cols()).expect("whole blocks, as checked");
        let rows = self.rows();
        let mut data = vec![0; rows * row_bytes];
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = rows.div_ceil(threads).max(1);
        let parts = data.chunks_mut((share * row_bytes).max(1)).enumerate();
        let done: Result<(), ModelError> = std::thread::scope(|scope| {
            let workers: Vec<_> = parts
                .map(|(part, data)| {
                    scope.spawn(move || {
                        let mut rows = data.chunks_exact_mut(row_bytes).enumerate();
                        rows.try_for_each(|(row, out)| self.fill(dtype, part * share + row, out))
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("workers return their errors"))
        });
        done?;
        match self.codes {
            Codes::Packed { words: codes, .. } | Codes::Int8(codes) | Codes::Float8(codes) | Codes::Float4(codes) => {
                release(codes);
            }
        }
        release(self.scales.data);
        Ok(Tensor { name: self.name.clone(), dtype, shape: self.shape.clone(), data: Bytes::from_vec(data) })
    }

    fn fill(&self, dtype: DType, row: usize, out: &mut [u8]) -> Result<(), ModelError> {
        for (b, block) in out.chunks_exact_mut(dtype.block_bytes()).enumerate() {
            let col = b * BLOCK;
            match self.codes {
                Codes::Float8(codes) => {
                    let (scale, qs) = block.split_at_mut(4);
                    scale.copy_from_slice(&self.scale(row, col).to_le_bytes());
                    qs.copy_from_slice(&codes[row * self.cols() + col..][..BLOCK]);
                }
                Codes::Float4(codes) => {
                    self.fill_floats(dtype, &codes[(row * self.cols() + col) / 2..], row, col, block)
                }
                Codes::Packed { .. } | Codes::Int8(_) => self.fill_integers(dtype, row, col, block)?,
            }
        }
        Ok(())
    }

    /// Pairs of neighbours, two to a byte, become pairs of the halves of a group.
    fn fill_floats(&self, dtype: DType, codes: &[u8], row: usize, col: usize, block: &mut [u8]) {
        let nibble = |i: usize| (codes[i / 2] >> (4 * (i % 2))) & 15;
        let pair = |first: usize, half: usize| nibble(first) | (nibble(first + half) << 4);
        if dtype == DType::Mxfp4 {
            block[0] = self.scales.data[row * self.scales.width + col / BLOCK];
            block[1..].iter_mut().enumerate().for_each(|(i, q)| *q = pair(i, 16));
            return;
        }
        let (scales, qs) = block.split_at_mut(8);
        for (g, scale) in scales.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *scale = self.scale(row, col + 16 * g).to_le_bytes();
        }
        qs.iter_mut().enumerate().for_each(|(i, q)| *q = pair(i / 8 * 16 + i % 8, 8));
    }

    fn fill_integers(&self, dtype: DType, row: usize, col: usize, block: &mut [u8]) -> Result<(), ModelError> {
        let q = self.integers(row, col)?;
        let scale = self.scale(row, col);
        if dtype == DType::I8F32 {
            block[..4].copy_from_slice(&scale.to_le_bytes());
        } else {
            block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
        match dtype {
            DType::Q4_0 => {
                let (low, high) = q.split_at(16);
                for ((out, low), high) in block[2..].iter_mut().zip(low).zip(high) {
                    *out = (low + 8) as u8 | (((high + 8) as u8) << 4);
                }
            }
            _ => {
                let at = block.len() - BLOCK;
                block[at..].iter_mut().zip(q).for_each(|(out, q)| *out = q as u8);
            }
        }
        Ok(())
    }

    /// 32 integers, zero points taken off.
    fn integers(&self, row: usize, col: usize) -> Result<[i8; BLOCK], ModelError> {
        let (words, bits, zeros) = match self.codes {
            Codes::Packed { words, bits, zeros } => (words, bits, zeros),
            Codes::Int8(bytes) | Codes::Float8(bytes) | Codes::Float4(bytes) => {
                let at = row * self.cols() + col;
                return Ok(std::array::from_fn(|i| bytes[at + i] as i8));
            }
        };
        let per_word = 32 / bits;
        let unpack = |words: &[u8], stride: usize, line: usize, i: usize| {
            let at = 4 * (line * stride + i / per_word);
            let word = u32::from_le_bytes([0, 1, 2, 3].map(|k| words[at + k]));
            ((word >> (bits * (i % per_word))) & ((1 << bits) - 1)) as i32
        };
        let zero = match zeros {
            None => 1 << (bits - 1),
            Some(zeros) => {
                // Packed along rows: word row r holds the zero points of rows `r · per_word ..` of one column.
                let (line, shift) = (row / per_word, bits * (row % per_word));
                let at = 4 * (line * self.scales.width + col / self.scales.step.1);
                let word = u32::from_le_bytes([0, 1, 2, 3].map(|k| zeros[at + k]));
                ((word >> shift) & ((1 << bits) - 1)) as i32
            }
        };
        let stride = self.cols().div_ceil(per_word);
        let mut q = [0; BLOCK];
        for (i, q) in q.iter_mut().enumerate() {
            let value = unpack(words, stride, row, col + i) - zero;
            *q = i8::try_from(value)
                .map_err(|_| self.refuse(format!("code {value} with its zero point"), "-128 to 127".to_owned()))?;
        }
        Ok(q)
    }
}

/// What a tensor of codes becomes when it is loaded: how many values, in which type; `None` for other tensors, and for those
/// that can't be read, which loading tells.
pub(super) fn becomes(weights: &Weights, info: &TensorInfo, quantization: &Quantization) -> Option<(usize, DType)> {
    let StoredType::Other(stored) = info.dtype else { return None };
    let name = info.name.strip_suffix(PACKED).unwrap_or(&info.name);
    let is_weight = name != info.name || name.ends_with("_proj") || name.ends_with(".weight");
    let per_code: &[usize] = match stored {
        _ if !is_weight => return None,
        "I32" => &WIDTHS.map(|bits| 32 / bits),
        "U8" => &[2],
        _ => &[1],
    };
    let rows: usize = info.shape.iter().rev().skip(1).product();
    let noted = noted_columns(weights, name);
    per_code.iter().find_map(|codes| {
        let mut shape = info.shape.clone();
        let cols = shape.last_mut()?;
        *cols = cols.checked_mul(*codes)?;
        // Words of 4 bits may hold as many as those of 8 bits, and a few more.
        *cols = noted.filter(|noted| noted.div_ceil(*codes) * codes == *cols).unwrap_or(*cols);
        if noted.is_some_and(|noted| noted != *cols) {
            return None;
        }
        let cols = *cols;
        let found = Scaled::look(weights, name, &shape, quantization).ok()??;
        Some((rows * cols, found.dtype()))
    })
}

/// Whether `name` is what lies beside a matrix of codes.
pub(super) fn is_companion(weights: &Weights, name: &str) -> bool {
    let codes = |name: &str| weights.get(name).is_some_and(|info| matches!(info.dtype, StoredType::Other(_)));
    let mut stems = COMPANIONS.iter().filter_map(|end| name.strip_suffix(end));
    stems.any(|stem| codes(stem) || codes(&format!("{stem}{PACKED}")))
}

/// The columns of a packed matrix, where a tensor of integers beside it notes its shape.
fn noted_columns(weights: &Weights, name: &str) -> Option<usize> {
    let noted = weights.get(&format!("{name}_shape"))?;
    let last = match noted.dtype {
        StoredType::Other("I64") => i64::from_le_bytes(*noted.data.last_chunk()?),
        StoredType::Other("I32") => i32::from_le_bytes(*noted.data.last_chunk()?).into(),
        _ => return None,
    };
    usize::try_from(last).ok()
}

/// The end of the names of packed codes.
pub(super) const PACKED: &str = "_packed";
/// What may lie beside a matrix, appended to its name; `_shape` and `_packed` say nothing that shapes don't.
const COMPANIONS: [&str; 6] = ["_shape", "_scale", "_scale_inv", "_scale_2", "_global_scale", "_zero_point"];

fn layout(name: &str, found: impl Into<String>, expected: impl Into<String>) -> ModelError {
    ModelError::Layout { name: name.into(), found: found.into(), expected: expected.into() }
}
