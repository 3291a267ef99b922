//! A Hugging Face directory of a model: its JSON files and the types its tensors are stored in.
//!
//! Source: transformers `models/gemma4/configuration_gemma4.py`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use carat_model::config::{Family, LayerType, RopeConfig};
use carat_model::{ModelConfig, SoftKind};
use carat_tensor::quant::decode_row;
use carat_tensor::{DType, Tensor};
use carat_weights::{Checkpoint, GgufFile, HfDir};
use serde_json::{Value, json};

use super::tokenizer;

/// Writes everything but the tensors to `dir`.
///
/// # Errors
/// If the config or the vocabulary can't be said in these files.
pub fn write_files(checkpoint: &Checkpoint, config: &ModelConfig, dir: &Path) -> anyhow::Result<()> {
    let put = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).with_context(|| format!("cannot write `{}`", dir.join(name).display()))
    };
    let put_json = |name: &str, value: &Value| put(name, serde_json::to_string_pretty(value)?.as_bytes());
    put_json("config.json", &config_json(config)?)?;
    match checkpoint {
        Checkpoint::HfDir(HfDir { generation_config, tokenizer_json, tokenizer_config, chat_template, .. }) => {
            if let Some(json) = generation_config {
                put_json("generation_config.json", json)?;
            }
            if let Some(json) = tokenizer_json {
                put("tokenizer.json", json)?;
            }
            if let Some(json) = tokenizer_config {
                put_json("tokenizer_config.json", json)?;
            }
            if let Some(template) = chat_template {
                put("chat_template.jinja", template.as_bytes())?;
            }
        }
        Checkpoint::Gguf(file) => {
            put_json("generation_config.json", &generation_config(file)?)?;
            if let Some((json, config)) = tokenizer::read_gguf(&file.metadata)? {
                put_json("tokenizer.json", &json)?;
                put_json("tokenizer_config.json", &config)?;
            }
            if let Some(template) = file.metadata.opt_str("tokenizer.chat_template")? {
                put("chat_template.jinja", template.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The type a tensor is stored in: its own where it is plain, else bf16. Vectors that converters widened to f32 go
/// back to bf16 where that loses nothing.
pub fn stored_type(tensor: &Tensor) -> DType {
    match tensor.dtype {
        DType::F32 if tensor.shape.len() < 2 && fits_bf16(tensor) => DType::BF16,
        DType::F32 | DType::F16 | DType::BF16 => tensor.dtype,
        _ => DType::BF16,
    }
}

fn fits_bf16(tensor: &Tensor) -> bool {
    let mut values = vec![0.0; tensor.len()];
    decode_row(DType::F32, &tensor.data, &mut values);
    values.iter().all(|v| v.to_bits() & 0xFFFF == 0)
}

/// How the model ends its answers and wants to be sampled.
fn generation_config(file: &GgufFile) -> anyhow::Result<Value> {
    let metadata = &file.metadata;
    let id = |name: &str| metadata.opt_u32(&format!("tokenizer.ggml.{name}_token_id"));
    let mut ends: Vec<u32> = id("eos")?.into_iter().collect();
    if metadata.contains("tokenizer.ggml.tokens") {
        // Files name one token; answers end with these as well.
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        ends.extend(
            (0..).zip(tokens).filter(|(_, t)| [&b"<turn|>"[..], b"<|tool_response>"].contains(t)).map(|(id, _)| id),
        );
    }
    let number = |key: &str| metadata.opt_f32(&format!("general.sampling.{key}"));
    let mut json = json!({
        "bos_token_id": id("bos")?,
        "eos_token_id": ends,
        "pad_token_id": id("padding")?,
        "do_sample": true,
        "temperature": number("temp")?.unwrap_or(1.0),
        "top_k": metadata.opt_u32("general.sampling.top_k")?.unwrap_or(64),
        // As a decimal of f32's digits, not of f64's.
        "top_p": number("top_p")?.unwrap_or(0.95).to_string().parse::<f64>()?,
    });
    if let Some(suppressed) = metadata.opt_u32s("tokenizer.ggml.suppress_tokens")? {
        json["suppress_tokens"] = json!(suppressed);
    }
    Ok(json)
}

/// `config.json` in the published spelling.
fn config_json(config: &ModelConfig) -> anyhow::Result<Value> {
    if config.family != Family::Gemma4 {
        bail!("directories are written for Gemma 4 only, and this is {}", config.family.architecture());
    }
    let of = |layer_type| config.layers.iter().find(|l| l.layer_type == layer_type).unwrap_or(&config.layers[0]);
    let (sliding, full) = (of(LayerType::Sliding), of(LayerType::Full));
    let width = config.layers[0].ffn_width;
    let double = config.n_shared_layers > 0 && config.layers[config.first_shared()].ffn_width == 2 * width;
    let rope = |rope: &RopeConfig, head_dim: usize| -> anyhow::Result<Value> {
        let turning = rope.inv_freq(head_dim).iter().filter(|f| **f > 0.0).count();
        let mut json = json!({"rope_type": "default", "rope_theta": rope.theta});
        if turning < head_dim / 2 || rope.factor != 1.0 {
            json["rope_type"] = json!("proportional");
            json["partial_rotary_factor"] = json!(2.0 * turning as f64 / head_dim as f64);
        }
        if rope.factor != 1.0 {
            json["factor"] = json!(rope.factor);
        }
        Ok(json)
    };
    let mut text = json!({
        "model_type": "gemma4_text",
        "hidden_size": config.d_model,
        "num_hidden_layers": config.layers.len(),
        "intermediate_size": width,
        "use_double_wide_mlp": double,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": sliding.n_kv_heads,
        "num_global_key_value_heads": if full.n_kv_heads == sliding.n_kv_heads { None } else { Some(full.n_kv_heads) },
        "head_dim": sliding.head_dim,
        "global_head_dim": full.head_dim,
        "attention_k_eq_v": config.full_value_is_key,
        "attention_bias": false,
        "layer_types": config.layers.iter().map(|l| l.layer_type.name()).collect::<Vec<_>>(),
        "sliding_window": config.window,
        "num_kv_shared_layers": config.n_shared_layers,
        "hidden_size_per_layer_input": config.per_layer.map_or(0, |p| p.width),
        "vocab_size": config.vocab_size,
        "vocab_size_per_layer_input": config.per_layer.map_or(config.vocab_size, |p| p.vocab_size),
        "max_position_embeddings": config.max_context,
        "rms_norm_eps": decimal(config.norm_eps)?,
        "final_logit_softcapping": config.softcap,
        "hidden_activation": "gelu_pytorch_tanh",
        "enable_moe_block": config.experts.is_some(),
        "use_bidirectional_attention": config.bidirectional_vision.then_some("vision"),
        "pad_token_id": config.pad.0,
        "tie_word_embeddings": config.tied_head,
        "rope_parameters": {
            "sliding_attention": rope(&config.rope_sliding, sliding.head_dim)?,
            "full_attention": rope(&config.rope_full, full.head_dim)?,
        },
    });
    if let Some(experts) = config.experts {
        text["num_experts"] = json!(experts.n_experts);
        text["top_k_experts"] = json!(experts.top_k);
        text["moe_intermediate_size"] = json!(experts.width);
    }
    let mut json = json!({
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "tie_word_embeddings": config.tied_head,
        "text_config": text,
        "vision_config": null,
        "audio_config": null,
    });
    for kind in SoftKind::ALL {
        if let Some(id) = config.placeholders.id(kind) {
            json[format!("{}_token_id", kind.name())] = json!(id.0);
        }
    }
    check(config, &json)?;
    Ok(json)
}

/// What is written must be read as what it was made of.
fn check(config: &ModelConfig, json: &Value) -> anyhow::Result<()> {
    let mut read = ModelConfig::from_json(json).context("the config can't be said in `config.json`")?;
    for layer_type in [LayerType::Sliding, LayerType::Full] {
        let dim = config.layers.iter().find(|l| l.layer_type == layer_type).map_or(2, |l| l.head_dim);
        if read.rope(layer_type).inv_freq(dim) != config.rope(layer_type).inv_freq(dim) {
            bail!("the RoPE frequencies of {} layers can't be said in `config.json`", layer_type.name());
        }
    }
    (read.rope_full, read.rope_sliding) = (config.rope_full.clone(), config.rope_sliding.clone());
    if read != *config {
        bail!("the layers' sizes differ in a way that can't be said in `config.json`");
    }
    Ok(())
}

/// The shortest decimal that is this f32.
fn decimal(v: f32) -> anyhow::Result<f64> {
    Ok(v.to_string().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_model::config::PRESETS;

    #[test]
    fn every_published_size_can_be_written_and_read_back() {
        for name in PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            let json = config_json(&config).unwrap();
            assert_eq!(ModelConfig::from_json(&json).unwrap(), config, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let mut config = ModelConfig::preset("E4B").unwrap();
        config.layers[3].ffn_width += 256;
        assert!(config_json(&config).unwrap_err().to_string().contains("the layers' sizes differ"));
        let mut config = ModelConfig::preset("E4B").unwrap();
        config.rope_full.divisors = (0..256).map(|i| 1.0 + i as f32).collect();
        assert!(config_json(&config).unwrap_err().to_string().contains("RoPE frequencies of full_attention"));
    }
}
