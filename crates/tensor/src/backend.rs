//! The seam between the model and the hardware: the operations Gemma needs, each defined as maths.
//!
//! Operations are as large as fusion wants (a projection with the norm before it, an attention over a
//! cache), so that a backend is free to fuse, batch and reorder inside. Activations are f32 rows,
//! `[n, d]` row-major in a [`Backend::Buffer`]; buffers are made once, at the largest size, and an
//! operation works on the first `n` rows. Every operation reads its whole input before an output that
//! can't alias it. Accumulation is at least f32.
//!
//! `rms(x, w) = x · (mean(x²) + eps)^(-1/2) ⊙ w`, without `⊙ w` where the weight is absent. Gemma 4 scales
//! by `w`, not `1 + w` (transformers `modeling_gemma4.Gemma4RMSNorm`).

use std::ops::Range;

use crate::{DType, Tensor, TokenId};

/// Why a backend could not take a tensor or memory.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The tensor's type has no kernels.
    #[error("tensor `{name}` is {dtype}, which the {backend} backend can't compute with")]
    UnsupportedType {
        /// Tensor name.
        name: String,
        /// Its type.
        dtype: DType,
        /// The backend's name.
        backend: String,
    },
    /// Memory could not be had.
    #[error("the {backend} backend could not get {bytes} bytes for {what}")]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// How much.
        bytes: usize,
        /// The backend's name.
        backend: String,
    },
}

/// How finely a product with quantised weights may round its inputs, in blocks of 32 values with a common scale; and whether one
/// with weights in f16 or bf16 may round at all ([`Backend::project`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To 22 bits: errors of a product stay near those of sums in f32, with half as much arithmetic again. For what is
    /// chosen by, where an error of any size can make another choice.
    Finest,
    /// To 15 bits: errors of a product stay near 3e-5.
    #[default]
    Fine,
    /// To 8 bits, which makes integer products twice as fast: errors near 5e-3.
    Coarse,
}

/// A norm about the mean: weight and bias `[d]`, and epsilon.
pub struct LayerNorm<'a, V> {
    /// Multiplies.
    pub weight: &'a V,
    /// Is added.
    pub bias: &'a V,
    /// Added to the variance.
    pub eps: f32,
}

/// A root-mean-square norm: weight `[d]` and epsilon.
pub struct Norm<'a, V> {
    /// Multiplies directly.
    pub weight: &'a V,
    /// Added to the mean square.
    pub eps: f32,
}

impl<V> Clone for Norm<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V> Copy for Norm<'_, V> {}

/// One product of a [`Backend::project`]: `out[n, rows] = h · matrixᵀ`.
pub struct Projection<'a, M, B> {
    /// `[rows, cols]`.
    pub matrix: &'a M,
    /// At least `n · rows` values.
    pub out: &'a mut B,
}

/// One product of a [`Backend::clipped_project`].
pub struct ClippedProjection<'a, M, B> {
    /// The product.
    pub projection: Projection<'a, M, B>,
    /// The bounds around it.
    pub clip: Clip,
}

/// A [`Backend::clipped_feed_forward`].
pub struct ClippedFeedForward<'a, M, B> {
    /// `ff`.
    pub width: usize,
    /// `[ff, d]`; its output is room for `n · ff` values, of which nothing is said after.
    pub gate: Option<ClippedProjection<'a, M, B>>,
    /// The same.
    pub up: ClippedProjection<'a, M, B>,
    /// `[d, ff]`.
    pub down: ClippedProjection<'a, M, B>,
}

/// A [`Backend::clipped_feed_forward`] made of its parts: the definition.
pub fn feed_forward_by_parts<B: Backend + ?Sized>(
    backend: &mut B,
    ffn: ClippedFeedForward<'_, B::Matrix, B::Buffer>,
    x: &B::Buffer,
    n: usize,
) {
    let ClippedFeedForward { width, gate, up, down } = ffn;
    let len = n * width;
    let ClippedProjection { projection: Projection { matrix, out: inner }, clip } = up;
    let up = ClippedProjection { projection: Projection { matrix, out: &mut *inner }, clip };
    let inner = match gate {
        Some(ClippedProjection { projection: Projection { matrix, out: gated }, clip }) => {
            let gate = ClippedProjection { projection: Projection { matrix, out: &mut *gated }, clip };
            backend.clipped_project(&mut [gate, up], x, n);
            backend.gate(gated, inner, len);
            gated
        }
        None => {
            backend.clipped_project(&mut [up], x, n);
            backend.silu(inner, len);
            inner
        }
    };
    backend.clipped_project(&mut [down], inner, n);
}

/// No bounds.
pub const UNBOUNDED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// Bounds of a product's input and output, lower and upper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Of every input value.
    pub input: [f32; 2],
    /// Of every output value.
    pub output: [f32; 2],
}

impl Clip {
    /// None.
    pub const NONE: Clip = Clip { input: UNBOUNDED, output: UNBOUNDED };
}

/// How heads are turned.
pub struct Rope<'a, B> {
    /// `[n, parts, 2, head_dim / (2 · parts)]`: of every row and part the cosines, then the sines. For one part this is
    /// what [`Backend::rope_table`] makes.
    pub table: &'a B,
    /// Equal parts of a head that turn by themselves: as many as positions have coordinates.
    pub parts: usize,
}

impl<B> Clone for Rope<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B> Copy for Rope<'_, B> {}

/// Which rows a [`Backend::pool`] adds up, and what it does with the sums.
pub struct Pooling<'a, V> {
    /// `[n, per]` rows of the input.
    pub rows: &'a [usize],
    /// Rows of one sum.
    pub per: usize,
    /// Width of a row.
    pub d: usize,
    /// Multiplies the sums.
    pub factor: f32,
    /// `[d]` each: what is then subtracted, and what the difference is multiplied with.
    pub standard: Option<(&'a V, &'a V)>,
}

/// Shape of a [`Backend::subsample`]: features of `bands` frequencies and `channels` at `n` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsampling {
    /// Times of the input; the output has [`halved`] as many.
    pub n: usize,
    /// Frequencies of the input; the output has [`halved`] as many.
    pub bands: usize,
    /// Values of the input at each time and frequency.
    pub channels: usize,
    /// Values of the output at each time and frequency.
    pub filters: usize,
}

/// How many places a window of 3 with one zero around takes in steps of 2 over `n`: `ceil(n / 2)`.
pub const fn halved(n: usize) -> usize {
    n.div_ceil(2)
}

/// What a [`Backend::attend_near`] attends with.
pub struct Near<'a, V> {
    /// Heads of queries, keys and values.
    pub n_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Keys that a row sees: its own and those before it.
    pub reach: usize,
    /// Multiplies the queries of every head, `[head_dim]`.
    pub scale: &'a V,
    /// Added to a key by how far it lies before the query, `[reach, n_heads, head_dim]`.
    pub relative: &'a V,
    /// Of the scores.
    pub softcap: f32,
}

impl<V> Clone for Near<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V> Copy for Near<'_, V> {}

/// How keys and values lie in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvForm {
    /// Keys and values of `head_dim` each.
    Pair,
    /// Values, and of the keys only the dimensions that RoPE turns (`0..pairs` and
    /// `head_dim/2 .. head_dim/2 + pairs`). Where a layer's value is its key before norm and RoPE, the other
    /// dimensions of the key equal the value times the key norm's weight, which the caller has folded into the
    /// query.
    ValueAndRotated {
        /// Number of rotated pairs.
        pairs: usize,
    },
}

/// Element type of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// Reference path.
    F32,
    /// The default.
    F16,
    /// 32 values with an f16 scale: half of F16.
    Q8_0,
}

impl KvType {
    /// Bytes that `values` take (a multiple of 32).
    pub const fn bytes(self, values: usize) -> usize {
        match self {
            KvType::F32 => values * 4,
            KvType::F16 => values * 2,
            KvType::Q8_0 => values / 32 * 34,
        }
    }
}

/// Shape of one layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Positions held; position `p` lives in slot `p % capacity`.
    pub capacity: usize,
    /// What is stored.
    pub form: KvForm,
    /// How it is stored.
    pub dtype: KvType,
}

impl KvSpec {
    /// Bytes of the whole cache.
    pub fn bytes(&self) -> usize {
        let per_head = match self.form {
            KvForm::Pair => 2 * self.dtype.bytes(self.head_dim),
            KvForm::ValueAndRotated { pairs } => self.dtype.bytes(self.head_dim) + self.dtype.bytes(2 * pairs),
        };
        self.capacity * self.n_kv_heads * per_head
    }
}

/// Shape of one attention: queries at positions `first .. first + n`, causal but for blocks.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Query rows.
    pub n: usize,
    /// Position of the first query row.
    pub first: usize,
    /// Query heads; head `i` reads KV head `i / (n_heads / n_kv_heads)`.
    pub n_heads: usize,
    /// A query at `q` sees keys `k ≤ q`, and `k > q − window` where there is a window.
    pub window: Option<usize>,
    /// Positions that see each other, disjoint, in order, none beyond the last query: a query within a block also sees the
    /// block's later keys. The window bounds what lies before it all the same.
    pub blocks: &'a [Range<usize>],
}

impl Attention<'_> {
    /// The positions that the query at position `q` sees.
    pub fn visible(&self, q: usize) -> Range<usize> {
        let from = self.window.map_or(0, |window| (q + 1).saturating_sub(window));
        let after = self.blocks.partition_point(|block| block.end <= q);
        let end = self.blocks.get(after).filter(|block| block.start <= q).map_or(q + 1, |block| block.end);
        from..end
    }
}

/// A stack of equal matrices within one: matrix `e` is rows `first + e·stride .. + rows`.
pub struct Stack<'a, M> {
    /// All rows, `[any, cols]`.
    pub matrix: &'a M,
    /// First row of matrix 0.
    pub first: usize,
    /// Rows from one matrix to the next.
    pub stride: usize,
    /// Rows of each.
    pub rows: usize,
}

/// The experts of one layer.
pub struct Experts<'a, M> {
    /// `[ff, d]` each.
    pub gate: Stack<'a, M>,
    /// `[ff, d]` each.
    pub up: Stack<'a, M>,
    /// `[d, ff]` each.
    pub down: Stack<'a, M>,
}

/// The router of one layer.
pub struct Router<'a, M, V> {
    /// `[n_experts, d]`.
    pub proj: &'a M,
    /// `[d]`, with the factor `d^(-1/2)` folded in.
    pub scale: &'a V,
    /// `[n_experts]`.
    pub per_expert_scale: &'a V,
    /// Experts per row.
    pub top_k: usize,
    /// Epsilon of the weightless norm.
    pub eps: f32,
}

/// The experts of the largest steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertWork {
    /// Experts of a layer.
    pub n_experts: usize,
    /// Experts per row.
    pub top_k: usize,
    /// Width of each.
    pub width: usize,
    /// Width of their input.
    pub d_model: usize,
}

/// The largest steps of a text model: what a backend's own memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Rows at once.
    pub rows: usize,
    /// Widest input of a product over that many rows, in values.
    pub cols: usize,
    /// As `cols`, of the products that always round finely ([`Rounding::Fine`]).
    pub fine_cols: usize,
    /// As `cols`, of the products with weights that aren't quantised.
    pub plain_cols: usize,
    /// As `cols`, of those among them whose weights have 16 bits.
    pub half_cols: usize,
    /// Rows at once whose products round as finely as there is ([`Rounding::Finest`]).
    pub finest_rows: usize,
    /// Largest head.
    pub head_dim: usize,
    /// Most query heads of one of keys and values.
    pub group: usize,
    /// Most positions that a cache keeps.
    pub positions: usize,
    /// Whether caches hold less than f32.
    pub kv_is_rounded: bool,
    /// Whether there are quantised weights.
    pub quantised: bool,
    /// Experts, where there are some.
    pub experts: Option<ExpertWork>,
}

/// The largest steps of an encoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncoderWork {
    /// Its products of many rows, in any order.
    pub products: Vec<ProductWork>,
    /// Where every row attends to all ([`Backend::attend_all`]).
    pub attention: Option<AttentionWork>,
}

/// A product of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductWork {
    /// Rows at once.
    pub rows: usize,
    /// Width of the input.
    pub cols: usize,
    /// Width of the output: one that is wider than its input, and between bounds, may be inside a feed-forward.
    pub width: usize,
    /// Type of the weights.
    pub dtype: DType,
    /// Whether it is one between bounds ([`Backend::clipped_project`]).
    pub bounded: bool,
}

/// Attention of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionWork {
    /// Rows that see each other.
    pub rows: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// The operations of the model on one kind of hardware.
///
/// Methods take `&mut self` because a backend owns scratch; one thread drives it.
pub trait Backend {
    /// f32 activations.
    type Buffer;
    /// A weight matrix `[rows, cols]` of any stored type.
    type Matrix;
    /// f32 parameters.
    type Vector;
    /// Keys and values of one layer.
    type Kv;
    /// Chosen experts and their weights for some rows.
    type Routes: Default;

    /// Name for reports, e.g. `cpu avx512`.
    fn name(&self) -> String;

    /// How finely the products that follow may round their inputs; [`Rounding::Fine`] until it is called.
    fn set_rounding(&mut self, rounding: Rounding);

    // ---- memory

    /// Bytes that the backend takes for itself at most to do a text model's work and that of `encoders`, one after another in
    /// the same memory, beside buffers, parameters and caches.
    fn workspace(&self, text: &Work, encoders: &[&EncoderWork]) -> usize;
    /// A zeroed buffer of `len` values.
    fn buffer(&mut self, len: usize) -> Result<Self::Buffer, BackendError>;
    /// Makes a matrix of a tensor (all dimensions but the last are rows), without copying where it can.
    fn matrix(&mut self, tensor: &Tensor) -> Result<Self::Matrix, BackendError>;
    /// A view of some rows of a matrix.
    fn rows(&self, matrix: &Self::Matrix, rows: Range<usize>) -> Self::Matrix;
    /// Parameters from host memory.
    fn vector(&mut self, values: &[f32]) -> Result<Self::Vector, BackendError>;
    /// An empty cache.
    fn kv(&mut self, spec: KvSpec) -> Result<Self::Kv, BackendError>;
    /// Host to device, from the start of the buffer.
    fn upload(&mut self, out: &mut Self::Buffer, values: &[f32]) {
        self.upload_at(out, 0, values);
    }
    /// Host to device: `out[at..at+len] = values`.
    fn upload_at(&mut self, out: &mut Self::Buffer, at: usize, values: &[f32]);
    /// Device to host, from value `at`.
    fn download(&mut self, x: &Self::Buffer, at: usize, out: &mut [f32]);
    /// `out[0..len] = x[at..at+len]`.
    fn copy(&mut self, out: &mut Self::Buffer, x: &Self::Buffer, at: usize, len: usize);

    // ---- rows in

    /// `out[i, c] = table[ids[i], cols.start + c] · scale`.
    fn gather(&mut self, out: &mut Self::Buffer, table: &Self::Matrix, ids: &[TokenId], cols: Range<usize>, scale: f32);
    /// `out[i] = cos(p·f), sin(p·f)` for positions `p = first + i`: `[n, 2, inv_freq.len()]`, angles in f32.
    fn rope_table(&mut self, out: &mut Self::Buffer, inv_freq: &[f32], first: usize, n: usize);
    /// Per-layer inputs: `p[i] = (p[i] + rms(ctx[i] · ctx_scale, norm)) · 2^(-1/2)` over `groups` rows of `norm.weight`'s
    /// length; `p` holds the scaled token rows on entry.
    fn combine_per_layer(
        &mut self,
        p: &mut Self::Buffer,
        ctx: &Self::Buffer,
        ctx_scale: f32,
        norm: Norm<'_, Self::Vector>,
        groups: usize,
    );

    // ---- the layer

    /// `out[i] = rms(clamp(x[i], bounds), norm)` for `n` rows of `norm.weight`'s length, `clamp(v, [a, b]) = min(max(v, a), b)`.
    fn rms_norm(
        &mut self,
        out: &mut Self::Buffer,
        x: &Self::Buffer,
        bounds: [f32; 2],
        norm: Norm<'_, Self::Vector>,
        n: usize,
    );
    /// `h = rms(x, norm)` (or `x`), then every projection of `h`. Here and in the next two `h`, or `x`, and weights stored as f16
    /// or bf16 may be rounded as those of [`Backend::clipped_project`], unless rounding is to be [`Rounding::Finest`].
    fn project(
        &mut self,
        outs: &mut [Projection<'_, Self::Matrix, Self::Buffer>],
        x: &Self::Buffer,
        norm: Option<Norm<'_, Self::Vector>>,
        n: usize,
    );
    /// `out = gelu_tanh(gate · h) ⊙ (up · h)`, `h = rms(x, norm)`: `[n, ff]`.
    fn gated_project(
        &mut self,
        out: &mut Self::Buffer,
        gate: &Self::Matrix,
        up: &Self::Matrix,
        x: &Self::Buffer,
        norm: Norm<'_, Self::Vector>,
        n: usize,
    );
    /// `out[i] = gelu_tanh(matrix · x[i]) ⊙ p[i · p_stride + p_at ..]`: `[n, rows]`.
    fn gated_input(
        &mut self,
        out: &mut Self::Buffer,
        matrix: &Self::Matrix,
        x: &Self::Buffer,
        p: &Self::Buffer,
        p_at: usize,
        p_stride: usize,
        n: usize,
    );
    /// `x[i] = (x[i] + rms(clamp(h[i], bounds), norm)) · scale`.
    fn add_rms_norm(
        &mut self,
        x: &mut Self::Buffer,
        h: &Self::Buffer,
        bounds: [f32; 2],
        norm: Norm<'_, Self::Vector>,
        scale: f32,
        n: usize,
    );
    /// `out[i] = rms(a[i], norm_a) + rms(b[i], norm_b)`.
    fn sum_rms_norms(
        &mut self,
        out: &mut Self::Buffer,
        a: &Self::Buffer,
        norm_a: Norm<'_, Self::Vector>,
        b: &Self::Buffer,
        norm_b: Norm<'_, Self::Vector>,
        n: usize,
    );
    /// Per head of `[n, n_heads, head_dim]`, in place: `rope(rms(x, weight))`. In a part of `m` dimensions, the whole
    /// head where there is one part, element `i` pairs with `i + m/2` (`x·cos + rotate_half(x)·sin`). Without weight or
    /// rope that step is left out (values: `rms0` alone).
    fn norm_heads(
        &mut self,
        x: &mut Self::Buffer,
        weight: Option<&Self::Vector>,
        eps: f32,
        rope: Option<Rope<'_, Self::Buffer>>,
        n_heads: usize,
        head_dim: usize,
        n: usize,
    );
    /// Stores keys and values `[n, n_kv_heads, head_dim]` of positions `first .. first + n`.
    fn kv_write(&mut self, kv: &mut Self::Kv, k: &Self::Buffer, v: &Self::Buffer, first: usize, n: usize);
    /// `out[i, h] = softmax(q[i, h] · K) · V` over the keys row `i` may see; scale 1, softmax in f32:
    /// `[n, n_heads, head_dim]`. Where the cache holds less than f32, both sides of both products may be rounded as those of
    /// [`Backend::attend_all`].
    fn attention(&mut self, out: &mut Self::Buffer, q: &Self::Buffer, kv: &Self::Kv, shape: Attention<'_>);

    // ---- mixture of experts

    /// `t = rms0(x) ⊙ scale`, `π = softmax(proj · t)`, the `top_k` largest (ties: lowest index) renormalised to sum 1, then times
    /// `per_expert_scale`; all in f32, whatever the type of `proj` and the rounding. Where a row of `proj · t` is not all numbers
    /// its weights are none.
    fn route(
        &mut self,
        routes: &mut Self::Routes,
        x: &Self::Buffer,
        router: Router<'_, Self::Matrix, Self::Vector>,
        n: usize,
    );
    /// `e = rms(x, norm)`, `out[i] = Σ_j g_j · down_j · (gelu_tanh(gate_j · e) ⊙ (up_j · e))` over the routes of row `i`.
    fn experts(
        &mut self,
        out: &mut Self::Buffer,
        x: &Self::Buffer,
        norm: Norm<'_, Self::Vector>,
        experts: Experts<'_, Self::Matrix>,
        routes: &Self::Routes,
        n: usize,
    );

    // ---- encoders

    /// `out = clamp(matrix · clamp(x, clip.input), clip.output)` for every projection: `[n, rows]`. Inputs, and
    /// weights stored as f16 or bf16, may be rounded in blocks of 128 to steps of a 46,335th of the block's size or, if that is
    /// more, a 16,383rd of its largest, the weights' to the power of two above that; where a backend was made for coarse
    /// products, both as [`Rounding::Coarse`] has it, the weights' steps a 127th of the block's largest.
    fn clipped_project(
        &mut self,
        outs: &mut [ClippedProjection<'_, Self::Matrix, Self::Buffer>],
        x: &Self::Buffer,
        n: usize,
    );
    /// `down · (gelu_tanh(gate · x) ⊙ (up · x))` or, where there is no gate, `down · silu(up · x)`, of `n` rows: every product as
    /// [`Backend::clipped_project`] makes it.
    fn clipped_feed_forward(
        &mut self,
        ffn: ClippedFeedForward<'_, Self::Matrix, Self::Buffer>,
        x: &Self::Buffer,
        n: usize,
    ) {
        feed_forward_by_parts(self, ffn, x, n);
    }
    /// `gate = gelu_tanh(gate) ⊙ up` for `len` values.
    fn gate(&mut self, gate: &mut Self::Buffer, up: &Self::Buffer, len: usize);
    /// `out[i] = (x[i] − mean) · (variance + eps)^(-1/2) ⊙ weight + bias`, mean and variance (of all values, not one less)
    /// those of row `i`, for `n` rows of `norm.weight`'s length.
    fn layer_norm(&mut self, out: &mut Self::Buffer, x: &Self::Buffer, norm: LayerNorm<'_, Self::Vector>, n: usize);
    /// `x += y` for `len` values.
    fn add(&mut self, x: &mut Self::Buffer, y: &Self::Buffer, len: usize);
    /// `out[i, h] = softmax(q[i, h] · K_h) · V_h` over the keys and values of all `n` rows, before and after `i`; scale 1,
    /// softmax in f32. All are `[n, n_heads, head_dim]`. Queries, keys, the shares of up to 128 neighbouring keys, and these
    /// keys' values in each dimension, may be rounded as the inputs of [`Backend::clipped_project`].
    fn attend_all(
        &mut self,
        out: &mut Self::Buffer,
        q: &Self::Buffer,
        k: &Self::Buffer,
        v: &Self::Buffer,
        n_heads: usize,
        head_dim: usize,
        n: usize,
    );
    /// `out[i] = (factor · Σ_j x[rows[i, j]] − a) ⊙ b`, `(a, b)` the `standard`; without one the product alone.
    fn pool(&mut self, out: &mut Self::Buffer, x: &Self::Buffer, pooling: Pooling<'_, Self::Vector>);
    /// A convolution of 3 × 3 in steps of 2, then a layer norm over the filters, then what is positive of it:
    /// `y[t, m, f] = Σ_{c, i, j} filters[f, c, i, j] · x[2t + i − 1, 2m + j − 1, c]`, zeros around `x`;
    /// `out[t, m, f] = max(0, (y[t, m, f] − mean_f y) · (var_f y + eps)^(-1/2) · weight[f])`.
    /// `x` is `[n, bands, channels]`, `out` `[halved(n), halved(bands), filters]`, `filters` `[filters, channels, 3, 3]`.
    fn subsample(
        &mut self,
        out: &mut Self::Buffer,
        x: &Self::Buffer,
        filters: &Self::Vector,
        norm: Norm<'_, Self::Vector>,
        shape: Subsampling,
    );
    /// `x[i] += bias` for `n` rows of `bias`'s length.
    fn add_bias(&mut self, x: &mut Self::Buffer, bias: &Self::Vector, n: usize);
    /// `x = silu(x)` for `len` values: `silu(v) = v · σ(v)`, `σ(v) = 1 / (1 + e^(−v))`.
    fn silu(&mut self, x: &mut Self::Buffer, len: usize);
    /// `out[i, c] = x[i, c] · σ(x[i, d + c])`: `x` `[n, 2d]`, `out` `[n, d]`.
    fn glu(&mut self, out: &mut Self::Buffer, x: &Self::Buffer, d: usize, n: usize);
    /// `out[i, c] = Σ_j taps[c, j] · x[i − (k − 1) + j, c]` over the rows from 0 on: `n` rows of `d` values, `taps`
    /// `[d, k]`.
    fn causal_conv(&mut self, out: &mut Self::Buffer, x: &Self::Buffer, taps: &Self::Vector, d: usize, n: usize);
    /// `out[i, h] = Σ_j p_j · v[j, h]` over the keys `i − reach < j ≤ i` from 0 on, `p = softmax(s)` in f32,
    /// `s_j = cap · tanh((q[i, h] ⊙ scale) · (k[j, h] + relative[i − j, h]) / cap)`. Queries, keys, values and `out` are
    /// `[n, n_heads, head_dim]`.
    fn attend_near(
        &mut self,
        out: &mut Self::Buffer,
        q: &Self::Buffer,
        k: &Self::Buffer,
        v: &Self::Buffer,
        near: Near<'_, Self::Vector>,
        n: usize,
    );

    // ---- rows out

    /// `out[i] = softcap(matrix · rms(x[i], norm))`, `softcap(l) = cap · tanh(l / cap)`: `[n, vocab]`.
    fn logits(
        &mut self,
        out: &mut Self::Buffer,
        matrix: &Self::Matrix,
        x: &Self::Buffer,
        norm: Norm<'_, Self::Vector>,
        softcap: Option<f32>,
        n: usize,
    );
}
