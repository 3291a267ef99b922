//! `carat logits`: what the model computes, as a file to compare with.

mod places;

use std::path::PathBuf;

use anyhow::Context;
use carat_model::input;
use carat_model::{Decoder, LogitRows, Piece, Step, Tap};
use carat_runtime::device::Device;
use carat_runtime::encoders::Encoders;
use carat_runtime::video::{SoundTrack, Video};
use carat_runtime::{ImageTokens, Medium, check_finite, loading};
use carat_tensor::TokenId;
use carat_tensor::backend::KvType;

use crate::args::{self, EncoderArgs, EngineArgs, UsageError};
use crate::media;
use crate::pending::Pending;
use crate::safetensors::{Entry, Writer};

/// The most rows per pass: logits of all of them are in memory at once.
const DEFAULT_CHUNK: usize = 128;

/// Write the logits of a sequence of tokens to a .safetensors file
#[derive(clap::Args)]
#[command(mut_arg("kv", |kv| kv.help("How keys and values are stored [default: f32]")))]
pub struct Args {
    /// Directory with config.json, or .gguf file; left out: the embedded model
    model: Option<PathBuf>,
    /// The sequence: ids separated by commas; nothing is added to it
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    tokens: String,
    /// A picture for the next run of image ids; may be repeated
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A sound for the next run of audio ids; may be repeated, and be a video whose sound is meant
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,
    /// Frames for the next runs of video ids; may be repeated: what `carat run --video` takes
    #[arg(long, value_name = "PATH")]
    video: Vec<PathBuf>,
    /// Pictures per second of a folder or list that says no times [default: 24]
    #[arg(long, value_name = "N", value_parser = media::rate)]
    video_fps: Option<f64>,
    /// The most soft tokens of a picture: 70, 140, 280, 560 or 1120; auto: as few as show all its pixels
    #[arg(long, value_name = "N", default_value = "280", value_parser = media::image_tokens)]
    image_tokens: ImageTokens,
    /// The file to write: `logits`, f32 [n, vocab]
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write `hidden.0` (the embeddings) and `hidden.1` … `hidden.L` (each layer's output), f32 [n, d_model]
    #[arg(long)]
    hidden: bool,
    /// Also continue with the N most likely tokens, one by one, and write them as `greedy`, i64
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>)]
    greedy: Option<usize>,
    /// The most tokens per pass
    #[arg(long, value_name = "N", value_parser = args::at_least_one)]
    chunk: Option<usize>,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Collects the rows that pass each layer.
struct Hidden {
    /// By stage, `[n, d_model]`.
    stages: Vec<Vec<f32>>,
}

impl Tap for Hidden {
    fn hidden(&mut self, stage: usize, rows: &[f32]) {
        self.stages[stage].extend_from_slice(rows);
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let tokens = args::ids(&args.tokens).map_err(|e| UsageError(format!("--tokens: {e}")))?;
    if tokens.is_empty() {
        return Err(UsageError("--tokens: expected at least one id".into()).into());
    }
    let greedy = args.greedy.unwrap_or(0);
    let mut files = args.encoders.open(&args::source(args.model.as_ref())?)?;
    let mut options = args.engine.load_options();
    // What is compared is the products; `--kv` adds a cache's own rounding.
    options.kv = options.kv.or(Some(KvType::F32));
    options.context = Some(context(args.engine.ctx, tokens.len(), greedy)?);
    options.chunk = args.chunk.unwrap_or(DEFAULT_CHUNK);
    options.image_tokens = media::room(!args.image.is_empty(), !args.video.is_empty(), args.image_tokens);
    options.sounds = !args.audio.is_empty();
    options.logits = LogitRows::All;
    let media_files = [&args.image, &args.audio, &args.video].into_iter().flatten();
    let pending = Pending::replacing(&args.out, Some(&files), media_files)?;
    let mut decoder = loading::load(&mut files, &options, &mut |_| {})?.decoder;
    let mut encoders = Encoders::new(files, &options, &decoder);
    let mut soft = Vec::new();
    for (path, medium) in media(args) {
        let made = encoders.encode(decoder.backend_mut(), &medium?)?;
        soft.extend(made.into_iter().map(|soft| (path.display().to_string(), soft)));
    }
    let pieces = places::fill(&tokens, &soft, &decoder.config().placeholders).map_err(UsageError)?;

    let (n, config) = (tokens.len(), decoder.config());
    let (d_model, vocab, stages) = (config.d_model, config.vocab_size, config.layers.len() + 1);
    let mut entries = vec![Entry::f32("logits", &[n, vocab])];
    if args.hidden {
        entries.extend((0..stages).map(|stage| Entry::f32(format!("hidden.{stage}"), &[n, d_model])));
    }
    if args.greedy.is_some() {
        entries.push(Entry::i64("greedy", &[greedy]));
    }
    let path = || args.out.display().to_string();
    let mut writer = Writer::new(pending.create_file()?, &entries).with_context(path)?;

    let mut hidden = args.hidden.then(|| Hidden { stages: vec![Vec::with_capacity(n * d_model); stages] });
    let mut next = TokenId(0);
    let mut start = 0;
    for end in decoder.pass_ends(&pieces) {
        let pass: Vec<Piece<'_>> = input::parts(&pieces, start..end).collect();
        start = end;
        let step = Step { pieces: &pass, logits: LogitRows::All };
        let logits = match &mut hidden {
            Some(hidden) => decoder.forward_tapped(step, hidden)?,
            None => decoder.forward(step)?,
        };
        next = most_likely(&logits[logits.len() - vocab..]);
        writer.f32s(logits).with_context(path)?;
    }
    for stage in hidden.iter().flat_map(|h| &h.stages) {
        writer.f32s(stage).with_context(path)?;
    }
    let continued = continue_greedily(&mut decoder, next, greedy)?;
    writer.i64s(continued.iter().map(|id| i64::from(id.0))).with_context(path)?;
    writer.finish().with_context(path)?;
    pending.commit()
}

/// Positions for `n` tokens and those that continue them, which `--ctx` may set.
fn context(ctx: Option<usize>, n: usize, greedy: usize) -> Result<usize, UsageError> {
    // The last one is only named.
    let least = n.saturating_add(greedy.saturating_sub(1));
    match ctx {
        Some(ctx) if ctx < least => Err(UsageError(format!(
            "--ctx: found {ctx}; expected at least {least}, for {n} tokens and those of --greedy"
        ))),
        ctx => Ok(ctx.unwrap_or(n.saturating_add(greedy))),
    }
}

/// The media of each kind in order, and where they come from. A video's sound is one only if `--audio` names the file, too.
fn media(args: &Args) -> impl Iterator<Item = (&PathBuf, anyhow::Result<Medium>)> {
    let images = args.image.iter().map(|path| (path, media::image(path)));
    let sounds = args.audio.iter().map(|path| (path, media::audio(path)));
    let frames = |path| -> anyhow::Result<Medium> {
        let Video { shots, sound } = media::watch(path, args.video_fps, SoundTrack::Left)?;
        Ok(Medium::Video { shots, sound })
    };
    images.chain(sounds).chain(args.video.iter().map(move |path| (path, frames(path))))
}

/// `n` tokens from `next` on, each the most likely after those before it.
fn continue_greedily(decoder: &mut Decoder<Device>, mut next: TokenId, n: usize) -> anyhow::Result<Vec<TokenId>> {
    let mut continued = Vec::with_capacity(n);
    while continued.len() < n {
        continued.push(next);
        if continued.len() < n {
            let logits = decoder.forward(Step { pieces: &[Piece::Tokens(&[next])], logits: LogitRows::Last })?;
            check_finite(logits)?;
            next = most_likely(logits);
        }
    }
    Ok(continued)
}

/// The largest of `logits`; of equal ones the lowest id.
fn most_likely(logits: &[f32]) -> TokenId {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    TokenId(best as u32)
}
