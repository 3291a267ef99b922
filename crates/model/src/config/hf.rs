//! `config.json`: the whole model's, with a `text_config` in it, or a bare text config.
//!
//! Published files spell the full layers' heads as `global_head_dim` and `num_global_key_value_heads`; transformers
//! 5.23 writes `per_layer_config`, a map from layer to overrides. Both are read. What a file leaves out has the
//! default of transformers `configuration_gemma4.Gemma4TextConfig`, or of `Gemma4UnifiedTextConfig` where it is of that kind;
//! sizes have none here. Gemma 3 has a file of its own, [`super::gemma3`].

use carat_tensor::TokenId;
use serde_json::Value;

use super::json::Reader;
use super::{
    ExpertsConfig, Family, LayerConfig, LayerType, MAX_LAYERS, ModelConfig, PerLayerConfig, Placeholders, RopeConfig,
    gemma3, wrong,
};
use crate::ModelError;

/// Model types of the whole, of the text part alone.
const MODEL_TYPES: [(&str, Family); 6] = [
    ("gemma4", Family::Gemma4),
    ("gemma4_unified", Family::Gemma4),
    ("gemma4_text", Family::Gemma4),
    ("gemma4_unified_text", Family::Gemma4),
    ("gemma3", Family::Gemma3),
    ("gemma3_text", Family::Gemma3),
];
/// Every so many layers one is full, where no list says.
pub(super) const FULL_EVERY: usize = 6;

impl ModelConfig {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key, what was found and what was expected.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        let outer = Reader::new(json, "")?;
        let text = outer.object("text_config")?;
        let has_text = text.is_some();
        let text = text.unwrap_or(Reader::new(json, "")?);
        let families = [check_kind(&outer)?, check_kind(&text)?];
        let config = match families.into_iter().flatten().last() {
            Some(Family::Gemma3) => gemma3::from_json(&outer, &text)?,
            _ => gemma4(&outer, &text, has_text)?,
        };
        config.check()?;
        Ok(config)
    }
}

fn gemma4(outer: &Reader<'_>, text: &Reader<'_>, has_text: bool) -> Result<ModelConfig, ModelError> {
    let unified = is_unified(text)?;
    let (max_context, window) = if unified { (262_144, 1024) } else { (131_072, 512) };
    Ok(ModelConfig {
        family: Family::Gemma4,
        norm_offset: 0.0,
        attention_scale: 1.0,
        normed_values: true,
        layer_scales: true,
        d_model: text.usize("hidden_size")?,
        n_heads: text.usize("num_attention_heads")?,
        vocab_size: text.opt_usize("vocab_size")?.unwrap_or(262_144),
        max_context: text.opt_usize("max_position_embeddings")?.unwrap_or(max_context),
        window: text.opt_usize("sliding_window")?.unwrap_or(window),
        norm_eps: text.opt_f32("rms_norm_eps")?.unwrap_or(1e-6),
        softcap: text.opt_f32("final_logit_softcapping")?,
        n_shared_layers: text.opt_usize("num_kv_shared_layers")?.unwrap_or(0),
        layers: layers(text)?,
        full_value_is_key: text.bool("attention_k_eq_v")?,
        rope_sliding: rope(text, LayerType::Sliding)?,
        rope_full: rope(text, LayerType::Full)?,
        per_layer: per_layer(text, unified)?,
        experts: experts(text)?,
        tied_head: tied_head(outer)?.or(tied_head(text)?).unwrap_or(true),
        bidirectional_vision: bidirectional_vision(text, unified)?,
        placeholders: if has_text { placeholders(outer)? } else { Placeholders::default() },
        pad: token(text, "pad_token_id")?.unwrap_or(TokenId(0)),
    })
}

/// Whether it is 12B's kind of config, which has defaults of its own.
fn is_unified(text: &Reader<'_>) -> Result<bool, ModelError> {
    Ok(text.opt_str("model_type")? == Some("gemma4_unified_text"))
}

/// Whose files, if they say so. Refuses other models and settings that no published member of the family has.
fn check_kind(r: &Reader<'_>) -> Result<Option<Family>, ModelError> {
    let find = |found| MODEL_TYPES.iter().find(|(name, _)| *name == found).map(|(_, family)| *family);
    let found = r.opt_str("model_type")?;
    let family = found.and_then(find);
    if found.is_some() && family.is_none() {
        return Err(r.wrong("model_type", &format!("one of {}", MODEL_TYPES.map(|(name, _)| name).join(", "))));
    }
    if r.opt_str("hidden_activation")?.is_some_and(|found| found != "gelu_pytorch_tanh") {
        return Err(r.wrong("hidden_activation", "gelu_pytorch_tanh"));
    }
    if r.bool("attention_bias")? {
        return Err(r.wrong("attention_bias", "false"));
    }
    Ok(family)
}

/// How many layers.
pub(super) fn layer_count(text: &Reader<'_>) -> Result<usize, ModelError> {
    let n = text.usize("num_hidden_layers")?;
    if (1..=MAX_LAYERS).contains(&n) {
        Ok(n)
    } else {
        Err(text.wrong("num_hidden_layers", &format!("1 to {MAX_LAYERS}")))
    }
}

/// Types, heads and widths of the layers.
fn layers(text: &Reader<'_>) -> Result<Vec<LayerConfig>, ModelError> {
    let n = layer_count(text)?;
    let types = layer_types_ending_full(text, n)?;
    let head_dim = text.opt_usize("head_dim")?.unwrap_or(256);
    let n_kv_heads = text.usize("num_key_value_heads")?;
    let width = text.usize("intermediate_size")?;
    let first_shared = n.saturating_sub(text.opt_usize("num_kv_shared_layers")?.unwrap_or(0));
    let double = text.bool("use_double_wide_mlp")?;
    let layer = |(i, &layer_type)| {
        let ffn_width = if double && i >= first_shared { width.saturating_mul(2) } else { width };
        LayerConfig { layer_type, head_dim, n_kv_heads, ffn_width }
    };
    let mut layers: Vec<_> = types.iter().enumerate().map(layer).collect();
    match text.object("per_layer_config")? {
        Some(overrides) => apply_overrides(&mut layers, &overrides)?,
        None => apply_global(&mut layers, text)?,
    }
    Ok(layers)
}

/// The list of types, or every `period`th layer full.
pub(super) fn layer_types(text: &Reader<'_>, n: usize, period: usize) -> Result<Vec<LayerType>, ModelError> {
    let Some(list) = text.get("layer_types") else {
        let of = |i: usize| if i.is_multiple_of(period) { LayerType::Full } else { LayerType::Sliding };
        return Ok((1..=n).map(of).collect());
    };
    let expected = format!("a list of {n} of sliding_attention and full_attention");
    let of = |v: &Value| [LayerType::Sliding, LayerType::Full].into_iter().find(|t| v == t.name());
    let types: Option<Vec<_>> = list.as_array().and_then(|list| list.iter().map(of).collect());
    types.filter(|t| t.len() == n).ok_or_else(|| text.wrong("layer_types", &expected))
}

fn layer_types_ending_full(text: &Reader<'_>, n: usize) -> Result<Vec<LayerType>, ModelError> {
    let mut types = layer_types(text, n, FULL_EVERY)?;
    // The reference forces the last layer to be full, whatever the list says.
    if let Some(last) = types.last_mut() {
        *last = LayerType::Full;
    }
    Ok(types)
}

/// `per_layer_config`: overrides by layer number or by layer type.
fn apply_overrides(layers: &mut [LayerConfig], overrides: &Reader<'_>) -> Result<(), ModelError> {
    for (key, value) in overrides.entries() {
        let settings = Reader::new(value, &overrides.name(key))?;
        let by_number = key.parse::<usize>().ok();
        let mut applied = false;
        for (i, layer) in layers.iter_mut().enumerate() {
            if by_number != Some(i) && key != layer.layer_type.name() {
                continue;
            }
            applied = true;
            for (name, _) in settings.entries() {
                match name.as_str() {
                    "head_dim" => layer.head_dim = settings.usize(name)?,
                    "num_key_value_heads" => layer.n_kv_heads = settings.usize(name)?,
                    "intermediate_size" => layer.ffn_width = settings.usize(name)?,
                    _ => return Err(settings.wrong(name, "no such override: this model knows none")),
                }
            }
        }
        if !applied {
            return Err(overrides.wrong(key, &format!("a key from 0 to {} or a layer type", layers.len() - 1)));
        }
    }
    Ok(())
}

/// The published spelling: one setting for all full layers.
fn apply_global(layers: &mut [LayerConfig], text: &Reader<'_>) -> Result<(), ModelError> {
    let default = (!text.contains("global_head_dim")).then_some(512);
    let head_dim = text.opt_usize("global_head_dim")?.or(default);
    // Without `attention_k_eq_v` the reference ignores the full layers' own head count.
    let n_kv_heads =
        text.opt_usize("num_global_key_value_heads")?.filter(|_| text.bool("attention_k_eq_v").is_ok_and(|b| b));
    for layer in layers.iter_mut().filter(|l| l.layer_type == LayerType::Full) {
        layer.head_dim = head_dim.unwrap_or(layer.head_dim);
        layer.n_kv_heads = n_kv_heads.unwrap_or(layer.n_kv_heads);
    }
    Ok(())
}

fn rope(text: &Reader<'_>, layer_type: LayerType) -> Result<RopeConfig, ModelError> {
    let mut rope = match layer_type {
        LayerType::Sliding => RopeConfig::new(1e4),
        LayerType::Full => RopeConfig { rotated: 0.25, ..RopeConfig::new(1e6) },
    };
    let Some(all) = text.object("rope_parameters")? else { return Ok(rope) };
    let Some(own) = all.object(layer_type.name())? else {
        return Err(all.wrong(layer_type.name(), "an object with rope_type and rope_theta"));
    };
    rope.theta = own.opt_f32("rope_theta")?.ok_or_else(|| own.wrong("rope_theta", "a positive number"))?;
    rope.factor = 1.0;
    match own.opt_str("rope_type")? {
        None | Some("default") => rope.rotated = 1.0,
        Some("proportional") => {
            rope.rotated = own.opt_f32("partial_rotary_factor")?.unwrap_or(1.0);
            rope.factor = own.opt_f32("factor")?.unwrap_or(1.0);
            if rope.rotated > 1.0 {
                return Err(own.wrong("partial_rotary_factor", "at most 1"));
            }
        }
        Some(_) => return Err(own.wrong("rope_type", "default or proportional")),
    }
    Ok(rope)
}

fn per_layer(text: &Reader<'_>, unified: bool) -> Result<Option<PerLayerConfig>, ModelError> {
    // A unified config has no such key, and the others' default is the small sizes' (`Gemma4TextConfig`).
    let default = (!unified && !text.contains("hidden_size_per_layer_input")).then_some(256);
    let width = text.opt_usize("hidden_size_per_layer_input")?.or(default).unwrap_or(0);
    let vocab_size = text.opt_usize("vocab_size_per_layer_input")?.unwrap_or(262_144);
    Ok((width > 0).then_some(PerLayerConfig { width, vocab_size }))
}

fn experts(text: &Reader<'_>) -> Result<Option<ExpertsConfig>, ModelError> {
    if !text.bool("enable_moe_block")? {
        return Ok(None);
    }
    Ok(Some(ExpertsConfig {
        n_experts: text.usize("num_experts")?,
        top_k: text.usize("top_k_experts")?,
        width: text.usize("moe_intermediate_size")?,
    }))
}

pub(super) fn tied_head(r: &Reader<'_>) -> Result<Option<bool>, ModelError> {
    let key = "tie_word_embeddings";
    if r.contains(key) { r.bool(key).map(Some) } else { Ok(None) }
}

fn bidirectional_vision(text: &Reader<'_>, unified: bool) -> Result<bool, ModelError> {
    let key = "use_bidirectional_attention";
    match text.opt_str(key)? {
        None => Ok(unified && !text.contains(key)),
        Some("vision") => Ok(true),
        Some(_) => Err(text.wrong(key, "null or vision")),
    }
}

pub(super) fn token(r: &Reader<'_>, key: &str) -> Result<Option<TokenId>, ModelError> {
    let Some(id) = r.opt_usize(key)? else { return Ok(None) };
    let id = u32::try_from(id).map_err(|_| wrong(&r.name(key), id, "a token id"))?;
    Ok(Some(TokenId(id)))
}

fn placeholders(outer: &Reader<'_>) -> Result<Placeholders, ModelError> {
    Ok(Placeholders {
        image: token(outer, "image_token_id")?,
        audio: token(outer, "audio_token_id")?,
        video: token(outer, "video_token_id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The published spelling of E2B's text part.
    fn e2b() -> Value {
        json!({"model_type": "gemma4", "image_token_id": 258880, "audio_token_id": 258881, "video_token_id": 258884,
            "text_config": {
            "model_type": "gemma4_text", "hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144,
            "use_double_wide_mlp": true, "num_attention_heads": 8, "num_key_value_heads": 1,
            "num_global_key_value_heads": null, "head_dim": 256, "global_head_dim": 512, "attention_k_eq_v": false,
            "sliding_window": 512, "num_kv_shared_layers": 20, "hidden_size_per_layer_input": 256,
            "vocab_size": 262144, "vocab_size_per_layer_input": 262144, "max_position_embeddings": 131072,
            "enable_moe_block": false, "use_bidirectional_attention": null, "rms_norm_eps": 1e-6,
            "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": (1..=35).map(|i| if i % 5 == 0 { "full_attention" } else { "sliding_attention" }).collect::<Vec<_>>(),
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25}}}})
    }

    fn a4b() -> Value {
        json!({"model_type": "gemma4_text", "hidden_size": 2816, "num_hidden_layers": 30, "intermediate_size": 2112,
            "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2, "head_dim": 256,
            "global_head_dim": 512, "attention_k_eq_v": true, "sliding_window": 1024, "hidden_size_per_layer_input": 0,
            "max_position_embeddings": 262144, "enable_moe_block": true, "num_experts": 128, "top_k_experts": 8,
            "moe_intermediate_size": 704, "use_bidirectional_attention": "vision", "final_logit_softcapping": 30.0})
    }

    #[track_caller]
    fn refuses(change: impl Fn(&mut Value), texts: &[&str]) {
        let mut json = e2b();
        change(&mut json);
        let error = ModelConfig::from_json(&json).unwrap_err().to_string();
        for text in texts {
            assert!(error.contains(text), "`{text}` is not in: {error}");
        }
    }

    #[test]
    fn the_published_spelling_gives_the_preset() {
        assert_eq!(ModelConfig::from_json(&e2b()).unwrap(), ModelConfig::preset("E2B").unwrap());
    }

    #[test]
    fn absent_keys_have_the_defaults_of_the_reference() {
        let expected = ModelConfig { placeholders: Placeholders::default(), ..ModelConfig::preset("26B-A4B").unwrap() };
        assert_eq!(ModelConfig::from_json(&a4b()).unwrap(), expected);
    }

    /// The defaults of `Gemma4UnifiedTextConfig`.
    #[test]
    fn absent_keys_of_a_unified_config_have_defaults_of_their_own() {
        let mut json = json!({"model_type": "gemma4_unified_text", "hidden_size": 3840, "num_hidden_layers": 48,
            "intermediate_size": 15360, "num_attention_heads": 16, "num_key_value_heads": 8,
            "num_global_key_value_heads": 1, "attention_k_eq_v": true, "final_logit_softcapping": 30.0});
        let expected = ModelConfig { placeholders: Placeholders::default(), ..ModelConfig::preset("12B").unwrap() };
        assert_eq!(ModelConfig::from_json(&json).unwrap(), expected);
        json["use_bidirectional_attention"] = Value::Null;
        assert!(!ModelConfig::from_json(&json).unwrap().bidirectional_vision);
    }

    #[test]
    fn per_layer_overrides_give_the_same_config_as_the_published_spelling() {
        let mut json = a4b();
        let text = json.as_object_mut().unwrap();
        text.remove("global_head_dim");
        text.remove("num_global_key_value_heads");
        let full: serde_json::Map<_, _> = [5, 11, 17, 23, 29]
            .map(|i: usize| (i.to_string(), json!({"head_dim": 512, "num_key_value_heads": 2})))
            .into_iter()
            .collect();
        text.insert("per_layer_config".into(), Value::Object(full));
        assert_eq!(ModelConfig::from_json(&json).unwrap(), ModelConfig::from_json(&a4b()).unwrap());
    }

    #[test]
    fn a_null_full_head_size_means_the_common_one() {
        let mut json = a4b();
        json["global_head_dim"] = Value::Null;
        assert!(ModelConfig::from_json(&json).unwrap().layers.iter().all(|l| l.head_dim == 256));
    }

    #[test]
    fn full_layers_keep_the_common_head_count_unless_keys_are_values() {
        let mut json = a4b();
        json["attention_k_eq_v"] = json!(false);
        assert!(ModelConfig::from_json(&json).unwrap().layers.iter().all(|l| l.n_kv_heads == 8));
    }

    #[test]
    fn the_last_layer_is_forced_full() {
        let mut json = a4b();
        json["layer_types"] = json!(vec!["sliding_attention"; 30]);
        let types: Vec<_> = ModelConfig::from_json(&json).unwrap().layers.iter().map(|l| l.layer_type).collect();
        assert_eq!((types[28], types[29]), (LayerType::Sliding, LayerType::Full));
    }

    #[test]
    fn errors_name_key_found_and_expected() {
        refuses(
            |j| drop(j["text_config"].as_object_mut().unwrap().remove("hidden_size")),
            &["text_config.hidden_size", "absent", "a count"],
        );
        refuses(|j| j["text_config"]["layer_types"] = json!(["full_attention"]), &["layer_types", "35"]);
        refuses(|j| j["model_type"] = json!("llama"), &["model_type", "llama", "gemma4"]);
        refuses(|j| j["text_config"]["num_attention_heads"] = json!("8"), &["num_attention_heads", "\"8\""]);
        refuses(
            |j| j["text_config"]["rope_parameters"]["full_attention"]["rope_type"] = json!("yarn"),
            &["rope_type", "yarn", "proportional"],
        );
        refuses(|j| j["text_config"]["num_key_value_heads"] = json!(3), &["num_key_value_heads", "3", "divisor"]);
        refuses(
            |j| j["text_config"]["use_bidirectional_attention"] = json!("all"),
            &["use_bidirectional_attention", "all"],
        );
        refuses(|j| j["text_config"]["num_hidden_layers"] = json!(1u64 << 40), &["num_hidden_layers"]);
        refuses(
            |j| j["text_config"]["num_kv_shared_layers"] = json!(99),
            &["num_kv_shared_layers", "99", "fewer than the 35 layers"],
        );
        refuses(
            |j| j["text_config"]["vocab_size_per_layer_input"] = json!(1u64 << 40),
            &["vocab_size_per_layer_input", "up to 2097152"],
        );
    }
}
