//! What a model will take, computed before anything is taken.
//!
//! Weights are mapped, so they count as file pages the system may drop; the cache, the intermediates and what the
//! backend needs for itself are memory of the process. All of it is counted as it will be when the context is full and
//! a prompt of at least one chunk has been read. Until then the process has taken less: pages of a cache are taken when
//! they are first written, and a sliding layer's ring is written whole after a window and a chunk. A test of the
//! program holds the plan to what a process really takes.

mod encoder;

use std::fmt;

use carat_tensor::Backend;
use carat_tensor::backend::{EncoderWork, ExpertWork, KvForm, KvSpec, KvType, Rounding, Work};

use crate::config::LayerType;
use crate::decoder::{DecoderOptions, FINE_ROWS, LogitRows};
use crate::kv::{self, type_name};
use crate::load::FileBytes;
use crate::plan::{FfnPlan, KvSource, plan};
use crate::scratch::Sizes;
use crate::{LayerPlan, ModelConfig, ModelError};

pub use encoder::EncoderPlan;

/// What a process takes without a model: its stacks, buffers and the allocator's own. Measured: 1.2 MiB beside the
/// smallest vocabulary.
const PROGRAM_BYTES: usize = 2 << 20;
/// What it takes for each entry of the vocabulary: texts, merges and tables of the tokenizer, and the sampler's copy of
/// the logits. Measured on the family's 262,144 entries and 514,906 merges: 23 MB.
const ENTRY_BYTES: usize = 88;

/// The cache of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKv {
    /// The layer.
    pub layer: usize,
    /// Window or all.
    pub layer_type: LayerType,
    /// Its shape.
    pub spec: KvSpec,
}

/// Memory by use, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Positions the cache holds.
    pub ctx: usize,
    /// The file's part.
    pub file: FileBytes,
    /// Layers that have a cache.
    pub kv: Vec<LayerKv>,
    /// Intermediates.
    pub scratch: usize,
    /// The picture encoder, where there is to be room for pictures.
    pub pictures: Option<EncoderPlan>,
    /// The sound encoder, where sounds are to be heard.
    pub sounds: Option<EncoderPlan>,
    /// Soft tokens that are kept, when as many as may be have been made.
    pub kept: usize,
    /// What the backend's own memory depends on, the encoders' apart.
    pub work: Work,
    /// The program itself with its vocabulary.
    pub program: usize,
    /// The backend's own memory; 0 until the plan is for one ([`MemoryPlan::on`]).
    pub workspace: usize,
}

impl MemoryPlan {
    /// Bytes of all caches.
    pub fn kv_bytes(&self) -> usize {
        self.kv.iter().map(|layer| layer.spec.bytes()).sum()
    }

    /// The plan on a backend.
    #[must_use]
    pub fn on<B: Backend>(self, backend: &B) -> Self {
        let encoders: Vec<&EncoderWork> = self.encoders().map(|encoder| &encoder.work).collect();
        MemoryPlan { workspace: backend.workspace(&self.work, &encoders), ..self }
    }

    /// The plan with these encoders, whose soft tokens are kept up to so many bytes.
    #[must_use]
    pub fn with_encoders(self, pictures: Option<EncoderPlan>, sounds: Option<EncoderPlan>, kept: usize) -> Self {
        let kept = if pictures.is_some() || sounds.is_some() { kept } else { 0 };
        MemoryPlan { pictures, sounds, kept, ..self }
    }

    /// The encoders that there is to be room for.
    pub fn encoders(&self) -> impl Iterator<Item = &EncoderPlan> {
        self.pictures.iter().chain(&self.sounds)
    }

    /// Bytes of the soft tokens that are kept and of what more are made of: of one picture or sound at a time.
    pub fn soft_tokens(&self) -> usize {
        self.kept + self.encoders().map(|encoder| encoder.passing).max().unwrap_or(0)
    }

    /// Bytes of the encoders' weights.
    pub fn encoder_weights(&self) -> usize {
        self.encoders().map(|encoder| encoder.weights).sum()
    }

    /// Bytes the process allocates.
    pub fn taken(&self) -> usize {
        let buffers: usize = self.encoders().map(|encoder| encoder.buffers).sum();
        let text = self.kv_bytes() + self.scratch + self.workspace + self.program + self.file.rearranged;
        text + buffers + self.soft_tokens()
    }

    /// With the weights that every token, picture and sound reads, which should stay in memory too.
    pub fn working_set(&self) -> usize {
        self.taken() + self.file.weights + self.encoder_weights()
    }
}

/// Plans the memory of a model under `options`.
///
/// # Errors
/// If an option is impossible or the cache type doesn't fit the heads.
pub fn memory_plan(config: &ModelConfig, options: &DecoderOptions, file: FileBytes) -> Result<MemoryPlan, ModelError> {
    let options = options.checked()?;
    let (plan, pass) = (plan(config), options.pass(config));
    let mut layers = Vec::new();
    for (layer, p) in plan.iter().enumerate() {
        if let Some(spec) = kv::spec(p, layer, options.ctx, pass, options.kv)? {
            layers.push(LayerKv { layer, layer_type: config.layers[layer].layer_type, spec });
        }
    }
    let logit_rows = if options.logits == LogitRows::All { pass } else { 1 };
    let scratch = Sizes::new(config, &plan, pass).bytes(logit_rows);
    let work = work(config, &plan, pass, &options, &file);
    let program = PROGRAM_BYTES + ENTRY_BYTES * config.vocab_size;
    Ok(MemoryPlan {
        ctx: options.ctx,
        file,
        kv: layers,
        scratch,
        pictures: None,
        sounds: None,
        kept: 0,
        work,
        program,
        workspace: 0,
    })
}

/// The largest step: a chunk of a prompt. Where its logits are wanted, its rows pass all layers and are rounded as those
/// are that are read; in a conversation they pass the layers before the last one with keys and values of its own, and of
/// that one the keys and values.
fn work(config: &ModelConfig, plan: &[LayerPlan], rows: usize, options: &DecoderOptions, file: &FileBytes) -> Work {
    let read = options.logits == LogitRows::All;
    let own = plan.iter().rposition(|p| p.kv == KvSource::Own).unwrap_or(0);
    let split = if read { plan.len() } else { own };
    let widest = |width: fn(&LayerPlan) -> usize| plan[..split].iter().map(width).max().unwrap_or(0);
    let per_layer = config.per_layer.map_or(0, |p| p.width);
    let fine = widest(LayerPlan::q_width).max(config.d_model).max(per_layer);
    let cols = fine.max(widest(|p| p.ffn.width()));
    let fine_cols = match options.filling(config) {
        _ if read || rows <= FINE_ROWS => cols,
        [Rounding::Coarse, _] => 0,
        [_, Rounding::Coarse] => fine,
        _ => cols,
    };
    let experts = plan[..split].iter().find_map(|p| match p.ffn {
        FfnPlan::Dense { .. } => None,
        FfnPlan::DenseAndExperts { n_experts, top_k, expert_width: width, .. } => {
            Some(ExpertWork { n_experts, top_k, width, d_model: config.d_model })
        }
    });
    let most = |of: fn(&LayerPlan) -> usize| plan.iter().map(of).max().unwrap_or(0);
    let (head_dim, group) = (most(|p| p.head_dim), most(|p| p.n_heads / p.n_kv_heads));
    let finest_rows = match (options.reading(config), read) {
        (Rounding::Finest, true) => rows,
        (Rounding::Finest, false) => rows.min(FINE_ROWS),
        _ => 0,
    };
    Work {
        rows,
        cols,
        fine_cols,
        plain_cols: file.plain_cols.min(cols),
        half_cols: file.half_cols.min(cols),
        finest_rows,
        head_dim,
        group,
        positions: options.ctx,
        kv_is_rounded: options.kv != KvType::F32,
        quantised: file.quantised,
        experts,
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, bytes: usize| writeln!(f, "{what:<64} {:>12}", Size(bytes).to_string());
        line("weights, mapped", self.file.weights)?;
        if self.file.rearranged > 0 {
            line("weights, rearranged in memory", self.file.rearranged)?;
        }
        if self.file.per_layer_table > 0 {
            line("per-layer table, mapped, one row a token", self.file.per_layer_table)?;
        }
        for layer_type in [LayerType::Sliding, LayerType::Full] {
            let mut layers = self.kv.iter().filter(|l| l.layer_type == layer_type).peekable();
            let Some(LayerKv { spec, .. }) = layers.peek().copied().copied() else { continue };
            let (count, bytes) = layers.fold((0, 0), |(n, b), l| (n + 1, b + l.spec.bytes()));
            let values = match spec.form {
                KvForm::Pair => 2 * spec.head_dim,
                KvForm::ValueAndRotated { pairs } => spec.head_dim + 2 * pairs,
            };
            let what = match layer_type {
                LayerType::Sliding => "sliding",
                LayerType::Full => "full",
            };
            let KvSpec { capacity, n_kv_heads, dtype, .. } = spec;
            let dtype = type_name(dtype);
            line(
                &format!("cache, {count} {what} layers: {capacity} positions x {n_kv_heads} x {values} {dtype}"),
                bytes,
            )?;
        }
        line("intermediates", self.scratch)?;
        for (what, encoder) in [("picture", &self.pictures), ("sound", &self.sounds)] {
            if let Some(encoder) = encoder {
                line(&format!("weights of the {what} encoder, mapped"), encoder.weights)?;
                line(&format!("{what} encoder"), encoder.buffers)?;
            }
        }
        if self.soft_tokens() > 0 {
            line("soft tokens, and what they are made of", self.soft_tokens())?;
        }
        if self.workspace > 0 {
            line("workspace of the backend", self.workspace)?;
        }
        line("program and vocabulary", self.program)?;
        line("allocated", self.taken())?;
        line("allocated and weights", self.working_set())
    }
}

/// Bytes in a unit that reads well.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / (1 << 20) as f64;
        if mib >= 1024.0 { write!(f, "{:.2} GiB", mib / 1024.0) } else { write!(f, "{mib:.1} MiB") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_use() {
        let config = ModelConfig::preset("E2B").unwrap();
        let options = DecoderOptions { ctx: 8192, ..DecoderOptions::default() };
        let file = FileBytes {
            weights: 3 << 30,
            per_layer_table: 2 << 30,
            ignored: 0,
            rearranged: 1 << 20,
            quantised: true,
            plain_cols: 1536,
            half_cols: 1536,
        };
        let plan = memory_plan(&config, &options, file).unwrap();
        let table = plan.to_string();
        for text in [
            "weights, mapped",
            "3.00 GiB",
            "rearranged in memory",
            "1.0 MiB",
            "12 sliding layers: 1024",
            "3 full layers: 8192 positions x 1 x 1024 f16",
        ] {
            assert!(table.contains(text), "`{text}` is not in\n{table}");
        }
        assert_eq!(plan.kv_bytes(), 2 * (12 * 512 * 1024 + 3 * 1024 * 8192));
        assert!(table.lines().all(|line| line.chars().count() == 77), "{table}");

        let encoder =
            |buffers, passing| Some(EncoderPlan { weights: 7 << 20, buffers, passing, work: EncoderWork::default() });
        let with = plan.clone().with_encoders(encoder(5 << 20, 2 << 20), encoder(3 << 20, 4 << 20), 1 << 20);
        let table = with.to_string();
        for text in [
            "weights of the picture encoder, mapped",
            "weights of the sound encoder, mapped",
            "\npicture encoder",
            "\nsound encoder",
            "soft tokens, and what",
        ] {
            assert!(table.contains(text), "`{text}` is not in\n{table}");
        }
        assert_eq!(with.taken() - plan.taken(), 13 << 20, "one picture or sound is encoded at a time");
        assert_eq!(with.working_set() - plan.working_set(), 27 << 20);
        assert_eq!(plan.clone().with_encoders(None, None, 1 << 20), plan, "nothing is kept where nothing is made");
    }

    #[test]
    fn a_context_of_nothing_is_refused() {
        let config = ModelConfig::preset("E2B").unwrap();
        let options = DecoderOptions { ctx: 0, ..DecoderOptions::default() };
        let error = memory_plan(&config, &options, FileBytes::default()).unwrap_err().to_string();
        assert!(error.contains("`ctx` is 0"), "{error}");
    }
}
