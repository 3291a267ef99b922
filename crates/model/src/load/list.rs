//! All tensors of a checkpoint's text model, named and shaped, for programs that write them elsewhere.
//!
//! The list follows from the config alone: whatever way the file holds them, experts come in one tensor and
//! projections apart. What is read is as the file has it: the same type, still mapped where nothing is rearranged.
//! Only the norms' weights are always those that are multiplied with.

use carat_tensor::{Bytes, DType, Tensor};
use carat_weights::{Checkpoint, TensorInfo};

use super::experts::{self, Sizes};
use super::names::*;
use super::source::{PREFIXES, Source, values};
use super::{IgnoredTensor, config};
use crate::plan::{FfnPlan, KvSource, LayerPlan, ValueSource, plan};
use crate::{ModelConfig, ModelError};

/// What a tensor is for, as far as it decides how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A norm or scales: kept exactly.
    Vector,
    /// Chooses experts.
    Router,
    /// Token embeddings, and the head where it is tied to them.
    Embedding,
    /// A head of its own.
    Head,
    /// The per-layer table.
    PerLayerTable,
    /// The projection that goes with it.
    PerLayerProjection,
    /// Values of attention.
    Value,
    /// The last matrix of a feed-forward or of experts.
    Down,
    /// Any other matrix.
    Matrix,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct ModelTensor {
    /// Its name in a Hugging Face checkpoint.
    pub hf: String,
    /// Its name in a GGUF file.
    pub gguf: String,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// The layer it is in.
    pub layer: Option<usize>,
    name: Name,
}

/// The tensors of a checkpoint.
pub struct ModelTensors<'a> {
    source: Source<'a>,
    config: ModelConfig,
    plan: Vec<LayerPlan>,
    list: Vec<ModelTensor>,
}

impl<'a> ModelTensors<'a> {
    /// Lists the tensors that the checkpoint's config asks for.
    ///
    /// # Errors
    /// If the config can't be read. Whether the tensors are there shows when they are read.
    pub fn new(checkpoint: &'a Checkpoint) -> Result<Self, ModelError> {
        let config = config(checkpoint)?;
        let plan = plan(&config);
        let list = list(&config, &plan);
        Ok(ModelTensors { source: Source::new(checkpoint)?, config, plan, list })
    }

    /// The model's config.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tensors.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ModelTensor> {
        self.list.iter()
    }

    /// Reads one of them.
    ///
    /// # Errors
    /// If the file lacks it, or holds it with another shape or in a way that isn't known here.
    pub fn read(&self, tensor: &ModelTensor) -> Result<Tensor, ModelError> {
        let ModelTensor { name, shape, layer, .. } = tensor;
        if let Some(layer) = *layer {
            if let Some(tensor) = self.of_joined_projections(*name, layer)? {
                return Ok(tensor);
            }
            if [EXPERTS_GATE_UP, EXPERTS_DOWN].contains(name) {
                return self.experts(*name, layer);
            }
        }
        if tensor.role == Role::Head {
            return self.source.take_named(self.source.find(&HEADS).unwrap_or(HEADS[0]), shape);
        }
        let tensor = self.source.take(*name, *layer, shape)?;
        if self.config.norm_offset != 0.0 && tensor.name.ends_with(NORM_END) {
            return self.with_offset(tensor);
        }
        Ok(tensor)
    }

    /// A norm's weight, which the file stores less the offset.
    fn with_offset(&self, mut tensor: Tensor) -> Result<Tensor, ModelError> {
        let sums = values(&tensor)?.into_iter().map(|w| w + self.config.norm_offset);
        tensor.data = Bytes::from_vec(sums.flat_map(f32::to_le_bytes).collect());
        tensor.dtype = DType::F32;
        Ok(tensor)
    }

    /// The matrices that products are made with, as the file holds each in one tensor of its own that nothing is copied of: those
    /// are the ones whose names loading gives to a backend. Without the router's, which is small, and tables of which rows are
    /// read.
    ///
    /// # Errors
    /// As [`ModelTensors::read`].
    pub fn products(&self) -> Result<Vec<Tensor>, ModelError> {
        let mapped = |tensor: &&ModelTensor| self.source.mapped(tensor.name, tensor.layer).is_some();
        self.of_products().filter(mapped).map(|tensor| self.read(tensor)).collect()
    }

    /// The same as the file has them.
    pub fn mapped_products(&self) -> impl Iterator<Item = &TensorInfo> {
        self.of_products().filter_map(|tensor| self.source.mapped(tensor.name, tensor.layer))
    }

    fn of_products(&self) -> impl Iterator<Item = &ModelTensor> {
        let is_product = |tensor: &&ModelTensor| match tensor.role {
            Role::Embedding => self.config.tied_head,
            Role::Vector | Role::Router | Role::PerLayerTable => false,
            Role::Head | Role::PerLayerProjection | Role::Value | Role::Down | Role::Matrix => true,
        };
        self.list.iter().filter(is_product).filter(|tensor| self.source.has(tensor.name, tensor.layer))
    }

    /// What the file holds beside them, once all have been read.
    ///
    /// # Errors
    /// If the file holds tensors that this model has no place for.
    pub fn finish(self) -> Result<Vec<IgnoredTensor>, ModelError> {
        Ok(self.source.finish(&self.config)?.ignored)
    }

    /// Rows of the matrix that holds queries, keys and values of a layer, if there is one.
    fn of_joined_projections(&self, name: Name, layer: usize) -> Result<Option<Tensor>, ModelError> {
        let plan = &self.plan[layer];
        let (q, kv) = (plan.q_width(), plan.kv_width());
        let rows = match name {
            Q => 0..q,
            K => q..q + kv,
            V => q + kv..q + 2 * kv,
            _ => return Ok(None),
        };
        if !self.source.has(QKV, Some(layer)) {
            return Ok(None);
        }
        let Tensor { dtype, shape, data, .. } =
            self.source.take(QKV, Some(layer), &[q + 2 * kv, self.config.d_model])?;
        let row = data.len() / shape[0];
        let (name, shape) = (self.source.spell(name, Some(layer)), vec![rows.len(), shape[1]]);
        Ok(Some(Tensor { name, dtype, shape, data: data.slice(rows.start * row..rows.end * row) }))
    }

    fn experts(&self, name: Name, layer: usize) -> Result<Tensor, ModelError> {
        let FfnPlan::DenseAndExperts { n_experts: n, expert_width: width, .. } = self.plan[layer].ffn else {
            unreachable!("only layers with experts list their tensors")
        };
        let sizes = Sizes { layer, n, width, d: self.config.d_model };
        if name == EXPERTS_DOWN {
            return experts::down(&self.source, sizes);
        }
        experts::join(experts::gate_up(&self.source, sizes)?)
    }
}

/// The name under which GGUF files hold the divisors of the full layers' RoPE frequencies.
pub const ROPE_DIVISORS_NAME: &str = ROPE_DIVISORS;

fn list(config: &ModelConfig, plan: &[LayerPlan]) -> Vec<ModelTensor> {
    let d = config.d_model;
    let mut list = List(Vec::new());
    list.add(None, EMBEDDING, Role::Embedding, &[config.vocab_size, d]);
    if !config.tied_head {
        list.add(None, Name { hf: HEADS[0], gguf: HEADS[3] }, Role::Head, &[config.vocab_size, d]);
    }
    list.add(None, FINAL_NORM, Role::Vector, &[d]);
    if let Some(p) = config.per_layer {
        let all = plan.len() * p.width;
        list.add(None, PER_LAYER_TABLE, Role::PerLayerTable, &[p.vocab_size, all]);
        list.add(None, PER_LAYER_PROJECTION, Role::PerLayerProjection, &[all, d]);
        list.add(None, PER_LAYER_NORM, Role::Vector, &[p.width]);
    }
    for (l, plan) in plan.iter().enumerate() {
        let at = Some(l);
        list.attention(l, plan, d);
        let width = plan.ffn.width();
        for norm in [FFN_NORM, POST_FFN_NORM] {
            list.add(at, norm, Role::Vector, &[d]);
        }
        list.add(at, GATE, Role::Matrix, &[width, d]);
        list.add(at, UP, Role::Matrix, &[width, d]);
        list.add(at, DOWN, Role::Down, &[d, width]);
        if let FfnPlan::DenseAndExperts { n_experts: n, expert_width: width, .. } = plan.ffn {
            list.add(at, ROUTER, Role::Router, &[n, d]);
            list.add(at, ROUTER_SCALE, Role::Vector, &[d]);
            list.add(at, PER_EXPERT_SCALE, Role::Vector, &[n]);
            list.add(at, EXPERTS_GATE_UP, Role::Matrix, &[n, 2 * width, d]);
            list.add(at, EXPERTS_DOWN, Role::Down, &[n, d, width]);
            for norm in [EXPERTS_NORM, POST_DENSE_NORM, POST_EXPERTS_NORM] {
                list.add(at, norm, Role::Vector, &[d]);
            }
        }
        if let Some(p) = config.per_layer {
            list.add(at, INPUT_GATE, Role::Matrix, &[p.width, d]);
            list.add(at, INPUT_PROJECTION, Role::Matrix, &[d, p.width]);
            list.add(at, INPUT_NORM, Role::Vector, &[d]);
        }
        if plan.scaled {
            list.add(at, SCALE, Role::Vector, &[1]);
        }
    }
    list.0
}

struct List(Vec<ModelTensor>);

impl List {
    fn add(&mut self, layer: Option<usize>, name: Name, role: Role, shape: &[usize]) {
        let (hf, gguf) = match (layer, role) {
            (Some(l), _) => (format!("{}layers.{l}.{}", PREFIXES[0], name.hf), format!("blk.{l}.{}", name.gguf)),
            (None, Role::Head) => (name.hf.into(), name.gguf.into()),
            (None, _) => (format!("{}{}", PREFIXES[0], name.hf), name.gguf.into()),
        };
        self.0.push(ModelTensor { hf, gguf, shape: shape.into(), role, layer, name });
    }

    fn attention(&mut self, l: usize, plan: &LayerPlan, d: usize) {
        let at = Some(l);
        for norm in [ATTENTION_NORM, POST_ATTENTION_NORM] {
            self.add(at, norm, Role::Vector, &[d]);
        }
        self.add(at, Q, Role::Matrix, &[plan.q_width(), d]);
        self.add(at, Q_NORM, Role::Vector, &[plan.head_dim]);
        if plan.kv == KvSource::Own {
            self.add(at, K, Role::Matrix, &[plan.kv_width(), d]);
            self.add(at, K_NORM, Role::Vector, &[plan.head_dim]);
            if plan.value == ValueSource::Projected {
                self.add(at, V, Role::Value, &[plan.kv_width(), d]);
            }
        }
        self.add(at, O, Role::Matrix, &[d, plan.q_width()]);
    }
}
