//! From files to a decoder: options resolved, memory counted and agreed to before any of it is taken.

use std::sync::Arc;

use carat_media::sound::{MAX_CLIP, MAX_FRAMES};
use carat_model::load::{FileBytes, ModelTensors};
use carat_model::{Decoder, DecoderOptions, EncoderPlan, LoadReport, LogitRows, MemoryPlan, ModelConfig, memory_plan};
use carat_tensor::backend::KvType;

use crate::device::{self, Device, DeviceOptions, Precision, large_pages};
use crate::tiles::{self, Tiles};
use crate::{Error, ImageTokens, ModelFiles, encoders, host, mmproj};

/// The context where none is asked for: long enough for a long talk, and small beside any model's weights.
pub const DEFAULT_CONTEXT: usize = 16_384;
/// The most tokens per pass of the prompt.
pub const DEFAULT_CHUNK: usize = 512;
/// Contexts that are offered are multiples of this, where they are not shorter.
const CONTEXT_STEP: usize = 1024;

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
    /// The most soft tokens of a picture; `None` leaves no room for pictures, and a model that can't see needs none.
    pub image_tokens: Option<ImageTokens>,
    /// Whether there is to be room for sounds; a model that can't hear needs none.
    pub sounds: bool,
    /// Whose logits will be wanted at once: all of a pass take much more memory than the last one's.
    pub logits: LogitRows,
    /// The most bytes the model may take, weights included; `None` is no limit but the machine's.
    pub memory: Option<u64>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            device: DeviceOptions::default(),
            context: None,
            kv: None,
            chunk: DEFAULT_CHUNK,
            image_tokens: None,
            sounds: false,
            logits: LogitRows::Last,
            memory: None,
        }
    }
}

impl LoadOptions {
    /// The options as they apply to a model.
    pub fn resolve(&self, config: &ModelConfig) -> DecoderOptions {
        let kv = self.kv.unwrap_or(match self.device.precision {
            Precision::Fast | Precision::Coarse => KvType::F16,
            Precision::Reference => KvType::F32,
        });
        let block = self.image_tokens.map_or(0, |tokens| tokens.largest().tokens());
        let ctx = self.context.unwrap_or(DEFAULT_CONTEXT.min(config.max_context));
        let coarse = self.device.precision == Precision::Coarse;
        DecoderOptions { ctx, kv, chunk: self.chunk, block, logits: self.logits, coarse }
    }
}

/// What the model in `files` will take under `options`; nothing is taken yet.
pub fn plan(files: &ModelFiles, options: &LoadOptions) -> Result<MemoryPlan, Error> {
    let device = device::open(options.device)?;
    plan_on(&device, files, &tiles_of(files, &device)?, options)
}

/// The same on a device that is there already, with the interleaved weights that were found.
pub fn plan_on(device: &Device, files: &ModelFiles, tiles: &Tiles, options: &LoadOptions) -> Result<MemoryPlan, Error> {
    let config = files.config()?;
    let resolved = options.resolve(&config);
    if resolved.ctx > config.max_context {
        return Err(Error::Context { found: resolved.ctx, most: config.max_context });
    }
    let senses = Senses::of(files, options)?;
    let file = file_bytes(files, tiles)?;
    let plan = memory_plan(&config, &resolved, file).map_err(|e| Error::of_files(files.source(), e))?;
    Ok(senses.join(plan, &config).on(device))
}

/// The encoders that there is to be room for.
#[derive(Default)]
struct Senses {
    pictures: Option<EncoderPlan>,
    sounds: Option<EncoderPlan>,
}

impl Senses {
    fn of(files: &ModelFiles, options: &LoadOptions) -> Result<Self, Error> {
        if options.image_tokens.is_none() && !options.sounds {
            return Ok(Senses::default());
        }
        let apart = mmproj::open_apart(files)?;
        let files = apart.as_ref().unwrap_or(files);
        let (checkpoint, of_files) = (files.checkpoint(), |error| Error::of_files(files.source(), error));
        let mut senses = Senses::default();
        if let Some(tokens) = options.image_tokens {
            senses.pictures = EncoderPlan::of_pictures(checkpoint, tokens.largest().tokens()).map_err(of_files)?;
        }
        if options.sounds {
            senses.sounds = EncoderPlan::of_sounds(checkpoint, MAX_FRAMES, MAX_CLIP).map_err(of_files)?;
        }
        Ok(senses)
    }

    /// The plan with what it takes to see and hear.
    fn join(&self, plan: MemoryPlan, config: &ModelConfig) -> MemoryPlan {
        let kept = 4 * encoders::most_values(plan.ctx, config.d_model);
        plan.with_encoders(self.pictures.clone(), self.sounds.clone(), kept)
    }
}

/// The interleaved weights of a model; where none are, that is all that is found out.
fn tiles_of(files: &ModelFiles, device: &Device) -> Result<Tiles, Error> {
    if tiles::are_there(files) { tiles::find(files, device) } else { Ok(Tiles::Absent) }
}

/// Those of the files, less what interleaved weights take less.
fn file_bytes(files: &ModelFiles, tiles: &Tiles) -> Result<FileBytes, Error> {
    let of_files = |error| Error::of_files(files.source(), error);
    let mut bytes = carat_model::load::file_bytes(files.checkpoint()).map_err(of_files)?;
    bytes.weights -= tiles.saved(files, |_| true);
    Ok(bytes)
}

/// A limit on a model's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// What is free on this machine. Only what is allocated must fit: mapped weights that don't are slow, not
    /// impossible.
    Free(u64),
    /// What was allowed ([`LoadOptions::memory`]): weights count.
    Allowed(u64),
}

impl MemoryLimit {
    /// Bytes of a plan that count against the limit.
    pub fn counted(self, plan: &MemoryPlan) -> u64 {
        match self {
            MemoryLimit::Free(_) => plan.taken() as u64,
            MemoryLimit::Allowed(_) => plan.working_set() as u64,
        }
    }

    fn holds(self, plan: &MemoryPlan) -> bool {
        let (MemoryLimit::Free(limit) | MemoryLimit::Allowed(limit)) = self;
        self.counted(plan) <= limit
    }
}

fn limits(allowed: Option<u64>, free: Option<u64>) -> Vec<MemoryLimit> {
    allowed.map(MemoryLimit::Allowed).into_iter().chain(free.map(MemoryLimit::Free)).collect()
}

/// The longest context that the model in `files` can have under the other `options`, in the memory that is allowed
/// and free; above 1024 tokens a multiple of that, as what is free changes. `None` if there is none.
pub fn longest_context(files: &ModelFiles, options: &LoadOptions) -> Result<Option<usize>, Error> {
    let device = device::open(options.device)?;
    longest_on(&device, files, &tiles_of(files, &device)?, options)
}

fn longest_on(
    device: &Device,
    files: &ModelFiles,
    tiles: &Tiles,
    options: &LoadOptions,
) -> Result<Option<usize>, Error> {
    let (config, file, senses) = (files.config()?, file_bytes(files, tiles)?, Senses::of(files, options)?);
    Ok(longest_within(&config, file, &senses, options, device, &limits(options.memory, host::available_memory())))
}

fn longest_within(
    config: &ModelConfig,
    file: FileBytes,
    senses: &Senses,
    options: &LoadOptions,
    device: &Device,
    limits: &[MemoryLimit],
) -> Option<usize> {
    let fits = |ctx| {
        let resolved = LoadOptions { context: Some(ctx), ..*options }.resolve(config);
        let plan = memory_plan(config, &resolved, file).map(|plan| senses.join(plan, config).on(device));
        plan.is_ok_and(|plan| limits.iter().all(|limit| limit.holds(&plan)))
    };
    // A longer context never takes less.
    let (mut longest, mut too_long) = (0, config.max_context.saturating_add(1));
    while too_long - longest > 1 {
        let ctx = longest + (too_long - longest) / 2;
        if fits(ctx) {
            longest = ctx;
        } else {
            too_long = ctx;
        }
    }
    match longest {
        0 => None,
        all if all == config.max_context || all < CONTEXT_STEP => Some(all),
        some => Some(some / CONTEXT_STEP * CONTEXT_STEP),
    }
}

/// What [`load`] makes.
pub struct Loaded {
    /// The model.
    pub decoder: Decoder<Device>,
    /// What was found beside it.
    pub report: LoadReport,
    /// The interleaved weights, from which products read.
    pub tiles: Arc<Tiles>,
}

/// Loads the decoder of `files`. `announce` sees the memory plan before memory is taken.
///
/// # Errors
/// If the plan doesn't fit in the memory that is allowed or free ([`Error::Memory`] holds its table), or the files
/// are no model that this program runs.
pub fn load(
    files: &mut ModelFiles,
    options: &LoadOptions,
    announce: &mut dyn FnMut(&MemoryPlan),
) -> Result<Loaded, Error> {
    let mut device = device::open(options.device)?;
    let mut tiles = tiles_of(files, &device)?;
    let plan = plan_on(&device, files, &tiles, options)?;
    let broken = limits(options.memory, host::available_memory()).into_iter().find(|limit| !limit.holds(&plan));
    if let Some(limit) = broken {
        let (needed, table) = (limit.counted(&plan), plan.to_string());
        let longest = longest_on(&device, files, &tiles, options)?;
        return Err(Error::Memory { needed, limit, longest, kv: options.resolve(&files.config()?).kv, table });
    }
    announce(&plan);
    if matches!(tiles, Tiles::Absent) {
        // Whether some are wanted.
        tiles = tiles::find(files, &device)?;
    }
    let (tiles, source) = (Arc::new(tiles), files.source().clone());
    let tensors = ModelTensors::new(files.checkpoint()).map_err(|error| Error::of_files(&source, error))?;
    for tensor in tensors.mapped_products() {
        large_pages(tiles.get(&tensor.name).unwrap_or(&tensor.data));
    }
    let of_tensors = tiles.clone();
    device.set_tiles(move |tensor| of_tensors.get(&tensor.name).cloned());
    let resolved = options.resolve(&files.config()?);
    let (decoder, report) =
        Decoder::load(device, files.checkpoint_mut(), resolved).map_err(|error| Error::of_files(&source, error))?;
    Ok(Loaded { decoder, report, tiles })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest context of an E2B of 3 GiB under `limits`, which must be the last that holds.
    #[track_caller]
    fn longest(limits: &[MemoryLimit]) -> Option<usize> {
        let config = ModelConfig::preset("E2B").unwrap();
        let file = FileBytes { weights: 3 << 30, ..FileBytes::default() };
        let device = device::open(DeviceOptions { threads: Some(2), ..DeviceOptions::default() }).unwrap();
        let longest = longest_within(&config, file, &Senses::default(), &LoadOptions::default(), &device, limits);
        let holds = |ctx| {
            let options = LoadOptions { context: Some(ctx), ..LoadOptions::default() }.resolve(&config);
            let plan = memory_plan(&config, &options, file).unwrap().on(&device);
            limits.iter().all(|limit| limit.holds(&plan))
        };
        let step = longest.map_or(1, |ctx| if ctx < CONTEXT_STEP { 1 } else { CONTEXT_STEP });
        assert!(longest.is_none_or(holds), "{longest:?} does not fit");
        let next = longest.unwrap_or(0) + step;
        assert!(next > config.max_context || !holds(next), "{next} fits too");
        longest
    }

    #[test]
    fn the_longest_context_fits_and_the_next_does_not() {
        assert_eq!(longest(&[]), Some(131_072));
        assert_eq!(longest(&[MemoryLimit::Free(u64::MAX), MemoryLimit::Allowed(u64::MAX)]), Some(131_072));
        // 6 KiB a position beside the windows and the intermediates.
        let some = longest(&[MemoryLimit::Free(200 << 20)]).unwrap();
        assert!(some > 1024 && some < (200 << 20) / 6144, "{some}");
        assert!(longest(&[MemoryLimit::Free(30 << 20)]).is_some_and(|ctx| ctx < CONTEXT_STEP));
        assert_eq!(longest(&[MemoryLimit::Free(0)]), None);
    }

    #[test]
    fn weights_count_against_what_is_allowed_not_against_what_is_free() {
        assert_eq!(longest(&[MemoryLimit::Allowed(3 << 30)]), None);
        let with_weights = longest(&[MemoryLimit::Allowed((3 << 30) + (200 << 20))]);
        assert_eq!(with_weights, longest(&[MemoryLimit::Free(200 << 20)]));
        assert_eq!(longest(&[MemoryLimit::Allowed(4 << 30), MemoryLimit::Free(0)]), None, "every limit holds");
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
