//! Element types of stored tensors and the arithmetic of their sizes.
//!
//! A quantised type stores rows as blocks: `block_len` values in `block_bytes` bytes. Rows never share a
//! block, so a row's bytes can be cut out of a matrix without decoding. The blocks' contents are in
//! [`crate::quant`]. Ids and sizes are those of the GGUF format. Files that keep scales in tensors of their own are
//! brought into block types that exist in memory only; those have no id.

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// 32 values: f16 scale, 4-bit offset by 8.
    Q4_0,
    /// 32 values: f16 scale and minimum, 4-bit.
    Q4_1,
    /// 32 values: f16 scale, 5-bit offset by 16.
    Q5_0,
    /// 32 values: f16 scale and minimum, 5-bit.
    Q5_1,
    /// 32 values: f16 scale, signed 8-bit.
    Q8_0,
    /// 256 values in 16 sub-blocks, 2-bit with 4-bit scales and minima.
    Q2K,
    /// 256 values in 16 sub-blocks, 3-bit with 6-bit scales.
    Q3K,
    /// 256 values in 8 sub-blocks, 4-bit with 6-bit scales and minima.
    Q4K,
    /// 256 values in 8 sub-blocks, 5-bit with 6-bit scales and minima.
    Q5K,
    /// 256 values in 16 sub-blocks, 6-bit with 8-bit scales.
    Q6K,
    /// 32 values: f16 scale, 4-bit codes of a table.
    Iq4Nl,
    /// 256 values in 8 sub-blocks: 6-bit scales, 4-bit codes of the same table.
    Iq4Xs,
    /// 256 values in 8 sub-blocks: 4-bit scales, signs, eights out of a codebook of 256.
    Iq2Xxs,
    /// 256 values in 16 sub-blocks: 4-bit scales, signs, eights out of a codebook of 512.
    Iq2Xs,
    /// 256 values in 16 sub-blocks: 4-bit scales, signs, eights out of a codebook of 1024.
    Iq2S,
    /// 256 values in 8 sub-blocks: 4-bit scales, signs, fours out of a codebook of 256.
    Iq3Xxs,
    /// 256 values in 8 sub-blocks: 4-bit scales, signs, fours out of a codebook of 512.
    Iq3S,
    /// 256 values in 8 sub-blocks: 3-bit scales, a shift, eights out of a codebook of 2048.
    Iq1S,
    /// 256 values in 16 sub-blocks: 3-bit scales, shifts, eights out of the same codebook.
    Iq1M,
    /// 32 values: power-of-two scale, 4-bit floats.
    Mxfp4,
    /// 64 values in 4 sub-blocks: 8-bit float scales, 4-bit floats.
    Nvfp4,
    /// In memory only. 32 values in 2 sub-blocks: f32 scales, 4-bit floats.
    F4F32,
    /// In memory only. 32 values: f32 scale, signed 8-bit.
    I8F32,
    /// In memory only. 32 values: f32 scale, 8-bit floats (E4M3).
    F8F32,
}

impl DType {
    /// Every type, in the order of the enum.
    pub const ALL: [DType; 27] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::Iq4Nl,
        DType::Iq4Xs,
        DType::Iq2Xxs,
        DType::Iq2Xs,
        DType::Iq2S,
        DType::Iq3Xxs,
        DType::Iq3S,
        DType::Iq1S,
        DType::Iq1M,
        DType::Mxfp4,
        DType::Nvfp4,
        DType::F4F32,
        DType::I8F32,
        DType::F8F32,
    ];

    /// `(GGUF type id, name, values per block, bytes per block)`.
    const fn facts(self) -> (Option<u32>, &'static str, usize, usize) {
        match self {
            DType::F32 => (Some(0), "F32", 1, 4),
            DType::F16 => (Some(1), "F16", 1, 2),
            DType::BF16 => (Some(30), "BF16", 1, 2),
            DType::Q4_0 => (Some(2), "Q4_0", 32, 18),
            DType::Q4_1 => (Some(3), "Q4_1", 32, 20),
            DType::Q5_0 => (Some(6), "Q5_0", 32, 22),
            DType::Q5_1 => (Some(7), "Q5_1", 32, 24),
            DType::Q8_0 => (Some(8), "Q8_0", 32, 34),
            DType::Q2K => (Some(10), "Q2_K", 256, 84),
            DType::Q3K => (Some(11), "Q3_K", 256, 110),
            DType::Q4K => (Some(12), "Q4_K", 256, 144),
            DType::Q5K => (Some(13), "Q5_K", 256, 176),
            DType::Q6K => (Some(14), "Q6_K", 256, 210),
            DType::Iq4Nl => (Some(20), "IQ4_NL", 32, 18),
            DType::Iq4Xs => (Some(23), "IQ4_XS", 256, 136),
            DType::Iq2Xxs => (Some(16), "IQ2_XXS", 256, 66),
            DType::Iq2Xs => (Some(17), "IQ2_XS", 256, 74),
            DType::Iq2S => (Some(22), "IQ2_S", 256, 82),
            DType::Iq3Xxs => (Some(18), "IQ3_XXS", 256, 98),
            DType::Iq3S => (Some(21), "IQ3_S", 256, 110),
            DType::Iq1S => (Some(19), "IQ1_S", 256, 50),
            DType::Iq1M => (Some(29), "IQ1_M", 256, 56),
            DType::Mxfp4 => (Some(39), "MXFP4", 32, 17),
            DType::Nvfp4 => (Some(40), "NVFP4", 64, 36),
            DType::F4F32 => (None, "F4_E2M1 x F32", 32, 24),
            DType::I8F32 => (None, "I8 x F32", 32, 36),
            DType::F8F32 => (None, "F8_E4M3 x F32", 32, 36),
        }
    }

    /// The type with this GGUF id, if known here.
    pub fn from_ggml(id: u32) -> Option<DType> {
        DType::ALL.into_iter().find(|t| t.ggml_id() == Some(id))
    }

    /// The type's id in GGUF files; `None` for types that exist in memory only.
    pub const fn ggml_id(self) -> Option<u32> {
        self.facts().0
    }

    /// The field's name for it, e.g. `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.facts().1
    }

    /// Values per block; 1 for plain types.
    pub const fn block_len(self) -> usize {
        self.facts().2
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        self.facts().3
    }

    /// Bytes of a row of `cols` values, or `None` where rows of that length can't be made of whole blocks.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Whether a block's values are integers times scales, so that integer kernels can work on them. 8-bit floats
    /// are not: they are decoded, like the plain types.
    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1 && !matches!(self, DType::F8F32)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
