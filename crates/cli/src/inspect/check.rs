//! `carat inspect --check`: reads every weight and names the tensors that hold what is no number.
//!
//! Loading doesn't: weights stay in the file until they are used. A model whose logits are not finite has such a tensor,
//! unless its computation overflows.

use std::io::Write;

use anyhow::bail;
use carat_tensor::DType;
use carat_tensor::quant::decode_row;
use carat_weights::{StoredType, TensorInfo, Weights};

/// Values decoded at a time, whole blocks of every type.
const PIECE: usize = 1 << 16;
/// How many tensors an error names.
const NAMES_SHOWN: usize = 8;

/// Reads all tensors of a model, and of its encoders where they are in another file.
///
/// # Errors
/// If there are NaN or infinite values, with the first of them in each tensor.
pub fn run<'a>(files: impl Iterator<Item = &'a Weights>, out: &mut dyn Write) -> anyhow::Result<()> {
    let (mut checked, mut codes) = (0, 0);
    for tensors in files {
        let (before, mut broken) = (checked, Vec::new());
        for tensor in tensors.iter() {
            match tensor.dtype {
                StoredType::Known(dtype) => {
                    checked += 1;
                    broken.extend(first_not_finite(tensor, dtype));
                }
                StoredType::Other(_) => codes += 1,
            }
        }
        if !broken.is_empty() {
            let more = if broken.len() > NAMES_SHOWN { ", …" } else { "" };
            let names: Vec<String> = broken.iter().take(NAMES_SHOWN).map(ToString::to_string).collect();
            bail!(
                "{}: {} of {} tensors hold values that are not finite: {}{more}; get the files again, or convert the \
                 model again",
                tensors.source(),
                broken.len(),
                checked - before,
                names.join(", ")
            );
        }
    }
    let codes = if codes > 0 { format!("; {codes} tensors of codes have no such values") } else { String::new() };
    writeln!(out, "\nchecked     {checked} tensors: all values are finite{codes}")?;
    Ok(())
}

/// A tensor's first value that is no number.
#[derive(Debug, PartialEq)]
struct NotFinite<'a> {
    tensor: &'a str,
    index: usize,
    value: f32,
}

impl std::fmt::Display for NotFinite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` (value {}: {})", self.tensor, self.index, self.value)
    }
}

fn first_not_finite(tensor: &TensorInfo, dtype: DType) -> Option<NotFinite<'_>> {
    let mut values = vec![0.0; PIECE];
    let piece = PIECE / dtype.block_len() * dtype.block_bytes();
    tensor.data.chunks(piece).enumerate().find_map(|(i, bytes)| {
        let values = &mut values[..bytes.len() / dtype.block_bytes() * dtype.block_len()];
        decode_row(dtype, bytes, values);
        let at = values.iter().position(|v| !v.is_finite())?;
        Some(NotFinite { tensor: &tensor.name, index: i * PIECE + at, value: values[at] })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_tensor::Bytes;

    #[test]
    fn the_first_value_that_is_no_number_is_found_in_any_piece() {
        let mut halves = vec![0u8; 2 * (PIECE + 9)];
        let tensor = |data: Vec<u8>| TensorInfo {
            name: "t".into(),
            dtype: StoredType::Known(DType::F16),
            shape: vec![PIECE + 9],
            data: Bytes::from_vec(data),
        };
        assert_eq!(first_not_finite(&tensor(halves.clone()), DType::F16), None);
        halves[2 * (PIECE + 5)..][..2].copy_from_slice(&0xfc00_u16.to_le_bytes());
        let found = NotFinite { tensor: "t", index: PIECE + 5, value: f32::NEG_INFINITY };
        assert_eq!(first_not_finite(&tensor(halves), DType::F16), Some(found));
    }
}
