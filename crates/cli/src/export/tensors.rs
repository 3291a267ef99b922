//! Tensors from one type to another, a few rows at a time.

use std::io;
use std::ops::Range;

use carat_tensor::quant::{decode_row, encode_row, encode_row_weighted};
use carat_tensor::{DType, Tensor};

/// Values that each thread works on between two writes: 4 MiB of them.
const PIECE: usize = 1 << 20;

/// Squares of errors and of values, for a relative error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Squares {
    /// `Σ (x' − x)²`.
    pub wrong: f64,
    /// `Σ x²`.
    pub all: f64,
}

impl Squares {
    /// `√(wrong / all)`.
    pub fn relative_error(self) -> f64 {
        if self.all > 0.0 { (self.wrong / self.all).sqrt() } else { 0.0 }
    }

    /// Adds others.
    pub fn add(&mut self, other: Squares) {
        self.wrong += other.wrong;
        self.all += other.all;
    }
}

/// How tensors are brought into their types.
pub struct Encoder {
    /// Threads that work.
    pub threads: usize,
    /// Whether to measure what is lost.
    pub measure: bool,
}

impl Encoder {
    /// Gives `sink` the tensor's data in type `to`, piece by piece. `importance` weighs errors by column; where
    /// matrices of several experts follow each other, each may have weights of its own.
    ///
    /// # Errors
    /// What `sink` returns, or that a quantised type is to hold a value that isn't finite.
    pub fn encode(
        &self,
        tensor: &Tensor,
        to: DType,
        importance: Option<&[f32]>,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Squares> {
        if tensor.dtype == to {
            tensor.data.chunks(4 * PIECE).try_for_each(sink)?;
            return Ok(Squares::default());
        }
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let share = (PIECE / cols.max(1)).max(1);
        let mut squares = Squares::default();
        for start in (0..rows).step_by(share * self.threads) {
            let end = (start + share * self.threads).min(rows);
            let work = |part: Range<usize>| self.rows(tensor, to, importance, part);
            let pieces = std::thread::scope(|scope| {
                let parts = (start..end).step_by(share).map(|first| first..(first + share).min(end));
                let workers: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
                workers.into_iter().map(|w| w.join().expect("encoding does not panic")).collect::<Vec<_>>()
            });
            for piece in pieces {
                let (bytes, part) = piece?;
                sink(&bytes)?;
                squares.add(part);
            }
        }
        Ok(squares)
    }

    fn rows(
        &self,
        tensor: &Tensor,
        to: DType,
        importance: Option<&[f32]>,
        rows: Range<usize>,
    ) -> io::Result<(Vec<u8>, Squares)> {
        let cols = tensor.cols();
        let row_of = |dtype: DType| dtype.row_bytes(cols).expect("types were chosen for the rows' length");
        let (from_bytes, to_bytes) = (row_of(tensor.dtype), row_of(to));
        let mut out = vec![0; rows.len() * to_bytes];
        let (mut values, mut back) = (vec![0.0; cols], vec![0.0; cols]);
        let mut squares = Squares::default();
        for (row, out) in rows.zip(out.chunks_exact_mut(to_bytes)) {
            decode_row(tensor.dtype, &tensor.data[row * from_bytes..][..from_bytes], &mut values);
            if let (true, Some(col)) = (to.is_quantised(), values.iter().position(|v| !v.is_finite())) {
                let (name, value) = (&tensor.name, values[col]);
                let what = format!(
                    "tensor `{name}` has {value} in row {row}, column {col}, and {to} holds finite values only"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            match importance.map(|w| weights_of(w, row, tensor.rows(), cols)) {
                Some(weights) => encode_row_weighted(to, &values, weights, out),
                None => encode_row(to, &values, out),
            }
            if self.measure {
                decode_row(to, out, &mut back);
                for (&x, &back) in values.iter().zip(&back) {
                    let (x, back) = (f64::from(x), f64::from(back));
                    squares.wrong += (back - x) * (back - x);
                    squares.all += x * x;
                }
            }
        }
        Ok((out, squares))
    }
}

/// The weights of a row: those of the tensor, or of the expert the row is of.
fn weights_of(weights: &[f32], row: usize, rows: usize, cols: usize) -> &[f32] {
    let experts = weights.len() / cols;
    let expert = row * experts / rows;
    &weights[expert * cols..][..cols]
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_tensor::Bytes;

    fn tensor(rows: usize, cols: usize) -> Tensor {
        let values = (0..rows * cols).map(|i| ((i * 37) % 251) as f32 / 125.0 - 1.0);
        let data = values.flat_map(f32::to_le_bytes).collect();
        Tensor { name: "t".into(), dtype: DType::F32, shape: vec![rows, cols], data: Bytes::from_vec(data) }
    }

    fn encode(threads: usize, tensor: &Tensor, to: DType) -> (Vec<u8>, Squares) {
        let mut out = Vec::new();
        let encoder = Encoder { threads, measure: true };
        let squares = encoder.encode(tensor, to, None, |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        (out, squares.expect("memory takes everything"))
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let tensor = tensor(4099, 256);
        let (one, squares) = encode(1, &tensor, DType::Q8_0);
        let (three, _) = encode(3, &tensor, DType::Q8_0);
        assert_eq!(one, three);
        assert!((1e-4..1e-2).contains(&squares.relative_error()), "{squares:?}");
    }

    #[test]
    fn the_same_type_is_copied() {
        let tensor = tensor(3, 7);
        let (copy, squares) = encode(2, &tensor, DType::F32);
        assert_eq!(copy[..], tensor.data[..]);
        assert_eq!(squares.relative_error(), 0.0);
    }

    #[test]
    fn every_expert_has_its_own_weights() {
        let weights: Vec<f32> = (0..6).map(|i| i as f32).collect();
        assert_eq!(weights_of(&weights, 0, 8, 2), [0.0, 1.0]);
        assert_eq!(weights_of(&weights[..2], 7, 8, 2), [0.0, 1.0]);
        assert_eq!(weights_of(&weights, 3, 6, 2), [2.0, 3.0]);
        assert_eq!(weights_of(&weights, 5, 6, 2), [4.0, 5.0]);
    }
}
