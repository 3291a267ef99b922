//! Every intermediate of a forward pass, made once at the largest size.
//!
//! [`Sizes`] is the one list: buffers are made from it and the memory plan counts it. [`Stream`] is the state that
//! travels through the layers: the residual rows with their positions.

use std::ops::Range;

use carat_tensor::Backend;
use carat_tensor::backend::BackendError;

use crate::ModelConfig;
use crate::plan::{FfnPlan, LayerPlan, Span};

/// Rows whose logits are computed at once when all are wanted.
pub(crate) const LOGIT_ROWS: usize = 32;

/// Values per row of each buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub chunk: usize,
    pub d_model: usize,
    pub q: usize,
    pub kv: usize,
    pub ffn: usize,
    pub experts: bool,
    /// Width of a layer's input, and of those of all layers.
    pub per_layer: Option<(usize, usize)>,
    pub rope_sliding: usize,
    pub rope_full: usize,
    pub vocab: usize,
}

impl Sizes {
    pub fn new(config: &ModelConfig, plan: &[LayerPlan], chunk: usize) -> Self {
        let widest = |width: fn(&LayerPlan) -> usize| plan.iter().map(width).max().unwrap_or(0);
        let rope = |full: bool| {
            let of_type = plan.iter().find(|p| (p.span == Span::Full) == full);
            of_type.map_or(0, |p| p.head_dim)
        };
        Sizes {
            chunk,
            d_model: config.d_model,
            q: widest(LayerPlan::q_width),
            kv: widest(LayerPlan::kv_width),
            ffn: widest(|p| p.ffn.width()),
            experts: plan.iter().any(|p| matches!(p.ffn, FfnPlan::DenseAndExperts { .. })),
            per_layer: config.per_layer.map(|p| (p.width, p.width * plan.len())),
            rope_sliding: rope(false),
            rope_full: rope(true),
            vocab: config.vocab_size,
        }
    }

    /// Values per row of a stream.
    fn stream(&self) -> usize {
        self.d_model + self.rope_sliding + self.rope_full + self.per_layer.map_or(0, |(_, all)| all)
    }

    /// Bytes of all buffers and streams, and of `logit_rows` rows of logits with the residuals that they are made of.
    pub fn bytes(&self, logit_rows: usize) -> usize {
        let inputs = self.per_layer.map_or(0, |(one, all)| one + all);
        let routed = if self.experts { 2 * self.d_model } else { 0 };
        let row = 2 * self.q + 2 * self.kv + self.d_model + self.ffn + inputs + routed;
        let logits = (logit_rows + logit_rows.min(LOGIT_ROWS)) * self.vocab + logit_rows * self.d_model;
        4 * (self.chunk * (row + self.stream()) + self.stream() + logits)
    }
}

/// Intermediates, `[chunk, width]` each.
pub(crate) struct Scratch<B: Backend> {
    /// Queries.
    pub q: B::Buffer,
    /// Keys.
    pub k: B::Buffer,
    /// Values.
    pub v: B::Buffer,
    /// What attention read.
    pub attended: B::Buffer,
    /// Output of a sub-layer, before its norm.
    pub h: B::Buffer,
    /// Inside the feed-forward.
    pub ffn: B::Buffer,
    /// Inside the experts.
    pub experts: Option<ExpertScratch<B>>,
    /// Inside the per-layer input.
    pub per_layer: Option<PerLayerScratch<B>>,
}

pub(crate) struct ExpertScratch<B: Backend> {
    /// Output of the dense network.
    pub dense: B::Buffer,
    /// Output of the experts.
    pub routed: B::Buffer,
    /// Chosen experts.
    pub routes: B::Routes,
}

pub(crate) struct PerLayerScratch<B: Backend> {
    /// The gated input of one layer.
    pub gated: B::Buffer,
    /// The context's share of all layers' inputs.
    pub context: B::Buffer,
}

impl<B: Backend> Scratch<B> {
    pub fn new(backend: &mut B, s: &Sizes) -> Result<Self, BackendError> {
        let mut rows = |width: usize| backend.buffer(s.chunk * width);
        Ok(Scratch {
            q: rows(s.q)?,
            k: rows(s.kv)?,
            v: rows(s.kv)?,
            attended: rows(s.q)?,
            h: rows(s.d_model)?,
            ffn: rows(s.ffn)?,
            experts: if s.experts {
                let (dense, routed) = (rows(s.d_model)?, rows(s.d_model)?);
                Some(ExpertScratch { dense, routed, routes: B::Routes::default() })
            } else {
                None
            },
            per_layer: match s.per_layer {
                Some((one, all)) => Some(PerLayerScratch { gated: rows(one)?, context: rows(all)? }),
                None => None,
            },
        })
    }
}

/// Rows on their way through the layers, at consecutive positions.
pub(crate) struct Stream<B: Backend> {
    /// The residual, `[n, d_model]`.
    pub x: B::Buffer,
    /// RoPE tables of these positions.
    pub rope_sliding: B::Buffer,
    /// As `rope_sliding`.
    pub rope_full: B::Buffer,
    /// Inputs of the layers in `input_layers`, `[n, input_layers.len(), width]`.
    pub inputs: Option<B::Buffer>,
    /// Which layers `inputs` has.
    pub input_layers: Range<usize>,
    /// Position of the first row.
    pub first: usize,
    /// Rows.
    pub n: usize,
    /// Positions of rows that see each other on sliding layers.
    pub blocks: Vec<Range<usize>>,
}

impl<B: Backend> Stream<B> {
    /// For up to `rows` rows.
    pub fn new(backend: &mut B, s: &Sizes, rows: usize) -> Result<Self, BackendError> {
        Ok(Stream {
            x: backend.buffer(rows * s.d_model)?,
            rope_sliding: backend.buffer(rows * s.rope_sliding)?,
            rope_full: backend.buffer(rows * s.rope_full)?,
            inputs: match s.per_layer {
                Some((_, all)) => Some(backend.buffer(rows * all)?),
                None => None,
            },
            input_layers: 0..0,
            first: 0,
            n: 0,
            blocks: Vec::new(),
        })
    }
}
