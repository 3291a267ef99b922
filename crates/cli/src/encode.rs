//! `carat encode`: what a model's encoders make of a picture, a sound or a video, as a file to compare with.

mod audio;
mod pictures;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use carat_model::{AudioTap, VisionTap};
use carat_runtime::device::{self, Device, DeviceOptions};
use carat_runtime::{ImageTokens, ModelFiles, ModelSource, mmproj};

use crate::pending::Pending;
use crate::safetensors::Entry;
use crate::{args, media, output};

/// Write the soft tokens of a picture, a sound or a video to a .safetensors file
///
/// Of a picture: `pixel_values`, f32 [n, 768], and `positions`, i64 [n, 2], of its n patches; `hidden.0` (the embedded
/// patches) and `hidden.1` … `hidden.L` (each layer's output), f32 [n, width of the encoder]; `soft_tokens`, f32
/// [n / 9, width of the text model]. A model without a tower reads blocks, of which `pixel_values` has 6912 values each;
/// there are as many soft tokens, and `hidden.0` is all there is.
///
/// Of a video: the same of its frames stacked, [frames, n, …]; `soft_tokens` as they follow each other, f32
/// [frames · n / 9, width of the text model].
///
/// Of a sound: `mel`, f32 [frames, 128], the features of each 10 ms; `hidden.0` (the subsampled features) and `hidden.1` …
/// `hidden.L`, f32 [n, width of the encoder]; `soft_tokens`, f32 [n, width of the text model]. The last frame may be filled
/// up and then counts for no row: n is a quarter of the others, rounded up. A model without a tower hears `frames`, f32
/// [n, 640], of 40 ms.
#[derive(clap::Args)]
pub struct Args {
    /// A model that has an encoder: a directory with config.json, or a GGUF file with an mmproj file beside it
    model: Option<PathBuf>,
    #[command(flatten)]
    encoders: args::EncoderArgs,
    #[command(flatten)]
    input: Input,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The most soft tokens a picture may take: 70, 140, 280, 560 or 1120; auto: as few as show all its pixels
    #[arg(long, value_name = "N", default_value = "280", value_parser = media::image_tokens)]
    image_tokens: ImageTokens,
    /// Pictures per second of a folder or list that says no times [default: 24]
    #[arg(long, value_name = "N", value_parser = media::rate, requires = "video")]
    video_fps: Option<f64>,
    /// Threads that compute [default: one per core this process may use]
    #[arg(long, value_name = "N", value_parser = args::at_least_one)]
    threads: Option<usize>,
    /// Write the soft tokens without the stages on the way, and say on standard error how long the encoder took
    #[arg(long)]
    soft_tokens_only: bool,
    /// f32: the slow path that defines the result; fast and int8: as other commands encode under these, by products of integers
    /// of 16 bits or of 8
    #[arg(long, value_enum, value_name = "PATH", default_value_t = args::PrecisionArg::F32)]
    precision: args::PrecisionArg,
}

/// What is encoded.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// A picture: JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// A sound of up to 30 s: WAV, AIFF, FLAC, MP3, Vorbis, Opus or AAC, in files of their own, Ogg, M4A, Matroska or WebM
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// A video: MP4 with H.264 or AV1, an animated GIF, WebP or PNG, a folder of pictures, or a .json or .txt list of pictures with times
    #[arg(long, value_name = "PATH")]
    video: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let files = args.encoders()?;
    let Input { image, audio, video } = &args.input;
    let pending = Pending::replacing(&args.out, Some(&files), [image, audio, video].into_iter().flatten())?;
    match (image, video, audio) {
        (Some(path), ..) => pictures::image(&files, path, args, &pending)?,
        (_, Some(path), _) => pictures::video(&files, path, args, &pending)?,
        (.., Some(path)) => audio::run(&files, path, args, &pending)?,
        // The group is required.
        _ => anyhow::bail!("nothing to encode: give --image, --audio or --video"),
    }
    pending.commit()
}

impl Args {
    /// The files that hold the encoders: the model's own, or those of `--mmproj` or what lies beside a GGUF file.
    fn encoders(&self) -> anyhow::Result<ModelFiles> {
        if let Some(path) = &self.encoders.mmproj {
            return Ok(ModelFiles::open_encoders(&ModelSource::Path(path.clone()))?);
        }
        let files = args::open(self.model.as_ref())?;
        Ok(mmproj::open_apart(&files)?.unwrap_or(files))
    }

    fn device(&self) -> anyhow::Result<Device> {
        Ok(device::open(DeviceOptions { threads: self.threads, precision: self.precision.into() })?)
    }

    /// What a message about the file to write starts with.
    fn out_name(&self) -> String {
        self.out.display().to_string()
    }

    /// Stages that are written of `all`.
    fn n_stages(&self, all: usize) -> usize {
        if self.soft_tokens_only { 0 } else { all }
    }

    /// The `n` soft tokens that `encode` makes: while `write` takes the rows of each stage, or without them and timed.
    fn encode<W: FnMut(usize, &[f32]) -> io::Result<()>>(
        &self,
        n: usize,
        write: W,
        encode: impl FnOnce(Option<&mut Stages<W>>) -> anyhow::Result<Vec<f32>>,
    ) -> anyhow::Result<Vec<f32>> {
        if self.soft_tokens_only {
            let start = Instant::now();
            let soft_tokens = encode(None)?;
            output::note(&format!("{n} soft tokens in {:.1} ms", start.elapsed().as_secs_f64() * 1e3));
            return Ok(soft_tokens);
        }
        let mut stages = Stages { write, result: Ok(()) };
        let soft_tokens = encode(Some(&mut stages))?;
        stages.result.with_context(|| self.out_name())?;
        Ok(soft_tokens)
    }
}

/// Writes the rows of each stage as they come.
struct Stages<W> {
    write: W,
    /// The first failure.
    result: io::Result<()>,
}

impl<W: FnMut(usize, &[f32]) -> io::Result<()>> Stages<W> {
    fn take(&mut self, stage: usize, rows: &[f32]) {
        if self.result.is_ok() {
            self.result = (self.write)(stage, rows);
        }
    }
}

impl<W: FnMut(usize, &[f32]) -> io::Result<()>> AudioTap for Stages<W> {
    fn hidden(&mut self, stage: usize, rows: &[f32]) {
        self.take(stage, rows);
    }
}

impl<W: FnMut(usize, &[f32]) -> io::Result<()>> VisionTap for Stages<W> {
    fn hidden(&mut self, stage: usize, rows: &[f32]) {
        self.take(stage, rows);
    }
}

/// Entries of the rows of each of an encoder's stages.
fn hidden(n_stages: usize, shape: &[usize]) -> impl Iterator<Item = Entry> {
    (0..n_stages).map(move |stage| Entry::f32(format!("hidden.{stage}"), shape))
}

/// A file's bytes, of which no more is read than `most` and one.
fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
