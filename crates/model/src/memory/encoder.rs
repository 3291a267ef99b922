//! What it takes to see and hear: an encoder's weights, buffers, input and soft tokens, and the work it is for the backend.

use carat_tensor::backend::{AttentionWork, EncoderWork, ProductWork};
use carat_weights::Checkpoint;

use crate::config::{BANDS, BLOCK_VALUES, PATCH_VALUES, PATCHES_PER_TOKEN};
use crate::load::encoder::{Encoder, EncoderMatrix, EncoderTensors};
use crate::{ModelError, PictureConfig, audio, encoders, vision};

/// Of a value of a picture: itself in f32, and in the 8 bits it is made of.
const BYTES_PER_VALUE: usize = 5;
/// Of each patch or block: where it is, and where it goes.
const PLACE_BYTES: usize = size_of::<[i32; 2]>() + size_of::<usize>();

/// What encoding takes, computed before anything is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderPlan {
    /// Bytes of the encoder's weights in the file, all of which each picture or sound reads.
    pub weights: usize,
    /// Bytes of its buffers, and of copies of weights that kernels can't use as they lie in the file, all of which stay.
    pub buffers: usize,
    /// Bytes that are taken while it works: what it is given and the soft tokens it makes. A file that is decoded may take as much
    /// before: of pictures of the largest budget, 12 million pixels.
    pub passing: usize,
    /// What the backend's own memory depends on.
    pub work: EncoderWork,
}

impl EncoderPlan {
    /// Of pictures of up to `max_tokens` soft tokens; `None` where the model doesn't see.
    ///
    /// # Errors
    /// If it sees in a way that isn't known here.
    pub fn of_pictures(checkpoint: &Checkpoint, max_tokens: usize) -> Result<Option<Self>, ModelError> {
        let Some(config) = PictureConfig::of(checkpoint)? else { return Ok(None) };
        let tensors = EncoderTensors::of(checkpoint, Encoder::Pictures)?;
        let soft_tokens = 4 * max_tokens * config.d_text();
        Ok(Some(match &config {
            PictureConfig::Tower(c) => {
                let rows = max_tokens * PATCHES_PER_TOKEN;
                let rearranged = if matches!(checkpoint, Checkpoint::Gguf(_)) { tensors.patch_bytes } else { 0 };
                let mut work = work(&tensors, |bounded| if bounded { rows } else { max_tokens });
                work.attention = Some(AttentionWork { rows, head_dim: c.head_dim });
                EncoderPlan {
                    weights: tensors.bytes,
                    buffers: tensors.copied + vision::bytes(c, rows) + rearranged,
                    // With the angles of a row, before they are uploaded.
                    passing: rows * (BYTES_PER_VALUE * PATCH_VALUES + PLACE_BYTES + 4 * c.head_dim) + soft_tokens,
                    work,
                }
            }
            PictureConfig::Blocks(c) => {
                let mut work = work(&tensors, |_| max_tokens);
                // Here nothing has bounds.
                work.products.iter_mut().for_each(|product| product.bounded = false);
                EncoderPlan {
                    weights: tensors.bytes,
                    buffers: tensors.copied + c.buffer_bytes(max_tokens),
                    passing: max_tokens * (BYTES_PER_VALUE * BLOCK_VALUES + PLACE_BYTES) + soft_tokens,
                    work,
                }
            }
        }))
    }

    /// Of sounds of up to `max_samples` samples, which are `max_frames` frames of features; `None` where the model doesn't hear.
    ///
    /// # Errors
    /// If it hears in a way that isn't known here.
    pub fn of_sounds(
        checkpoint: &Checkpoint,
        max_frames: usize,
        max_samples: usize,
    ) -> Result<Option<Self>, ModelError> {
        let tensors = EncoderTensors::of(checkpoint, Encoder::Sounds)?;
        let (buffers, features, soft_tokens, rows) = if let Some(c) = encoders::frames(checkpoint)? {
            (c.buffer_bytes(), max_samples, max_samples.div_ceil(c.samples) * c.d_text, c.rows())
        } else if let Some(c) = encoders::tower(checkpoint)? {
            let rows = audio::rows(max_frames);
            (audio::bytes(&c, max_frames), max_frames * BANDS, rows * c.d_text, rows)
        } else {
            return Ok(None);
        };
        let (passing, work) = (4 * (max_samples + features + soft_tokens), work(&tensors, |_| rows));
        Ok(Some(EncoderPlan { weights: tensors.bytes, buffers: tensors.copied + buffers, passing, work }))
    }
}

/// Products with all matrices; `rows` says of how many rows, of those between bounds and of the others.
fn work(tensors: &EncoderTensors, rows: impl Fn(bool) -> usize) -> EncoderWork {
    let product = |m: &EncoderMatrix| {
        let EncoderMatrix { rows: width, cols, dtype, bounded } = *m;
        ProductWork { rows: rows(bounded), cols, width, dtype, bounded }
    };
    EncoderWork { products: tensors.matrices.iter().map(product).collect(), attention: None }
}
