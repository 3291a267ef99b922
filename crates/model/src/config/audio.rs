//! The sound encoder's part of `config.json`: `audio_config`.
//!
//! Read apart from the text model's, which runs without it. Source: transformers `configuration_gemma4.Gemma4AudioConfig`
//! and its defaults.

use serde_json::Value;

use super::json::Reader;
use super::{MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_SIZE};
use crate::ModelError;

/// Features of a frame: frequencies on the mel scale.
pub const BANDS: usize = 128;
/// Frames of one row of the encoder: they are halved twice.
pub const FRAMES_PER_TOKEN: usize = 4;
/// The most rows that attention or convolution reach back.
pub const MAX_REACH: usize = 1024;
/// Epsilon of the norms that don't take the config's, as in the reference.
pub const LAYER_NORM_EPS: f32 = 1e-6;

/// A sound encoder: a stack of conformer layers over subsampled features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AudioConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Heads of queries, keys and values; together they are as wide as the stream.
    pub n_heads: usize,
    /// How many layers.
    pub n_layers: usize,
    /// Filters of the two layers that subsample.
    pub filters: [usize; 2],
    /// Rows of the light convolution: the row itself and those before it.
    pub taps: usize,
    /// Rows that attention sees: the row itself and those before it.
    pub reach: usize,
    /// What is added to the distance of a key for its embedding; 0 in all published models, whose chunks are as long as
    /// the reach.
    pub distance_shift: usize,
    /// Of attention scores.
    pub softcap: f32,
    /// Multiplies what a feed-forward adds to the stream.
    pub residual_weight: f32,
    /// Bound of magnitudes before norms.
    pub bound: f32,
    /// Epsilon of the norms around convolutions and before the last product.
    pub norm_eps: f32,
    /// Whether the layers' products have bounds of input and output.
    pub clipped: bool,
    /// Width of the encoder's output.
    pub d_out: usize,
    /// Width of soft tokens: the text model's.
    pub d_text: usize,
}

impl AudioConfig {
    /// Reads the encoder of a parsed `config.json`; `None` where the model has none.
    ///
    /// # Errors
    /// Names the key, what was found and what was expected.
    pub fn from_json(json: &Value) -> Result<Option<Self>, ModelError> {
        let outer = Reader::new(json, "")?;
        let Some(audio) = outer.object("audio_config")? else { return Ok(None) };
        check_kind(&audio)?;
        let text = outer.object("text_config")?;
        let text = text.ok_or_else(|| outer.wrong("text_config", "an object, for the width of soft tokens"))?;
        let within = |key: &str, default: usize, most: usize| {
            let value = audio.opt_usize(key)?.unwrap_or(default);
            if (1..=most).contains(&value) { Ok(value) } else { Err(audio.wrong(key, &format!("1 to {most}"))) }
        };
        let d_text = text.usize("hidden_size")?;
        if !(1..=MAX_SIZE).contains(&d_text) {
            return Err(text.wrong("hidden_size", &format!("1 to {MAX_SIZE}")));
        }
        let chunk = within("attention_chunk_size", 12, MAX_REACH)?;
        let left = within("attention_context_left", 13, MAX_REACH)?;
        if left < 2 || left > chunk + 1 {
            return Err(audio.wrong("attention_context_left", &format!("2 to {}, one above the chunk", chunk + 1)));
        }
        let config = AudioConfig {
            d_model: within("hidden_size", 1024, MAX_SIZE)?,
            n_heads: within("num_attention_heads", 8, MAX_HEADS)?,
            n_layers: within("num_hidden_layers", 12, MAX_LAYERS)?,
            filters: filters(&audio)?,
            taps: within("conv_kernel_size", 5, MAX_REACH)?,
            // The left context counts one more than is seen (`Gemma4AudioModel.forward`).
            reach: left - 1,
            // Embeddings count down from half of what a chunk's keys span (`Gemma4AudioRelPositionalEncoding`).
            distance_shift: (chunk + left - 1) / 2 - (left - 1),
            softcap: audio.opt_f32("attention_logit_cap")?.unwrap_or(50.0),
            residual_weight: audio.opt_f32("residual_weight")?.unwrap_or(0.5),
            bound: audio.opt_f32("gradient_clipping")?.unwrap_or(1e10),
            norm_eps: audio.opt_f32("rms_norm_eps")?.unwrap_or(1e-6),
            clipped: !audio.contains("use_clipped_linears") || audio.bool("use_clipped_linears")?,
            d_out: within("output_proj_dims", 1536, MAX_SIZE)?,
            d_text,
        };
        config.check_heads(|_, expected| audio.wrong("hidden_size", &expected))?;
        Ok(Some(config))
    }

    /// Values per head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of the subsampled features: those of each filter at a quarter of the frequencies.
    pub fn subsampled(&self) -> usize {
        BANDS / 4 * self.filters[1]
    }

    /// Width of the feed-forwards.
    pub fn ffn_width(&self) -> usize {
        4 * self.d_model
    }

    /// Refuses what heads can't be: `wrong` makes an error of their number and what is expected of the width.
    pub(super) fn check_heads(&self, wrong: impl Fn(usize, String) -> ModelError) -> Result<(), ModelError> {
        if !self.d_model.is_multiple_of(self.n_heads) || !self.d_model.is_multiple_of(2) {
            let n = self.n_heads;
            return Err(wrong(n, format!("{n} heads in a width of an even number of values that they divide")));
        }
        if self.head_dim() > MAX_HEAD_DIM {
            return Err(wrong(self.n_heads, format!("heads of at most {MAX_HEAD_DIM} values")));
        }
        Ok(())
    }
}

/// Refuses encoders that work otherwise.
fn check_kind(audio: &Reader<'_>) -> Result<(), ModelError> {
    if audio.opt_str("model_type")?.is_some_and(|found| found != "gemma4_audio") {
        return Err(audio.wrong("model_type", "gemma4_audio: other encoders of sounds are not supported"));
    }
    if audio.opt_str("hidden_act")?.is_some_and(|found| found != "silu") {
        return Err(audio.wrong("hidden_act", "silu"));
    }
    if audio.opt_usize("attention_context_right")?.is_some_and(|found| found != 0) {
        return Err(audio.wrong("attention_context_right", "0"));
    }
    // Keys out of reach are left out, which is the same where this leaves nothing of them in a softmax of f32.
    let invalid = audio.get("attention_invalid_logits_value").and_then(Value::as_f64).unwrap_or(-1e9);
    let cap = f64::from(audio.opt_f32("attention_logit_cap")?.unwrap_or(50.0));
    if invalid.is_nan() || invalid > -cap - 150.0 {
        return Err(
            audio.wrong("attention_invalid_logits_value", "far below what the cap of scores leaves, such as -1e9")
        );
    }
    Ok(())
}

fn filters(audio: &Reader<'_>) -> Result<[usize; 2], ModelError> {
    const KEY: &str = "subsampling_conv_channels";
    let Some(value) = audio.get(KEY) else { return Ok([128, 32]) };
    let count = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (1..=MAX_SIZE).contains(v));
    let counts: Option<Vec<usize>> = value.as_array().and_then(|all| all.iter().map(count).collect());
    match counts.as_deref() {
        Some(&[first, second]) => Ok([first, second]),
        _ => Err(audio.wrong(KEY, &format!("two numbers from 1 to {MAX_SIZE}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The published encoder of E2B and E4B.
    fn published() -> Value {
        json!({
            "model_type": "gemma4",
            "text_config": {"hidden_size": 1536},
            "audio_config": {
                "model_type": "gemma4_audio", "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8,
                "hidden_act": "silu", "subsampling_conv_channels": [128, 32], "conv_kernel_size": 5, "residual_weight": 0.5,
                "attention_chunk_size": 12, "attention_context_left": 13, "attention_context_right": 0,
                "attention_logit_cap": 50.0, "attention_invalid_logits_value": -1e9, "use_clipped_linears": true,
                "rms_norm_eps": 1e-6, "gradient_clipping": 1e10, "output_proj_dims": 1536,
            },
        })
    }

    #[track_caller]
    fn refuses(key: &'static str, value: Value, words: &[&str]) {
        let mut json = published();
        json["audio_config"][key] = value;
        let error = AudioConfig::from_json(&json).unwrap_err().to_string();
        assert!(words.iter().chain(&[key]).all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn the_published_settings_are_read_and_are_the_defaults() {
        let config = AudioConfig::from_json(&published()).unwrap().unwrap();
        assert_eq!((config.d_model, config.head_dim(), config.n_layers, config.ffn_width()), (1024, 128, 12, 4096));
        assert_eq!((config.reach, config.distance_shift, config.subsampled()), (12, 0, 1024));
        assert_eq!((config.d_out, config.d_text, config.clipped), (1536, 1536, true));
        let bare = json!({"text_config": {"hidden_size": 1536}, "audio_config": {}});
        assert_eq!(AudioConfig::from_json(&bare).unwrap(), Some(config));
    }

    #[test]
    fn a_model_without_an_encoder_has_none() {
        for config in [json!({"model_type": "gemma4_text"}), json!({"audio_config": null})] {
            assert_eq!(AudioConfig::from_json(&config).unwrap(), None);
        }
    }

    #[test]
    fn what_the_encoder_can_t_be_is_refused_by_name() {
        refuses("model_type", json!("gemma4_unified_audio"), &["gemma4_unified_audio", "gemma4_audio"]);
        refuses("hidden_act", json!("gelu"), &["gelu", "silu"]);
        refuses("attention_context_right", json!(4), &["4", "0"]);
        refuses("attention_context_left", json!(14), &["14", "2 to 13"]);
        refuses("attention_context_left", json!(1), &["2 to 13"]);
        refuses("attention_invalid_logits_value", json!(1e-9), &["-1e9"]);
        refuses("subsampling_conv_channels", json!([128]), &["[128]", "two numbers"]);
        refuses("subsampling_conv_channels", json!([128, 0]), &["two numbers"]);
        refuses("hidden_size", json!(1028), &["1028", "8 heads"]);
        refuses("hidden_size", json!(16384), &["heads of at most 1024 values"]);
        for key in ["hidden_size", "num_hidden_layers", "conv_kernel_size", "output_proj_dims", "attention_chunk_size"]
        {
            refuses(key, json!(u64::MAX), &["1 to"]);
            refuses(key, json!(0), &["1 to"]);
        }
        refuses("residual_weight", json!(-1), &["a positive number"]);
    }
}
