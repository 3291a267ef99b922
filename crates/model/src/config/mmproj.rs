//! Encoders in GGUF files of their own (`mmproj`): what their metadata say, and what follows from their tensors.
//!
//! Metadata hold widths and counts only. Everything else is what all published encoders share, and the epsilons that files
//! state are not read: some in circulation are wrong. Sources: llama.cpp `conversion/gemma.py`, `tools/mtmd/clip.cpp`.

use carat_weights::GgufFile;

use super::unified::{BLOCK_VALUES, BlocksConfig, FramesConfig};
use super::vision::{PATCH_SIDE, POOL_SIDE, VisionConfig};
use super::{AudioConfig, BANDS, LAYER_NORM_EPS, MAX_HEADS, MAX_LAYERS, MAX_REACH, MAX_SIZE, wrong};
use crate::ModelError;

/// `general.architecture` of these files.
const ARCHITECTURE: &str = "clip";

/// `projector_type` of towers over patches, and of what sees blocks.
const VISION_KINDS: [&str; 2] = ["gemma4v", "gemma4uv"];
/// `projector_type` of towers over features, and of what hears frames.
const AUDIO_KINDS: [&str; 2] = ["gemma4a", "gemma4ua"];

/// One encoder of a file.
struct Keys<'a> {
    file: &'a GgufFile,
    /// `vision` or `audio`.
    part: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("clip.{}.{name}", self.part)
    }

    /// A count from 1 to `most`.
    fn count(&self, name: &str, most: usize) -> Result<usize, ModelError> {
        let key = self.key(name);
        let value = self.file.metadata.u32(&key)? as usize;
        if (1..=most).contains(&value) { Ok(value) } else { Err(wrong(&key, value, format!("1 to {most}"))) }
    }

    /// Refuses a setting that is there and is another one.
    fn only(&self, name: &str, expected: usize) -> Result<(), ModelError> {
        let key = self.key(name);
        match self.file.metadata.opt_u32(&key)? {
            Some(found) if found as usize != expected => Err(wrong(&key, found, expected.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether the file has this encoder, of the kind `projector`; an error if it is none of the two `kinds`.
    fn is_there(&self, projector: &str, kinds: [&str; 2]) -> Result<bool, ModelError> {
        let metadata = &self.file.metadata;
        if metadata.opt_str("general.architecture")? != Some(ARCHITECTURE) {
            return Ok(false);
        }
        if !metadata.opt_bool(&format!("clip.has_{}_encoder", self.part))?.unwrap_or(false) {
            return Ok(false);
        }
        // Files of one encoder may leave the part out.
        let (key, whole) = (self.key("projector_type"), "clip.projector_type");
        let found = match metadata.opt_str(&key)? {
            Some(found) => Some(found),
            None => metadata.opt_str(whole)?,
        };
        match found {
            Some(found) if kinds.contains(&found) => Ok(found == projector),
            found => Err(wrong(&key, found.unwrap_or("absent"), kinds.join(" or "))),
        }
    }

    /// Dimension `at` of a tensor that has `dims` of them: 1 to `most`.
    fn dimension(&self, name: &str, dims: usize, at: usize, most: usize) -> Result<usize, ModelError> {
        match self.file.tensors.get(name).map(|tensor| &tensor.shape[..]) {
            Some(shape) if shape.len() == dims && (1..=most).contains(&shape[at]) => Ok(shape[at]),
            shape => Err(ModelError::Layout {
                name: name.into(),
                found: shape.map_or("none".into(), |shape| format!("shape {shape:?}")),
                expected: format!("{dims} dimensions of which number {at} is 1 to {most}"),
            }),
        }
    }
}

impl VisionConfig {
    /// Reads the encoder of an mmproj file; `None` where the file has none.
    ///
    /// # Errors
    /// Names the key or tensor, what was found and what was expected.
    pub fn from_gguf(file: &GgufFile) -> Result<Option<Self>, ModelError> {
        let keys = Keys { file, part: "vision" };
        if !keys.is_there(VISION_KINDS[0], VISION_KINDS)? {
            return Ok(None);
        }
        keys.only("patch_size", PATCH_SIDE)?;
        let d_model = keys.count("embedding_length", MAX_SIZE)?;
        let config = VisionConfig {
            d_model,
            n_heads: keys.count("attention.head_count", MAX_HEADS)?,
            head_dim: keys.dimension("v.blk.0.attn_q_norm.weight", 1, 0, super::MAX_HEAD_DIM)?,
            ffn_width: keys.count("feed_forward_length", MAX_SIZE)?,
            n_layers: keys.count("block_count", MAX_LAYERS)?,
            norm_eps: 1e-6,
            rope_theta: 100.0,
            n_positions: keys.dimension("v.position_embd.weight", 3, 1, MAX_SIZE)?,
            // A bound that isn't there is infinite.
            clipped: true,
            standardised: file.tensors.contains("v.std_bias"),
            d_text: keys.dimension("mm.input_projection.weight", 2, 0, MAX_SIZE)?,
        };
        if !config.head_dim.is_multiple_of(4) {
            return Err(wrong("v.blk.0.attn_q_norm.weight", config.head_dim, "a multiple of 4 values"));
        }
        Ok(Some(config))
    }
}

impl AudioConfig {
    /// Reads the encoder of an mmproj file; `None` where the file has none.
    ///
    /// # Errors
    /// Names the key or tensor, what was found and what was expected.
    pub fn from_gguf(file: &GgufFile) -> Result<Option<Self>, ModelError> {
        let keys = Keys { file, part: "audio" };
        if !keys.is_there(AUDIO_KINDS[0], AUDIO_KINDS)? {
            return Ok(None);
        }
        keys.only("num_mel_bins", BANDS)?;
        let d_model = keys.count("embedding_length", MAX_SIZE)?;
        keys.only("feed_forward_length", 4 * d_model)?;
        let filters = |i: usize| keys.dimension(&format!("a.conv1d.{i}.weight"), 4, 0, MAX_SIZE);
        let config = AudioConfig {
            d_model,
            n_heads: keys.count("attention.head_count", MAX_HEADS)?,
            n_layers: keys.count("block_count", MAX_LAYERS)?,
            filters: [filters(0)?, filters(1)?],
            taps: keys.dimension("a.blk.0.conv_dw.weight", 2, 1, MAX_REACH)?,
            reach: 12,
            distance_shift: 0,
            softcap: 50.0,
            residual_weight: 0.5,
            bound: 1e10,
            norm_eps: LAYER_NORM_EPS,
            clipped: true,
            d_out: keys.dimension("a.pre_encode.out.weight", 2, 0, MAX_SIZE)?,
            d_text: keys.dimension("mm.a.input_projection.weight", 2, 0, MAX_SIZE)?,
        };
        config.check_heads(|found, expected| wrong(&keys.key("attention.head_count"), found, expected))?;
        Ok(Some(config))
    }
}

impl BlocksConfig {
    /// Reads what an mmproj file sees blocks with; `None` where it has no such part.
    ///
    /// # Errors
    /// Names the key or tensor, what was found and what was expected.
    pub fn from_gguf(file: &GgufFile) -> Result<Option<Self>, ModelError> {
        let keys = Keys { file, part: "vision" };
        if !keys.is_there(VISION_KINDS[1], VISION_KINDS)? {
            return Ok(None);
        }
        keys.only("patch_size", PATCH_SIDE)?;
        keys.only("projector.scale_factor", POOL_SIDE)?;
        let found = keys.dimension("v.patch_embd.weight", 2, 1, MAX_SIZE)?;
        if found != BLOCK_VALUES {
            return Err(wrong("v.patch_embd.weight", found, format!("rows of {BLOCK_VALUES} values")));
        }
        Ok(Some(BlocksConfig {
            d_model: keys.dimension("v.patch_embd.weight", 2, 0, MAX_SIZE)?,
            n_positions: keys.dimension("v.position_embd.weight", 3, 1, MAX_SIZE)?,
            norm_eps: 1e-6,
            d_text: keys.dimension("mm.input_projection.weight", 2, 0, MAX_SIZE)?,
        }))
    }
}

impl FramesConfig {
    /// Reads what an mmproj file hears frames with; `None` where it has no such part. The bands that such files state mean
    /// nothing.
    ///
    /// # Errors
    /// Names the key or tensor, what was found and what was expected.
    pub fn from_gguf(file: &GgufFile) -> Result<Option<Self>, ModelError> {
        let keys = Keys { file, part: "audio" };
        if !keys.is_there(AUDIO_KINDS[1], AUDIO_KINDS)? {
            return Ok(None);
        }
        let projection = "mm.a.input_projection.weight";
        Ok(Some(FramesConfig {
            samples: keys.dimension(projection, 2, 1, MAX_SIZE)?,
            norm_eps: 1e-6,
            d_text: keys.dimension(projection, 2, 0, MAX_SIZE)?,
        }))
    }
}
