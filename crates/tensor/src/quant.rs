//! Quantised block formats: layout, decode, encode.
//!
//! [`decode_row`] is the definition of every stored type: whatever computes on packed weights must agree with
//! it. Each block's value is worked out in f32 in the order of operations of ggml's `dequantize_row_*`, so
//! results equal ggml's bit for bit. Blocks are plain structs over the file's little-endian bytes; fast code
//! casts to them, this module reads them unaligned.
//!
//! Source: ggml `ggml-common.h` (layouts), `ggml-quants.c` (arithmetic).

mod coded;
mod fit;
mod grid;
mod k;
mod k_encode;
mod plain;
mod q32;
mod scaled;

use bytemuck::Pod;

use crate::DType;

pub use coded::{BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockNvfp4, Coded, integers};
pub use grid::{BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs};
pub use k::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, k4_scale_min, k4_scales_mins};
pub use q32::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};
pub use scaled::{BlockF4F32, BlockF8F32, BlockI8F32, e4m3};

/// Most values in a block.
pub const MAX_BLOCK: usize = 256;
/// Most groups with a scale of their own in a block.
pub const MAX_GROUPS: usize = 16;

/// A stored block that holds its own scales.
pub trait Block: Pod {
    /// The type whose block this is; [`DType::block_bytes`] is the size of the struct.
    const DTYPE: DType;

    /// Writes the block's values to `out`, which has [`DType::block_len`] places.
    fn decode(&self, out: &mut [f32]);
}

/// Decodes the values stored in `bytes` into `out`: one row, or several that follow each other. `bytes` need
/// no alignment.
///
/// # Panics
/// If `out` isn't a whole number of blocks, or `bytes` aren't as long as it asks for.
pub fn decode_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_sizes(dtype, bytes.len(), out.len());
    match dtype {
        DType::F32 => plain::decode_f32(bytes, out),
        DType::F16 => plain::decode_f16(bytes, out),
        DType::BF16 => plain::decode_bf16(bytes, out),
        DType::Q4_0 => decode_blocks::<BlockQ4_0>(bytes, out),
        DType::Q4_1 => decode_blocks::<BlockQ4_1>(bytes, out),
        DType::Q5_0 => decode_blocks::<BlockQ5_0>(bytes, out),
        DType::Q5_1 => decode_blocks::<BlockQ5_1>(bytes, out),
        DType::Q8_0 => decode_blocks::<BlockQ8_0>(bytes, out),
        DType::Q2K => decode_blocks::<BlockQ2K>(bytes, out),
        DType::Q3K => decode_blocks::<BlockQ3K>(bytes, out),
        DType::Q4K => decode_blocks::<BlockQ4K>(bytes, out),
        DType::Q5K => decode_blocks::<BlockQ5K>(bytes, out),
        DType::Q6K => decode_blocks::<BlockQ6K>(bytes, out),
        DType::Iq4Nl => decode_blocks::<BlockIq4Nl>(bytes, out),
        DType::Iq4Xs => decode_blocks::<BlockIq4Xs>(bytes, out),
        DType::Iq2Xxs => decode_blocks::<BlockIq2Xxs>(bytes, out),
        DType::Iq2Xs => decode_blocks::<BlockIq2Xs>(bytes, out),
        DType::Iq2S => decode_blocks::<BlockIq2S>(bytes, out),
        DType::Iq3Xxs => decode_blocks::<BlockIq3Xxs>(bytes, out),
        DType::Iq3S => decode_blocks::<BlockIq3S>(bytes, out),
        DType::Iq1S => decode_blocks::<BlockIq1S>(bytes, out),
        DType::Iq1M => decode_blocks::<BlockIq1M>(bytes, out),
        DType::Mxfp4 => decode_blocks::<BlockMxfp4>(bytes, out),
        DType::Nvfp4 => decode_blocks::<BlockNvfp4>(bytes, out),
        DType::F4F32 => decode_blocks::<BlockF4F32>(bytes, out),
        DType::I8F32 => decode_blocks::<BlockI8F32>(bytes, out),
        DType::F8F32 => decode_blocks::<BlockF8F32>(bytes, out),
    }
}

/// Whether [`encode_row`] can write `dtype`.
pub const fn can_encode(dtype: DType) -> bool {
    use DType::*;
    matches!(dtype, F32 | F16 | BF16 | Q4_0 | Q5_0 | Q8_0 | Q4K | Q6K)
}

/// Encodes `values` into `out`: one row, or several that follow each other. Plain types round to nearest
/// even; Q4_0, Q5_0 and Q8_0 are ggml's reference quantisers, which lay the value of largest magnitude on the end
/// of the scale; Q4_K and Q6_K search for the scales that leave the least sum of squared errors.
///
/// All values must be finite where the type is quantised: a block has no place for others, and makes them finite ones.
///
/// # Panics
/// If `dtype` can't be written ([`can_encode`]), `values` aren't a whole number of blocks, or `out` isn't as
/// long as they ask for.
pub fn encode_row(dtype: DType, values: &[f32], out: &mut [u8]) {
    assert_sizes(dtype, out.len(), values.len());
    match dtype {
        DType::F32 => plain::encode_f32(values, out),
        DType::F16 => plain::encode_f16(values, out),
        DType::BF16 => plain::encode_bf16(values, out),
        DType::Q4_0 => encode_blocks(values, out, |_, x| BlockQ4_0::encode(x)),
        DType::Q5_0 => encode_blocks(values, out, |_, x| BlockQ5_0::encode(x)),
        DType::Q8_0 => encode_blocks(values, out, |_, x| BlockQ8_0::encode(x)),
        DType::Q4K => encode_blocks(values, out, |_, x| BlockQ4K::encode(x, &[1.0; 256])),
        DType::Q6K => encode_blocks(values, out, |_, x| BlockQ6K::encode(x, &[1.0; 256])),
        other => panic!("{other} can be read, not written"),
    }
}

/// As [`encode_row`] for one row, where an error in column `i` weighs `importance[i]`. Types that have no choice of
/// scale are not changed by it.
///
/// # Panics
/// As [`encode_row`], or if there isn't one weight for each value.
pub fn encode_row_weighted(dtype: DType, values: &[f32], importance: &[f32], out: &mut [u8]) {
    assert_sizes(dtype, out.len(), values.len());
    assert_eq!(values.len(), importance.len(), "a weight for each value");
    match dtype {
        DType::Q4_0 => {
            let (w, _) = importance.as_chunks();
            encode_blocks(values, out, |b, x| BlockQ4_0::encode_weighted(x, &w[b]));
        }
        DType::Q4K => {
            let (w, _) = importance.as_chunks();
            encode_blocks(values, out, |b, x| BlockQ4K::encode(x, &w[b]));
        }
        DType::Q6K => {
            let (w, _) = importance.as_chunks();
            encode_blocks(values, out, |b, x| BlockQ6K::encode(x, &w[b]));
        }
        other => encode_row(other, values, out),
    }
}

fn assert_sizes(dtype: DType, bytes: usize, values: usize) {
    let expected = dtype.row_bytes(values);
    assert_eq!(Some(bytes), expected, "bytes of {values} values of {dtype}");
}

fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.chunks_exact(B::DTYPE.block_bytes());
    for (block, out) in blocks.zip(out.chunks_exact_mut(B::DTYPE.block_len())) {
        bytemuck::pod_read_unaligned::<B>(block).decode(out);
    }
}

fn encode_blocks<B: Block, const N: usize>(values: &[f32], out: &mut [u8], encode: impl Fn(usize, &[f32; N]) -> B) {
    let (values, _) = values.as_chunks::<N>();
    for (b, (values, out)) in values.iter().zip(out.chunks_exact_mut(B::DTYPE.block_bytes())).enumerate() {
        out.copy_from_slice(bytemuck::bytes_of(&encode(b, values)));
    }
}

// The structs are the file's blocks, byte for byte, which holds on little-endian machines.
const _: () = {
    assert!(cfg!(target_endian = "little"), "blocks are used as they lie in the file");
    assert!(size_of::<BlockQ4_0>() == DType::Q4_0.block_bytes());
    assert!(size_of::<BlockQ4_1>() == DType::Q4_1.block_bytes());
    assert!(size_of::<BlockQ5_0>() == DType::Q5_0.block_bytes());
    assert!(size_of::<BlockQ5_1>() == DType::Q5_1.block_bytes());
    assert!(size_of::<BlockQ8_0>() == DType::Q8_0.block_bytes());
    assert!(size_of::<BlockQ2K>() == DType::Q2K.block_bytes());
    assert!(size_of::<BlockQ3K>() == DType::Q3K.block_bytes());
    assert!(size_of::<BlockQ4K>() == DType::Q4K.block_bytes());
    assert!(size_of::<BlockQ5K>() == DType::Q5K.block_bytes());
    assert!(size_of::<BlockQ6K>() == DType::Q6K.block_bytes());
    assert!(size_of::<BlockIq4Nl>() == DType::Iq4Nl.block_bytes());
    assert!(size_of::<BlockIq4Xs>() == DType::Iq4Xs.block_bytes());
    assert!(size_of::<BlockIq2Xxs>() == DType::Iq2Xxs.block_bytes());
    assert!(size_of::<BlockIq2Xs>() == DType::Iq2Xs.block_bytes());
    assert!(size_of::<BlockIq2S>() == DType::Iq2S.block_bytes());
    assert!(size_of::<BlockIq3Xxs>() == DType::Iq3Xxs.block_bytes());
    assert!(size_of::<BlockIq3S>() == DType::Iq3S.block_bytes());
    assert!(size_of::<BlockIq1S>() == DType::Iq1S.block_bytes());
    assert!(size_of::<BlockIq1M>() == DType::Iq1M.block_bytes());
    assert!(size_of::<BlockMxfp4>() == DType::Mxfp4.block_bytes());
    assert!(size_of::<BlockNvfp4>() == DType::Nvfp4.block_bytes());
    assert!(size_of::<BlockF4F32>() == DType::F4F32.block_bytes());
    assert!(size_of::<BlockI8F32>() == DType::I8F32.block_bytes());
    assert!(size_of::<BlockF8F32>() == DType::F8F32.block_bytes());
};
