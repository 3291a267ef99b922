//! Quantised weights: the blocks of every type, and checkpoints that keep codes and scales apart.

use carat_model::load::{ModelTensors, file_bytes};
use carat_tensor::quant::decode_row;
use carat_tensor::{Bytes, DType};
use carat_weights::{Checkpoint, HfDir, Weights, safetensors};

/// Blocks: the first byte is the type, the rest is its blocks. Any bytes decode, one by one as all at once, and values
/// are finite where no scale is NaN, infinite or next to it.
pub fn blocks(data: &[u8]) -> bool {
    let Some((first, rest)) = data.split_first() else { return false };
    let dtype = DType::ALL[usize::from(*first) % DType::ALL.len()];
    let (len, size) = (dtype.block_len(), dtype.block_bytes());
    let rest = &rest[..rest.len() / size * size];
    let mut all = vec![0.0; rest.len() / size * len];
    decode_row(dtype, rest, &mut all);
    let mut one = vec![0.0; len];
    for (block, values) in rest.chunks_exact(size).zip(all.chunks_exact(len)) {
        decode_row(dtype, block, &mut one);
        assert!(one.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype}: a block alone differs");
        if has_tame_scales(dtype, block) {
            assert!(values.iter().all(|v| v.is_finite()), "{dtype}: {block:02x?} has values that are not finite");
        }
    }
    true
}

/// Whether everything in a block that can be read as a scale of its kind is far from infinity: f16 and bf16 lie at even
/// bytes, f32 at multiples of four, single bytes anywhere. Sufficient, not necessary.
fn has_tame_scales(dtype: DType, block: &[u8]) -> bool {
    let words = || block.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    match dtype {
        // The largest exponents of f32 and bf16, and half of them for products of scale and code.
        DType::F32 | DType::F4F32 | DType::I8F32 => block.iter().skip(3).step_by(4).all(|b| b & 0x7f < 0x60),
        DType::F8F32 => block.iter().all(|b| b & 0x7f < 0x60),
        DType::BF16 => words().all(|w| w & 0x7fff < 0x7f80),
        DType::Mxfp4 => block[0] < 250,
        DType::Nvfp4 => block[..4].iter().all(|b| b & 0x7f != 0x7f),
        // Its scale's four parts of four bits lie in the upper bits of the last four words.
        DType::Iq1M => {
            let tops = block[48..].as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b) >> 12);
            let scale = tops.enumerate().fold(0, |scale, (i, top)| scale | top << (4 * i));
            scale & 0x7c00 != 0x7c00
        }
        _ => words().all(|w| w & 0x7c00 != 0x7c00),
    }
}

/// A `config.json`, NUL, a safetensors file: matrices that are made of codes and scales are as large as they were
/// announced, and no larger than their codes justify.
pub fn quantised_checkpoint(data: &[u8]) -> bool {
    let Some(at) = data.iter().position(|b| *b == 0) else { return false };
    let Ok(config) = serde_json::from_slice(&data[..at]) else { return false };
    let Ok(tensors) = safetensors::read("input", &Bytes::from_vec(data[at + 1..].to_vec())) else { return false };
    let tensors = Weights::new("input".into(), tensors).expect("the header's keys are unique");
    let checkpoint = Checkpoint::HfDir(HfDir {
        config,
        generation_config: None,
        tokenizer_json: None,
        tokenizer_config: None,
        chat_template: None,
        tensors,
    });
    let Ok(bytes) = file_bytes(&checkpoint) else { return false };
    // The most that codes grow: 4 bits to half a byte and a scale of 8 bytes a block of 32.
    assert!(bytes.rearranged <= 16 * data.len(), "{} bytes of copies of {}", bytes.rearranged, data.len());
    let Ok(list) = ModelTensors::new(&checkpoint) else { return false };
    for wanted in list.iter() {
        let Ok(tensor) = list.read(wanted) else { continue };
        let row = tensor.dtype.row_bytes(tensor.cols()).expect("rows are whole blocks");
        assert_eq!(tensor.data.len(), row * tensor.rows(), "{}", tensor.name);
    }
    true
}
