//! Gemma 3's `config.json`, the text models' own or the `text_config` of the larger ones, and the scale of attention
//! that its GGUF files don't say.
//!
//! The defaults are those of transformers `configuration_gemma3.Gemma3TextConfig`: published files leave out heads and
//! vocabulary. RoPE is spelt in two ways, `rope_theta`, `rope_local_base_freq` and `rope_scaling`, or
//! `rope_parameters` by layer type. Pictures are not read.

use carat_tensor::TokenId;

use super::hf::{FULL_EVERY, layer_count, layer_types, tied_head, token};
use super::json::Reader;
use super::{Family, LayerConfig, LayerType, ModelConfig, Placeholders, RopeConfig};
use crate::ModelError;

/// The size whose attention isn't scaled by its head size, told by its layers (llama.cpp `src/models/gemma3.cpp`).
const LAYERS_OF_27B: usize = 62;

/// The config in `text`, a part of `outer` or the same.
pub(super) fn from_json(outer: &Reader<'_>, text: &Reader<'_>) -> Result<ModelConfig, ModelError> {
    if text.bool("use_bidirectional_attention")? {
        return Err(text.wrong("use_bidirectional_attention", "false"));
    }
    if text.get("attn_logit_softcapping").is_some() {
        return Err(text.wrong("attn_logit_softcapping", "null"));
    }
    let scalar = text.opt_f32("query_pre_attn_scalar")?.unwrap_or(256.0);
    Ok(ModelConfig {
        family: Family::Gemma3,
        d_model: text.usize("hidden_size")?,
        n_heads: text.opt_usize("num_attention_heads")?.unwrap_or(8),
        vocab_size: text.opt_usize("vocab_size")?.unwrap_or(262_208),
        max_context: text.opt_usize("max_position_embeddings")?.unwrap_or(131_072),
        window: text.opt_usize("sliding_window")?.unwrap_or(4096),
        norm_eps: text.opt_f32("rms_norm_eps")?.unwrap_or(1e-6),
        norm_offset: 1.0,
        attention_scale: scalar.powf(-0.5),
        normed_values: false,
        layer_scales: false,
        softcap: text.opt_f32("final_logit_softcapping")?,
        layers: layers(text)?,
        n_shared_layers: 0,
        full_value_is_key: false,
        rope_sliding: rope(text, LayerType::Sliding)?,
        rope_full: rope(text, LayerType::Full)?,
        per_layer: None,
        experts: None,
        tied_head: tied_head(outer)?.or(tied_head(text)?).unwrap_or(true),
        bidirectional_vision: false,
        placeholders: Placeholders::default(),
        pad: token(text, "pad_token_id")?.unwrap_or(TokenId(0)),
    })
}

/// Scores are scaled by the head size to the power of -1/2, but for one published size, which takes the width that a
/// head would have if all heads together were as wide as the model.
pub(super) fn attention_scale(d_model: usize, n_heads: usize, layers: &[LayerConfig]) -> f32 {
    let width = if layers.len() == LAYERS_OF_27B { d_model / n_heads.max(1) } else { layers[0].head_dim };
    (width as f32).powf(-0.5)
}

fn layers(text: &Reader<'_>) -> Result<Vec<LayerConfig>, ModelError> {
    let n = layer_count(text)?;
    let key = "sliding_window_pattern";
    let period = text.opt_usize(key)?.unwrap_or(FULL_EVERY);
    if period == 0 {
        return Err(text.wrong(key, "at least 1"));
    }
    let head_dim = text.opt_usize("head_dim")?.unwrap_or(256);
    let n_kv_heads = text.opt_usize("num_key_value_heads")?.unwrap_or(4);
    let ffn_width = text.usize("intermediate_size")?;
    let types = layer_types(text, n, period)?.into_iter();
    Ok(types.map(|layer_type| LayerConfig { layer_type, head_dim, n_kv_heads, ffn_width }).collect())
}

fn rope(text: &Reader<'_>, layer_type: LayerType) -> Result<RopeConfig, ModelError> {
    let (theta, default, scaling) = match layer_type {
        LayerType::Sliding => ("rope_local_base_freq", 1e4, None),
        LayerType::Full => ("rope_theta", 1e6, text.object("rope_scaling")?),
    };
    let mut rope = RopeConfig::new(text.opt_f32(theta)?.unwrap_or(default));
    if let Some(scaling) = scaling {
        scale(&mut rope, &scaling)?;
    }
    let by_type = text.object("rope_parameters")?.map(|all| all.object(layer_type.name())).transpose()?.flatten();
    if let Some(own) = by_type {
        rope.theta = own.opt_f32("rope_theta")?.unwrap_or(rope.theta);
        scale(&mut rope, &own)?;
    }
    Ok(rope)
}

/// Stretches positions as `settings` say, under the present name of the key or its older one.
fn scale(rope: &mut RopeConfig, settings: &Reader<'_>) -> Result<(), ModelError> {
    let key = if settings.contains("rope_type") { "rope_type" } else { "type" };
    match settings.opt_str(key)? {
        None | Some("default") => {}
        Some("linear") => {
            rope.factor = settings.opt_f32("factor")?.ok_or_else(|| settings.wrong("factor", "a positive number"))?;
        }
        Some(_) => return Err(settings.wrong(key, "default or linear")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As published, with the keys that matter here.
    fn small() -> Value {
        json!({"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "hidden_size": 640,
            "num_hidden_layers": 18, "intermediate_size": 2048, "num_attention_heads": 4, "num_key_value_heads": 1,
            "head_dim": 256, "sliding_window": 512, "max_position_embeddings": 32768, "vocab_size": 262144,
            "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0, "rope_scaling": null, "attention_bias": false,
            "attn_logit_softcapping": null, "final_logit_softcapping": null, "use_bidirectional_attention": false,
            "hidden_activation": "gelu_pytorch_tanh", "eos_token_id": [1, 106]})
    }

    fn read(json: &Value) -> ModelConfig {
        ModelConfig::from_json(json).unwrap()
    }

    #[track_caller]
    fn refuses(key: &str, value: Value, texts: &[&str]) {
        let mut json = small();
        json[key] = value;
        let error = ModelConfig::from_json(&json).unwrap_err().to_string();
        for text in texts {
            assert!(error.contains(text), "`{text}` is not in: {error}");
        }
    }

    #[test]
    fn the_small_text_model_reads_as_its_description_says() {
        let config = read(&small());
        let full: Vec<_> = (0..18).filter(|&i| config.layers[i].layer_type == LayerType::Full).collect();
        assert_eq!(full, [5, 11, 17]);
        assert!(config.layers.iter().all(|l| (l.head_dim, l.n_kv_heads, l.ffn_width) == (256, 1, 2048)));
        assert_eq!((config.d_model, config.n_heads, config.window, config.max_context), (640, 4, 512, 32768));
        assert_eq!((config.attention_scale, config.norm_offset, config.softcap), (1.0 / 16.0, 1.0, None));
        assert_eq!((&config.rope_sliding, &config.rope_full), (&RopeConfig::new(1e4), &RopeConfig::new(1e6)));
        assert!(config.tied_head && !config.normed_values && !config.layer_scales && config.per_layer.is_none());
        assert_eq!(config.parameters() / 1_000_000, 268);
    }

    /// The text part of the size with 4 billion parameters says little more than this.
    #[test]
    fn what_the_larger_sizes_leave_out_has_the_defaults_of_the_reference() {
        let config = read(&json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text",
            "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}));
        assert_eq!((config.n_heads, config.layers[0].n_kv_heads, config.vocab_size), (8, 4, 262_208));
        assert_eq!(config.layers.iter().filter(|l| l.layer_type == LayerType::Full).count(), 5);
        assert_eq!(config.layers[33].layer_type, LayerType::Sliding, "the last layer is as the pattern has it");
        assert_eq!(config.rope_full, RopeConfig { factor: 8.0, ..RopeConfig::new(1e6) });
        assert_eq!(config.rope_sliding.factor, 1.0);
    }

    #[test]
    fn rope_by_layer_type_is_the_same_as_the_older_keys() {
        let mut older = small();
        older["rope_scaling"] = json!({"type": "linear", "factor": 8.0});
        let mut newer = small();
        for key in ["rope_theta", "rope_local_base_freq", "rope_scaling"] {
            newer.as_object_mut().unwrap().remove(key);
        }
        newer["rope_parameters"] = json!({"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}});
        assert_eq!(read(&older), read(&newer));
    }

    #[test]
    fn the_pattern_is_a_period_or_a_list() {
        let mut period = small();
        period["sliding_window_pattern"] = json!(3);
        let mut list = small();
        let of = |i: usize| if i.is_multiple_of(3) { "full_attention" } else { "sliding_attention" };
        list["layer_types"] = (1..=18).map(of).collect();
        assert_eq!(read(&period), read(&list));
    }

    #[test]
    fn what_gemma_3_never_has_is_refused_by_name() {
        refuses("use_bidirectional_attention", json!(true), &["use_bidirectional_attention", "true", "false"]);
        refuses("attn_logit_softcapping", json!(50.0), &["attn_logit_softcapping", "50"]);
        refuses("sliding_window_pattern", json!(0), &["sliding_window_pattern", "at least 1"]);
        refuses("rope_scaling", json!({"rope_type": "yarn"}), &["rope_scaling.rope_type", "yarn", "linear"]);
        refuses("rope_scaling", json!({"rope_type": "linear"}), &["rope_scaling.factor", "absent"]);
        refuses("model_type", json!("gemma2"), &["model_type", "gemma2", "gemma3_text"]);
    }

    /// 27 billion parameters: `query_pre_attn_scalar` is 168, as 5376 / 32.
    #[test]
    fn one_size_scales_by_its_width_per_head() {
        let layer = read(&small()).layers[0];
        assert_eq!(attention_scale(640, 4, &vec![layer; 18]), 1.0 / 16.0);
        assert_eq!(attention_scale(5376, 32, &vec![layer; 62]), 168f32.powf(-0.5));
    }
}
