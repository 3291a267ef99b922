//! The picture encoder's part of `config.json`: `vision_config`.
//!
//! Read apart from the text model's, which runs without it. Sources: transformers `configuration_gemma4.Gemma4VisionConfig`,
//! and the processor's patches, whose sizes every published model shares.

use serde_json::Value;

use super::json::Reader;
use super::{MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_SIZE};
use crate::ModelError;

/// Width and height of a patch in pixels.
pub const PATCH_SIDE: usize = 16;
/// Values of a patch: red, green and blue of each pixel.
pub const PATCH_VALUES: usize = PATCH_SIDE * PATCH_SIDE * 3;
/// Width and height in patches of what becomes one soft token.
pub const POOL_SIDE: usize = 3;
/// Patches of one soft token.
pub const PATCHES_PER_TOKEN: usize = POOL_SIDE * POOL_SIDE;

/// A picture encoder: a stack of layers over patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Heads of queries, keys and values.
    pub n_heads: usize,
    /// Values per head: a multiple of 4, as each half is turned in pairs by one coordinate.
    pub head_dim: usize,
    /// Width of the feed-forward.
    pub ffn_width: usize,
    /// How many layers.
    pub n_layers: usize,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Base of the frequencies that turn heads.
    pub rope_theta: f32,
    /// Columns, and rows, that have an embedding.
    pub n_positions: usize,
    /// Whether the layers' products have bounds of input and output.
    pub clipped: bool,
    /// Whether pooled rows are standardised by a bias and a scale.
    pub standardised: bool,
    /// Width of soft tokens: the text model's.
    pub d_text: usize,
}

impl VisionConfig {
    /// Reads the encoder of a parsed `config.json`; `None` where the model has none.
    ///
    /// # Errors
    /// Names the key, what was found and what was expected.
    pub fn from_json(json: &Value) -> Result<Option<Self>, ModelError> {
        let outer = Reader::new(json, "")?;
        let Some(vision) = outer.object("vision_config")? else { return Ok(None) };
        check_kind(&vision)?;
        let text = outer.object("text_config")?;
        let text = text.ok_or_else(|| outer.wrong("text_config", "an object, for the width of soft tokens"))?;
        let within = |r: &Reader<'_>, key: &str, most: usize| {
            let value = r.usize(key)?;
            if (1..=most).contains(&value) { Ok(value) } else { Err(r.wrong(key, &format!("1 to {most}"))) }
        };
        let config = VisionConfig {
            d_model: within(&vision, "hidden_size", MAX_SIZE)?,
            n_heads: within(&vision, "num_attention_heads", MAX_HEADS)?,
            head_dim: within(&vision, "head_dim", MAX_HEAD_DIM)?,
            ffn_width: within(&vision, "intermediate_size", MAX_SIZE)?,
            n_layers: within(&vision, "num_hidden_layers", MAX_LAYERS)?,
            norm_eps: vision.opt_f32("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: rope_theta(&vision)?,
            n_positions: within(&vision, "position_embedding_size", MAX_SIZE)?,
            clipped: vision.bool("use_clipped_linears")?,
            standardised: vision.bool("standardize")?,
            d_text: within(&text, "hidden_size", MAX_SIZE)?,
        };
        if !config.head_dim.is_multiple_of(4) {
            return Err(vision.wrong("head_dim", "a multiple of 4"));
        }
        if vision.opt_usize("num_key_value_heads")?.is_some_and(|n| n != config.n_heads) {
            return Err(vision.wrong("num_key_value_heads", &format!("as many as query heads: {}", config.n_heads)));
        }
        Ok(Some(config))
    }

    /// Width of all heads.
    pub fn heads_width(&self) -> usize {
        self.n_heads * self.head_dim
    }
}

/// Refuses encoders that work otherwise.
fn check_kind(vision: &Reader<'_>) -> Result<(), ModelError> {
    if vision.opt_str("model_type")?.is_some_and(|found| found != "gemma4_vision") {
        return Err(vision.wrong("model_type", "gemma4_vision: other encoders of pictures are not supported"));
    }
    for (key, expected) in [("patch_size", PATCH_SIDE), ("pooling_kernel_size", POOL_SIDE)] {
        if vision.opt_usize(key)?.is_some_and(|found| found != expected) {
            return Err(vision.wrong(key, &expected.to_string()));
        }
    }
    if vision.opt_str("hidden_activation")?.is_some_and(|found| found != "gelu_pytorch_tanh") {
        return Err(vision.wrong("hidden_activation", "gelu_pytorch_tanh"));
    }
    if vision.bool("attention_bias")? {
        return Err(vision.wrong("attention_bias", "false"));
    }
    Ok(())
}

fn rope_theta(vision: &Reader<'_>) -> Result<f32, ModelError> {
    let Some(rope) = vision.object("rope_parameters")? else { return Ok(100.0) };
    // `default` is what published files call it.
    if rope.opt_str("rope_type")?.is_some_and(|found| !["axial", "default"].contains(&found)) {
        return Err(rope.wrong("rope_type", "axial or default"));
    }
    Ok(rope.opt_f32("rope_theta")?.unwrap_or(100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The published encoder of E2B.
    fn published() -> Value {
        json!({
            "model_type": "gemma4",
            "text_config": {"hidden_size": 1536},
            "vision_config": {
                "model_type": "gemma4_vision", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16,
                "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64, "patch_size": 16,
                "pooling_kernel_size": 3, "position_embedding_size": 10240, "use_clipped_linears": true,
                "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "standardize": false,
                "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": false,
            },
        })
    }

    #[track_caller]
    fn refuses(change: impl Fn(&mut Value), words: &[&str]) {
        let mut json = published();
        change(&mut json);
        let error = VisionConfig::from_json(&json).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn the_published_settings_are_read() {
        let config = VisionConfig::from_json(&published()).unwrap().unwrap();
        assert_eq!((config.d_model, config.heads_width(), config.n_layers, config.d_text), (768, 768, 16, 1536));
        assert!(config.clipped && !config.standardised && config.rope_theta == 100.0);
    }

    #[test]
    fn a_model_without_an_encoder_has_none() {
        for config in [json!({"model_type": "gemma4_text"}), json!({"vision_config": null})] {
            assert_eq!(VisionConfig::from_json(&config).unwrap(), None);
        }
    }

    #[test]
    fn what_the_encoder_can_t_be_is_refused_by_name() {
        let set = |key: &'static str, value: Value| move |j: &mut Value| j["vision_config"][key] = value.clone();
        refuses(
            set("model_type", json!("gemma4_unified_vision")),
            &["vision_config.model_type", "gemma4_unified_vision"],
        );
        refuses(set("patch_size", json!(14)), &["vision_config.patch_size", "14", "16"]);
        refuses(set("pooling_kernel_size", json!(2)), &["pooling_kernel_size", "3"]);
        refuses(set("head_dim", json!(66)), &["head_dim", "66", "multiple of 4"]);
        refuses(set("num_key_value_heads", json!(4)), &["num_key_value_heads", "4", "12"]);
        refuses(set("hidden_size", json!(null)), &["vision_config.hidden_size", "a count"]);
        refuses(set("num_hidden_layers", json!(1u64 << 40)), &["num_hidden_layers", "1 to 1024"]);
        refuses(set("rope_parameters", json!({"rope_type": "yarn"})), &["rope_type", "yarn"]);
        refuses(|j| j["text_config"] = json!(null), &["text_config", "width of soft tokens"]);
    }
}
