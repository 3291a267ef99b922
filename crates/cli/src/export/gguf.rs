//! The head of a GGUF file: the metadata llama.cpp's converter writes for this family, and the tensor table.
//!
//! Sources: llama.cpp `conversion/gemma.py` (`Gemma4Model`, `Gemma3Model`), `conversion/base.py`, gguf-py `metadata.py`.

use std::path::Path;

use anyhow::bail;
use carat_model::ModelConfig;
use carat_model::config::{Family, LayerType};
use carat_model::load::{ModelTensor, ROPE_DIVISORS_NAME};
use carat_tensor::DType;
use carat_weights::{Checkpoint, GgufWriter, HfDir, Metadata, Value, ValueType};

use super::tokenizer;

/// A divisor that stands for a pair that doesn't turn.
const STILL: f32 = 1e30;
/// Version of the block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// A head, and what follows it before the model's own tensors.
pub struct Head {
    /// Metadata and tensors.
    pub writer: GgufWriter,
    /// The divisors of the full layers' RoPE frequencies, the first tensor of the file; none in Gemma 3.
    pub divisors: Vec<f32>,
    /// Whether there is a vocabulary.
    pub has_vocabulary: bool,
}

/// Puts the head together: `tensors` are stored in `types`, and `file_type` says which type most of them have.
///
/// # Errors
/// If the checkpoint's tokenizer can't be written, or GGUF has no way to say a setting.
pub fn head(
    checkpoint: &Checkpoint,
    path: &Path,
    config: &ModelConfig,
    (tensors, types): (&[ModelTensor], &[DType]),
    file_type: u32,
) -> anyhow::Result<Head> {
    let mut writer = GgufWriter::new();
    let has_vocabulary = match checkpoint {
        Checkpoint::Gguf(file) => {
            copy(&mut writer, &file.metadata, file_type);
            file.metadata.contains("tokenizer.ggml.tokens")
        }
        Checkpoint::HfDir(dir) => {
            general(&mut writer, dir, path, config);
            if config.attention_scale != config.attention_scale_in_gguf() {
                bail!(
                    "scores are scaled by {}; a GGUF file of this shape means {}",
                    config.attention_scale,
                    config.attention_scale_in_gguf()
                );
            }
            hyperparameters(&mut writer, config);
            writer.u32("general.file_type", file_type).u32("general.quantization_version", QUANTIZATION_VERSION);
            tokenizer::write_gguf(&mut writer, dir)?
        }
    };
    let divisors = divisors(config);
    if !divisors.is_empty() {
        writer.tensor(ROPE_DIVISORS_NAME, DType::F32, &[divisors.len()]);
    }
    for (tensor, dtype) in tensors.iter().zip(types) {
        writer.tensor(&tensor.gguf, *dtype, &tensor.shape);
    }
    Ok(Head { writer, divisors, has_vocabulary })
}

/// All of another file's metadata, but for what says how its tensors are stored.
fn copy(writer: &mut GgufWriter, metadata: &Metadata, file_type: u32) {
    const OF_THE_FILE: [&str; 3] = ["general.file_type", "general.quantization_version", "general.alignment"];
    for (key, value) in metadata.iter() {
        if !OF_THE_FILE.contains(&key) && !key.starts_with("split.") && !key.starts_with("quantize.imatrix.") {
            writer.value(key, value);
        }
    }
    writer.u32("general.file_type", file_type).u32("general.quantization_version", QUANTIZATION_VERSION);
}

/// What the model is, apart from its numbers.
fn general(writer: &mut GgufWriter, dir: &HfDir, path: &Path, config: &ModelConfig) {
    writer.str("general.architecture", config.family.architecture()).str("general.type", "model");
    let generation = |key: &str| dir.generation_config.as_ref().and_then(|g| g.get(key));
    if let Some(k) = generation("top_k").and_then(serde_json::Value::as_i64) {
        writer.value("general.sampling.top_k", &Value::Int(ValueType::I32, k.into()));
    }
    for (key, json) in [("general.sampling.top_p", "top_p"), ("general.sampling.temp", "temperature")] {
        if let Some(v) = generation(json).and_then(serde_json::Value::as_f64) {
            writer.f32(key, v as f32);
        }
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let dir_path = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
    if let Some(name) = dir_path.and_then(Path::file_name).and_then(|name| name.to_str()) {
        writer.str("general.name", name);
    }
    writer.str("general.size_label", &size_label(config.parameters()));
    let suppressed = generation("suppress_tokens").and_then(serde_json::Value::as_array);
    let ids = suppressed.map(|ids| ids.iter().filter_map(|id| id.as_i64().and_then(|id| i32::try_from(id).ok())));
    if let Some(ids) = ids {
        writer.i32s("tokenizer.ggml.suppress_tokens", &ids.collect::<Vec<_>>());
    }
}

/// The numbers: one where all layers have the same, one for each where they differ.
fn hyperparameters(writer: &mut GgufWriter, config: &ModelConfig) {
    let key = |name: &str| format!("{}.{name}", config.family.architecture());
    let count = |w: &mut GgufWriter, name: &str, n: usize| _ = w.u32(&key(name), n as u32);
    let each = |w: &mut GgufWriter, name: &str, values: Vec<usize>| {
        if values.iter().all(|v| *v == values[0]) {
            w.u32(&key(name), values[0] as u32);
        } else {
            w.i32s(&key(name), &values.iter().map(|v| *v as i32).collect::<Vec<_>>());
        }
    };
    let of = |layer_type: LayerType| {
        config.layers.iter().find(|l| l.layer_type == layer_type).map_or(config.layers[0].head_dim, |l| l.head_dim)
    };
    let (full, sliding) = (of(LayerType::Full), of(LayerType::Sliding));
    count(writer, "block_count", config.layers.len());
    count(writer, "context_length", config.max_context);
    count(writer, "embedding_length", config.d_model);
    each(writer, "feed_forward_length", config.layers.iter().map(|l| l.ffn_width).collect());
    count(writer, "attention.head_count", config.n_heads);
    each(writer, "attention.head_count_kv", config.layers.iter().map(|l| l.n_kv_heads).collect());
    writer.f32(&key("rope.freq_base"), config.rope_full.theta);
    writer.f32(&key("rope.freq_base_swa"), config.rope_sliding.theta);
    writer.f32(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
    if let Some(experts) = config.experts {
        count(writer, "expert_count", experts.n_experts);
        count(writer, "expert_used_count", experts.top_k);
        count(writer, "expert_feed_forward_length", experts.width);
    }
    let ends: &[_] = match config.family {
        Family::Gemma3 => &[("", full)],
        Family::Gemma4 => &[("", full), ("_swa", sliding)],
    };
    for (end, dim) in ends {
        for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            count(writer, &format!("{name}{end}"), *dim);
        }
    }
    if let Some(softcap) = config.softcap {
        writer.f32(&key("final_logit_softcapping"), softcap);
    }
    count(writer, "attention.sliding_window", config.window);
    match config.family {
        Family::Gemma3 if config.rope_full.factor != 1.0 => {
            writer.str(&key("rope.scaling.type"), "linear").f32(&key("rope.scaling.factor"), config.rope_full.factor);
        }
        Family::Gemma3 => {}
        Family::Gemma4 => {
            count(writer, "attention.shared_kv_layers", config.n_shared_layers);
            count(writer, "embedding_length_per_layer_input", config.per_layer.map_or(0, |p| p.width));
        }
    }
    let sliding: Vec<bool> = config.layers.iter().map(|l| l.layer_type == LayerType::Sliding).collect();
    writer.bools(&key("attention.sliding_window_pattern"), &sliding);
}

/// What the full layers' RoPE frequencies are divided by: 1 for pairs that turn, something immense for the others.
fn divisors(config: &ModelConfig) -> Vec<f32> {
    let rope = &config.rope_full;
    if !rope.divisors.is_empty() {
        return rope.divisors.clone();
    }
    if config.family == Family::Gemma3 {
        return Vec::new();
    }
    let full = config.layers.iter().find(|l| l.layer_type == LayerType::Full);
    let pairs = full.map_or(0, |l| l.head_dim / 2);
    let turning = (rope.rotated * pairs as f32).floor() as usize;
    (0..pairs).map(|i| if i < turning { rope.factor } else { STILL }).collect()
}

/// A number of parameters in two digits or more, e.g. `1.1M`, `26B`.
fn size_label(parameters: usize) -> String {
    let n = parameters as f64;
    let (scaled, unit) = [(1e12, "T"), (1e9, "B"), (1e6, "M")]
        .into_iter()
        .find(|(size, _)| n > *size)
        .map_or((n / 1e3, "K"), |(size, unit)| (n / size, unit));
    if scaled.round() >= 10.0 { format!("{scaled:.0}{unit}") } else { format!("{scaled:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        for (n, expected) in [(1_085_000, "1.1M"), (5_100_000_000, "5.1B"), (25_800_000_000, "26B"), (900, "0.9K")] {
            assert_eq!(size_label(n), expected);
        }
    }

    #[test]
    fn divisors_stop_a_quarter_of_the_published_heads_pairs() {
        let divisors = divisors(&ModelConfig::preset("E2B").unwrap());
        assert_eq!(divisors.len(), 256);
        assert_eq!(divisors.iter().filter(|d| **d == 1.0).count(), 64);
        assert!(divisors[64..].iter().all(|d| *d == STILL));
    }
}
