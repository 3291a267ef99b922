//! `impl Backend`: every operation as tiles over the pool.
//!
//! An operation prepares its activations once (norm, integer form), then one fork-join writes all its outputs.
//! Nothing here depends on the instruction set or the block format.

use std::ops::Range;
use std::sync::Mutex;

use carat_tensor::backend::{
    Attention, Backend, BackendError, ClippedFeedForward, ClippedProjection, EncoderWork, Experts, KvForm, KvSpec,
    LayerNorm, Near, Norm, Pooling, Projection, Rope, Rounding, Router, Subsampling, UNBOUNDED, Work,
    feed_forward_by_parts,
};
use carat_tensor::{Bytes, DType, Tensor, TokenId};

use crate::acts::{Acts, Before, Wanted, grow};
use crate::attention::{self, Stored, View};
use crate::conv;
use crate::interleaved;
use crate::kernels::{Isa, Kernels, available, table};
use crate::kv::{Kv, MAX_HEAD_DIM};
use crate::matmul::{self, Integers, Matrix, Product, Scratch};
use crate::moe::{Routes, Workspace, lock};
use crate::near;
use crate::pool::{Output, Pool};
use crate::words::{self, WordKernels};
use crate::{rows, topology, workspace};

/// How weights are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Integer dots of the stored weights with activations rounded as finely as [`Rounding`] asks. Plain weights meet f32
    /// activations. Where there are kernels of 16-bit integers (of AVX-512, and the portable ones), many rows meet weights in f16
    /// and bf16 in these, but where rounding is to be finest; so they do encoders' in Q8_0, each other in encoders' attention,
    /// and a cache that holds less than f32.
    Fast,
    /// The same, but that encoders' products between bounds are of 8-bit integers: activations in blocks of 32, and weights of
    /// 16 bits, which are rounded as Q8_0's are.
    Coarse,
    /// Weights decoded to f32, f32 activations, f32 accumulation.
    Reference,
}

/// What to build a backend with.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads; `None` is one per physical core that affinity and cgroup leave to this process.
    pub threads: Option<usize>,
    /// How quantised weights are multiplied.
    pub precision: Precision,
    /// Instruction set; `None` is the best this machine has.
    pub isa: Option<Isa>,
}

impl Default for CpuOptions {
    fn default() -> Self {
        CpuOptions { threads: None, precision: Precision::Fast, isa: None }
    }
}

/// Why a backend could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The machine lacks the instruction set.
    #[error("this machine has no {asked} kernels; it has {}", found.iter().map(|i| i.name()).collect::<Vec<_>>().join(", "))]
    NoSuchIsa {
        /// What was asked for.
        asked: Isa,
        /// What there is.
        found: Vec<Isa>,
    },
    /// A number of threads nobody can mean.
    #[error("{asked} threads were asked for; 1 to {most} are possible")]
    Threads {
        /// What was asked for.
        asked: usize,
        /// The limit.
        most: usize,
    },
    /// The system refused a thread.
    #[error("could not start {threads} threads: {source}")]
    Spawn {
        /// How many were asked for.
        threads: usize,
        /// Why not.
        source: std::io::Error,
    },
}

/// Most threads of a backend.
const MAX_THREADS: usize = 1024;
/// Outputs of one fork-join.
const MAX_OUTS: usize = 4;

/// f32 activations.
pub struct Buffer(Vec<f32>);

impl Buffer {
    /// Its values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

/// f32 parameters.
pub struct Vector(Box<[f32]>);

/// The CPU as a [`Backend`].
pub struct CpuBackend {
    kernels: &'static Kernels,
    /// How activations are rounded for integer dots; `None` where weights are decoded instead.
    integer: Option<Rounding>,
    /// Whether encoders' products are of 8-bit integers.
    coarse: bool,
    pool: Pool,
    scratch: Vec<Mutex<Scratch>>,
    attention: Vec<Mutex<attention::Scratch>>,
    partial: Vec<f32>,
    acts: Acts,
    moe: Workspace,
    router_logits: Vec<f32>,
    tiles: Tiles,
    words: Words,
}

/// What products of 16-bit integers take.
#[derive(Default)]
struct Words {
    acts: words::product::Acts,
    /// Scales of what goes into a feed-forward, while `acts` are what is inside.
    outer: Vec<words::Scale>,
    products: Vec<Mutex<words::product::Scratch>>,
    head: words::attention::Head,
    attention: Vec<Mutex<words::attention::Scratch>>,
}

/// The interleaved rows of a tensor, where there are some.
type Tiles = Box<dyn Fn(&Tensor) -> Option<Bytes> + Send + Sync>;
type CpuNorm<'a> = Norm<'a, Vector>;

impl CpuBackend {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the machine lacks the instruction set or refuses the threads.
    pub fn new(options: CpuOptions) -> Result<Self, CpuError> {
        let found = available();
        let isa = options.isa.unwrap_or(found[0]);
        let kernels = table(isa).ok_or(CpuError::NoSuchIsa { asked: isa, found })?;
        let threads = options.threads.unwrap_or_else(topology::usable_cores);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(CpuError::Threads { asked: threads, most: MAX_THREADS });
        }
        let pool = Pool::new(threads).map_err(|source| CpuError::Spawn { threads, source })?;
        Ok(CpuBackend {
            kernels,
            integer: (options.precision != Precision::Reference).then(Rounding::default),
            coarse: options.precision == Precision::Coarse,
            pool,
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
            attention: (0..threads).map(|_| Mutex::default()).collect(),
            partial: Vec::new(),
            acts: Acts::default(),
            moe: Workspace::default(),
            router_logits: Vec::new(),
            tiles: Box::new(|_| None),
            words: Words {
                products: (0..threads).map(|_| Mutex::default()).collect(),
                attention: (0..threads).map(|_| Mutex::default()).collect(),
                ..Words::default()
            },
        })
    }

    /// Bytes of a tensor's interleaved rows ([`interleave`]); `None` where this machine's kernels read it as fast as it is: all but
    /// the scalar ones read whole tiles faster, of Q4_0, Q8_0, Q4_K, Q6_K and BF16.
    ///
    /// [`interleave`]: crate::interleave
    pub fn tiles_bytes(&self, tensor: &Tensor) -> Option<usize> {
        let prefers = self.integer.is_some() && self.kernels.tile_rows > 0;
        interleaved::bytes(tensor.dtype, (tensor.rows(), tensor.cols())).filter(|_| prefers)
    }

    /// Asks `tiles` for the interleaved rows of every tensor that a matrix is made of from now on, if this machine's kernels
    /// prefer them. Products then read those, which must be what [`interleave`](crate::interleave) makes of the tensor; the
    /// tensor itself is read for single rows only.
    pub fn set_tiles(&mut self, tiles: impl Fn(&Tensor) -> Option<Bytes> + Send + Sync + 'static) {
        self.tiles = Box::new(tiles);
    }

    /// Threads that work, the caller's among them.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// Kernels of 16-bit integers, where precision allows them and they are faster.
    fn words(&self) -> Option<&'static WordKernels> {
        self.kernels.words.filter(|_| self.integer.is_some())
    }

    /// Whether products with a matrix between bounds are of 8-bit integers.
    fn is_coarse(&self, m: &Matrix, n: usize) -> bool {
        self.coarse && matmul::rounds(self.words(), m.dtype, m.cols, n)
    }

    /// Kernels of 16-bit integers, where products with a matrix between bounds are made of these.
    fn words_for(&self, m: &Matrix, n: usize) -> Option<&'static WordKernels> {
        self.words().filter(|_| !self.is_coarse(m, n) && words::product::takes(m.dtype, n, true))
    }

    /// Kernels of a feed-forward as a whole, where its parts all take 16-bit integers, and the same of what goes in.
    fn words_of(&self, ffn: &ClippedFeedForward<'_, Matrix, Buffer>, n: usize) -> Option<&'static WordKernels> {
        let ClippedFeedForward { gate, up, down, .. } = ffn;
        let mut matrices = gate.iter().chain([up, down]).map(|part| part.projection.matrix);
        let is_one_input = gate.as_ref().is_none_or(|gate| gate.clip.input == up.clip.input);
        let is_room = words::product::room(n, up.projection.matrix.cols) <= up.projection.out.0.len();
        self.words().filter(|_| is_one_input && is_room && matrices.all(|m| self.words_for(m, n).is_some()))
    }

    fn out_of_memory(&self, what: &str, bytes: usize) -> BackendError {
        BackendError::OutOfMemory { what: what.to_owned(), bytes, backend: self.name() }
    }

    /// Norms `x` into the activations; integer form if some matrix wants it.
    fn load<'m>(
        &mut self,
        x: &[f32],
        norm: Option<CpuNorm<'_>>,
        n: usize,
        matrices: impl Iterator<Item = &'m Matrix> + Clone,
    ) {
        let Some(cols) = matrices.clone().next().map(|m| m.cols) else { return };
        assert!(matrices.clone().all(|m| m.cols == cols), "all projections of one input have its width {cols}");
        let before = norm.map_or(Before::Nothing, |norm| Before::Norm(&norm.weight.0, norm.eps));
        let workers = (&mut self.pool, &self.scratch[..]);
        self.acts.load(self.kernels, workers, x, (n, cols), before, Wanted::by(self.integer, matrices));
    }

    /// Rounds the rows that were loaded to 16 bits, where that is as fine as was asked for and products with weights of all these
    /// types take it.
    fn round_words(&mut self, mut dtypes: impl Iterator<Item = DType>) -> Option<&'static WordKernels> {
        let Acts { n, cols, ref x, .. } = self.acts;
        let allowed = self.integer != Some(Rounding::Finest);
        let words = self.words().filter(|_| allowed && dtypes.all(|dtype| words::product::takes(dtype, n, false)))?;
        self.words.acts.round(words, &mut self.pool, &x[..n * cols], (n, cols), UNBOUNDED);
        Some(words)
    }

    /// [`words::product::project`] of the rows that were rounded, without bounds.
    fn project_words<const M: usize>(
        &mut self,
        words: &WordKernels,
        out: &mut Buffer,
        matrices: [&Matrix; M],
        finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    ) {
        let Words { acts, products, .. } = &self.words;
        let (tables, workers) = ((self.kernels, words), (&mut self.pool, &products[..]));
        words::product::project(tables, workers, acts.rows(), &mut out.0, matrices, UNBOUNDED, finish);
    }

    /// `out[i, h] = softmax(q[i, h] · K) · V`, both sides of both products `rounded` to 16 bits where that is allowed and faster.
    fn attend(&mut self, (out, q): (&mut [f32], &[f32]), stored: &impl Stored, view: View<'_>, rounded: bool) {
        let takes = rounded && words::attention::takes(view.shape.n, view.group, view.d);
        if let Some(words) = self.words().filter(|_| takes) {
            let Words { head, attention, .. } = &mut self.words;
            let kernels = words::attention::Kernels { words, all: self.kernels };
            return words::attention::attend(kernels, &mut self.pool, attention, head, (out, q), stored, view);
        }
        let (scratch, partial) = (&self.attention, &mut self.partial);
        attention::attend(self.kernels, &mut self.pool, scratch, partial, (out, q), stored, view);
    }
}

impl Backend for CpuBackend {
    type Buffer = Buffer;
    type Matrix = Matrix;
    type Vector = Vector;
    type Kv = Kv;
    type Routes = Routes;

    fn name(&self) -> String {
        format!("cpu {}", self.kernels.isa)
    }

    fn workspace(&self, text: &Work, encoders: &[&EncoderWork]) -> usize {
        let cpu = workspace::Cpu {
            kernels: self.kernels,
            threads: self.threads(),
            integer: self.integer.is_some(),
            coarse: self.coarse,
            words: self.words(),
        };
        workspace::bytes(cpu, text, encoders)
    }

    fn set_rounding(&mut self, rounding: Rounding) {
        self.integer = self.integer.map(|_| rounding);
    }

    fn buffer(&mut self, len: usize) -> Result<Buffer, BackendError> {
        let mut values = Vec::new();
        values.try_reserve_exact(len).map_err(|_| self.out_of_memory("activations", len * 4))?;
        grow(&mut values, len);
        Ok(Buffer(values))
    }

    fn matrix(&mut self, tensor: &Tensor) -> Result<Matrix, BackendError> {
        let (rows, cols, dtype) = (tensor.rows(), tensor.cols(), tensor.dtype);
        // Integer products are made in blocks of 32, which every quantised type's rows are whole multiples of.
        let row_bytes = dtype.row_bytes(cols).filter(|&bytes| bytes * rows == tensor.data.len());
        let Some(row_bytes) = row_bytes else {
            let (name, backend) = (tensor.name.clone(), self.name());
            return Err(BackendError::UnsupportedType { name, dtype, backend });
        };
        let of_tiles = self.tiles_bytes(tensor);
        let tiles = of_tiles.and_then(|bytes| (self.tiles)(tensor).filter(|tiles| tiles.len() == bytes));
        Ok(Matrix { data: tensor.data.clone(), dtype, rows, cols, row_bytes, tiles })
    }

    fn rows(&self, m: &Matrix, rows: Range<usize>) -> Matrix {
        m.view(rows)
    }

    fn vector(&mut self, values: &[f32]) -> Result<Vector, BackendError> {
        Ok(Vector(values.into()))
    }

    fn kv(&mut self, spec: KvSpec) -> Result<Kv, BackendError> {
        assert!(spec.head_dim <= MAX_HEAD_DIM, "head_dim {} is above {MAX_HEAD_DIM}", spec.head_dim);
        if let KvForm::ValueAndRotated { pairs } = spec.form {
            assert!(2 * pairs <= spec.head_dim, "{pairs} rotated pairs in a head of {}", spec.head_dim);
        }
        Kv::new(spec).map_err(|bytes| self.out_of_memory("keys and values", bytes))
    }

    fn upload_at(&mut self, out: &mut Buffer, at: usize, values: &[f32]) {
        out.0[at..at + values.len()].copy_from_slice(values);
    }

    fn download(&mut self, x: &Buffer, at: usize, out: &mut [f32]) {
        out.copy_from_slice(&x.0[at..at + out.len()]);
    }

    fn copy(&mut self, out: &mut Buffer, x: &Buffer, at: usize, len: usize) {
        self.pool.for_parts(&mut out.0[..len], |from, out| out.copy_from_slice(&x.0[at + from..][..out.len()]));
    }

    fn gather(&mut self, out: &mut Buffer, table: &Matrix, ids: &[TokenId], cols: Range<usize>, scale: f32) {
        let (block, block_bytes) = (table.dtype.block_len(), table.dtype.block_bytes());
        // Whole blocks around the columns asked for.
        let blocks = cols.start / block..cols.end.div_ceil(block);
        let k = self.kernels;
        let scratch = &self.scratch;
        let share = ids.len().div_ceil(4 * self.pool.threads());
        self.pool.tiles(
            &mut [Output::new(&mut out.0, ids.len(), cols.len(), share, cols.len())],
            |worker, _, mut tile| {
                let mut scratch = lock(&scratch[worker]);
                for i in tile.rows() {
                    let row = ids[i].index();
                    let row = &table.row_bytes(row..row + 1)[blocks.start * block_bytes..blocks.end * block_bytes];
                    let decoded = scratch.decoded(blocks.len() * block);
                    (k.decode)(table.dtype, row, decoded);
                    let decoded = &decoded[cols.start - blocks.start * block..];
                    tile.row(i).iter_mut().zip(decoded).for_each(|(out, v)| *out = v * scale);
                }
            },
        );
    }

    fn rope_table(&mut self, out: &mut Buffer, inv_freq: &[f32], first: usize, n: usize) {
        self.pool.for_rows(&mut out.0, n, 2 * inv_freq.len(), |i, row| rows::rope_row(row, inv_freq, first + i));
    }

    fn combine_per_layer(&mut self, p: &mut Buffer, ctx: &Buffer, ctx_scale: f32, norm: CpuNorm<'_>, groups: usize) {
        let (k, d) = (self.kernels, norm.weight.0.len());
        self.pool.for_rows(&mut p.0, groups, d, |i, p| {
            let ctx = &ctx.0[i * d..(i + 1) * d];
            // rms(s · c) = c · s · (s² · mean(c²) + eps)^(-1/2)
            let mean = (k.sum_squares)(ctx) / d as f32;
            let scale = ctx_scale * (ctx_scale * ctx_scale * mean + norm.eps).sqrt().recip();
            for ((p, &c), &w) in p.iter_mut().zip(ctx).zip(&norm.weight.0) {
                *p = (*p + c * scale * w) * std::f32::consts::FRAC_1_SQRT_2;
            }
        });
    }

    fn rms_norm(&mut self, out: &mut Buffer, x: &Buffer, bounds: [f32; 2], norm: CpuNorm<'_>, n: usize) {
        let (k, d) = (self.kernels, norm.weight.0.len());
        self.pool.for_rows(&mut out.0, n, d, |i, out| {
            out.copy_from_slice(&x.0[i * d..(i + 1) * d]);
            rows::clamp(out, bounds);
            rows::norm_head(k, out, Some(&norm.weight.0), norm.eps, None);
        });
    }

    fn project(
        &mut self,
        outs: &mut [Projection<'_, Matrix, Buffer>],
        x: &Buffer,
        norm: Option<CpuNorm<'_>>,
        n: usize,
    ) {
        self.load(&x.0, norm, n, outs.iter().map(|p| p.matrix));
        if let Some(words) = self.round_words(outs.iter().map(|p| p.matrix.dtype)) {
            for Projection { matrix, out } in outs {
                self.project_words(words, out, [*matrix], |_, _, _| {});
            }
            return;
        }
        let product = Product { kernels: self.kernels, integers: Integers::by(self.integer), acts: &self.acts };
        for chunk in outs.chunks_mut(MAX_OUTS) {
            let mut matrices = [None; MAX_OUTS];
            let mut outputs: [Output<'_>; MAX_OUTS] = std::array::from_fn(|_| Output::empty());
            for ((projection, matrix), output) in chunk.iter_mut().zip(&mut matrices).zip(&mut outputs) {
                let m = projection.matrix;
                *matrix = Some(m);
                *output = product.output(&mut projection.out.0, m, n, self.pool.threads());
            }
            let scratch = &self.scratch;
            self.pool.tiles(&mut outputs, |worker, index, mut tile| {
                let matrix = matrices[index].expect("an output with tiles has a matrix");
                product.fill(matrix, 0, &mut tile, &mut lock(&scratch[worker]), |_, _, _| {});
            });
        }
    }

    fn gated_project(&mut self, out: &mut Buffer, gate: &Matrix, up: &Matrix, x: &Buffer, norm: CpuNorm<'_>, n: usize) {
        self.load(&x.0, Some(norm), n, [gate, up].into_iter());
        if let Some(words) = self.round_words([gate.dtype, up.dtype].into_iter()) {
            return self.project_words(words, out, [gate, up], |_, _, _| {});
        }
        let product = Product { kernels: self.kernels, integers: Integers::by(self.integer), acts: &self.acts };
        let (scratch, out) = (&self.scratch, product.output(&mut out.0, gate, n, self.pool.threads()));
        self.pool.tiles(&mut [out], |worker, _, mut tile| {
            product.fill_gated((gate, up), (0, 0), &mut tile, &mut lock(&scratch[worker]));
        });
    }

    fn gated_input(
        &mut self,
        out: &mut Buffer,
        m: &Matrix,
        x: &Buffer,
        p: &Buffer,
        p_at: usize,
        p_stride: usize,
        n: usize,
    ) {
        self.load(&x.0, None, n, std::iter::once(m));
        let k = self.kernels;
        let gate = |i, cols: Range<usize>, out: &mut [f32]| {
            let from = i * p_stride + p_at;
            (k.gelu_mul)(out, &p.0[from + cols.start..from + cols.end]);
        };
        if let Some(words) = self.round_words(std::iter::once(m.dtype)) {
            return self.project_words(words, out, [m], gate);
        }
        let product = Product { kernels: self.kernels, integers: Integers::by(self.integer), acts: &self.acts };
        let (scratch, out) = (&self.scratch, product.output(&mut out.0, m, n, self.pool.threads()));
        self.pool.tiles(&mut [out], |worker, _, mut tile| {
            product.fill(m, 0, &mut tile, &mut lock(&scratch[worker]), gate);
        });
    }

    fn add_rms_norm(&mut self, x: &mut Buffer, h: &Buffer, bounds: [f32; 2], norm: CpuNorm<'_>, scale: f32, n: usize) {
        let (k, d) = (self.kernels, norm.weight.0.len());
        self.pool.for_rows(&mut x.0, n, d, |i, x| {
            rows::add_rms_norm(k, x, &h.0[i * d..(i + 1) * d], bounds, (&norm.weight.0, norm.eps), scale);
        });
    }

    fn sum_rms_norms(
        &mut self,
        out: &mut Buffer,
        a: &Buffer,
        norm_a: CpuNorm<'_>,
        b: &Buffer,
        norm_b: CpuNorm<'_>,
        n: usize,
    ) {
        let (k, d) = (self.kernels, norm_a.weight.0.len());
        self.pool.for_rows(&mut out.0, n, d, |i, out| {
            let (a, b) = (&a.0[i * d..(i + 1) * d], &b.0[i * d..(i + 1) * d]);
            let (scale_a, scale_b) = (rows::rms_scale(k, a, norm_a.eps), rows::rms_scale(k, b, norm_b.eps));
            for (c, out) in out.iter_mut().enumerate() {
                *out = a[c] * scale_a * norm_a.weight.0[c] + b[c] * scale_b * norm_b.weight.0[c];
            }
        });
    }

    fn norm_heads(
        &mut self,
        x: &mut Buffer,
        weight: Option<&Vector>,
        eps: f32,
        rope: Option<Rope<'_, Buffer>>,
        n_heads: usize,
        head_dim: usize,
        n: usize,
    ) {
        let k = self.kernels;
        self.pool.for_rows(&mut x.0, n, n_heads * head_dim, |i, row| {
            let rope = rope.map(|rope| (&rope.table.0[i * head_dim..(i + 1) * head_dim], rope.parts));
            for head in row.chunks_exact_mut(head_dim) {
                rows::norm_head(k, head, weight.map(|w| &*w.0), eps, rope);
            }
        });
    }

    fn kv_write(&mut self, kv: &mut Kv, k: &Buffer, v: &Buffer, first: usize, n: usize) {
        let (heads, d) = (kv.spec().n_kv_heads, kv.spec().head_dim);
        for i in 0..n {
            for head in 0..heads {
                let at = (i * heads + head) * d;
                kv.write(head, first + i, &k.0[at..at + d], &v.0[at..at + d]);
            }
        }
    }

    fn attention(&mut self, out: &mut Buffer, q: &Buffer, kv: &Kv, shape: Attention<'_>) {
        self.attend((&mut out.0, &q.0), kv, View::of_cache(kv, shape), kv.is_rounded());
    }

    fn route(&mut self, routes: &mut Routes, x: &Buffer, router: Router<'_, Matrix, Vector>, n: usize) {
        let norm = Before::Norm(&router.scale.0, router.eps);
        let workers = (&mut self.pool, &self.scratch[..]);
        self.acts.load(self.kernels, workers, &x.0, (n, router.proj.cols), norm, Wanted::FLOATS);
        let n_experts = router.proj.rows;
        grow(&mut self.router_logits, n * n_experts);
        // In f32 at every precision: a tie decided otherwise is another expert.
        let product = Product { kernels: self.kernels, integers: Integers::Never, acts: &self.acts };
        let threads = self.pool.threads();
        let (scratch, out) = (&self.scratch, product.output(&mut self.router_logits, router.proj, n, threads));
        self.pool.tiles(&mut [out], |worker, _, mut tile| {
            product.fill(router.proj, 0, &mut tile, &mut lock(&scratch[worker]), |_, _, _| {});
        });
        routes.choose(&mut self.router_logits[..n * n_experts], &router.per_expert_scale.0, router.top_k);
    }

    fn experts(
        &mut self,
        out: &mut Buffer,
        x: &Buffer,
        norm: CpuNorm<'_>,
        experts: Experts<'_, Matrix>,
        routes: &Routes,
        n: usize,
    ) {
        self.load(&x.0, Some(norm), n, [experts.gate.matrix, experts.up.matrix].into_iter());
        let io = (&mut out.0[..], &self.acts);
        self.moe.run(self.kernels, self.integer, &mut self.pool, &self.scratch, io, &experts, routes);
    }

    fn clipped_project(&mut self, outs: &mut [ClippedProjection<'_, Matrix, Buffer>], x: &Buffer, n: usize) {
        // How the activations were taken, if not as words, and within which bounds.
        let mut taken = None;
        for ClippedProjection { projection: Projection { matrix: m, out }, clip } in outs {
            let words = self.words_for(m, n);
            let (integers, wanted) = match self.is_coarse(m, n) {
                true => (Integers::Rounded, Wanted::COARSE),
                false => (Integers::by(self.integer), Wanted::by(self.integer, std::iter::once(*m))),
            };
            let how = Some((words.is_none().then_some(wanted), clip.input));
            let is_taken = std::mem::replace(&mut taken, how) == how;
            if let Some(words) = words {
                let Words { acts, products, .. } = &mut self.words;
                if !is_taken {
                    acts.round(words, &mut self.pool, &x.0, (n, m.cols), clip.input);
                }
                let (tables, workers) = ((self.kernels, words), (&mut self.pool, &products[..]));
                words::product::project(tables, workers, acts.rows(), &mut out.0, [*m], clip.output, |_, _, _| ());
                continue;
            }
            if !is_taken {
                let workers = (&mut self.pool, &self.scratch[..]);
                self.acts.load(self.kernels, workers, &x.0, (n, m.cols), Before::Clamp(clip.input), wanted);
            }
            let product = Product { kernels: self.kernels, integers, acts: &self.acts };
            let (scratch, out) = (&self.scratch, product.output(&mut out.0, m, n, self.pool.threads()));
            self.pool.tiles(&mut [out], |worker, _, mut tile| {
                product.fill(m, 0, &mut tile, &mut lock(&scratch[worker]), |_, _, out| rows::clamp(out, clip.output));
            });
        }
    }

    fn clipped_feed_forward(&mut self, ffn: ClippedFeedForward<'_, Matrix, Buffer>, x: &Buffer, n: usize) {
        let Some(words) = self.words_of(&ffn, n) else { return feed_forward_by_parts(self, ffn, x, n) };
        let ClippedFeedForward { gate, up, down, .. } = ffn;
        let ffn = words::feed_forward::FeedForward {
            input: up.clip.input,
            gate: gate.as_ref().map(|gate| (gate.projection.matrix, gate.clip.output)),
            up: (up.projection.matrix, up.clip.output),
            inner: down.clip.input,
            down: (down.projection.matrix, down.clip.output),
        };
        let Words { acts, outer, products, .. } = &mut self.words;
        let (tables, workers) = ((self.kernels, words), (&mut self.pool, &products[..]));
        let memory = (acts, bytemuck::cast_slice_mut(&mut up.projection.out.0), outer);
        ffn.run(tables, workers, memory, (&x.0, n), &mut down.projection.out.0);
    }

    fn gate(&mut self, gate: &mut Buffer, up: &Buffer, len: usize) {
        let k = self.kernels;
        self.pool.for_parts(&mut gate.0[..len], |at, gate| (k.gelu_mul)(gate, &up.0[at..at + gate.len()]));
    }

    fn layer_norm(&mut self, out: &mut Buffer, x: &Buffer, norm: LayerNorm<'_, Vector>, n: usize) {
        let d = norm.weight.0.len();
        self.pool.for_rows(&mut out.0, n, d, |i, out| {
            rows::layer_norm(out, &x.0[i * d..(i + 1) * d], &norm.weight.0, &norm.bias.0, norm.eps);
        });
    }

    fn add(&mut self, x: &mut Buffer, y: &Buffer, len: usize) {
        self.pool.for_parts(&mut x.0[..len], |at, x| x.iter_mut().zip(&y.0[at..]).for_each(|(x, y)| *x += y));
    }

    fn attend_all(
        &mut self,
        out: &mut Buffer,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        n_heads: usize,
        head_dim: usize,
        n: usize,
    ) {
        let rows = attention::Rows { k: &k.0, v: &v.0, n_heads, d: head_dim };
        self.attend((&mut out.0, &q.0), &rows, View::of_all(n, &rows), true);
    }

    fn pool(&mut self, out: &mut Buffer, x: &Buffer, pooling: Pooling<'_, Vector>) {
        let Pooling { rows, per, d, factor, standard } = pooling;
        self.pool.for_rows(&mut out.0, rows.len() / per, d, |i, out| {
            rows::sum_rows(out, &x.0, &rows[i * per..(i + 1) * per], factor);
            if let Some((bias, scale)) = standard {
                for ((out, &bias), &scale) in out.iter_mut().zip(&bias.0).zip(&scale.0) {
                    *out = (*out - bias) * scale;
                }
            }
        });
    }

    fn subsample(&mut self, out: &mut Buffer, x: &Buffer, filters: &Vector, norm: CpuNorm<'_>, shape: Subsampling) {
        let layer = conv::Layer { filters: &filters.0, weight: &norm.weight.0, eps: norm.eps, shape };
        conv::subsample(self.kernels, &mut self.pool, &mut out.0, &x.0, &layer);
    }

    fn add_bias(&mut self, x: &mut Buffer, bias: &Vector, n: usize) {
        self.pool
            .for_rows(&mut x.0, n, bias.0.len(), |_, x| x.iter_mut().zip(&bias.0).for_each(|(x, bias)| *x += bias));
    }

    fn silu(&mut self, x: &mut Buffer, len: usize) {
        let k = self.kernels;
        self.pool.for_parts(&mut x.0[..len], |_, x| rows::silu(k, x));
    }

    fn glu(&mut self, out: &mut Buffer, x: &Buffer, d: usize, n: usize) {
        let k = self.kernels;
        self.pool.for_rows(&mut out.0, n, d, |i, out| {
            let (values, gate) = x.0[2 * i * d..2 * (i + 1) * d].split_at(d);
            (k.sigmoid_mul)(out, values, gate);
        });
    }

    fn causal_conv(&mut self, out: &mut Buffer, x: &Buffer, taps: &Vector, d: usize, n: usize) {
        let by_tap = conv::by_tap(&taps.0, d);
        self.pool.for_rows(&mut out.0, n, d, |i, out| conv::causal_row(out, &x.0[..n * d], &by_tap, i));
    }

    fn attend_near(&mut self, out: &mut Buffer, q: &Buffer, k: &Buffer, v: &Buffer, near: Near<'_, Vector>, n: usize) {
        let Near { n_heads, head_dim: d, reach, scale, relative, softcap } = near;
        let (scale, relative) = (&*scale.0, &*relative.0);
        let near = near::Near { n_heads, d, reach, scale, relative, softcap };
        near::attend(self.kernels, &mut self.pool, &mut out.0, [&q.0, &k.0, &v.0], &near, n);
    }

    fn logits(&mut self, out: &mut Buffer, m: &Matrix, x: &Buffer, norm: CpuNorm<'_>, softcap: Option<f32>, n: usize) {
        self.load(&x.0, Some(norm), n, std::iter::once(m));
        let product = Product { kernels: self.kernels, integers: Integers::by(self.integer), acts: &self.acts };
        let (scratch, out) = (&self.scratch, product.output(&mut out.0, m, n, self.pool.threads()));
        self.pool.tiles(&mut [out], |worker, _, mut tile| {
            product.fill(m, 0, &mut tile, &mut lock(&scratch[worker]), |_, _, out| {
                if let Some(cap) = softcap {
                    (product.kernels.softcap)(out, cap);
                }
            });
        });
    }
}
