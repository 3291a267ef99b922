//! Files of pictures and sounds that are given on the command line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use carat_media::limits::{MAX_PICTURE_BYTES, MAX_SOUND_BYTES};
use carat_runtime::{ImageTokens, Medium};

/// `--image-tokens`.
pub fn image_tokens(text: &str) -> Result<ImageTokens, String> {
    text.parse()
}

/// The picture in a file; `-` is standard input.
pub fn image(path: &Path) -> anyhow::Result<Medium> {
    let (name, bytes) = read(path, MAX_PICTURE_BYTES)?;
    Ok(Medium::Image { name, bytes })
}

/// The sound in a file; `-` is standard input.
pub fn audio(path: &Path) -> anyhow::Result<Medium> {
    let (name, bytes) = read(path, MAX_SOUND_BYTES)?;
    Ok(Medium::Audio { name, bytes })
}

/// A file's name and bytes, of which no more are read than tell that there are too many.
fn read(path: &Path, most: usize) -> anyhow::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let most = most as u64 + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).context("reading standard input")?;
        return Ok(("standard input".into(), bytes));
    }
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| name.clone())?;
    file.take(most).read_to_end(&mut bytes).with_context(|| name.clone())?;
    Ok((name, bytes))
}
