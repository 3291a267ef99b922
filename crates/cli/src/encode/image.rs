//! A picture: decoded, cut into patches, encoded.

use std::path::Path;

use anyhow::Context;
use carat_media::limits::MAX_PICTURE_BYTES;
use carat_media::picture::{Patches, Patching, Picture, decode, patches};
use carat_model::{VisionTower, vision};
use carat_runtime::ModelFiles;

use super::{Args, Hidden, hidden, read};
use crate::safetensors::Entry;

/// Writes the file.
pub fn run(files: &ModelFiles, path: &Path, args: &Args) -> anyhow::Result<()> {
    let model = || files.source().to_string();
    let config = vision::config(files.checkpoint()).with_context(model)?;
    let picture = picture(path).with_context(|| path.display().to_string())?;
    let Patches { values, positions, soft_tokens, .. } =
        patches(&picture, args.image_tokens.budget(&picture), Patching::Tower);
    let mut device = args.device()?;
    let n = positions.len();
    let mut tower = VisionTower::load(&mut device, files.checkpoint(), n).with_context(model)?;

    let mut entries = vec![Entry::f32("pixel_values", &[n, values.len() / n]), Entry::i64("positions", &[n, 2])];
    entries.extend(hidden(config.n_layers, [n, config.d_model]));
    entries.push(Entry::f32("soft_tokens", &[soft_tokens, config.d_text]));
    let mut out = args.create(&entries)?;
    let name = || args.out_name();
    out.f32s(&values).with_context(name)?;
    out.i64s(positions.iter().flatten().map(|&c| i64::from(c))).with_context(name)?;
    let mut hidden = Hidden { writer: &mut out, result: Ok(()) };
    let soft_tokens = tower.encode(&mut device, &values, &positions, Some(&mut hidden)).with_context(model)?;
    hidden.result.with_context(name)?;
    out.f32s(&soft_tokens).with_context(name)?;
    out.finish().with_context(name)
}

fn picture(path: &Path) -> anyhow::Result<Picture> {
    Ok(decode(&read(path, MAX_PICTURE_BYTES)?)?)
}
