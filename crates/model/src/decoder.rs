//! The forward pass of one sequence: embed → layers → norm → head.
//!
//! A step is cut into chunks, never within a picture whose tokens see each other. In each chunk only rows whose logits are wanted pass the layers that no later
//! position reads: layers after the last one with keys and values of its own, and of that one all but the keys
//! and values. In prefill that is one row of the last chunk.
//!
//! Many rows that only fill the cache round the inputs of their feed-forward networks to 8 bits, as they are bound by
//! arithmetic; a row whose logits are wanted never does, and none of a model with experts, where rounding may choose
//! another one. So the last token of a long prompt is a chunk of its own: one more reading of the weights of the layers that fill
//! the cache, for logits that owe nothing to coarse rounding but what they read in the cache. A coarse decoder
//! ([`DecoderOptions::coarse`]) rounds all inputs of such rows to 8 bits, and reads rows of models with experts no finer than
//! others'.
//! Source: transformers `modeling_gemma4.Gemma4TextModel`.

use std::ops::Range;

use carat_tensor::backend::{KvSpec, KvType, Norm, Projection, Rounding, UNBOUNDED};
use carat_tensor::{Backend, TokenId};
use carat_weights::Checkpoint;

use crate::config::LayerType;
use crate::input::{self, Piece};
use crate::kv::Cache;
use crate::layer::Block;
use crate::load::{self, ModelWeights};
use crate::plan::{KvSource, plan};
use crate::scratch::{LOGIT_ROWS, Scratch, Sizes, Stream};
use crate::{LayerPlan, LoadReport, MemoryPlan, ModelConfig, ModelError, memory_plan};

/// Up to so many rows are computed finely at once: reading and unpacking the weights takes about as long as the
/// products, so coarse rounding would save little.
pub(crate) const FINE_ROWS: usize = 32;

/// How a decoder is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderOptions {
    /// Most tokens the cache holds.
    pub ctx: usize,
    /// How the cache stores them.
    pub kv: KvType,
    /// Most rows per pass, but for blocks.
    pub chunk: usize,
    /// The longest run of rows that see each other, which is never cut: the soft tokens of the largest picture. Matters to
    /// models with [`ModelConfig::bidirectional_vision`] alone.
    pub block: usize,
    /// The most rows of a step whose logits the memory plan counts; a step that wants more takes more.
    pub logits: LogitRows,
    /// Whether of many rows that only fill the cache all inputs of products may be rounded to 8 bits ([`Rounding::Coarse`]), and
    /// those of others as finely with experts as without ([`Rounding::Fine`]). Few rows would be no faster for 8 bits.
    pub coarse: bool,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        DecoderOptions { ctx: 4096, kv: KvType::F16, chunk: 512, block: 0, logits: LogitRows::Last, coarse: false }
    }
}

impl DecoderOptions {
    /// Refuses impossible values; a chunk is never longer than the context.
    pub(crate) fn checked(self) -> Result<Self, ModelError> {
        const MOST: usize = 1 << 24;
        for (option, found) in [("ctx", self.ctx), ("chunk", self.chunk)] {
            if !(1..=MOST).contains(&found) {
                return Err(ModelError::Option { option, found, expected: format!("1 to {MOST}") });
            }
        }
        Ok(DecoderOptions { chunk: self.chunk.min(self.ctx), block: self.block.min(self.ctx), ..self })
    }

    /// How finely many rows that only fill the cache round the inputs of products, and of the feed-forward networks'.
    pub(crate) fn filling(&self, config: &ModelConfig) -> [Rounding; 2] {
        match (self.coarse, config.experts.is_some()) {
            (true, _) => [Rounding::Coarse; 2],
            (false, false) => [Rounding::Fine, Rounding::Coarse],
            (false, true) => [Rounding::Fine; 2],
        }
    }

    /// The same of rows that are read, and of few: finely, and most so where experts are chosen, as next to a tie any error makes
    /// another choice. Coarse rows before them have made theirs already.
    pub(crate) fn reading(&self, config: &ModelConfig) -> Rounding {
        if config.experts.is_some() && !self.coarse { Rounding::Finest } else { Rounding::Fine }
    }

    /// Rows of the largest pass of a model.
    pub(crate) fn pass(&self, config: &ModelConfig) -> usize {
        if config.bidirectional_vision { self.chunk.max(self.block) } else { self.chunk }
    }
}

/// Which rows of a step need logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// None: the cache is filled.
    None,
    /// The last token's.
    Last,
    /// All, at most a chunk.
    All,
}

/// What to append.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// At the next positions, in order.
    pub pieces: &'a [Piece<'a>],
    /// Rows wanted.
    pub logits: LogitRows,
}

/// Looks at the residual as it passes.
pub trait Tap {
    /// Rows `[n, d_model]` of one chunk: stage 0 is the embeddings, `l + 1` the output of layer `l`.
    fn hidden(&mut self, stage: usize, rows: &[f32]);
    /// Rows `[n, d_model]` after the final norm.
    fn final_norm(&mut self, rows: &[f32]) {
        let _ = rows;
    }
}

/// Backend, weights, cache and intermediates of one sequence.
pub struct Decoder<B: Backend> {
    backend: B,
    config: ModelConfig,
    plan: Vec<LayerPlan>,
    memory: MemoryPlan,
    options: DecoderOptions,
    weights: ModelWeights<B>,
    cache: Cache<B>,
    scratch: Scratch<B>,
    /// RoPE frequencies of sliding and of full layers.
    inv_freq: [Vec<f32>; 2],
    /// The last layer with keys and values of its own.
    split: usize,
    /// All rows of a chunk.
    rows: Stream<B>,
    /// The row that passes the layers from `split` on, where it is not all.
    tail: Stream<B>,
    /// Ids of the chunk, placeholders replaced.
    ids: Vec<TokenId>,
    logits: Logits<B>,
    /// Runs of a step's rows that see each other.
    blocks: Vec<Range<usize>>,
    /// Rows for a [`Tap`].
    tapped: Vec<f32>,
    /// Rows that are looked at before their logits are made.
    checked: Vec<f32>,
}

/// Logits on the device, and those of a step on the host.
struct Logits<B: Backend> {
    device: B::Buffer,
    device_rows: usize,
    host: Vec<f32>,
}

impl<B: Backend> Decoder<B> {
    /// Reads the config, plans, finds all tensors and takes the memory.
    ///
    /// # Errors
    /// If the checkpoint isn't whole and understood, an option is impossible, or memory is short.
    pub fn load(
        mut backend: B,
        checkpoint: &mut Checkpoint,
        options: DecoderOptions,
    ) -> Result<(Self, LoadReport), ModelError> {
        let config = load::config(checkpoint)?;
        let options = options.checked()?;
        let memory = memory_plan(&config, &options, load::file_bytes(checkpoint)?)?.on(&backend);
        let plan = plan(&config);
        let specs: Vec<KvSpec> = memory.kv.iter().map(|layer| layer.spec).collect();
        let split = plan.iter().rposition(|p| p.kv == KvSource::Own);
        let split = split.expect("ModelConfig::check leaves at least one layer with its own keys and values");

        let (weights, report) = load::load(&mut backend, checkpoint, &config, &plan, &specs, split)?;
        let pass = options.pass(&config);
        let sizes = Sizes::new(&config, &plan, pass);
        let inv_freq = [LayerType::Sliding, LayerType::Full].map(|layer_type| {
            let head_dim = config.layers.iter().find(|l| l.layer_type == layer_type).map_or(0, |l| l.head_dim);
            config.rope(layer_type).inv_freq(head_dim)
        });
        let decoder = Decoder {
            cache: Cache::new(&mut backend, &plan, &specs)?,
            scratch: Scratch::new(&mut backend, &sizes)?,
            rows: Stream::new(&mut backend, &sizes, pass)?,
            tail: Stream::new(&mut backend, &sizes, 1)?,
            logits: Logits {
                device: backend.buffer(config.vocab_size)?,
                device_rows: 1,
                host: vec![0.0; config.vocab_size],
            },
            ids: Vec::with_capacity(pass),
            blocks: Vec::new(),
            tapped: Vec::new(),
            checked: Vec::with_capacity(config.d_model),
            backend,
            config,
            plan,
            memory,
            options,
            weights,
            inv_freq,
            split,
        };
        Ok((decoder, report))
    }

    /// The config.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The layers.
    pub fn plan(&self) -> &[LayerPlan] {
        &self.plan
    }

    /// What was taken.
    pub fn memory(&self) -> &MemoryPlan {
        &self.memory
    }

    /// Options in force.
    pub fn options(&self) -> &DecoderOptions {
        &self.options
    }

    /// The hardware.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The hardware, for encoders to work on between steps.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Where the passes of a step with these pieces end, counted from its first row.
    pub fn pass_ends(&self, pieces: &[Piece<'_>]) -> Vec<usize> {
        let (total, mut blocks) = (input::n_rows(pieces), Vec::new());
        if self.config.bidirectional_vision {
            input::blocks(pieces, &mut blocks);
        }
        let mut ends: Vec<usize> = Vec::new();
        while ends.last().copied().unwrap_or(0) < total {
            let start = ends.last().copied().unwrap_or(0);
            ends.push(input::pass_end(start, total, self.options.chunk, &blocks));
        }
        ends
    }

    /// Tokens in the cache.
    pub fn position(&self) -> usize {
        self.cache.len()
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.cache.reset();
    }

    /// Forgets the tokens from `len` on. False, and nothing done, where the rings no longer hold what the next
    /// token would read.
    pub fn truncate(&mut self, len: usize) -> bool {
        self.cache.truncate(len)
    }

    /// Appends tokens; returns the logits of the wanted rows, `[rows, vocab]`, softcapped.
    ///
    /// # Errors
    /// If the context overflows, an id isn't in the vocabulary, soft tokens are of another width or more than a pass can
    /// hold, or all rows of more than a pass are wanted; the cache is then as before. If what was computed is not finite; then it holds the step's tokens.
    pub fn forward(&mut self, step: Step<'_>) -> Result<&[f32], ModelError> {
        self.run(step, None)
    }

    /// As [`Decoder::forward`], with every row passing every layer and `tap` looking on.
    pub fn forward_tapped(&mut self, step: Step<'_>, tap: &mut dyn Tap) -> Result<&[f32], ModelError> {
        self.run(step, Some(tap))
    }

    fn run(&mut self, step: Step<'_>, mut tap: Option<&mut dyn Tap>) -> Result<&[f32], ModelError> {
        let total = input::n_rows(step.pieces);
        self.blocks.clear();
        if self.config.bidirectional_vision {
            input::blocks(step.pieces, &mut self.blocks);
        }
        self.check(step, total)?;
        let wanted = match step.logits {
            LogitRows::None => 0,
            LogitRows::Last => 1,
            LogitRows::All => total,
        };
        self.reserve_logits(wanted)?;
        let ends_in_block = self.blocks.last().is_some_and(|block| block.end == total);
        let alone = step.logits == LogitRows::Last && tap.is_none() && total > FINE_ROWS && !ends_in_block;
        // All rows are read together, which `check` found room for.
        let chunk = if step.logits == LogitRows::All { total } else { self.options.chunk };
        let mut done = 0;
        while done < total {
            let before_last = if alone && done < total - 1 { total - 1 } else { total };
            let pass = done..input::pass_end(done, before_last, chunk, &self.blocks);
            let n = pass.len();
            done = pass.end;
            let logit_rows = if done == total { wanted } else { 0 };
            let keep = if tap.is_some() { n } else { logit_rows };
            let roundings = self.roundings(n, keep);
            self.backend.set_rounding(roundings[0]);
            self.embed(step.pieces, pass, keep);
            self.layers(keep, roundings, &mut tap);
            self.cache.advance(n);
            self.check_rows(keep, logit_rows)?;
            self.head(keep, logit_rows, &mut tap);
        }
        Ok(&self.logits.host[..wanted * self.config.vocab_size])
    }

    fn check(&self, step: Step<'_>, tokens: usize) -> Result<(), ModelError> {
        let (ctx, pass) = (self.options.ctx, self.options.pass(&self.config));
        let (position, vocab_size, d_model) = (self.position(), self.config.vocab_size, self.config.d_model);
        if tokens > ctx - position {
            return Err(ModelError::ContextFull { ctx, position, tokens });
        }
        for piece in step.pieces {
            match *piece {
                Piece::Tokens(tokens) => {
                    if let Some(&id) = tokens.iter().find(|id| id.index() >= vocab_size) {
                        return Err(ModelError::UnknownToken { id, vocab_size });
                    }
                }
                Piece::Soft { n, rows, .. } if rows.len() != n * d_model => {
                    return Err(ModelError::SoftTokens { n, found: rows.len(), d_model });
                }
                Piece::Soft { .. } => {}
            }
        }
        if let Some(block) = self.blocks.iter().find(|block| block.len() > pass) {
            return Err(ModelError::LongBlock { found: block.len(), most: pass });
        }
        match step.logits {
            LogitRows::All if tokens > pass => Err(ModelError::TooManyRows { tokens, chunk: pass }),
            LogitRows::All | LogitRows::Last if tokens == 0 => Err(ModelError::EmptyStep),
            _ => Ok(()),
        }
    }

    /// Logits of many rows take much memory, so it is taken when they are first wanted.
    fn reserve_logits(&mut self, rows: usize) -> Result<(), ModelError> {
        let (vocab, device_rows) = (self.config.vocab_size, rows.min(LOGIT_ROWS));
        if device_rows > self.logits.device_rows {
            self.logits.device = self.backend.buffer(device_rows * vocab)?;
            self.logits.device_rows = device_rows;
        }
        if rows * vocab > self.logits.host.len() {
            self.logits.host.resize(rows * vocab, 0.0);
        }
        Ok(())
    }

    /// The rows of a pass, their positions and their layers' inputs; of the last `keep` rows for all layers.
    fn embed(&mut self, pieces: &[Piece<'_>], pass: Range<usize>, keep: usize) {
        let (n, d) = (pass.len(), self.config.d_model);
        self.embed_rows(pieces, pass.clone());
        // Positions of the cache from rows of the step.
        let first = self.cache.len();
        let within = self.blocks.iter().filter(|block| pass.start <= block.start && block.end <= pass.end);
        let to_position = |row: usize| first + row - pass.start;
        self.rows.blocks.clear();
        self.rows.blocks.extend(within.map(|block| to_position(block.start)..to_position(block.end)));
        let (n_layers, split) = (self.plan.len(), self.split);
        place(&mut self.backend, &mut self.rows, &self.inv_freq, first, n);
        if keep == n {
            self.layer_inputs(Part::Rows, 0..n, 0..n_layers);
            return;
        }
        self.layer_inputs(Part::Rows, 0..n, 0..split);
        if keep > 0 {
            place(&mut self.backend, &mut self.tail, &self.inv_freq, first + n - keep, keep);
            self.backend.copy(&mut self.tail.x, &self.rows.x, (n - keep) * d, keep * d);
            self.layer_inputs(Part::Tail, n - keep..n, split..n_layers);
        }
    }

    /// Embeddings of tokens, scaled; soft tokens as they are. For per-layer inputs a soft token counts as padding, and so
    /// does a placeholder that has none (`Gemma4Model.forward`).
    fn embed_rows(&mut self, pieces: &[Piece<'_>], pass: Range<usize>) {
        let d = self.config.d_model;
        let ModelConfig { placeholders, pad, .. } = &self.config;
        self.ids.clear();
        for piece in input::parts(pieces, pass.clone()) {
            match piece {
                Piece::Tokens(tokens) => {
                    self.ids.extend(tokens.iter().map(|id| if placeholders.kind(*id).is_some() { *pad } else { *id }));
                }
                Piece::Soft { n, .. } => self.ids.extend(std::iter::repeat_n(*pad, n)),
            }
        }
        let scale = sqrt_as_stored(d);
        self.backend.gather(&mut self.rows.x, &self.weights.embedding, &self.ids, 0..d, scale);
        let mut row = 0;
        for piece in input::parts(pieces, pass) {
            if let Piece::Soft { rows, .. } = piece {
                self.backend.upload_at(&mut self.rows.x, row * d, rows);
            }
            row += piece.n_rows();
        }
    }

    /// Per-layer inputs of `layers` for a stream whose residual still is the embedding: the token's own row of the
    /// table and a projection of the embedding, each layer's part normed.
    fn layer_inputs(&mut self, part: Part, tokens: Range<usize>, layers: Range<usize>) {
        let stream = match part {
            Part::Rows => &mut self.rows,
            Part::Tail => &mut self.tail,
        };
        let (Some(w), Some(scratch)) = (&self.weights.per_layer, &mut self.scratch.per_layer) else { return };
        let Some(inputs) = &mut stream.inputs else { return };
        stream.input_layers = layers.clone();
        let project = match (layers.start, layers.end) {
            (0, end) if end == self.plan.len() => &w.project,
            (0, _) => match &w.project_fill {
                Some(fill) => fill,
                None => return,
            },
            _ => &w.project_rest,
        };
        let n = tokens.len();
        let columns = layers.start * w.width..layers.end * w.width;
        let scale = sqrt_as_stored(w.width);
        self.backend.gather(inputs, &w.table, &self.ids[tokens], columns, scale);
        let out = Projection { matrix: project, out: &mut scratch.context };
        self.backend.project(&mut [out], &stream.x, None, n);
        let norm = Norm { weight: &w.norm, eps: self.config.norm_eps };
        let scale = (self.config.d_model as f32).powf(-0.5);
        self.backend.combine_per_layer(inputs, &scratch.context, scale, norm, n * layers.len());
    }

    /// All layers, from `split` on for the last `keep` rows.
    fn layers(&mut self, keep: usize, [rounding, ffn_rounding]: [Rounding; 2], tap: &mut Option<&mut dyn Tap>) {
        let (n, d) = (self.rows.n, self.config.d_model);
        self.tap_rows(tap, 0);
        for layer in 0..self.plan.len() {
            let mut block = Block {
                backend: &mut self.backend,
                scratch: &mut self.scratch,
                caches: &mut self.cache.layers,
                weights: &self.weights.layers[layer],
                plan: &self.plan[layer],
                layer,
                eps: self.config.norm_eps,
                rounding,
                ffn_rounding,
            };
            if layer < self.split || keep == n {
                block.run(&mut self.rows);
            } else if layer > self.split {
                block.run(&mut self.tail);
            } else {
                block.fill_cache(&self.rows);
                if keep == 0 {
                    return;
                }
                block.backend.copy(&mut self.tail.x, &self.rows.x, (n - keep) * d, keep * d);
                block.finish(&mut self.tail);
            }
            self.tap_rows(tap, layer + 1);
        }
    }

    /// How finely products' inputs may be rounded, and the feed-forward networks'.
    fn roundings(&self, n: usize, keep: usize) -> [Rounding; 2] {
        if keep == 0 && n > FINE_ROWS {
            self.options.filling(&self.config)
        } else {
            [self.options.reading(&self.config); 2]
        }
    }

    /// Refuses rows whose logits are wanted and whose residual is not finite. Once it is, it stays so to the last layer;
    /// in the logits it may not show, as the softcap bounds what is infinite.
    fn check_rows(&mut self, keep: usize, logit_rows: usize) -> Result<(), ModelError> {
        let d = self.config.d_model;
        let stream = if keep == self.rows.n { &self.rows } else { &self.tail };
        self.checked.resize(logit_rows * d, 0.0);
        self.backend.download(&stream.x, (keep - logit_rows) * d, &mut self.checked);
        match self.checked.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(ModelError::NoNumbers { position: self.cache.len() - 1, found: self.checked[at] }),
        }
    }

    /// Final norm and head for the last `logit_rows` of the `keep` rows that passed all layers.
    fn head(&mut self, keep: usize, logit_rows: usize, tap: &mut Option<&mut dyn Tap>) {
        let (d, vocab) = (self.config.d_model, self.config.vocab_size);
        let stream = if keep == self.rows.n { &self.rows } else { &self.tail };
        let norm = Norm { weight: &self.weights.final_norm, eps: self.config.norm_eps };
        if let Some(tap) = tap {
            self.backend.rms_norm(&mut self.scratch.h, &stream.x, UNBOUNDED, norm, keep);
            self.tapped.resize(keep * d, 0.0);
            self.backend.download(&self.scratch.h, 0, &mut self.tapped);
            tap.final_norm(&self.tapped);
        }
        let matrix = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        // No expert is chosen any more.
        self.backend.set_rounding(Rounding::Fine);
        let Logits { device, host, .. } = &mut self.logits;
        for (group, out) in host[..logit_rows * vocab].chunks_mut(LOGIT_ROWS * vocab).enumerate() {
            let (n, from) = (out.len() / vocab, keep - logit_rows + group * LOGIT_ROWS);
            let mut x = &stream.x;
            if from > 0 {
                self.backend.copy(&mut self.scratch.h, x, from * d, n * d);
                x = &self.scratch.h;
            }
            self.backend.logits(device, matrix, x, norm, self.config.softcap, n);
            self.backend.download(device, 0, out);
        }
    }

    fn tap_rows(&mut self, tap: &mut Option<&mut dyn Tap>, stage: usize) {
        if let Some(tap) = tap {
            self.tapped.resize(self.rows.n * self.config.d_model, 0.0);
            self.backend.download(&self.rows.x, 0, &mut self.tapped);
            tap.hidden(stage, &self.tapped);
        }
    }
}

/// Which stream is meant.
#[derive(Clone, Copy)]
enum Part {
    Rows,
    Tail,
}

/// Sets a stream's positions.
fn place<B: Backend>(backend: &mut B, stream: &mut Stream<B>, inv_freq: &[Vec<f32>; 2], first: usize, n: usize) {
    (stream.first, stream.n) = (first, n);
    let [sliding, full] = inv_freq;
    if !sliding.is_empty() {
        backend.rope_table(&mut stream.rope_sliding, sliding, first, n);
    }
    if !full.is_empty() {
        backend.rope_table(&mut stream.rope_full, full, first, n);
    }
}

/// `√n` as the reference multiplies by it: rounded to bf16, the type the weights were trained in.
fn sqrt_as_stored(n: usize) -> f32 {
    half::bf16::from_f32((n as f32).sqrt()).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the family's description.
    #[test]
    fn embedding_scales_are_rounded_to_bf16() {
        let scales = [1536, 2560, 3840, 2816, 5376, 256].map(sqrt_as_stored);
        assert_eq!(scales, [39.25, 50.5, 62.0, 53.0, 73.5, 16.0]);
    }
}
