//! The picture encoder: patches to soft tokens, rows that a text model takes in place of embeddings.
//!
//! ```text
//! x = W_p · (2v − 1) + table_x[column] + table_y[row]
//! x += rms(W_o · attention(rms(x)))      x += rms(ffn(rms(x)))               each layer; every patch sees all
//! soft = W_s · rms(((√d · mean of 3×3 patches) − bias) ⊙ scale)
//! ```
//!
//! Half of each head is turned by the column, the other by the row. Where layers have bounds, they lie around each of their
//! products. Source: transformers `modeling_gemma4.Gemma4VisionModel`, `Gemma4MultimodalEmbedder`. How pictures become
//! patches is not here.

mod grid;

use carat_tensor::backend::{
    BackendError, Clip, ClippedFeedForward, ClippedProjection, Norm, Pooling, Projection, Rope, UNBOUNDED,
};
use carat_tensor::{Backend, TokenId};
use carat_weights::Checkpoint;

use crate::config::{PATCH_VALUES, PATCHES_PER_TOKEN, VisionConfig};
use crate::linear::Linear;
use crate::{ModelError, load};

/// Values of patches that are centred at once.
const UPLOADED_AT_ONCE: usize = 64 * PATCH_VALUES;

/// A layer's weights, `d` the width of the stream, `heads` that of all heads.
pub(crate) struct TowerLayer<B: Backend> {
    pub attention_norm: B::Vector,
    /// `[heads, d]`, as `k` and `v`.
    pub q: Linear<B>,
    pub k: Linear<B>,
    pub v: Linear<B>,
    pub q_norm: B::Vector,
    pub k_norm: B::Vector,
    /// `[d, heads]`.
    pub o: Linear<B>,
    pub post_attention_norm: B::Vector,
    pub ffn_norm: B::Vector,
    /// `[ff, d]`, as `up`.
    pub gate: Linear<B>,
    pub up: Linear<B>,
    /// `[d, ff]`.
    pub down: Linear<B>,
    pub post_ffn_norm: B::Vector,
}

/// What pooled rows are brought to, `[d]` each.
pub(crate) struct Standard<B: Backend> {
    /// Subtracted.
    pub bias: B::Vector,
    /// Multiplies the difference.
    pub scale: B::Vector,
}

/// All weights of the encoder.
pub(crate) struct TowerWeights<B: Backend> {
    /// `[d, 768]`.
    pub patches: B::Matrix,
    /// `[2 · n_positions, d]`: of columns, then of rows.
    pub positions: B::Matrix,
    pub layers: Vec<TowerLayer<B>>,
    pub standard: Option<Standard<B>>,
    /// The weight of the last norm, which has none.
    pub ones: B::Vector,
    /// `[d_text, d]`.
    pub soft_tokens: B::Matrix,
}

/// Intermediates of all patches.
struct Scratch<B: Backend> {
    /// The residual, `[n, d]`.
    x: B::Buffer,
    /// Input or output of a sub-layer, `[n, d]`.
    h: B::Buffer,
    /// `[n, heads]`, as the next two.
    q: B::Buffer,
    k: B::Buffer,
    v: B::Buffer,
    /// The same, then what each feed-forward says, `[n, d]`.
    attended: B::Buffer,
    /// The pixels first, then inside each feed-forward: `[n, ff]`.
    gate: B::Buffer,
    up: B::Buffer,
    /// `[n, 2, 2, head_dim / 4]`.
    rope: B::Buffer,
    /// `[n / 9, d_text]`.
    soft_tokens: B::Buffer,
}

/// Looks at what passes through the encoder.
pub trait VisionTap {
    /// Rows `[n_patches, d_model]`: stage 0 is the embedded patches, `l + 1` the output of layer `l`.
    fn hidden(&mut self, stage: usize, rows: &[f32]);
    /// Rows `[n_soft_tokens, d_model]`: pooled and, where the model does so, standardised.
    fn pooled(&mut self, rows: &[f32]) {
        let _ = rows;
    }
}

/// The picture encoder of a checkpoint, with room for pictures up to a size.
pub struct VisionTower<B: Backend> {
    config: VisionConfig,
    weights: TowerWeights<B>,
    scratch: Scratch<B>,
    max_patches: usize,
    /// Rows read back for a tap.
    seen: Vec<f32>,
}

impl<B: Backend> VisionTower<B> {
    /// Finds the weights and takes memory for pictures of up to `max_patches` patches: [`bytes`] says how much.
    ///
    /// # Errors
    /// If the checkpoint has no picture encoder, another kind of one, or a tensor is missing, misshapen or unknown.
    pub fn load(backend: &mut B, checkpoint: &Checkpoint, max_patches: usize) -> Result<Self, ModelError> {
        let config = config(checkpoint)?;
        Ok(VisionTower {
            weights: load::vision::load(backend, checkpoint, &config)?,
            scratch: Scratch::new(backend, &config, max_patches)?,
            config,
            max_patches,
            seen: Vec::new(),
        })
    }

    /// What the checkpoint says.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Soft tokens `[n_patches / 9, d_text]` of one picture, row by row.
    ///
    /// `values` are its patches `[n_patches, 768]` in [0, 1]: in a patch row by row, and of each pixel red, green, blue.
    /// `positions` are their columns and rows, counted in patches; both sides of the picture are multiples of 3, and
    /// there is no padding.
    ///
    /// # Errors
    /// If the patches are not a whole picture, or more than there is room for.
    pub fn encode(
        &mut self,
        backend: &mut B,
        values: &[f32],
        positions: &[[i32; 2]],
        tap: Option<&mut dyn VisionTap>,
    ) -> Result<Vec<f32>, ModelError> {
        let n = positions.len();
        if n > self.max_patches || values.len() != n * PATCH_VALUES {
            let expected = format!("up to {} of {PATCH_VALUES} values each", self.max_patches);
            return Err(ModelError::Patches { found: format!("{n} patches of {} values", values.len()), expected });
        }
        let cells = grid::cells(positions, self.config.n_positions)?;
        let mut tap = tap;
        self.embed(backend, values, positions);
        self.show(backend, &mut tap, 0, n);
        for l in 0..self.config.n_layers {
            self.attend(backend, l, n);
            self.feed_forward(backend, l, n);
            self.show(backend, &mut tap, l + 1, n);
        }
        Ok(self.pool(backend, &cells, tap))
    }

    fn embed(&mut self, backend: &mut B, values: &[f32], positions: &[[i32; 2]]) {
        let VisionConfig { d_model: d, n_positions, head_dim, rope_theta, .. } = self.config;
        let (w, s, n) = (&self.weights, &mut self.scratch, positions.len());
        // By and by: all of a large picture's values once more would be tens of megabytes.
        for (i, values) in values.chunks(UPLOADED_AT_ONCE).enumerate() {
            let centred: Vec<f32> = values.iter().map(|v| 2.0 * (v - 0.5)).collect();
            backend.upload_at(&mut s.gate, i * UPLOADED_AT_ONCE, &centred);
        }
        let projection = Projection { matrix: &w.patches, out: &mut s.x };
        backend.clipped_project(&mut [ClippedProjection { projection, clip: Clip::NONE }], &s.gate, n);
        for axis in 0..2 {
            let row = |p: &[i32; 2]| TokenId((axis * n_positions) as u32 + p[axis] as u32);
            let ids: Vec<TokenId> = positions.iter().map(row).collect();
            backend.gather(&mut s.h, &w.positions, &ids, 0..d, 1.0);
            backend.add(&mut s.x, &s.h, n * d);
        }
        backend.upload(&mut s.rope, &grid::rope_table(positions, head_dim, rope_theta));
    }

    fn attend(&mut self, backend: &mut B, layer: usize, n: usize) {
        let VisionConfig { n_heads, head_dim, norm_eps: eps, .. } = self.config;
        let (w, s) = (&self.weights.layers[layer], &mut self.scratch);
        backend.rms_norm(&mut s.h, &s.x, UNBOUNDED, Norm { weight: &w.attention_norm, eps }, n);
        backend.clipped_project(&mut [w.q.to(&mut s.q), w.k.to(&mut s.k), w.v.to(&mut s.v)], &s.h, n);
        let rope = Some(Rope { table: &s.rope, parts: 2 });
        backend.norm_heads(&mut s.q, Some(&w.q_norm), eps, rope, n_heads, head_dim, n);
        backend.norm_heads(&mut s.k, Some(&w.k_norm), eps, rope, n_heads, head_dim, n);
        backend.norm_heads(&mut s.v, None, eps, None, n_heads, head_dim, n);
        backend.attend_all(&mut s.attended, &s.q, &s.k, &s.v, n_heads, head_dim, n);
        w.o.run(backend, &mut s.h, &s.attended, n);
        backend.add_rms_norm(&mut s.x, &s.h, UNBOUNDED, Norm { weight: &w.post_attention_norm, eps }, 1.0, n);
    }

    fn feed_forward(&mut self, backend: &mut B, layer: usize, n: usize) {
        let eps = self.config.norm_eps;
        let (w, s) = (&self.weights.layers[layer], &mut self.scratch);
        backend.rms_norm(&mut s.h, &s.x, UNBOUNDED, Norm { weight: &w.ffn_norm, eps }, n);
        let (gate, up, down) = (Some(w.gate.to(&mut s.gate)), w.up.to(&mut s.up), w.down.to(&mut s.attended));
        let ffn = ClippedFeedForward { width: self.config.ffn_width, gate, up, down };
        backend.clipped_feed_forward(ffn, &s.h, n);
        backend.add_rms_norm(&mut s.x, &s.attended, UNBOUNDED, Norm { weight: &w.post_ffn_norm, eps }, 1.0, n);
    }

    fn pool(&mut self, backend: &mut B, cells: &[usize], tap: Option<&mut dyn VisionTap>) -> Vec<f32> {
        let VisionConfig { d_model: d, d_text, norm_eps: eps, .. } = self.config;
        let (w, s, n) = (&self.weights, &mut self.scratch, cells.len() / PATCHES_PER_TOKEN);
        // Values of some thousands: f32 all the way, as the reference keeps them.
        let factor = (d as f32).sqrt() / PATCHES_PER_TOKEN as f32;
        let standard = w.standard.as_ref().map(|s| (&s.bias, &s.scale));
        backend.pool(&mut s.h, &s.x, Pooling { rows: cells, per: PATCHES_PER_TOKEN, d, factor, standard });
        if let Some(tap) = tap {
            self.seen.resize(n * d, 0.0);
            backend.download(&s.h, 0, &mut self.seen);
            tap.pooled(&self.seen);
        }
        let out = Projection { matrix: &w.soft_tokens, out: &mut s.soft_tokens };
        backend.project(&mut [out], &s.h, Some(Norm { weight: &w.ones, eps }), n);
        let mut soft_tokens = vec![0.0; n * d_text];
        backend.download(&s.soft_tokens, 0, &mut soft_tokens);
        soft_tokens
    }

    fn show(&mut self, backend: &mut B, tap: &mut Option<&mut dyn VisionTap>, stage: usize, n: usize) {
        if let Some(tap) = tap {
            self.seen.resize(n * self.config.d_model, 0.0);
            backend.download(&self.scratch.x, 0, &mut self.seen);
            tap.hidden(stage, &self.seen);
        }
    }
}

/// The config of a checkpoint's picture encoder.
///
/// # Errors
/// If it has none, or one that works otherwise.
pub fn config(checkpoint: &Checkpoint) -> Result<VisionConfig, ModelError> {
    let none = |found: &str, expected| ModelError::NoEncoder { part: "picture", found: found.into(), expected };
    match checkpoint {
        Checkpoint::HfDir(dir) => {
            let config = VisionConfig::from_json(&dir.config)?;
            config.ok_or_else(|| none("its config.json has no vision_config", "E2B, E4B, 26B-A4B or 31B"))
        }
        Checkpoint::Gguf(file) => VisionConfig::from_gguf(file)?.ok_or_else(|| {
            none("its GGUF file holds none", "an mmproj GGUF file that does, or a directory with config.json")
        }),
    }
}

/// Values of each of the buffers that pictures of up to `n` patches take, in the order of [`Scratch`].
fn lengths(config: &VisionConfig, n: usize) -> [usize; 10] {
    let (d, heads, ff) = (config.d_model, config.heads_width(), config.ffn_width);
    let rows =
        [d, d, heads, heads, heads, heads.max(d), ff.max(PATCH_VALUES), ff, config.head_dim].map(|width| n * width);
    let [x, h, q, k, v, attended, gate, up, rope] = rows;
    [x, h, q, k, v, attended, gate, up, rope, n / PATCHES_PER_TOKEN * config.d_text]
}

/// Bytes of the buffers that an encoder for pictures of up to `n_patches` patches takes, beside its weights.
pub fn bytes(config: &VisionConfig, n_patches: usize) -> usize {
    4 * lengths(config, n_patches).iter().sum::<usize>()
}

impl<B: Backend> Scratch<B> {
    fn new(backend: &mut B, config: &VisionConfig, n: usize) -> Result<Self, BackendError> {
        let [x, h, q, k, v, attended, gate, up, rope, soft_tokens] = lengths(config, n);
        let mut buffer = |len: usize| backend.buffer(len);
        Ok(Scratch {
            x: buffer(x)?,
            h: buffer(h)?,
            q: buffer(q)?,
            k: buffer(k)?,
            v: buffer(v)?,
            attended: buffer(attended)?,
            gate: buffer(gate)?,
            up: buffer(up)?,
            rope: buffer(rope)?,
            soft_tokens: buffer(soft_tokens)?,
        })
    }
}
