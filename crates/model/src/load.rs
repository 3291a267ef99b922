//! Tensor names → the model's fields: the only place where names are spelt.
//!
//! Every tensor of the file is used, knowingly ignored and reported, or an error; every shape is checked against
//! the config before a backend sees it. Matrices stay where the file is mapped. Small parameters become f32, and
//! constants are folded into them here: the router's `d^(-1/2)`, and the key norm of layers whose cache holds
//! values in place of keys.
//!
//! Sources: transformers `modeling_gemma4`; llama.cpp `src/llama-arch.cpp`, `src/models/gemma4.cpp`.

mod source;

use carat_tensor::backend::{KvForm, KvSpec};
use carat_tensor::{Backend, Tensor};
use carat_weights::Checkpoint;

use crate::config::{LayerType, PerLayerConfig};
use crate::kv::fold_key_norm;
use crate::layer::{Ffn, KvWeights, LayerWeights, Mlp, PerLayerGate};
use crate::moe::{ExpertMatrices, Moe};
use crate::plan::{FfnPlan, KvSource, LayerPlan, ValueSource};
use crate::{ModelConfig, ModelError, config};
use source::{Source, values};

pub use config::FromTensors;

/// One tensor's names: within the text model or a layer of it in a Hugging Face file; in a GGUF file.
#[derive(Clone, Copy)]
struct Name {
    hf: &'static str,
    gguf: &'static str,
}

const fn name(hf: &'static str, gguf: &'static str) -> Name {
    Name { hf, gguf }
}

const EMBEDDING: Name = name("embed_tokens.weight", "token_embd.weight");
const FINAL_NORM: Name = name("norm.weight", "output_norm.weight");
const PER_LAYER_TABLE: Name = name("embed_tokens_per_layer.weight", "per_layer_token_embd.weight");
const PER_LAYER_PROJECTION: Name = name("per_layer_model_projection.weight", "per_layer_model_proj.weight");
const PER_LAYER_NORM: Name = name("per_layer_projection_norm.weight", "per_layer_proj_norm.weight");

// ---- of a layer
const ATTENTION_NORM: Name = name("input_layernorm.weight", "attn_norm.weight");
const POST_ATTENTION_NORM: Name = name("post_attention_layernorm.weight", "post_attention_norm.weight");
const FFN_NORM: Name = name("pre_feedforward_layernorm.weight", "ffn_norm.weight");
const POST_FFN_NORM: Name = name("post_feedforward_layernorm.weight", "post_ffw_norm.weight");
const SCALE: Name = name("layer_scalar", "layer_output_scale.weight");
const Q: Name = name("self_attn.q_proj.weight", "attn_q.weight");
const K: Name = name("self_attn.k_proj.weight", "attn_k.weight");
const V: Name = name("self_attn.v_proj.weight", "attn_v.weight");
const O: Name = name("self_attn.o_proj.weight", "attn_output.weight");
const Q_NORM: Name = name("self_attn.q_norm.weight", "attn_q_norm.weight");
const K_NORM: Name = name("self_attn.k_norm.weight", "attn_k_norm.weight");
const GATE: Name = name("mlp.gate_proj.weight", "ffn_gate.weight");
const UP: Name = name("mlp.up_proj.weight", "ffn_up.weight");
const DOWN: Name = name("mlp.down_proj.weight", "ffn_down.weight");
const INPUT_GATE: Name = name("per_layer_input_gate.weight", "inp_gate.weight");
const INPUT_PROJECTION: Name = name("per_layer_projection.weight", "proj.weight");
const INPUT_NORM: Name = name("post_per_layer_input_norm.weight", "post_norm.weight");
const ROUTER: Name = name("router.proj.weight", "ffn_gate_inp.weight");
const ROUTER_SCALE: Name = name("router.scale", "ffn_gate_inp.scale");
const PER_EXPERT_SCALE: Name = name("router.per_expert_scale", "ffn_down_exps.scale");
const EXPERTS_GATE_UP: Name = name("experts.gate_up_proj", "ffn_gate_up_exps.weight");
const EXPERTS_GATE: Name = name("experts.gate_proj", "ffn_gate_exps.weight");
const EXPERTS_UP: Name = name("experts.up_proj", "ffn_up_exps.weight");
const EXPERTS_DOWN: Name = name("experts.down_proj", "ffn_down_exps.weight");
const EXPERTS_NORM: Name = name("pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight");
const POST_DENSE_NORM: Name = name("post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight");
const POST_EXPERTS_NORM: Name = name("post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight");

// ---- with their full names
const HEADS: [&str; 4] = ["lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight", "output.weight"];
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// A tensor of the file that the text model knowingly leaves alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredTensor {
    /// Name in the file.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// What loading found beside the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// In the file's order.
    pub ignored: Vec<IgnoredTensor>,
}

/// Bytes of a checkpoint's tensors, which stay in the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileBytes {
    /// Read in full by every token (experts: in part).
    pub weights: usize,
    /// The per-layer table, read a row per token.
    pub per_layer_table: usize,
    /// Other parts of the checkpoint.
    pub ignored: usize,
}

/// The config of a checkpoint of either kind.
///
/// # Errors
/// Names the key, what was found and what was expected.
pub fn config(checkpoint: &Checkpoint) -> Result<ModelConfig, ModelError> {
    let file = match checkpoint {
        Checkpoint::HfDir(dir) => return ModelConfig::from_json(&dir.config),
        Checkpoint::Gguf(file) => file,
    };
    let source = Source::new(checkpoint);
    let embedding = file.tensors.get(EMBEDDING.gguf);
    let divisors = file.tensors.take_optional(ROPE_DIVISORS)?;
    let key_only = |l: usize| source.has(K, Some(l)) && !source.has(V, Some(l));
    let facts = FromTensors {
        vocab_size: embedding.and_then(|t| t.shape.first().copied()).unwrap_or(0),
        full_value_is_key: (0..config::MAX_LAYERS).any(key_only),
        rope_divisors: divisors.map(|t| values(&t)).transpose()?,
        own_head: file.tensors.contains(HEADS[3]),
    };
    if embedding.is_none() && file.tensors.is_empty() {
        return Err(ModelError::MissingTensor { name: EMBEDDING.gguf.into(), expected: Vec::new() });
    }
    let config = ModelConfig::from_gguf(&file.metadata, &facts)?;
    let full = config.layers.iter().find(|l| l.layer_type == LayerType::Full);
    if let (Some(full), Some(divisors)) = (full, &facts.rope_divisors)
        && divisors.len() != full.head_dim / 2
    {
        let (found, expected) = (vec![divisors.len()], vec![full.head_dim / 2]);
        return Err(ModelError::WrongShape { name: ROPE_DIVISORS.into(), found, expected });
    }
    Ok(config)
}

/// Counts the bytes of a checkpoint's tensors by their use.
pub fn file_bytes(checkpoint: &Checkpoint) -> FileBytes {
    let table = Source::new(checkpoint).spell(PER_LAYER_TABLE, None);
    let mut bytes = FileBytes::default();
    for tensor in checkpoint.tensors().iter() {
        let sum = match () {
            () if tensor.name == table => &mut bytes.per_layer_table,
            () if source::other_part(&tensor.name).is_some() => &mut bytes.ignored,
            () => &mut bytes.weights,
        };
        *sum += tensor.data.len();
    }
    bytes
}

/// All weights of the model.
pub(crate) struct ModelWeights<B: Backend> {
    /// `[vocab, d]`.
    pub embedding: B::Matrix,
    /// Where the head isn't the embedding.
    pub head: Option<B::Matrix>,
    pub final_norm: B::Vector,
    pub per_layer: Option<PerLayerWeights<B>>,
    pub layers: Vec<LayerWeights<B>>,
}

/// Per-layer embeddings. The projection's rows are cut where prefill stops carrying all rows.
pub(crate) struct PerLayerWeights<B: Backend> {
    /// `[vocab, layers · width]`.
    pub table: B::Matrix,
    /// `[layers · width, d]`: of all layers.
    pub project: B::Matrix,
    /// Of the layers that all rows pass; none where that is the first layer.
    pub project_fill: Option<B::Matrix>,
    /// Of the others.
    pub project_rest: B::Matrix,
    pub norm: B::Vector,
    pub width: usize,
}

/// Finds everything. `split` is the last layer with keys and values of its own.
pub(crate) fn load<B: Backend>(
    backend: &mut B,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    plan: &[LayerPlan],
    specs: &[KvSpec],
    split: usize,
) -> Result<(ModelWeights<B>, LoadReport), ModelError> {
    let mut loader = Loader { backend, source: Source::new(checkpoint), d: config.d_model };
    let weights = loader.model(config, plan, specs, split)?;
    loader.source.ignore(ROPE_DIVISORS, "read with the config");
    let mut report = loader.source.finish()?;
    report.ignored.retain(|tensor| tensor.name != ROPE_DIVISORS);
    Ok((weights, report))
}

struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    source: Source<'a>,
    d: usize,
}

impl<B: Backend> Loader<'_, B> {
    fn matrix(&mut self, name: Name, layer: Option<usize>, shape: &[usize]) -> Result<B::Matrix, ModelError> {
        let tensor: Tensor = self.source.take(name, layer, shape)?;
        Ok(self.backend.matrix(&tensor)?)
    }

    fn vector(&mut self, name: Name, layer: Option<usize>, len: usize) -> Result<B::Vector, ModelError> {
        let values = self.source.values(name, layer, len)?;
        Ok(self.backend.vector(&values)?)
    }

    fn model(
        &mut self,
        config: &ModelConfig,
        plan: &[LayerPlan],
        specs: &[KvSpec],
        split: usize,
    ) -> Result<ModelWeights<B>, ModelError> {
        let d = self.d;
        let mut layers = Vec::with_capacity(plan.len());
        for (l, layer) in plan.iter().enumerate() {
            let form = specs.get(l).map(|spec| spec.form);
            layers.push(self.layer(l, layer, form, config.per_layer)?);
        }
        Ok(ModelWeights {
            embedding: self.matrix(EMBEDDING, None, &[config.vocab_size, d])?,
            head: self.head(config)?,
            final_norm: self.vector(FINAL_NORM, None, d)?,
            per_layer: match config.per_layer {
                Some(p) => Some(self.per_layer(p, plan.len(), split)?),
                None => None,
            },
            layers,
        })
    }

    fn head(&mut self, config: &ModelConfig) -> Result<Option<B::Matrix>, ModelError> {
        let name = self.source.find(&HEADS);
        if config.tied_head {
            if let Some(name) = name {
                self.source.ignore(name, "the head is tied to the embedding");
            }
            return Ok(None);
        }
        let tensor = self.source.take_named(name.unwrap_or(HEADS[0]), &[config.vocab_size, self.d])?;
        Ok(Some(self.backend.matrix(&tensor)?))
    }

    fn per_layer(
        &mut self,
        config: PerLayerConfig,
        n_layers: usize,
        split: usize,
    ) -> Result<PerLayerWeights<B>, ModelError> {
        let (width, all) = (config.width, n_layers * config.width);
        let project = self.matrix(PER_LAYER_PROJECTION, None, &[all, self.d])?;
        let cut = split * width;
        Ok(PerLayerWeights {
            table: self.matrix(PER_LAYER_TABLE, None, &[config.vocab_size, all])?,
            project_fill: (cut > 0).then(|| self.backend.rows(&project, 0..cut)),
            project_rest: self.backend.rows(&project, cut..all),
            project,
            norm: self.vector(PER_LAYER_NORM, None, width)?,
            width,
        })
    }

    fn layer(
        &mut self,
        l: usize,
        plan: &LayerPlan,
        form: Option<KvForm>,
        per_layer: Option<PerLayerConfig>,
    ) -> Result<LayerWeights<B>, ModelError> {
        let (d, at) = (self.d, Some(l));
        let mut q_norm = self.source.values(Q_NORM, at, plan.head_dim)?;
        let kv = match plan.kv {
            KvSource::Own => Some(self.keys_and_values(l, plan, form, &mut q_norm)?),
            KvSource::SharedWith(_) => {
                for name in [K, V, K_NORM] {
                    let name = self.source.spell(name, at);
                    self.source.ignore(&name, "the layer reads another layer's keys and values");
                }
                None
            }
        };
        Ok(LayerWeights {
            attention_norm: self.vector(ATTENTION_NORM, at, d)?,
            q: self.matrix(Q, at, &[plan.q_width(), d])?,
            q_norm: self.backend.vector(&q_norm)?,
            kv,
            o: self.matrix(O, at, &[d, plan.q_width()])?,
            post_attention_norm: self.vector(POST_ATTENTION_NORM, at, d)?,
            ffn: self.ffn(l, plan)?,
            post_ffn_norm: self.vector(POST_FFN_NORM, at, d)?,
            per_layer: match per_layer {
                Some(PerLayerConfig { width, .. }) => Some(PerLayerGate {
                    gate: self.matrix(INPUT_GATE, at, &[width, d])?,
                    project: self.matrix(INPUT_PROJECTION, at, &[d, width])?,
                    norm: self.vector(INPUT_NORM, at, d)?,
                    width,
                }),
                None => None,
            },
            scale: self.source.values(SCALE, at, 1)?[0],
        })
    }

    fn keys_and_values(
        &mut self,
        l: usize,
        plan: &LayerPlan,
        form: Option<KvForm>,
        q_norm: &mut [f32],
    ) -> Result<KvWeights<B>, ModelError> {
        let shape = [plan.kv_width(), self.d];
        let k_norm = self.source.values(K_NORM, Some(l), plan.head_dim)?;
        if let Some(KvForm::ValueAndRotated { pairs }) = form {
            fold_key_norm(q_norm, &k_norm, pairs);
        }
        Ok(KvWeights {
            k: self.matrix(K, Some(l), &shape)?,
            k_norm: self.backend.vector(&k_norm)?,
            v: match plan.value {
                ValueSource::Projected => Some(self.matrix(V, Some(l), &shape)?),
                ValueSource::SameAsKey => None,
            },
        })
    }

    fn ffn(&mut self, l: usize, plan: &LayerPlan) -> Result<Ffn<B>, ModelError> {
        let (d, at) = (self.d, Some(l));
        let width = plan.ffn.width();
        let mlp = Mlp {
            norm: self.vector(FFN_NORM, at, d)?,
            gate: self.matrix(GATE, at, &[width, d])?,
            up: self.matrix(UP, at, &[width, d])?,
            down: self.matrix(DOWN, at, &[d, width])?,
        };
        let FfnPlan::DenseAndExperts { n_experts: n, top_k, expert_width: width, .. } = plan.ffn else {
            return Ok(Ffn::Dense(mlp));
        };
        let mut router_scale = self.source.values(ROUTER_SCALE, at, d)?;
        router_scale.iter_mut().for_each(|s| *s *= (d as f32).powf(-0.5));
        let split = !self.source.has(EXPERTS_GATE_UP, at) && self.source.has(EXPERTS_GATE, at);
        let matrices = if split {
            let gate = self.matrix(EXPERTS_GATE, at, &[n, width, d])?;
            ExpertMatrices::Split { gate, up: self.matrix(EXPERTS_UP, at, &[n, width, d])? }
        } else {
            ExpertMatrices::Joined { gate_up: self.matrix(EXPERTS_GATE_UP, at, &[n, 2 * width, d])? }
        };
        let moe = Moe {
            router: self.matrix(ROUTER, at, &[n, d])?,
            router_scale: self.backend.vector(&router_scale)?,
            per_expert_scale: self.vector(PER_EXPERT_SCALE, at, n)?,
            matrices,
            down: self.matrix(EXPERTS_DOWN, at, &[n, d, width])?,
            norm: self.vector(EXPERTS_NORM, at, d)?,
            post_dense_norm: self.vector(POST_DENSE_NORM, at, d)?,
            post_experts_norm: self.vector(POST_EXPERTS_NORM, at, d)?,
            top_k,
            width,
            d_model: d,
        };
        Ok(Ffn::DenseAndExperts(mlp, moe))
    }
}
