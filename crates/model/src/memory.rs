//! What a model will take, computed before anything is taken.
//!
//! Weights are mapped, so they count as file pages the system may drop; the cache and the intermediates are
//! memory of the process. The backend's own scratch isn't known here.

use std::fmt;

use carat_tensor::backend::{KvForm, KvSpec};

use crate::config::LayerType;
use crate::decoder::DecoderOptions;
use crate::kv::{self, type_name};
use crate::load::FileBytes;
use crate::plan::plan;
use crate::scratch::Sizes;
use crate::{ModelConfig, ModelError};

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
}

impl MemoryPlan {
    /// Bytes of all caches.
    pub fn kv_bytes(&self) -> usize {
        self.kv.iter().map(|layer| layer.spec.bytes()).sum()
    }

    /// Bytes the process allocates.
    pub fn taken(&self) -> usize {
        self.kv_bytes() + self.scratch + self.file.rearranged
    }

    /// With the weights every token reads, which should stay in memory too.
    pub fn working_set(&self) -> usize {
        self.taken() + self.file.weights
    }
}

/// Plans the memory of a model under `options`.
///
/// # Errors
/// If an option is impossible or the cache type doesn't fit the heads.
pub fn memory_plan(config: &ModelConfig, options: &DecoderOptions, file: FileBytes) -> Result<MemoryPlan, ModelError> {
    let options = options.checked()?;
    let plan = plan(config);
    let mut layers = Vec::new();
    for (layer, p) in plan.iter().enumerate() {
        if let Some(spec) = kv::spec(p, layer, options.ctx, options.chunk, options.kv)? {
            layers.push(LayerKv { layer, layer_type: config.layers[layer].layer_type, spec });
        }
    }
    let scratch = Sizes::new(config, &plan, options.chunk).bytes();
    Ok(MemoryPlan { ctx: options.ctx, file, kv: layers, scratch })
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
    use carat_tensor::backend::KvType;

    #[test]
    fn the_table_names_every_use() {
        let config = ModelConfig::preset("E2B").unwrap();
        let options = DecoderOptions { ctx: 8192, kv: KvType::F16, chunk: 512 };
        let file = FileBytes { weights: 3 << 30, per_layer_table: 2 << 30, ignored: 0, rearranged: 1 << 20 };
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
    }

    #[test]
    fn a_context_of_nothing_is_refused() {
        let config = ModelConfig::preset("E2B").unwrap();
        let options = DecoderOptions { ctx: 0, kv: KvType::F16, chunk: 512 };
        let error = memory_plan(&config, &options, FileBytes::default()).unwrap_err().to_string();
        assert!(error.contains("`ctx` is 0"), "{error}");
    }
}
