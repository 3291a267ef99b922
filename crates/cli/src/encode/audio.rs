//! A sound: decoded, brought to 16 kHz, turned to features or frames, encoded.

use std::path::Path;

use anyhow::Context;
use carat_media::limits::MAX_SOUND_BYTES;
use carat_media::sound::{BANDS, MAX_FRAMES, SAMPLES_PER_FRAME, decode, log_mel, raw_frames};
use carat_model::unified::FrameEmbedder;
use carat_model::{AudioTap, AudioTower, SoundEncoder};
use carat_runtime::ModelFiles;
use carat_runtime::device::Device;

use super::{Args, hidden, read};
use crate::pending::Pending;
use crate::safetensors::{Entry, Writer};

/// Writes the file.
pub fn run(files: &ModelFiles, path: &Path, args: &Args, pending: &Pending) -> anyhow::Result<()> {
    let model = || files.source().to_string();
    let mut device = args.device()?;
    let mut encoder = SoundEncoder::load(&mut device, files.checkpoint(), MAX_FRAMES).with_context(model)?;
    let samples = samples(path).with_context(|| path.display().to_string())?;
    match &mut encoder {
        SoundEncoder::Tower(tower) => with_tower(tower, &mut device, (path, &samples), (args, pending), &model),
        SoundEncoder::Frames(frames) => with_frames(frames, &mut device, (path, &samples), (args, pending), &model),
    }
}

fn samples(path: &Path) -> anyhow::Result<Vec<f32>> {
    Ok(decode(&read(path, MAX_SOUND_BYTES)?)?.at_16_khz())
}

fn with_tower(
    tower: &mut AudioTower<Device>,
    device: &mut Device,
    (path, samples): (&Path, &[f32]),
    (args, pending): (&Args, &Pending),
    model: &dyn Fn() -> String,
) -> anyhow::Result<()> {
    let mel = log_mel(samples).with_context(|| path.display().to_string())?;
    let (n, config) = (mel.soft_tokens(), *tower.config());
    let mut entries = vec![Entry::f32("mel", &[mel.n_frames(), BANDS])];
    entries.extend(hidden(args.n_stages(config.n_layers + 1), &[n, config.d_model]));
    entries.push(Entry::f32("soft_tokens", &[n, config.d_text]));
    let name = || args.out_name();
    let mut out = Writer::new(pending.create_file()?, &entries).with_context(name)?;
    out.f32s(&mel.values).with_context(name)?;
    let heard = &mel.values[..mel.valid * BANDS];
    let write = |_, rows: &[f32]| out.f32s(rows);
    let soft_tokens = args.encode(n, write, |stages| {
        tower.encode(device, heard, stages.map(|stages| stages as &mut dyn AudioTap)).with_context(model)
    })?;
    out.f32s(&soft_tokens).with_context(name)?;
    out.finish().with_context(name)
}

fn with_frames(
    embedder: &mut FrameEmbedder<Device>,
    device: &mut Device,
    (path, samples): (&Path, &[f32]),
    (args, pending): (&Args, &Pending),
    model: &dyn Fn() -> String,
) -> anyhow::Result<()> {
    let frames = raw_frames(samples).with_context(|| path.display().to_string())?;
    let n = frames.n_frames();
    let none = |_, _: &[f32]| Ok(());
    let soft_tokens = args.encode(n, none, |_| embedder.encode(device, &frames.values).with_context(model))?;
    let of_text = Entry::f32("soft_tokens", &[n, embedder.config().d_text]);
    let entries = [Entry::f32("frames", &[n, SAMPLES_PER_FRAME]), of_text];
    let name = || args.out_name();
    let mut out = Writer::new(pending.create_file()?, &entries).with_context(name)?;
    out.f32s(&frames.values).with_context(name)?;
    out.f32s(&soft_tokens).with_context(name)?;
    out.finish().with_context(name)
}
