//! NVFP4 tensors of GGUF files that have a second scale in a tensor of its own.
//!
//! `NAME.weight` and `NAME.scale`: one factor for the whole matrix, or one for each expert. Kernels know no such
//! factor, so the tensor is rearranged in memory, its two scales multiplied in f32.
//!
//! Source: llama.cpp `conversion/base.py` (`_repack_nvfp4`), `src/llama-graph.cpp`.

use carat_tensor::quant::{BlockNvfp4, Coded, integers};
use carat_tensor::{Bytes, DType, Tensor};
use carat_weights::{Weights, release};

use super::source::values;
use crate::ModelError;

/// The name of the second scale of a matrix.
fn scale_name(name: &str) -> Option<String> {
    name.strip_suffix(".weight").map(|stem| format!("{stem}.scale"))
}

/// What a tensor of so many bytes becomes if it has a second scale: how many values, in which type.
pub(super) fn becomes(tensors: &Weights, name: &str, bytes: usize) -> Option<(usize, DType)> {
    let scale = scale_name(name)?;
    tensors.contains(&scale).then(|| (bytes / DType::Nvfp4.block_bytes() * 64, DType::F4F32))
}

/// The tensor with its second scale, if the file has one.
pub(super) fn with_second_scale(tensors: &Weights, tensor: Tensor) -> Result<Tensor, ModelError> {
    let Some(scale) = scale_name(&tensor.name) else { return Ok(tensor) };
    let Some(factors) = tensors.take_optional(&scale)? else { return Ok(tensor) };
    let factors = values(&factors)?;
    let matrices: usize = tensor.shape.iter().rev().skip(2).product();
    if factors.len() != 1 && factors.len() != matrices {
        return Err(ModelError::WrongShape { name: scale, found: vec![factors.len()], expected: vec![matrices] });
    }
    let blocks = tensor.data.chunks_exact(DType::Nvfp4.block_bytes());
    let per_factor = blocks.len() / factors.len();
    let mut data = Vec::with_capacity(blocks.len() * 2 * DType::F4F32.block_bytes());
    for (i, block) in blocks.enumerate() {
        let mut scales = [0.0; 4];
        integers(DType::Nvfp4, block, &mut [0; 64], &mut scales);
        let (_, codes) = block.split_at(4);
        for (scales, codes) in scales.chunks_exact(2).zip(codes.chunks_exact(16)) {
            // The integers' scale is half of the values', for the table holds twice those.
            data.extend(scales.iter().flat_map(|s| (2.0 * s * factors[i / per_factor]).to_le_bytes()));
            data.extend(codes);
        }
    }
    release(&tensor.data);
    const { assert!(<BlockNvfp4 as Coded>::GROUP == 16, "two groups make a block of 32") };
    Ok(Tensor { dtype: DType::F4F32, data: Bytes::from_vec(data), ..tensor })
}
