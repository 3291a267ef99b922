//! A sound: decoded, brought to 16 kHz, turned to features, encoded.

use std::path::Path;

use anyhow::Context;
use carat_media::limits::MAX_SOUND_BYTES;
use carat_media::sound::{BANDS, LogMel, decode, log_mel};
use carat_model::{AudioTower, audio};
use carat_runtime::ModelFiles;

use super::{Args, Hidden, hidden, read};
use crate::safetensors::Entry;

/// Writes the file.
pub fn run(files: &ModelFiles, path: &Path, args: &Args) -> anyhow::Result<()> {
    let model = || files.source().to_string();
    let config = audio::config(files.checkpoint()).with_context(model)?;
    let mel = features(path).with_context(|| path.display().to_string())?;
    let mut device = args.device()?;
    let mut tower = AudioTower::load(&mut device, files.checkpoint(), mel.valid).with_context(model)?;

    let n = mel.soft_tokens();
    let mut entries = vec![Entry::f32("mel", &[mel.n_frames(), BANDS])];
    entries.extend(hidden(config.n_layers, [n, config.d_model]));
    entries.push(Entry::f32("soft_tokens", &[n, config.d_text]));
    let mut out = args.create(&entries)?;
    let name = || args.out_name();
    out.f32s(&mel.values).with_context(name)?;
    let mut hidden = Hidden { writer: &mut out, result: Ok(()) };
    let heard = &mel.values[..mel.valid * BANDS];
    let soft_tokens = tower.encode(&mut device, heard, Some(&mut hidden)).with_context(model)?;
    hidden.result.with_context(name)?;
    out.f32s(&soft_tokens).with_context(name)?;
    out.finish().with_context(name)
}

fn features(path: &Path) -> anyhow::Result<LogMel> {
    Ok(log_mel(&decode(&read(path, MAX_SOUND_BYTES)?)?.at_16_khz())?)
}
