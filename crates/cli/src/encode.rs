//! `carat encode`: what a model's picture encoder makes of a picture, as a file to compare with.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use carat_media::limits::MAX_PICTURE_BYTES;
use carat_media::picture::{Budget, Patches, Patching, Picture, decode, patches};
use carat_model::{VisionTap, VisionTower, vision};
use carat_runtime::device::{self, DeviceOptions};

use crate::args;
use crate::safetensors::{Entry, Writer};

/// Write the soft tokens of a picture to a .safetensors file
///
/// Holds `pixel_values`, f32 [n, 768], and `positions`, i64 [n, 2], of the picture's n patches; `hidden.0` (the embedded
/// patches) and `hidden.1` … `hidden.L` (each layer's output), f32 [n, width of the encoder]; `soft_tokens`, f32
/// [n / 9, width of the text model].
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json of a model that has a picture encoder
    model: Option<PathBuf>,
    /// The picture: JPEG, PNG, WebP, GIF, BMP or TIFF
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The most soft tokens the picture may take: 70, 140, 280, 560 or 1120; auto: as few as show all its pixels
    #[arg(long, value_name = "N", default_value = "280", value_parser = image_tokens)]
    image_tokens: ImageTokens,
    /// Threads that compute [default: one per core this process may use]
    #[arg(long, value_name = "N", value_parser = args::at_least_one)]
    threads: Option<usize>,
}

/// `--image-tokens`.
#[derive(Clone, Copy)]
enum ImageTokens {
    /// By the picture.
    Auto,
    /// As said.
    Most(Budget),
}

impl ImageTokens {
    fn budget(self, picture: &Picture) -> Budget {
        match self {
            ImageTokens::Auto => Budget::auto(picture),
            ImageTokens::Most(budget) => budget,
        }
    }
}

fn image_tokens(text: &str) -> Result<ImageTokens, String> {
    if text == "auto" {
        return Ok(ImageTokens::Auto);
    }
    let tokens = text.parse().map_err(|_| "expected 70, 140, 280, 560, 1120 or auto".to_owned())?;
    Budget::new(tokens).map(ImageTokens::Most).map_err(|error| error.to_string())
}

/// Writes the rows of each layer as they come.
struct Hidden<'a, W> {
    writer: &'a mut Writer<W>,
    /// The first failure.
    result: io::Result<()>,
}

impl<W: io::Write> VisionTap for Hidden<'_, W> {
    fn hidden(&mut self, _: usize, rows: &[f32]) {
        if self.result.is_ok() {
            self.result = self.writer.f32s(rows);
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let files = args::open(args.model.as_ref())?;
    let model = || files.source().to_string();
    let config = vision::config(files.checkpoint()).with_context(model)?;
    let picture = read(&args.image).with_context(|| args.image.display().to_string())?;
    let Patches { values, positions, soft_tokens, .. } =
        patches(&picture, args.image_tokens.budget(&picture), Patching::Tower);

    let mut device = device::open(DeviceOptions { threads: args.threads, ..DeviceOptions::default() })?;
    let n = positions.len();
    let mut tower = VisionTower::load(&mut device, files.checkpoint(), n).with_context(model)?;

    let mut entries = vec![Entry::f32("pixel_values", &[n, values.len() / n]), Entry::i64("positions", &[n, 2])];
    entries.extend((0..=config.n_layers).map(|stage| Entry::f32(format!("hidden.{stage}"), &[n, config.d_model])));
    entries.push(Entry::f32("soft_tokens", &[soft_tokens, config.d_text]));
    let path = || args.out.display().to_string();
    let file = File::create(&args.out).with_context(path)?;
    let mut writer = Writer::new(BufWriter::new(file), &entries).with_context(path)?;
    writer.f32s(&values).with_context(path)?;
    writer.i64s(positions.iter().flatten().map(|&c| i64::from(c))).with_context(path)?;
    let mut hidden = Hidden { writer: &mut writer, result: Ok(()) };
    let soft_tokens = tower.encode(&mut device, &values, &positions, Some(&mut hidden)).with_context(model)?;
    hidden.result.with_context(path)?;
    writer.f32s(&soft_tokens).with_context(path)?;
    writer.finish().with_context(path)
}

/// The picture in a file, of which no more is read than a picture may have.
fn read(path: &Path) -> anyhow::Result<Picture> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PICTURE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(decode(&bytes)?)
}
