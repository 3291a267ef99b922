//! A picture or the frames of a video: decoded, cut into patches, encoded.

use std::path::Path;

use anyhow::{Context, ensure};
use carat_media::limits::MAX_PICTURE_BYTES;
use carat_media::picture::{Fitted, Patches, Patching, Picture, decode};
use carat_model::{PictureConfig, PictureEncoder, VisionTap, vision};
use carat_runtime::ModelFiles;
use carat_runtime::video::{SoundTrack, Video};

use super::{Args, hidden, read};
use crate::media;
use crate::pending::Pending;
use crate::safetensors::{Entry, Sections};

/// Entries of the file, before those of the stages.
const PIXELS: usize = 0;
const POSITIONS: usize = 1;
const HIDDEN: usize = 2;

/// Writes the file of a picture.
pub fn image(files: &ModelFiles, path: &Path, args: &Args, pending: &Pending) -> anyhow::Result<()> {
    let config = config(files)?;
    let picture = picture(path).with_context(|| path.display().to_string())?;
    let fitted = Fitted::new(&picture, args.image_tokens.budget(&picture));
    write(files, config, (&[&fitted], &[]), args, pending)
}

/// Writes the file of a video.
pub fn video(files: &ModelFiles, path: &Path, args: &Args, pending: &Pending) -> anyhow::Result<()> {
    let config = config(files)?;
    let Video { shots, .. } = media::watch(path, args.video_fps, SoundTrack::Left)?;
    let frames: Vec<&Fitted> = shots.iter().map(|shot| &shot.picture).collect();
    let sizes = frames.windows(2).map(|pair| [pair[0], pair[1]].map(|f| (f.picture().width, f.picture().height)));
    for (index, [a, b]) in sizes.enumerate() {
        let (path, next) = (path.display(), index + 2);
        ensure!(a == b, "{path}: frame {next} has another shape than those before: found {b:?}, expected {a:?} pixels");
    }
    write(files, config, (&frames, &[frames.len()]), args, pending)
}

fn config(files: &ModelFiles) -> anyhow::Result<PictureConfig> {
    let model = || files.source().to_string();
    match PictureConfig::of(files.checkpoint()).with_context(model)? {
        Some(config) => Ok(config),
        // It says what is there instead.
        None => Ok(PictureConfig::Tower(vision::config(files.checkpoint()).with_context(model)?)),
    }
}

fn picture(path: &Path) -> anyhow::Result<Picture> {
    Ok(decode(&read(path, MAX_PICTURE_BYTES)?)?)
}

/// Writes the file of pictures, at least one, of equal shapes. `stack` leads the shapes of all but the soft tokens.
fn write(
    files: &ModelFiles,
    config: PictureConfig,
    (pictures, stack): (&[&Fitted], &[usize]),
    args: &Args,
    pending: &Pending,
) -> anyhow::Result<()> {
    let model = || files.source().to_string();
    let name = || args.out_name();
    let patching = Patching::of_side(config.patch_side());
    let patches = |picture: &&Fitted| picture.patches(patching);
    let Some(first) = pictures.first().map(patches) else { anyhow::bail!("there are no frames to encode") };
    let mut device = args.device()?;
    let mut encoder = PictureEncoder::load(&mut device, files.checkpoint(), first.soft_tokens).with_context(model)?;

    let (n, (d_model, all_stages)) = (first.positions.len(), config.stages());
    let n_stages = args.n_stages(all_stages);
    let shape = |width: usize| [stack, &[n, width]].concat();
    let mut entries = vec![Entry::f32("pixel_values", &shape(first.values.len() / n))];
    entries.push(Entry::i64("positions", &shape(2)));
    entries.extend(hidden(n_stages, &shape(d_model)));
    entries.push(Entry::f32("soft_tokens", &[pictures.len() * first.soft_tokens, config.d_text()]));
    let mut out = Sections::new(pending.create_file()?, &entries).with_context(name)?;
    for Patches { values, positions, .. } in pictures.iter().map(patches) {
        out.f32s(PIXELS, &values).with_context(name)?;
        let places: Vec<i64> = positions.iter().flatten().map(|&c| i64::from(c)).collect();
        out.i64s(POSITIONS, places.into_iter()).with_context(name)?;
        let write = |stage, rows: &[f32]| out.f32s(HIDDEN + stage, rows);
        let soft_tokens = args.encode(first.soft_tokens, write, |stages| {
            let tap = stages.map(|stages| stages as &mut dyn VisionTap);
            encoder.encode(&mut device, &values, &positions, tap).with_context(model)
        })?;
        out.f32s(HIDDEN + n_stages, &soft_tokens).with_context(name)?;
    }
    out.finish().with_context(name)
}
