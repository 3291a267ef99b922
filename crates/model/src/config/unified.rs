//! The parts of `config.json` that say how a model without towers sees and hears: blocks of pixels and frames of sound that
//! are projected as they are.
//!
//! Sources: transformers `configuration_gemma4_unified.Gemma4UnifiedVisionConfig`, `Gemma4UnifiedAudioConfig`.

use serde_json::Value;

use super::json::Reader;
use super::{MAX_SIZE, PATCH_SIDE, POOL_SIDE};
use crate::ModelError;

/// Width and height of a block in pixels.
pub const BLOCK_SIDE: usize = PATCH_SIDE * POOL_SIDE;
/// Values of a block: red, green and blue of each pixel.
pub const BLOCK_VALUES: usize = BLOCK_SIDE * BLOCK_SIDE * 3;

/// `model_type` of the two parts.
const PICTURES: &str = "gemma4_unified_vision";
const SOUNDS: &str = "gemma4_unified_audio";

/// How blocks of pixels become soft tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlocksConfig {
    /// Width of an embedded block.
    pub d_model: usize,
    /// Columns, and rows, that have an embedding.
    pub n_positions: usize,
    /// Epsilon of the norm before the projection.
    pub norm_eps: f32,
    /// Width of soft tokens: the text model's.
    pub d_text: usize,
}

impl BlocksConfig {
    /// Reads a parsed `config.json`; `None` where the model has no such part.
    ///
    /// # Errors
    /// Names the key, what was found and what was expected.
    pub fn from_json(json: &Value) -> Result<Option<Self>, ModelError> {
        let outer = Reader::new(json, "")?;
        let Some(vision) = part(&outer, "vision_config", PICTURES)? else { return Ok(None) };
        for (key, expected) in [("patch_size", PATCH_SIDE), ("pooling_kernel_size", POOL_SIDE)] {
            if vision.opt_usize(key)?.is_some_and(|found| found != expected) {
                return Err(vision.wrong(key, &expected.to_string()));
            }
        }
        let d_model = size(&vision, "mm_embed_dim")?;
        if vision.opt_usize("output_proj_dims")?.is_some_and(|found| found != d_model) {
            return Err(vision.wrong("output_proj_dims", &format!("mm_embed_dim, {d_model}")));
        }
        Ok(Some(BlocksConfig {
            d_model,
            n_positions: size(&vision, "mm_posemb_size")?,
            norm_eps: vision.opt_f32("rms_norm_eps")?.unwrap_or(1e-6),
            d_text: d_text(&outer)?,
        }))
    }
}

/// How frames of sound become soft tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FramesConfig {
    /// Samples of a frame.
    pub samples: usize,
    /// Epsilon of the norm before the projection.
    pub norm_eps: f32,
    /// Width of soft tokens: the text model's.
    pub d_text: usize,
}

impl FramesConfig {
    /// Reads a parsed `config.json`; `None` where the model has no such part.
    ///
    /// # Errors
    /// Names the key, what was found and what was expected.
    pub fn from_json(json: &Value) -> Result<Option<Self>, ModelError> {
        let outer = Reader::new(json, "")?;
        let Some(audio) = part(&outer, "audio_config", SOUNDS)? else { return Ok(None) };
        Ok(Some(FramesConfig {
            samples: size(&audio, "audio_embed_dim")?,
            norm_eps: audio.opt_f32("rms_norm_eps")?.unwrap_or(1e-6),
            d_text: d_text(&outer)?,
        }))
    }
}

/// An object of this `model_type`.
fn part<'a>(outer: &Reader<'a>, key: &str, model_type: &str) -> Result<Option<Reader<'a>>, ModelError> {
    let Some(part) = outer.object(key)? else { return Ok(None) };
    Ok((part.opt_str("model_type")? == Some(model_type)).then_some(part))
}

fn size(r: &Reader<'_>, key: &str) -> Result<usize, ModelError> {
    let value = r.usize(key)?;
    if (1..=MAX_SIZE).contains(&value) { Ok(value) } else { Err(r.wrong(key, &format!("1 to {MAX_SIZE}"))) }
}

fn d_text(outer: &Reader<'_>) -> Result<usize, ModelError> {
    let text = outer.object("text_config")?;
    let text = text.ok_or_else(|| outer.wrong("text_config", "an object, for the width of soft tokens"))?;
    size(&text, "hidden_size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The published parts of 12B.
    fn published() -> Value {
        json!({
            "model_type": "gemma4_unified",
            "text_config": {"hidden_size": 3840},
            "vision_config": {
                "model_type": "gemma4_unified_vision", "mm_embed_dim": 3840, "mm_posemb_size": 1120, "patch_size": 16,
                "pooling_kernel_size": 3, "output_proj_dims": 3840, "rms_norm_eps": 1e-6, "model_patch_size": 48,
            },
            "audio_config": {"model_type": "gemma4_unified_audio", "audio_embed_dim": 640, "rms_norm_eps": 1e-6},
        })
    }

    #[test]
    fn the_published_settings_are_read() {
        let blocks = BlocksConfig::from_json(&published()).unwrap().unwrap();
        assert_eq!((blocks.d_model, blocks.n_positions, blocks.d_text), (3840, 1120, 3840));
        let frames = FramesConfig::from_json(&published()).unwrap().unwrap();
        assert_eq!((frames.samples, frames.d_text), (640, 3840));
    }

    #[test]
    fn models_with_towers_have_neither() {
        let json = json!({"vision_config": {"model_type": "gemma4_vision"}, "audio_config": null});
        assert_eq!(BlocksConfig::from_json(&json).unwrap(), None);
        assert_eq!(FramesConfig::from_json(&json).unwrap(), None);
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        for (key, value) in [("mm_embed_dim", json!(0)), ("output_proj_dims", json!(64)), ("patch_size", json!(14))] {
            let mut json = published();
            json["vision_config"][key] = value.clone();
            let error = BlocksConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(&value.to_string()), "{error}");
        }
    }
}
