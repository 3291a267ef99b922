//! Tensor names → the model's fields.
//!
//! Every tensor of the file is used, knowingly ignored and reported, or an error; every shape is checked against
//! the config before a backend sees it. Matrices stay where the file is mapped, unless their scales or experts lie
//! apart. Small parameters become f32, and constants are folded into them here: what norm weights are stored less, the
//! scale of attention, the router's `d^(-1/2)`, and the key norm of layers whose cache holds values in place of keys.

pub(crate) mod audio;
pub(crate) mod encoder;
mod experts;
mod list;
mod names;
mod nvfp4;
mod quantization;
mod scaled;
mod source;
mod tower;
pub(crate) mod unified;
pub(crate) mod vision;

use std::collections::BTreeMap;

use carat_tensor::backend::{KvForm, KvSpec};
use carat_tensor::{Backend, DType, Tensor};
use carat_weights::{Checkpoint, StoredType};

use crate::config::{LayerType, PerLayerConfig};
use crate::kv::fold_key_norm;
use crate::layer::{Ffn, KvWeights, LayerWeights, Mlp, PerLayerGate};
use crate::moe::{ExpertMatrices, Moe};
use crate::plan::{FfnPlan, KvSource, LayerPlan, ValueSource};
use crate::{ModelConfig, ModelError, config};
use experts::{GateUp, Sizes};
use names::*;
use source::{Source, values};

pub use config::FromTensors;
pub use list::{ModelTensor, ModelTensors, ROPE_DIVISORS_NAME, Role};
pub use names::is_of_experts;

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
    /// Other parts of the checkpoint, and what else the text model leaves alone.
    pub ignored: usize,
    /// Of weights that lie in the file in a way kernels can't use and are copied when the model is loaded: bytes of
    /// the copies. What they are copied from is read once and not counted: file pages that the system may drop.
    pub rearranged: usize,
    /// Whether weights are stored in blocks, or rearranged to such.
    pub quantised: bool,
    /// The most columns of a matrix that isn't.
    pub plain_cols: usize,
    /// The most of one whose weights have 16 bits.
    pub half_cols: usize,
}

impl FileBytes {
    /// Takes note of the type of a tensor.
    fn count(&mut self, dtype: StoredType, shape: &[usize]) {
        let StoredType::Known(dtype) = dtype else { return };
        self.quantised |= dtype.is_quantised();
        if let [_, .., cols] = shape
            && !dtype.is_quantised()
        {
            self.plain_cols = self.plain_cols.max(*cols);
            if matches!(dtype, DType::F16 | DType::BF16) {
                self.half_cols = self.half_cols.max(*cols);
            }
        }
    }
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
    config::gguf::family(&file.metadata)?;
    let source = Source::new(checkpoint)?;
    let rows = |name: Name| file.tensors.get(name.gguf).map(|tensor| tensor.shape.first().copied().unwrap_or(0));
    let Some(vocab_size) = rows(EMBEDDING) else {
        let (name, expected) = (EMBEDDING.gguf.into(), "the token embeddings, whose rows are the vocabulary".into());
        return Err(ModelError::Layout { name, found: "none".into(), expected });
    };
    let divisors = file.tensors.take_optional(ROPE_DIVISORS)?;
    let key_only = |l: usize| source.has(K, Some(l)) && !source.has(V, Some(l));
    let facts = FromTensors {
        vocab_size,
        per_layer_vocab_size: rows(PER_LAYER_TABLE),
        full_value_is_key: (0..config::MAX_LAYERS).any(key_only),
        rope_divisors: divisors.map(|t| values(&t)).transpose()?,
        own_head: file.tensors.contains(HEADS[3]),
    };
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

/// Whether a GGUF file is of a family that this program runs. A directory says so in its config alone, which is read first.
///
/// # Errors
/// Names the key, what was found and what was expected.
pub fn check_family(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    match checkpoint {
        Checkpoint::Gguf(file) => config::gguf::family(&file.metadata).map(drop),
        Checkpoint::HfDir(_) => Ok(()),
    }
}

/// Counts the bytes of a checkpoint's tensors by their use.
///
/// # Errors
/// If the config can't be read, or the checkpoint is quantised in a way that isn't known here.
pub fn file_bytes(checkpoint: &Checkpoint) -> Result<FileBytes, ModelError> {
    let source = Source::new(checkpoint)?;
    let unneeded = source.unneeded(&config(checkpoint)?);
    let table = source.spell(PER_LAYER_TABLE, None);
    let mut bytes = FileBytes::default();
    let mut together: BTreeMap<String, Vec<(usize, DType)>> = BTreeMap::new();
    for tensor in checkpoint.tensors().iter() {
        let len = tensor.data.len();
        if unneeded(&tensor.name).is_some() {
            bytes.ignored += len;
        } else if let Some(copy) = source.copied(tensor) {
            bytes.count(StoredType::Known(copy.dtype), &tensor.shape);
            match copy.experts {
                Some(experts) => together.entry(experts).or_default().push((copy.values, copy.dtype)),
                None => bytes.rearranged += copy.dtype.row_bytes(copy.values).unwrap_or(0),
            }
        } else if source.belongs_to_codes(&tensor.name) {
            // Goes into the copy.
        } else if tensor.name == table {
            bytes.per_layer_table += len;
        } else {
            bytes.weights += len;
            bytes.count(tensor.dtype, &tensor.shape);
        }
    }
    for experts in together.values() {
        let common = experts::common(experts.iter().map(|(_, dtype)| *dtype));
        let size = |(values, dtype): &(usize, DType)| common.unwrap_or(*dtype).row_bytes(*values).unwrap_or(0);
        bytes.rearranged += experts.iter().map(size).sum::<usize>();
    }
    Ok(bytes)
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
    let (d, norm_offset) = (config.d_model, config.norm_offset);
    let mut loader = Loader { backend, source: Source::new(checkpoint)?, d, norm_offset };
    let weights = loader.model(config, plan, specs, split)?;
    loader.source.release_copied();
    let report = loader.source.finish(config)?;
    Ok((weights, report))
}

struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    source: Source<'a>,
    d: usize,
    /// Added to the weights of norms.
    norm_offset: f32,
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

    fn norm(&mut self, name: Name, layer: Option<usize>, len: usize) -> Result<B::Vector, ModelError> {
        let values = self.norm_values(name, layer, len)?;
        Ok(self.backend.vector(&values)?)
    }

    fn norm_values(&self, name: Name, layer: Option<usize>, len: usize) -> Result<Vec<f32>, ModelError> {
        let mut values = self.source.values(name, layer, len)?;
        values.iter_mut().for_each(|w| *w += self.norm_offset);
        Ok(values)
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
            layers.push(self.layer(l, layer, specs, config.per_layer)?);
        }
        Ok(ModelWeights {
            embedding: self.matrix(EMBEDDING, None, &[config.vocab_size, d])?,
            head: self.head(config)?,
            final_norm: self.norm(FINAL_NORM, None, d)?,
            per_layer: match config.per_layer {
                Some(p) => Some(self.per_layer(p, plan.len(), split)?),
                None => None,
            },
            layers,
        })
    }

    fn head(&mut self, config: &ModelConfig) -> Result<Option<B::Matrix>, ModelError> {
        if config.tied_head {
            return Ok(None);
        }
        let name = self.source.find(&HEADS).unwrap_or(HEADS[0]);
        let tensor = self.source.take_named(name, &[config.vocab_size, self.d])?;
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
            norm: self.norm(PER_LAYER_NORM, None, width)?,
            width,
        })
    }

    fn layer(
        &mut self,
        l: usize,
        plan: &LayerPlan,
        specs: &[KvSpec],
        per_layer: Option<PerLayerConfig>,
    ) -> Result<LayerWeights<B>, ModelError> {
        let (d, at) = (self.d, Some(l));
        let mut q_norm = self.norm_values(Q_NORM, at, plan.head_dim)?;
        q_norm.iter_mut().for_each(|w| *w *= plan.attention_scale);
        let joined = self.joined_projections(l, plan)?;
        let (owner, kv) = match plan.kv {
            KvSource::Own => (l, Some(self.keys_and_values(l, plan, joined.as_ref())?)),
            KvSource::SharedWith(id) => (id.0, None),
        };
        if let KvForm::ValueAndRotated { pairs } = specs[owner].form {
            fold_key_norm(&mut q_norm, &self.norm_values(K_NORM, Some(owner), plan.head_dim)?, pairs);
        }
        Ok(LayerWeights {
            attention_norm: self.norm(ATTENTION_NORM, at, d)?,
            q: match &joined {
                Some(joined) => self.backend.rows(joined, 0..plan.q_width()),
                None => self.matrix(Q, at, &[plan.q_width(), d])?,
            },
            q_norm: self.backend.vector(&q_norm)?,
            kv,
            o: self.matrix(O, at, &[d, plan.q_width()])?,
            post_attention_norm: self.norm(POST_ATTENTION_NORM, at, d)?,
            ffn: self.ffn(l, plan)?,
            post_ffn_norm: self.norm(POST_FFN_NORM, at, d)?,
            per_layer: match per_layer {
                Some(PerLayerConfig { width, .. }) => Some(PerLayerGate {
                    gate: self.matrix(INPUT_GATE, at, &[width, d])?,
                    project: self.matrix(INPUT_PROJECTION, at, &[d, width])?,
                    norm: self.norm(INPUT_NORM, at, d)?,
                    width,
                }),
                None => None,
            },
            scale: if plan.scaled { self.source.values(SCALE, at, 1)?[0] } else { 1.0 },
        })
    }

    /// Queries, keys and values of a layer in one matrix, if the file has them so.
    fn joined_projections(&mut self, l: usize, plan: &LayerPlan) -> Result<Option<B::Matrix>, ModelError> {
        if !self.source.has(QKV, Some(l)) {
            return Ok(None);
        }
        let rows = plan.q_width() + 2 * plan.kv_width();
        self.matrix(QKV, Some(l), &[rows, self.d]).map(Some)
    }

    fn keys_and_values(
        &mut self,
        l: usize,
        plan: &LayerPlan,
        joined: Option<&B::Matrix>,
    ) -> Result<KvWeights<B>, ModelError> {
        let shape = [plan.kv_width(), self.d];
        let (k_rows, v_rows) = (plan.q_width(), plan.q_width() + plan.kv_width());
        Ok(KvWeights {
            k: match joined {
                Some(joined) => self.backend.rows(joined, k_rows..v_rows),
                None => self.matrix(K, Some(l), &shape)?,
            },
            k_norm: self.norm(K_NORM, Some(l), plan.head_dim)?,
            v: match (plan.value, joined) {
                (ValueSource::Projected, Some(joined)) => {
                    Some(self.backend.rows(joined, v_rows..v_rows + plan.kv_width()))
                }
                (ValueSource::Projected, None) => Some(self.matrix(V, Some(l), &shape)?),
                (ValueSource::SameAsKey, _) => None,
            },
        })
    }

    fn ffn(&mut self, l: usize, plan: &LayerPlan) -> Result<Ffn<B>, ModelError> {
        let (d, at) = (self.d, Some(l));
        let width = plan.ffn.width();
        let mlp = Mlp {
            norm: self.norm(FFN_NORM, at, d)?,
            gate: self.matrix(GATE, at, &[width, d])?,
            up: self.matrix(UP, at, &[width, d])?,
            down: self.matrix(DOWN, at, &[d, width])?,
        };
        let FfnPlan::DenseAndExperts { n_experts: n, top_k, expert_width: width, .. } = plan.ffn else {
            return Ok(Ffn::Dense(mlp));
        };
        let mut router_scale = self.source.values(ROUTER_SCALE, at, d)?;
        router_scale.iter_mut().for_each(|s| *s *= (d as f32).powf(-0.5));
        let sizes = Sizes { layer: l, n, width, d };
        let mut matrix = |tensor: Tensor| self.backend.matrix(&tensor);
        let matrices = match experts::gate_up(&self.source, sizes)? {
            GateUp::Joined(gate_up) => ExpertMatrices::Joined { gate_up: matrix(gate_up)? },
            GateUp::Split { gate, up } => ExpertMatrices::Split { gate: matrix(gate)?, up: matrix(up)? },
        };
        let down = matrix(experts::down(&self.source, sizes)?)?;
        let moe = Moe {
            router: self.matrix(ROUTER, at, &[n, d])?,
            router_scale: self.backend.vector(&router_scale)?,
            per_expert_scale: self.vector(PER_EXPERT_SCALE, at, n)?,
            matrices,
            down,
            norm: self.norm(EXPERTS_NORM, at, d)?,
            post_dense_norm: self.norm(POST_DENSE_NORM, at, d)?,
            post_experts_norm: self.norm(POST_EXPERTS_NORM, at, d)?,
            top_k,
            width,
            d_model: d,
        };
        Ok(Ffn::DenseAndExperts(mlp, moe))
    }
}
