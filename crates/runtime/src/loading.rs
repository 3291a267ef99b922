//! From files to a decoder: options resolved, memory counted and agreed to before any of it is taken.

use carat_model::{Decoder, DecoderOptions, LoadReport, MemoryPlan, ModelConfig, memory_plan};
use carat_tensor::backend::KvType;

use crate::device::{self, Device, DeviceOptions, Precision};
use crate::{Error, ModelFiles, host};

/// The context where none is asked for: long enough for a long talk, and small beside any model's weights.
pub const DEFAULT_CONTEXT: usize = 16_384;
/// The most tokens per pass of the prompt.
pub const DEFAULT_CHUNK: usize = 512;

/// How to load a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The hardware.
    pub device: DeviceOptions,
    /// Tokens that prompt and answers may take together; `None` is [`DEFAULT_CONTEXT`] or what the model can,
    /// whichever is less.
    pub context: Option<usize>,
    /// How keys and values are stored; `None` is f16 on the fast path and f32 on the reference path.
    pub kv: Option<KvType>,
    /// The most tokens per pass of the prompt.
    pub chunk: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { device: DeviceOptions::default(), context: None, kv: None, chunk: DEFAULT_CHUNK }
    }
}

impl LoadOptions {
    /// The options as they apply to a model.
    pub fn resolve(&self, config: &ModelConfig) -> DecoderOptions {
        let kv = self.kv.unwrap_or(match self.device.precision {
            Precision::Fast => KvType::F16,
            Precision::Reference => KvType::F32,
        });
        DecoderOptions { ctx: self.context.unwrap_or(DEFAULT_CONTEXT.min(config.max_context)), kv, chunk: self.chunk }
    }
}

/// What the model in `files` will take under `options`; nothing is taken yet.
pub fn plan(files: &ModelFiles, options: &LoadOptions) -> Result<MemoryPlan, Error> {
    let config = files.config()?;
    let resolved = options.resolve(&config);
    if resolved.ctx > config.max_context {
        return Err(Error::Context { found: resolved.ctx, most: config.max_context });
    }
    Ok(memory_plan(&config, &resolved, carat_model::load::file_bytes(files.checkpoint())?)?)
}

/// Loads the decoder of `files`. `announce` sees the memory plan before memory is taken.
///
/// # Errors
/// If the plan doesn't fit in the memory that is free ([`Error::Memory`] holds its table), or the files are no
/// model that this program runs.
pub fn load(
    files: &mut ModelFiles,
    options: &LoadOptions,
    announce: &mut dyn FnMut(&MemoryPlan),
) -> Result<(Decoder<Device>, LoadReport), Error> {
    let plan = plan(files, options)?;
    refuse_what_cannot_fit(&plan, host::available_memory())?;
    announce(&plan);
    let resolved = options.resolve(&files.config()?);
    Ok(Decoder::load(device::open(options.device)?, files.checkpoint_mut(), resolved)?)
}

/// Only what is allocated must fit: mapped weights that don't are slow, not impossible.
fn refuse_what_cannot_fit(plan: &MemoryPlan, available: Option<u64>) -> Result<(), Error> {
    match available {
        Some(available) if plan.taken() as u64 > available => {
            Err(Error::Memory { needed: plan.taken() as u64, available, table: plan.to_string() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_model::load::FileBytes;

    fn e2b_plan(ctx: usize) -> MemoryPlan {
        let config = ModelConfig::preset("E2B").unwrap();
        let options = LoadOptions { context: Some(ctx), ..LoadOptions::default() }.resolve(&config);
        memory_plan(&config, &options, FileBytes::default()).unwrap()
    }

    #[test]
    fn a_plan_that_does_not_fit_is_refused_with_its_table() {
        let plan = e2b_plan(100_000);
        let error = refuse_what_cannot_fit(&plan, Some(100 << 20)).unwrap_err().to_string();
        assert!(error.contains("100000 positions") || error.contains("full layers"), "{error}");
        assert!(error.contains("--ctx"), "{error}");
        assert!(refuse_what_cannot_fit(&plan, Some(u64::MAX)).is_ok());
        assert!(refuse_what_cannot_fit(&plan, None).is_ok());
    }

    #[test]
    fn the_context_is_the_default_or_the_model_s_whichever_is_less() {
        let mut config = ModelConfig::preset("E2B").unwrap();
        assert_eq!(LoadOptions::default().resolve(&config).ctx, DEFAULT_CONTEXT);
        config.max_context = 512;
        assert_eq!(LoadOptions::default().resolve(&config).ctx, 512);
    }

    #[test]
    fn the_reference_path_keeps_keys_and_values_in_f32() {
        let config = ModelConfig::preset("E2B").unwrap();
        let device = DeviceOptions { threads: None, precision: Precision::Reference };
        assert_eq!(LoadOptions { device, ..LoadOptions::default() }.resolve(&config).kv, KvType::F32);
        assert_eq!(LoadOptions::default().resolve(&config).kv, KvType::F16);
    }
}
