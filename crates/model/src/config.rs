//! What a checkpoint says about its model: [`ModelConfig`], from `config.json`, from GGUF metadata, or a preset.
//!
//! Both file kinds are read into one struct whose per-layer settings are already spelt out per layer, and
//! [`ModelConfig::check`] refuses what this model can't be. How the layers then work is [`crate::plan`]'s job.
//! The published sizes are data at the bottom.
//!
//! Sources: transformers `configuration_gemma4.Gemma4TextConfig`, `configuration_gemma3.Gemma3TextConfig`; llama.cpp
//! `conversion/gemma.py` for GGUF keys.

mod audio;
mod gemma3;
pub(crate) mod gguf;
mod hf;
mod json;
mod mmproj;
mod unified;
mod vision;

pub use audio::{AudioConfig, BANDS, FRAMES_PER_TOKEN, LAYER_NORM_EPS, MAX_REACH};
pub use gguf::FromTensors;
pub use unified::{BLOCK_SIDE, BLOCK_VALUES, BlocksConfig, FramesConfig};
pub use vision::{PATCH_SIDE, PATCH_VALUES, PATCHES_PER_TOKEN, POOL_SIDE, VisionConfig};

use carat_tensor::TokenId;

use crate::{ModelError, SoftKind};

/// Most layers accepted; a bound for allocations made from a file's word.
pub const MAX_LAYERS: usize = 1024;
/// Most query heads accepted.
pub const MAX_HEADS: usize = 1024;
/// Largest head accepted; attention keeps a head's sums in fixed scratch.
pub const MAX_HEAD_DIM: usize = 1024;
/// Most experts of a layer accepted.
pub const MAX_EXPERTS: usize = 1024;
/// Largest width or vocabulary accepted, for the same reason. With all at their bounds the parameters are fewer than 2^64: three
/// matrices of every expert of every layer are 3 · 2^(10 + 10 + 21 + 21), and all else is less than 2^56.
pub const MAX_SIZE: usize = 1 << 21;

/// Whose files these are: how they are spelt, and which chat format goes with them. What the layers do doesn't follow
/// from it but from the other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The text models of 270M and 1B, and the text part of the larger ones.
    Gemma3,
    /// All others.
    Gemma4,
}

impl Family {
    /// `general.architecture` in GGUF files.
    pub const fn architecture(self) -> &'static str {
        match self {
            Family::Gemma3 => "gemma3",
            Family::Gemma4 => "gemma4",
        }
    }
}

/// Which keys a layer's queries see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerType {
    /// The last `window` positions.
    Sliding,
    /// All positions.
    Full,
}

impl LayerType {
    /// The name in `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            LayerType::Sliding => "sliding_attention",
            LayerType::Full => "full_attention",
        }
    }
}

/// What differs between layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// Window or all.
    pub layer_type: LayerType,
    /// Values per head.
    pub head_dim: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Width of the dense feed-forward.
    pub ffn_width: usize,
}

/// Rotary position embedding of one layer type.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// Share of the pairs that turn; the others have frequency 0 ("proportional", not classical partial RoPE).
    pub rotated: f32,
    /// Divides every frequency.
    pub factor: f32,
    /// Divides frequency `i`; empty where there are none. In GGUF this takes the place of `rotated`.
    pub divisors: Vec<f32>,
}

impl RopeConfig {
    /// A divisor from here on means that the pair doesn't turn (GGUF files write 1e30).
    const STILL: f32 = 1e20;

    /// Full-width RoPE.
    pub fn new(theta: f32) -> Self {
        RopeConfig { theta, rotated: 1.0, factor: 1.0, divisors: Vec::new() }
    }

    /// `theta^(-2i/head_dim)` for the pairs that turn, 0 for the rest: `[head_dim / 2]`.
    ///
    /// In f32 as the reference computes it (transformers `modeling_rope_utils._compute_proportional_rope_parameters`),
    /// since a last-bit difference here is multiplied by the position.
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f32> {
        let turning = (self.rotated * head_dim as f32 / 2.0).floor() as usize;
        let frequency = |i: usize| {
            let divisor = self.divisors.get(i).copied().unwrap_or(1.0);
            if i >= turning || divisor >= Self::STILL {
                return 0.0;
            }
            1.0 / self.theta.powf((2 * i) as f32 / head_dim as f32) / self.factor / divisor
        };
        (0..head_dim / 2).map(frequency).collect()
    }
}

/// Per-layer embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayerConfig {
    /// Values per layer and token.
    pub width: usize,
    /// Rows of the table.
    pub vocab_size: usize,
}

/// Experts beside the dense feed-forward of every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsConfig {
    /// Experts per layer.
    pub n_experts: usize,
    /// Experts per token.
    pub top_k: usize,
    /// Width of each.
    pub width: usize,
}

/// The text model of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Whose files.
    pub family: Family,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads of every layer.
    pub n_heads: usize,
    /// Token embeddings.
    pub vocab_size: usize,
    /// Longest context the model was made for.
    pub max_context: usize,
    /// Positions that a sliding layer's query sees, itself included.
    pub window: usize,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Added to the norms' weights when they are read: 1 where the file stores how they differ from 1.
    pub norm_offset: f32,
    /// Multiplies the scores of attention; 1 where the norms of queries and keys have taken it up.
    pub attention_scale: f32,
    /// Whether values are normed, without a weight.
    pub normed_values: bool,
    /// Whether each layer has a number that multiplies the residual at its end.
    pub layer_scales: bool,
    /// Bound of the logits.
    pub softcap: Option<f32>,
    /// The layers.
    pub layers: Vec<LayerConfig>,
    /// How many of the last layers read earlier layers' keys and values.
    pub n_shared_layers: usize,
    /// Whether full layers take their key projection for values too.
    pub full_value_is_key: bool,
    /// RoPE of sliding layers.
    pub rope_sliding: RopeConfig,
    /// RoPE of full layers.
    pub rope_full: RopeConfig,
    /// Per-layer embeddings, where the model has them.
    pub per_layer: Option<PerLayerConfig>,
    /// Experts, where the model has them.
    pub experts: Option<ExpertsConfig>,
    /// Whether the head is the token embedding.
    pub tied_head: bool,
    /// Whether the tokens of one picture see each other on sliding layers.
    pub bidirectional_vision: bool,
    /// Ids that stand for soft tokens; their embedding rows are those of [`ModelConfig::pad`].
    pub placeholders: Placeholders,
    /// The padding token.
    pub pad: TokenId,
}

/// Ids that stand for soft tokens, where the vocabulary has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placeholders {
    /// Of pictures.
    pub image: Option<TokenId>,
    /// Of sounds.
    pub audio: Option<TokenId>,
    /// Of frames of videos.
    pub video: Option<TokenId>,
}

impl Placeholders {
    /// The id of a kind.
    pub fn id(&self, kind: SoftKind) -> Option<TokenId> {
        match kind {
            SoftKind::Image => self.image,
            SoftKind::Audio => self.audio,
            SoftKind::Video => self.video,
        }
    }

    /// What an id stands for, if it stands for soft tokens.
    pub fn kind(&self, id: TokenId) -> Option<SoftKind> {
        SoftKind::ALL.into_iter().find(|kind| self.id(*kind) == Some(id))
    }
}

impl ModelConfig {
    /// The first layer that reads an earlier layer's keys and values; the number of layers where none does.
    pub fn first_shared(&self) -> usize {
        self.layers.len() - self.n_shared_layers
    }

    /// What multiplies the scores in a GGUF file of this model, where no key says it.
    pub fn attention_scale_in_gguf(&self) -> f32 {
        match self.family {
            Family::Gemma3 => gemma3::attention_scale(self.d_model, self.n_heads, &self.layers),
            Family::Gemma4 => 1.0,
        }
    }

    /// RoPE of a layer type.
    pub fn rope(&self, layer_type: LayerType) -> &RopeConfig {
        match layer_type {
            LayerType::Sliding => &self.rope_sliding,
            LayerType::Full => &self.rope_full,
        }
    }

    /// Parameters of the text model, counted from the shapes (tied head, no layer scalars).
    pub fn parameters(&self) -> usize {
        let d = self.d_model;
        let mut total = self.vocab_size * d + d;
        if let Some(p) = self.per_layer {
            let row = self.layers.len() * p.width;
            total += p.vocab_size * row + row * d + p.width + self.layers.len() * (2 * p.width * d + d);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let (q, kv) = (self.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim);
            total += 2 * q * d + layer.head_dim + 4 * d + 3 * layer.ffn_width * d;
            if i < self.first_shared() {
                let key_only = self.full_value_is_key && layer.layer_type == LayerType::Full;
                total += if key_only { kv * d } else { 2 * kv * d } + layer.head_dim;
            }
            if let Some(e) = self.experts {
                total += 3 * e.n_experts * e.width * d + e.n_experts * d + e.n_experts + d + 3 * d;
            }
        }
        total
    }

    /// Refuses what the model can't be. Keys are named as in `config.json`.
    pub fn check(&self) -> Result<(), ModelError> {
        let size = |key: &str, value: usize| within(key, value, MAX_SIZE);
        size("hidden_size", self.d_model)?;
        size("vocab_size", self.vocab_size)?;
        within("num_attention_heads", self.n_heads, MAX_HEADS)?;
        size("sliding_window", self.window)?;
        if self.layers.is_empty() || self.layers.len() > MAX_LAYERS {
            return Err(wrong("num_hidden_layers", self.layers.len(), format!("1 to {MAX_LAYERS}")));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            size("intermediate_size", layer.ffn_width)?;
            size("num_key_value_heads", layer.n_kv_heads)?;
            within("head_dim", layer.head_dim, MAX_HEAD_DIM)?;
            if !self.n_heads.is_multiple_of(layer.n_kv_heads) {
                let expected = format!("a divisor of the {} query heads (layer {i})", self.n_heads);
                return Err(wrong("num_key_value_heads", layer.n_kv_heads, expected));
            }
            let first_like = self.layers.iter().find(|l| l.layer_type == layer.layer_type);
            let like = first_like.map_or(layer.head_dim, |l| l.head_dim);
            if !layer.head_dim.is_multiple_of(2) || layer.head_dim != like {
                let expected = format!("even and the same for all {} layers", layer.layer_type.name());
                return Err(wrong("head_dim", layer.head_dim, expected));
            }
        }
        self.check_sharing()?;
        self.check_extras()
    }

    fn check_sharing(&self) -> Result<(), ModelError> {
        if self.n_shared_layers == 0 {
            return Ok(());
        }
        let key = "num_kv_shared_layers";
        if self.n_shared_layers >= self.layers.len() {
            let expected = format!("fewer than the {} layers", self.layers.len());
            return Err(wrong(key, self.n_shared_layers, expected));
        }
        let (own, shared) = self.layers.split_at(self.first_shared());
        for layer in shared {
            let donor = own.iter().rev().find(|l| l.layer_type == layer.layer_type);
            if donor.is_none_or(|l| l.n_kv_heads != layer.n_kv_heads) {
                let expected = format!("a {} layer with the same heads below the shared ones", layer.layer_type.name());
                return Err(wrong(key, self.n_shared_layers, expected));
            }
        }
        Ok(())
    }

    fn check_extras(&self) -> Result<(), ModelError> {
        if let Some(p) = self.per_layer {
            within("hidden_size_per_layer_input", p.width, MAX_SIZE)?;
            if !(self.vocab_size..=MAX_SIZE).contains(&p.vocab_size) {
                let expected = format!("at least the vocabulary of {}, and up to {MAX_SIZE}", self.vocab_size);
                return Err(wrong("vocab_size_per_layer_input", p.vocab_size, expected));
            }
        }
        if let Some(e) = self.experts {
            within("num_experts", e.n_experts, MAX_EXPERTS)?;
            if e.top_k == 0 || e.top_k > e.n_experts {
                return Err(wrong("top_k_experts", e.top_k, format!("1 to the {} experts", e.n_experts)));
            }
            within("moe_intermediate_size", e.width, MAX_SIZE)?;
        }
        if self.pad.index() >= self.vocab_size {
            return Err(wrong("pad_token_id", self.pad, format!("below the vocabulary of {}", self.vocab_size)));
        }
        Ok(())
    }
}

/// Refuses what is not from 1 to `most`.
fn within(key: &str, value: usize, most: usize) -> Result<(), ModelError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(wrong(key, value, format!("1 to {most}"))) }
}

/// A config error.
pub(crate) fn wrong(key: &str, found: impl std::fmt::Display, expected: impl Into<String>) -> ModelError {
    ModelError::Config { key: key.into(), found: found.to_string(), expected: expected.into() }
}

// ---- the published sizes

/// A published size: what differs between them.
struct Preset {
    d_model: usize,
    n_layers: usize,
    ffn_width: usize,
    n_heads: usize,
    n_kv_heads: usize,
    n_kv_heads_full: usize,
    full_every: usize,
    n_shared_layers: usize,
    double_wide: bool,
    /// No per-layer embeddings: keys that are values, a long window, pictures that see themselves.
    large: bool,
    experts: Option<ExpertsConfig>,
}

const E2B: Preset = Preset {
    d_model: 1536,
    n_layers: 35,
    ffn_width: 6144,
    n_heads: 8,
    n_kv_heads: 1,
    n_kv_heads_full: 1,
    full_every: 5,
    n_shared_layers: 20,
    double_wide: true,
    large: false,
    experts: None,
};
const E4B: Preset = Preset {
    d_model: 2560,
    n_layers: 42,
    ffn_width: 10240,
    n_kv_heads: 2,
    n_kv_heads_full: 2,
    full_every: 6,
    n_shared_layers: 18,
    double_wide: false,
    ..E2B
};
const M12B: Preset = Preset {
    d_model: 3840,
    n_layers: 48,
    ffn_width: 15360,
    n_heads: 16,
    n_kv_heads: 8,
    n_kv_heads_full: 1,
    full_every: 6,
    n_shared_layers: 0,
    double_wide: false,
    large: true,
    experts: None,
};
const A4B: Preset = Preset {
    d_model: 2816,
    n_layers: 30,
    ffn_width: 2112,
    n_kv_heads_full: 2,
    experts: Some(ExpertsConfig { n_experts: 128, top_k: 8, width: 704 }),
    ..M12B
};
const D31B: Preset =
    Preset { d_model: 5376, n_layers: 60, ffn_width: 21504, n_heads: 32, n_kv_heads: 16, n_kv_heads_full: 4, ..M12B };

/// The published sizes by name.
pub const PRESETS: [&str; 5] = ["E2B", "E4B", "12B", "26B-A4B", "31B"];

impl ModelConfig {
    /// The config of a published size, one of [`PRESETS`].
    pub fn preset(name: &str) -> Option<Self> {
        let p = match name {
            "E2B" => E2B,
            "E4B" => E4B,
            "12B" => M12B,
            "26B-A4B" => A4B,
            "31B" => D31B,
            _ => return None,
        };
        let layer = |i: usize| {
            let full = (i + 1).is_multiple_of(p.full_every);
            let wide = p.double_wide && i >= p.n_layers - p.n_shared_layers;
            LayerConfig {
                layer_type: if full { LayerType::Full } else { LayerType::Sliding },
                head_dim: if full { 512 } else { 256 },
                n_kv_heads: if full { p.n_kv_heads_full } else { p.n_kv_heads },
                ffn_width: if wide { 2 * p.ffn_width } else { p.ffn_width },
            }
        };
        Some(ModelConfig {
            family: Family::Gemma4,
            d_model: p.d_model,
            n_heads: p.n_heads,
            vocab_size: 262_144,
            max_context: if p.large { 262_144 } else { 131_072 },
            window: if p.large { 1024 } else { 512 },
            norm_eps: 1e-6,
            norm_offset: 0.0,
            attention_scale: 1.0,
            normed_values: true,
            layer_scales: true,
            softcap: Some(30.0),
            layers: (0..p.n_layers).map(layer).collect(),
            n_shared_layers: p.n_shared_layers,
            full_value_is_key: p.large,
            rope_sliding: RopeConfig::new(1e4),
            rope_full: RopeConfig { rotated: 0.25, ..RopeConfig::new(1e6) },
            per_layer: (!p.large).then_some(PerLayerConfig { width: 256, vocab_size: 262_144 }),
            experts: p.experts,
            tied_head: true,
            bidirectional_vision: p.large,
            placeholders: Placeholders {
                image: Some(TokenId(258_880)),
                audio: Some(TokenId(258_881)),
                video: Some(TokenId(258_884)),
            },
            pad: TokenId(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Totals of the published table less the encoders: 150 M and 305 M for pictures and sound in the small sizes,
    /// 550 M for pictures in the large ones, 52 M of projections in the encoder-free one.
    #[test]
    fn presets_have_the_published_parameter_counts() {
        let published = [("E2B", 5.10, 0.455), ("E4B", 7.94, 0.455), ("12B", 11.96, 0.052), ("26B-A4B", 25.8, 0.55)];
        for (name, total, encoders) in published.into_iter().chain([("31B", 31.27, 0.55)]) {
            let config = ModelConfig::preset(name).unwrap();
            config.check().unwrap();
            let text = config.parameters() as f64 / 1e9;
            assert!((text + encoders - total).abs() < 0.004 * total, "{name}: {text} billion of {total}");
        }
    }

    /// As [`MAX_SIZE`] says.
    #[test]
    fn parameters_of_the_largest_sizes_can_be_counted() {
        let mut config = ModelConfig::preset("E2B").unwrap();
        (config.d_model, config.vocab_size, config.n_heads) = (MAX_SIZE, MAX_SIZE, MAX_HEADS);
        let layer_type = LayerType::Full;
        let layer = LayerConfig { layer_type, head_dim: MAX_HEAD_DIM, n_kv_heads: MAX_HEADS, ffn_width: MAX_SIZE };
        (config.layers, config.n_shared_layers) = (vec![layer; MAX_LAYERS], 0);
        config.per_layer = Some(PerLayerConfig { width: MAX_SIZE, vocab_size: MAX_SIZE });
        config.experts = Some(ExpertsConfig { n_experts: MAX_EXPERTS, top_k: 1, width: MAX_SIZE });
        config.check().unwrap();
        let experts = 3u128 << 62;
        assert!((experts..experts + (1 << 56)).contains(&(config.parameters() as u128)));
        config.experts = Some(ExpertsConfig { n_experts: MAX_EXPERTS + 1, top_k: 1, width: MAX_SIZE });
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("num_experts") && error.contains("1025"), "{error}");
    }

    #[test]
    fn proportional_rope_turns_a_quarter_of_the_pairs() {
        let rope = RopeConfig { rotated: 0.25, ..RopeConfig::new(1e6) };
        let f = rope.inv_freq(512);
        assert_eq!((f.len(), f[0], f[64], f[255]), (256, 1.0, 0.0, 0.0));
        assert!((f64::from(f[63]) - 1e6f64.powf(-126.0 / 512.0)).abs() < 1e-8);
    }

    #[test]
    fn rope_divisors_of_a_gguf_file_give_the_same_frequencies() {
        let mut divisors = vec![1.0; 64];
        divisors.resize(256, 1e30);
        let gguf = RopeConfig { divisors, ..RopeConfig::new(1e6) };
        let hf = RopeConfig { rotated: 0.25, ..RopeConfig::new(1e6) };
        assert_eq!(gguf.inv_freq(512), hf.inv_freq(512));
    }

    #[test]
    fn shared_layers_need_a_donor_of_their_type() {
        let mut config = ModelConfig::preset("E2B").unwrap();
        config.n_shared_layers = 31; // layers 0..4 are all sliding
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("num_kv_shared_layers") && error.contains("full_attention"), "{error}");
    }
}
