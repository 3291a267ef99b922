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
    let (name, bytes) = picture_file(path)?;
    Ok(Medium::Image { name, bytes })
}

/// The name and the bytes of a picture's file; `-` is standard input.
pub fn picture_file(path: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    read(path, MAX_PICTURE_BYTES)
}

/// The sound in a file; `-` is standard input.
pub fn audio(path: &Path) -> anyhow::Result<Medium> {
    let (name, bytes) = sound_file(path)?;
    Ok(Medium::Audio { name, bytes })
}

/// The name and the bytes of a sound's file; `-` is standard input.
pub fn sound_file(path: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    read(path, MAX_SOUND_BYTES)
}

/// What a file is called in messages.
pub fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() }
}

/// A file's name and bytes, of which no more are read than tell that there are too many.
fn read(path: &Path, most: usize) -> anyhow::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let most = most as u64 + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).context("reading standard input")?;
        return Ok((name(path), bytes));
    }
    let name = name(path);
    let file = File::open(path).with_context(|| name.clone())?;
    file.take(most).read_to_end(&mut bytes).with_context(|| name.clone())?;
    Ok((name, bytes))
}
