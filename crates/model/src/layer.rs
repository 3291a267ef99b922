//! The transformer block: attention, feed-forward, per-layer input, each normed before it joins the residual.
//!
//! ```text
//! x += rms(W_o · attention(rms(x)))      x += rms(ffn(rms(x)))      x += rms(W_p · (gelu(W_g · x) ⊙ p_l))      x *= s
//! ```
//!
//! Keys and values are computed apart from the rest, so that rows whose output nobody reads stop after them.
//! Sources: transformers `modeling_gemma4.Gemma4TextDecoderLayer`, `Gemma4TextAttention`; of Gemma 3, which leaves out
//! the last two and the norm of values, `modeling_gemma3.Gemma3DecoderLayer`.

use carat_tensor::Backend;
use carat_tensor::backend::{Attention, Norm, Projection, Rope, Rounding, UNBOUNDED};

use crate::moe::Moe;
use crate::plan::{KvSource, LayerPlan, Span, ValueSource};
use crate::scratch::{Scratch, Stream};

/// A layer's weights.
pub(crate) struct LayerWeights<B: Backend> {
    pub attention_norm: B::Vector,
    pub q: B::Matrix,
    pub q_norm: B::Vector,
    /// Where the layer has its own keys and values.
    pub kv: Option<KvWeights<B>>,
    pub o: B::Matrix,
    pub post_attention_norm: B::Vector,
    pub ffn: Ffn<B>,
    pub post_ffn_norm: B::Vector,
    pub per_layer: Option<PerLayerGate<B>>,
    /// Multiplies the residual as the last thing in the layer; 1 where the layer has no such number.
    pub scale: f32,
}

pub(crate) struct KvWeights<B: Backend> {
    pub k: B::Matrix,
    pub k_norm: B::Vector,
    /// Where values are projected.
    pub v: Option<B::Matrix>,
}

/// A gated network, `[width, d]`, `[width, d]`, `[d, width]`.
pub(crate) struct Mlp<B: Backend> {
    pub norm: B::Vector,
    pub gate: B::Matrix,
    pub up: B::Matrix,
    pub down: B::Matrix,
}

pub(crate) enum Ffn<B: Backend> {
    Dense(Mlp<B>),
    /// A dense network and routed experts read the same residual; their outputs are summed.
    DenseAndExperts(Mlp<B>, Moe<B>),
}

/// The per-layer input: `[width, d]`, `[d, width]`.
pub(crate) struct PerLayerGate<B: Backend> {
    pub gate: B::Matrix,
    pub project: B::Matrix,
    pub norm: B::Vector,
    pub width: usize,
}

/// One layer, ready to run.
pub(crate) struct Block<'a, B: Backend> {
    pub backend: &'a mut B,
    pub scratch: &'a mut Scratch<B>,
    pub caches: &'a mut [B::Kv],
    pub weights: &'a LayerWeights<B>,
    pub plan: &'a LayerPlan,
    pub layer: usize,
    pub eps: f32,
    /// How finely products' inputs may be rounded.
    pub rounding: Rounding,
    /// The same of the feed-forward network. All around attention stays fine: softmax makes much of small differences
    /// between scores.
    pub ffn_rounding: Rounding,
}

impl<B: Backend> Block<'_, B> {
    /// The whole layer for all rows.
    pub fn run(&mut self, rows: &mut Stream<B>) {
        if self.weights.kv.is_some() {
            self.project_all(rows);
            self.store(rows);
        } else {
            self.project_queries(rows);
        }
        self.attend(rows);
        self.feed_forward(rows);
        self.per_layer_input(rows);
    }

    /// Only what later positions read: keys and values.
    pub fn fill_cache(&mut self, rows: &Stream<B>) {
        self.project_keys_and_values(rows);
        self.store(rows);
    }

    /// All but [`Block::fill_cache`], for rows that it has stored.
    pub fn finish(&mut self, rows: &mut Stream<B>) {
        self.project_queries(rows);
        self.attend(rows);
        self.feed_forward(rows);
        self.per_layer_input(rows);
    }

    fn project_all(&mut self, rows: &Stream<B>) {
        let Scratch { q, k, v, .. } = &mut *self.scratch;
        let w = self.weights;
        let norm = Some(Norm { weight: &w.attention_norm, eps: self.eps });
        let q = Projection { matrix: &w.q, out: q };
        match w.kv.as_ref().map(|kv| (&kv.k, kv.v.as_ref())) {
            None => self.backend.project(&mut [q], &rows.x, norm, rows.n),
            Some((key, None)) => {
                self.backend.project(&mut [q, Projection { matrix: key, out: k }], &rows.x, norm, rows.n);
            }
            Some((key, Some(value))) => {
                let (k, v) = (Projection { matrix: key, out: k }, Projection { matrix: value, out: v });
                self.backend.project(&mut [q, k, v], &rows.x, norm, rows.n);
            }
        }
    }

    fn project_queries(&mut self, rows: &Stream<B>) {
        let norm = Some(Norm { weight: &self.weights.attention_norm, eps: self.eps });
        let q = Projection { matrix: &self.weights.q, out: &mut self.scratch.q };
        self.backend.project(&mut [q], &rows.x, norm, rows.n);
    }

    fn project_keys_and_values(&mut self, rows: &Stream<B>) {
        let Some(kv) = &self.weights.kv else { return };
        let norm = Some(Norm { weight: &self.weights.attention_norm, eps: self.eps });
        let k = Projection { matrix: &kv.k, out: &mut self.scratch.k };
        match &kv.v {
            None => self.backend.project(&mut [k], &rows.x, norm, rows.n),
            Some(value) => {
                let v = Projection { matrix: value, out: &mut self.scratch.v };
                self.backend.project(&mut [k, v], &rows.x, norm, rows.n);
            }
        }
    }

    /// Norms the projected keys and values, turns the keys, writes both.
    fn store(&mut self, rows: &Stream<B>) {
        let Some(kv) = &self.weights.kv else { return };
        let Scratch { k, v, .. } = &mut *self.scratch;
        let LayerPlan { n_kv_heads, head_dim, .. } = *self.plan;
        // The value is the raw key: copied before norm and RoPE change it.
        if self.plan.value == ValueSource::SameAsKey {
            self.backend.copy(v, k, 0, rows.n * self.plan.kv_width());
        }
        let rope = rope(self.plan, rows);
        self.backend.norm_heads(k, Some(&kv.k_norm), self.eps, Some(rope), n_kv_heads, head_dim, rows.n);
        if self.plan.normed_value {
            self.backend.norm_heads(v, None, self.eps, None, n_kv_heads, head_dim, rows.n);
        }
        self.backend.kv_write(&mut self.caches[self.layer], k, v, rows.first, rows.n);
    }

    /// Queries are projected; ends with the residual.
    fn attend(&mut self, rows: &mut Stream<B>) {
        let Scratch { q, attended, h, .. } = &mut *self.scratch;
        let LayerPlan { n_heads, head_dim, .. } = *self.plan;
        let w = self.weights;
        let rope = rope(self.plan, rows);
        self.backend.norm_heads(q, Some(&w.q_norm), self.eps, Some(rope), n_heads, head_dim, rows.n);
        let donor = match self.plan.kv {
            KvSource::Own => self.layer,
            KvSource::SharedWith(donor) => donor.0,
        };
        let window = self.plan.span.window();
        // Full layers are causal for pictures too (`create_masks_for_vision_model`).
        let blocks = if window.is_some() { rows.blocks.as_slice() } else { &[] };
        let shape = Attention { n: rows.n, first: rows.first, n_heads, window, blocks };
        self.backend.attention(attended, q, &self.caches[donor], shape);
        self.backend.project(&mut [Projection { matrix: &w.o, out: h }], attended, None, rows.n);
        let norm = Norm { weight: &w.post_attention_norm, eps: self.eps };
        self.backend.add_rms_norm(&mut rows.x, h, UNBOUNDED, norm, 1.0, rows.n);
    }

    fn feed_forward(&mut self, rows: &mut Stream<B>) {
        let w = self.weights;
        self.backend.set_rounding(self.ffn_rounding);
        match &w.ffn {
            Ffn::Dense(mlp) => {
                let Scratch { h, ffn, .. } = &mut *self.scratch;
                mlp.run(self.backend, h, ffn, rows, self.eps);
            }
            Ffn::DenseAndExperts(mlp, moe) => moe.run(self.backend, mlp, self.scratch, rows, self.eps),
        }
        self.backend.set_rounding(self.rounding);
        // The layer's scale belongs to its last addition.
        let scale = if w.per_layer.is_some() { 1.0 } else { w.scale };
        let norm = Norm { weight: &w.post_ffn_norm, eps: self.eps };
        self.backend.add_rms_norm(&mut rows.x, &self.scratch.h, UNBOUNDED, norm, scale, rows.n);
    }

    fn per_layer_input(&mut self, rows: &mut Stream<B>) {
        let w = self.weights;
        let (Some(p), Some(scratch), Some(inputs)) = (&w.per_layer, &mut self.scratch.per_layer, &rows.inputs) else {
            return;
        };
        let (at, stride) = ((self.layer - rows.input_layers.start) * p.width, rows.input_layers.len() * p.width);
        self.backend.gated_input(&mut scratch.gated, &p.gate, &rows.x, inputs, at, stride, rows.n);
        let out = Projection { matrix: &p.project, out: &mut self.scratch.h };
        self.backend.project(&mut [out], &scratch.gated, None, rows.n);
        let norm = Norm { weight: &p.norm, eps: self.eps };
        self.backend.add_rms_norm(&mut rows.x, &self.scratch.h, UNBOUNDED, norm, w.scale, rows.n);
    }
}

impl<B: Backend> Mlp<B> {
    /// `out = down · (gelu(gate · h) ⊙ up · h)`, `h = rms(x)`.
    pub fn run(&self, backend: &mut B, out: &mut B::Buffer, inner: &mut B::Buffer, rows: &Stream<B>, eps: f32) {
        let norm = Norm { weight: &self.norm, eps };
        backend.gated_project(inner, &self.gate, &self.up, &rows.x, norm, rows.n);
        backend.project(&mut [Projection { matrix: &self.down, out }], inner, None, rows.n);
    }
}

/// The table of the layer's type.
fn rope<'a, B: Backend>(plan: &LayerPlan, rows: &'a Stream<B>) -> Rope<'a, B::Buffer> {
    let table = match plan.span {
        Span::Sliding { .. } => &rows.rope_sliding,
        Span::Full => &rows.rope_full,
    };
    Rope { table, parts: 1 }
}
