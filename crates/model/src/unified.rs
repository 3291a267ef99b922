//! Seeing and hearing without a tower: blocks of pixels and frames of sound become soft tokens by norms and products alone.
//!
//! ```text
//! h = LN(W_d · LN(block) + b) + table[column, 0] + table[row, 1]        soft = W_s · rms(LN(h))        a block of 48×48 pixels
//! soft = W_a · rms(frame)                                                                              a frame of 640 samples
//! ```
//!
//! Source: transformers `modeling_gemma4_unified.Gemma4UnifiedVisionEmbedder`, `Gemma4UnifiedMultimodalEmbedder`. The three
//! norms about the mean have PyTorch's own epsilon.

use carat_tensor::backend::{BackendError, LayerNorm, Norm, Projection};
use carat_tensor::{Backend, TokenId};
use carat_weights::Checkpoint;

use crate::config::{BLOCK_SIDE, BLOCK_VALUES, BlocksConfig, FramesConfig};
use crate::vision::VisionTap;
use crate::{ModelError, load};

/// Of `torch.nn.LayerNorm`.
const LAYER_NORM_EPS: f32 = 1e-5;
/// Frames that are projected at once.
const FRAMES_AT_ONCE: usize = 256;

/// Weight and bias of a norm about the mean.
pub(crate) struct LayerNormWeights<B: Backend> {
    pub weight: B::Vector,
    pub bias: B::Vector,
}

impl<B: Backend> LayerNormWeights<B> {
    fn run(&self, backend: &mut B, out: &mut B::Buffer, x: &B::Buffer, n: usize) {
        backend.layer_norm(out, x, LayerNorm { weight: &self.weight, bias: &self.bias, eps: LAYER_NORM_EPS }, n);
    }
}

/// In which order a file has the values of blocks and the embeddings of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Row, column, colour; of each place its embedding as a column, then as a row.
    Published,
    /// Colour, row, column; all columns, then all rows.
    Gguf,
}

impl Order {
    /// Gives `upload` blocks' values `[n, 6912]` as the weights meet them, and where they belong, without a copy of all. The norm
    /// before them is the same in any order.
    fn values(self, published: &[f32], mut upload: impl FnMut(usize, &[f32])) {
        const PIXELS: usize = BLOCK_SIDE * BLOCK_SIDE;
        if self == Order::Published {
            return upload(0, published);
        }
        let mut reordered = vec![0.0; BLOCK_VALUES];
        for (n, block) in published.chunks_exact(BLOCK_VALUES).enumerate() {
            reordered.iter_mut().enumerate().for_each(|(i, v)| *v = block[i % PIXELS * 3 + i / PIXELS]);
            upload(n * BLOCK_VALUES, &reordered);
        }
    }

    /// The row of a place's embedding, as a column (`axis` 0) or a row (1).
    fn embedding(self, place: i32, axis: usize, n_positions: usize) -> TokenId {
        TokenId(match self {
            Order::Published => 2 * place as u32 + axis as u32,
            Order::Gguf => (axis * n_positions) as u32 + place as u32,
        })
    }
}

/// Weights over blocks, `d` the width of an embedded one.
pub(crate) struct BlockWeights<B: Backend> {
    /// Of the 6912 values and of `positions`.
    pub order: Order,
    /// Of 6912 values.
    pub pixel_norm: LayerNormWeights<B>,
    /// `[d, 6912]`.
    pub blocks: B::Matrix,
    /// `[1, d]`.
    pub bias: B::Matrix,
    pub block_norm: LayerNormWeights<B>,
    /// `[2 · n_positions, d]`.
    pub positions: B::Matrix,
    pub position_norm: LayerNormWeights<B>,
    /// The weight of the last norm, which has none.
    pub ones: B::Vector,
    /// `[d_text, d]`.
    pub soft_tokens: B::Matrix,
}

/// Projects pictures of up to some number of blocks.
pub struct BlockEmbedder<B: Backend> {
    config: BlocksConfig,
    weights: BlockWeights<B>,
    max_blocks: usize,
    /// `[n, 6912]`, as `normed`.
    pixels: B::Buffer,
    normed: B::Buffer,
    /// `[n, d]`, as `h`.
    x: B::Buffer,
    h: B::Buffer,
    /// `[n, d_text]`.
    soft_tokens: B::Buffer,
}

impl<B: Backend> BlockEmbedder<B> {
    /// Finds the weights and takes memory for pictures of up to `max_blocks` blocks.
    ///
    /// # Errors
    /// If a tensor is missing, misshapen or unknown.
    pub fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        config: BlocksConfig,
        max_blocks: usize,
    ) -> Result<Self, ModelError> {
        let weights = load::unified::blocks(backend, checkpoint, &config)?;
        let mut rows = |width: usize| -> Result<B::Buffer, BackendError> { backend.buffer(max_blocks * width) };
        Ok(BlockEmbedder {
            pixels: rows(BLOCK_VALUES)?,
            normed: rows(BLOCK_VALUES)?,
            x: rows(config.d_model)?,
            h: rows(config.d_model)?,
            soft_tokens: rows(config.d_text)?,
            config,
            weights,
            max_blocks,
        })
    }

    /// What the checkpoint says.
    pub fn config(&self) -> &BlocksConfig {
        &self.config
    }

    /// Soft tokens `[n, d_text]` of one picture's blocks `[n, 6912]` in [0, 1], whose columns and rows are `positions`. The
    /// tap sees the blocks as they are before the last norm, `[n, d_model]`.
    ///
    /// # Errors
    /// If there are more blocks than there is room for, or one lies beyond the places that have an embedding.
    pub fn encode(
        &mut self,
        backend: &mut B,
        values: &[f32],
        positions: &[[i32; 2]],
        tap: Option<&mut dyn VisionTap>,
    ) -> Result<Vec<f32>, ModelError> {
        let BlocksConfig { d_model: d, n_positions, d_text, norm_eps: eps } = self.config;
        let n = positions.len();
        self.check(values, positions)?;
        let w = &self.weights;
        w.order.values(values, |at, values| backend.upload_at(&mut self.pixels, at, values));
        w.pixel_norm.run(backend, &mut self.normed, &self.pixels, n);
        backend.project(&mut [Projection { matrix: &w.blocks, out: &mut self.x }], &self.normed, None, n);
        backend.gather(&mut self.h, &w.bias, &vec![TokenId(0); n], 0..d, 1.0);
        backend.add(&mut self.x, &self.h, n * d);
        w.block_norm.run(backend, &mut self.h, &self.x, n);
        for axis in 0..2 {
            let ids: Vec<TokenId> = positions.iter().map(|p| w.order.embedding(p[axis], axis, n_positions)).collect();
            backend.gather(&mut self.x, &w.positions, &ids, 0..d, 1.0);
            backend.add(&mut self.h, &self.x, n * d);
        }
        w.position_norm.run(backend, &mut self.x, &self.h, n);
        if let Some(tap) = tap {
            let mut rows = vec![0.0; n * d];
            backend.download(&self.x, 0, &mut rows);
            tap.hidden(0, &rows);
        }
        let out = Projection { matrix: &w.soft_tokens, out: &mut self.soft_tokens };
        backend.project(&mut [out], &self.x, Some(Norm { weight: &w.ones, eps }), n);
        let mut soft_tokens = vec![0.0; n * d_text];
        backend.download(&self.soft_tokens, 0, &mut soft_tokens);
        Ok(soft_tokens)
    }

    fn check(&self, values: &[f32], positions: &[[i32; 2]]) -> Result<(), ModelError> {
        let n = positions.len();
        if n == 0 || n > self.max_blocks || values.len() != n * BLOCK_VALUES {
            let expected = format!("1 to {} of {BLOCK_VALUES} values each", self.max_blocks);
            return Err(ModelError::Patches { found: format!("{n} blocks of {} values", values.len()), expected });
        }
        let within = 0..self.config.n_positions as i64;
        match positions.iter().find(|p| p.iter().any(|&c| !within.contains(&i64::from(c)))) {
            None => Ok(()),
            Some([x, y]) => Err(ModelError::Patches {
                found: format!("a block at column {x}, row {y}"),
                expected: format!("both from 0 to {}", self.config.n_positions - 1),
            }),
        }
    }
}

impl FramesConfig {
    /// Bytes of the buffers.
    pub(crate) fn buffer_bytes(&self) -> usize {
        4 * FRAMES_AT_ONCE * (self.samples + self.d_text)
    }

    /// Frames that are projected at once.
    pub(crate) fn rows(&self) -> usize {
        FRAMES_AT_ONCE
    }
}

impl BlocksConfig {
    /// Bytes of the buffers for pictures of up to `n` blocks.
    pub(crate) fn buffer_bytes(&self, n: usize) -> usize {
        4 * n * (2 * BLOCK_VALUES + 2 * self.d_model + self.d_text)
    }
}

/// Weights over frames.
pub(crate) struct FrameWeights<B: Backend> {
    /// The weight of the norm, which has none.
    pub ones: B::Vector,
    /// `[d_text, samples]`.
    pub soft_tokens: B::Matrix,
}

/// Projects frames of sound.
pub struct FrameEmbedder<B: Backend> {
    config: FramesConfig,
    weights: FrameWeights<B>,
    /// `[256, samples]`.
    frames: B::Buffer,
    /// `[256, d_text]`.
    soft_tokens: B::Buffer,
}

impl<B: Backend> FrameEmbedder<B> {
    /// Finds the weights.
    ///
    /// # Errors
    /// If a tensor is missing, misshapen or unknown.
    pub fn load(backend: &mut B, checkpoint: &Checkpoint, config: FramesConfig) -> Result<Self, ModelError> {
        Ok(FrameEmbedder {
            weights: load::unified::frames(backend, checkpoint, &config)?,
            frames: backend.buffer(FRAMES_AT_ONCE * config.samples)?,
            soft_tokens: backend.buffer(FRAMES_AT_ONCE * config.d_text)?,
            config,
        })
    }

    /// What the checkpoint says.
    pub fn config(&self) -> &FramesConfig {
        &self.config
    }

    /// Soft tokens `[n, d_text]` of frames `[n, samples]`.
    ///
    /// # Errors
    /// If the frames are not whole.
    pub fn encode(&mut self, backend: &mut B, frames: &[f32]) -> Result<Vec<f32>, ModelError> {
        let FramesConfig { samples, norm_eps: eps, d_text } = self.config;
        if frames.is_empty() || !frames.len().is_multiple_of(samples) {
            let expected = format!("whole frames of {samples}, at least one");
            return Err(ModelError::Frames { found: frames.len(), expected });
        }
        let mut soft_tokens = vec![0.0; frames.len() / samples * d_text];
        for (frames, out) in
            frames.chunks(FRAMES_AT_ONCE * samples).zip(soft_tokens.chunks_mut(FRAMES_AT_ONCE * d_text))
        {
            backend.upload(&mut self.frames, frames);
            let projection = Projection { matrix: &self.weights.soft_tokens, out: &mut self.soft_tokens };
            let norm = Norm { weight: &self.weights.ones, eps };
            backend.project(&mut [projection], &self.frames, Some(norm), frames.len() / samples);
            backend.download(&self.soft_tokens, 0, out);
        }
        Ok(soft_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gguf_files_have_a_block_colour_by_colour() {
        let value = |row: usize, column: usize, colour: usize| (colour * 10_000 + row * 100 + column) as f32;
        let at = |i: usize| value(i / 3 / BLOCK_SIDE, i / 3 % BLOCK_SIDE, i % 3);
        let published: Vec<f32> = (0..2 * BLOCK_VALUES).map(|i| at(i % BLOCK_VALUES)).collect();
        let mut expected = Vec::new();
        for _block in 0..2 {
            for colour in 0..3 {
                for row in 0..BLOCK_SIDE {
                    expected.extend((0..BLOCK_SIDE).map(|column| value(row, column, colour)));
                }
            }
        }
        let uploaded = |order: Order| {
            let mut all = vec![f32::NAN; published.len()];
            order.values(&published, |at, values| all[at..at + values.len()].copy_from_slice(values));
            all
        };
        assert_eq!(uploaded(Order::Gguf), expected);
        assert_eq!(uploaded(Order::Published), published);
    }

    #[test]
    fn gguf_files_have_all_columns_before_the_rows() {
        let ids = |order: Order| [(3, 0), (3, 1)].map(|(place, axis)| order.embedding(place, axis, 70).0);
        assert_eq!(ids(Order::Published), [6, 7]);
        assert_eq!(ids(Order::Gguf), [3, 73]);
    }
}
