//! GGUF metadata: the same settings under llama.cpp's keys, scalars or one value per layer.
//!
//! Some settings have no key and follow from the tensors; [`FromTensors`] carries them. Others follow from the
//! architecture. Sources: llama.cpp `conversion/gemma.py`, `src/models/gemma4.cpp`, `src/models/gemma3.cpp`.

use carat_tensor::TokenId;
use carat_weights::{Metadata, Value};

use super::hf::FULL_EVERY;
use super::{
    ExpertsConfig, Family, LayerConfig, LayerType, MAX_LAYERS, ModelConfig, PerLayerConfig, Placeholders, RopeConfig,
    wrong,
};
use crate::ModelError;

const FAMILIES: [Family; 2] = [Family::Gemma4, Family::Gemma3];
/// Names of the tokens that stand for soft tokens.
const PLACEHOLDERS: [&[u8]; 3] = [b"<|image|>", b"<|audio|>", b"<|video|>"];

/// What a GGUF file says only by its tensors.
#[derive(Clone, Debug, Default)]
pub struct FromTensors {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Rows of the per-layer table, where there is one.
    pub per_layer_vocab_size: Option<usize>,
    /// Whether full layers lack a value projection.
    pub full_value_is_key: bool,
    /// The divisors of the full layers' RoPE frequencies.
    pub rope_divisors: Option<Vec<f32>>,
    /// Whether there is a head of its own.
    pub own_head: bool,
}

/// The family that a file is of.
///
/// # Errors
/// If it is of another one, or no model.
pub fn family(metadata: &Metadata) -> Result<Family, ModelError> {
    if let Some(kind @ "adapter") = metadata.opt_str("general.type")? {
        return Err(wrong("general.type", kind, "model: merge an adapter into the model that it was made for"));
    }
    let found = metadata.str("general.architecture")?;
    FAMILIES.into_iter().find(|f| f.architecture() == found).ok_or_else(|| {
        let known = FAMILIES.map(Family::architecture).join(" or ");
        let hint = match found {
            "clip" => ": this is an encoder of pictures or sound; name it with --mmproj, and give the model that it belongs to",
            _ if found.contains("assistant") => ": this is a drafter; give the file of the model that it belongs to",
            _ => "",
        };
        wrong("general.architecture", found, format!("{known}{hint}"))
    })
}

impl ModelConfig {
    /// Reads the metadata of a GGUF file.
    ///
    /// # Errors
    /// Names the key, what was found and what was expected.
    pub fn from_gguf(metadata: &Metadata, tensors: &FromTensors) -> Result<Self, ModelError> {
        let family = family(metadata)?;
        let m = Keys { metadata, family };
        let layers = layers(&m)?;
        let width = m.usize_or("embedding_length_per_layer_input", 0)?;
        let pad = metadata.opt_u32("tokenizer.ggml.padding_token_id")?.unwrap_or(0);
        let (d_model, n_heads) = (m.usize("embedding_length")?, heads(&m, layers.len())?);
        let older = family == Family::Gemma3;
        let mut config = ModelConfig {
            family,
            // Norm weights are stored as they are multiplied with.
            norm_offset: 0.0,
            attention_scale: 1.0,
            normed_values: !older,
            layer_scales: !older,
            rope_full: rope_full(&m, tensors)?,
            d_model,
            n_heads,
            vocab_size: tensors.vocab_size,
            max_context: m.usize_or("context_length", 131_072)?,
            window: m.usize("attention.sliding_window")?,
            norm_eps: m.f32("attention.layer_norm_rms_epsilon", 1e-6)?,
            softcap: softcap(&m)?,
            n_shared_layers: m.usize_or("attention.shared_kv_layers", 0)?,
            experts: experts(&m, layers.len())?,
            layers,
            full_value_is_key: tensors.full_value_is_key && !older,
            rope_sliding: RopeConfig::new(m.f32("rope.freq_base_swa", 1e4)?),
            per_layer: (width > 0).then_some(PerLayerConfig {
                width,
                vocab_size: tensors.per_layer_vocab_size.unwrap_or(tensors.vocab_size),
            }),
            tied_head: !tensors.own_head,
            // No key says so: llama.cpp tells the sizes apart by their per-layer embeddings.
            bidirectional_vision: width == 0 && !older,
            placeholders: placeholders(metadata)?,
            pad: TokenId(pad),
        };
        config.attention_scale = config.attention_scale_in_gguf();
        config.check()?;
        Ok(config)
    }
}

/// Reads keys below the architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    family: Family,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.architecture())
    }

    fn usize(&self, name: &str) -> Result<usize, ModelError> {
        Ok(self.metadata.u32(&self.key(name))? as usize)
    }

    fn usize_or(&self, name: &str, default: usize) -> Result<usize, ModelError> {
        Ok(self.metadata.opt_u32(&self.key(name))?.map_or(default, |v| v as usize))
    }

    fn f32(&self, name: &str, default: f32) -> Result<f32, ModelError> {
        let value = self.metadata.opt_f32(&self.key(name))?.unwrap_or(default);
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(wrong(&self.key(name), value, "a positive number"))
        }
    }

    /// One value for all layers or one for each.
    fn each(&self, name: &str, n: usize) -> Result<Vec<usize>, ModelError> {
        Ok(self.metadata.u32_each(&self.key(name), n)?.into_iter().map(|v| v as usize).collect())
    }
}

/// The bound of the logits; 0 says that there is none.
fn softcap(m: &Keys<'_>) -> Result<Option<f32>, ModelError> {
    let name = "final_logit_softcapping";
    match m.metadata.opt_f32(&m.key(name))? {
        None | Some(0.0) => Ok(None),
        Some(bound) => m.f32(name, bound).map(Some),
    }
}

/// RoPE of the full layers: a quarter of the pairs turns in Gemma 4, all in Gemma 3, whose larger sizes stretch it.
fn rope_full(m: &Keys<'_>, tensors: &FromTensors) -> Result<RopeConfig, ModelError> {
    let all = RopeConfig::new(m.f32("rope.freq_base", 1e6)?);
    match (&tensors.rope_divisors, m.family) {
        (Some(divisors), _) => Ok(RopeConfig { divisors: divisors.clone(), ..all }),
        (None, Family::Gemma4) => Ok(RopeConfig { rotated: 0.25, ..all }),
        (None, Family::Gemma3) => {
            let key = "rope.scaling.type";
            match m.metadata.opt_str(&m.key(key))? {
                None | Some("none") => Ok(all),
                Some("linear") => Ok(RopeConfig { factor: m.f32("rope.scaling.factor", 1.0)?, ..all }),
                Some(other) => Err(wrong(&m.key(key), other, "none or linear")),
            }
        }
    }
}

fn layers(m: &Keys<'_>) -> Result<Vec<LayerConfig>, ModelError> {
    let n = m.usize("block_count")?;
    if !(1..=MAX_LAYERS).contains(&n) {
        return Err(wrong(&m.key("block_count"), n, format!("1 to {MAX_LAYERS}")));
    }
    let sliding = sliding(m, n)?;
    let n_kv_heads = m.each("attention.head_count_kv", n)?;
    let widths = m.each("feed_forward_length", n)?;
    let full = head_dim(m, "attention.key_length", "attention.value_length")?;
    let own = m.family == Family::Gemma4 || m.metadata.contains(&m.key("attention.key_length_swa"));
    let swa = if own { head_dim(m, "attention.key_length_swa", "attention.value_length_swa")? } else { full };
    let layer = |i: usize| LayerConfig {
        layer_type: if sliding[i] { LayerType::Sliding } else { LayerType::Full },
        head_dim: if sliding[i] { swa } else { full },
        n_kv_heads: n_kv_heads[i],
        ffn_width: widths[i],
    };
    Ok((0..n).map(layer).collect())
}

/// Whether each layer has a window: truth values, the same as integers, or one number, every so many a full layer.
fn sliding(m: &Keys<'_>, n: usize) -> Result<Vec<bool>, ModelError> {
    let key = m.key("attention.sliding_window_pattern");
    let pattern: Vec<bool> = match m.metadata.get(&key) {
        None if m.family == Family::Gemma3 => (1..=n).map(|i| !i.is_multiple_of(FULL_EVERY)).collect(),
        Some(Value::Int(..)) => {
            let period = m.metadata.u32(&key)? as usize;
            if period == 0 {
                return Err(wrong(&key, period, "at least 1"));
            }
            (1..=n).map(|i| !i.is_multiple_of(period)).collect()
        }
        Some(Value::Array(array)) if array.ints().is_some() => {
            let ints = m.metadata.opt_u32s(&key)?.unwrap_or_default();
            if let Some(other) = ints.iter().find(|v| **v > 1) {
                return Err(wrong(&key, other, "0 or 1 for each layer"));
            }
            ints.into_iter().map(|v| v == 1).collect()
        }
        _ => m.metadata.bools(&key)?,
    };
    if pattern.len() != n {
        return Err(wrong(&key, format!("{} values", pattern.len()), format!("one per layer, {n}")));
    }
    Ok(pattern)
}

fn head_dim(m: &Keys<'_>, key: &str, value: &str) -> Result<usize, ModelError> {
    let dim = m.usize(key)?;
    let values = m.usize_or(value, dim)?;
    if values != dim { Err(wrong(&m.key(value), values, format!("{dim}, as `{}`", m.key(key)))) } else { Ok(dim) }
}

fn heads(m: &Keys<'_>, n: usize) -> Result<usize, ModelError> {
    same(m, "attention.head_count", n)
}

/// A setting that files may spell out per layer and this model has once.
fn same(m: &Keys<'_>, key: &str, n: usize) -> Result<usize, ModelError> {
    let values = m.each(key, n)?;
    match values.iter().find(|&&v| v != values[0]) {
        Some(other) => Err(wrong(&m.key(key), other, format!("{} on every layer", values[0]))),
        None => Ok(values[0]),
    }
}

fn experts(m: &Keys<'_>, n: usize) -> Result<Option<ExpertsConfig>, ModelError> {
    let n_experts = m.usize_or("expert_count", 0)?;
    if n_experts == 0 {
        return Ok(None);
    }
    let (top_k, width) = (m.usize("expert_used_count")?, same(m, "expert_feed_forward_length", n)?);
    Ok(Some(ExpertsConfig { n_experts, top_k, width }))
}

fn placeholders(metadata: &Metadata) -> Result<Placeholders, ModelError> {
    let (key, mut found) = ("tokenizer.ggml.tokens", [None; 3]);
    if !metadata.contains(key) {
        return Ok(Placeholders::default());
    }
    for (id, token) in (0..).zip(metadata.strings(key)?) {
        if let Some(place) = PLACEHOLDERS.iter().position(|p| *p == token) {
            found[place].get_or_insert(TokenId(id));
        }
    }
    let [image, audio, video] = found;
    Ok(Placeholders { image, audio, video })
}
