//! Files of pictures, sounds and videos that are given on the command line.

mod pictures;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use carat_media::limits::{MAX_PICTURE_BYTES, MAX_SOUND_BYTES, MAX_VIDEO_BYTES};
use carat_media::picture::Budget;
use carat_runtime::video::{SoundTrack, Video, VideoFile};
use carat_runtime::{ImageTokens, Medium};
use carat_tensor::Bytes;
use carat_weights::map_file;

/// What `--video` takes.
pub const VIDEO_HELP: &str = "A video to watch: MP4 with H.264 or AV1, an animated GIF, WebP or PNG, a folder of pictures, or a list of \
    pictures with times; may be repeated, `-` is standard input. A list is a .json file, [{\"file\": \"a.png\", \"seconds\": 0.5}, …], \
    or a .txt file of lines, `0.5 a.png`; a folder may hold one as times.json or times.txt";

/// How videos are watched.
#[derive(clap::Args, Default)]
pub struct VideoArgs {
    /// Pictures per second of a folder or list that says no times [default: 24]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub video_fps: Option<f64>,
    /// Don't listen to the sound of videos
    #[arg(long)]
    pub mute: bool,
}

impl VideoArgs {
    /// A video, with its sound if the model hears.
    pub fn medium(&self, path: &Path, track: SoundTrack) -> anyhow::Result<Medium> {
        let track = if self.mute { SoundTrack::Left } else { track };
        let Video { shots, sound } = watch(path, self.video_fps, track)?;
        Ok(Medium::Video { shots, sound })
    }
}

/// `--video-fps`.
pub fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a number above 0".into()),
    }
}

/// What is seen and heard of a video; `-` is standard input.
pub fn watch(path: &Path, fps: Option<f64>, track: SoundTrack) -> anyhow::Result<Video> {
    let silent = |shots| Video { shots, sound: Vec::new() };
    if path.is_dir() {
        return pictures::of_folder(path, fps).map(silent);
    }
    if pictures::is_list(path) {
        return pictures::of_list(path, fps).map(silent);
    }
    ensure!(fps.is_none(), "--video-fps: {} has times of its own", path.display());
    let (name, bytes, path) = if path.as_os_str() == "-" {
        let (name, bytes) = read(path, MAX_VIDEO_BYTES)?;
        (name, Bytes::from_vec(bytes), None)
    } else {
        (name(path), map_file(path)?, Some(path))
    };
    let found = bytes.len();
    ensure!(found <= MAX_VIDEO_BYTES, "{name}: found {found} bytes; at most {MAX_VIDEO_BYTES} are taken");
    Ok(VideoFile { name: &name, path, bytes: &bytes }.decode(track)?)
}

/// `--image-tokens`.
pub fn image_tokens(text: &str) -> Result<ImageTokens, String> {
    text.parse()
}

/// Room for pictures, where there are any, and `tokens` for those that are no video's.
pub fn room(images: bool, videos: bool, tokens: ImageTokens) -> Option<ImageTokens> {
    let frames = videos.then_some(ImageTokens::Most(Budget::FRAME));
    if images { Some(tokens) } else { frames }
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

/// The name and the bytes of a recording, which are mapped where it is a file and read where it comes from elsewhere.
pub fn recording(path: &Path) -> anyhow::Result<(String, Bytes)> {
    if path.is_file() {
        let name = name(path);
        return Ok((name.clone(), map_file(path).with_context(|| name)?));
    }
    let (name, bytes) = sound_file(path)?;
    let (found, most) = (bytes.len(), MAX_SOUND_BYTES);
    ensure!(found <= most, "{name}: found more than {most} bytes; at most so many are taken of what is no file");
    Ok((name, Bytes::from_vec(bytes)))
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
