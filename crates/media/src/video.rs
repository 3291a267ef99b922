//! Videos: which of their pictures a model sees, and the times written before them.
//!
//! ```text
//! bytes ─ decode ─ Shots: at most 32 pictures, in the size that a model sees, and their times
//! ```
//!
//! A model sees [`FRAMES`] pictures, evenly spread, however long a video is; each is brought to the grid of
//! [`Budget::FRAME`](crate::picture::Budget::FRAME) as soon as it is decoded. Source: `default_sample_indices_fn` in
//! transformers' `video_utils.py`, `replace_video_token` in `processing_gemma4.py`. The reference refuses videos of fewer
//! pictures than [`FRAMES`]; here, all of theirs are seen.

mod animation;
mod av01;
mod colour;
mod h264;
mod kind;
mod sps;

use crate::picture::{Budget, Fitted, Picture};
use crate::{Error, guard, mp4};
use kind::Kind;

/// The most pictures of one video that a model sees.
pub const FRAMES: usize = 32;

/// Pictures per second of a video that doesn't say.
pub const FALLBACK_FPS: f64 = 24.0;

/// A picture to be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Its number in the video, from 0.
    pub index: usize,
    /// When it is shown, in seconds.
    pub seconds: f64,
}

/// A picture of a video as a model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// When it is shown, in seconds.
    pub seconds: f64,
    /// In the size of [`Budget::FRAME`].
    pub picture: Fitted,
}

impl Shot {
    /// `picture`, shown at `seconds`.
    pub fn new(seconds: f64, picture: &Picture) -> Shot {
        Shot { seconds, picture: Fitted::new(picture, Budget::FRAME) }
    }
}

/// The pictures to be seen of a video of `total`, evenly spread from the first on. Without `fps`, or where it is no rate,
/// [`FALLBACK_FPS`] counts.
pub fn sample(total: usize, fps: Option<f64>) -> Vec<Frame> {
    let fps = fps.filter(|fps| fps.is_finite() && *fps > 0.0).unwrap_or(FALLBACK_FPS);
    indices(total).map(|index| Frame { index, seconds: index as f64 / fps }).collect()
}

/// The numbers of the pictures to be seen of `total`, ascending.
pub fn indices(total: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
    let n = total.min(FRAMES);
    // In 128 bits: no video's length overflows.
    (0..n).map(move |i| (i as u128 * total as u128 / n as u128) as usize)
}

/// A time as it is written before a frame, minutes and seconds: `01:02`.
pub fn stamp(seconds: f64) -> String {
    format!("{:02}:{:02}", (seconds / 60.0).floor() as u64, (seconds % 60.0) as u64)
}

/// What a model sees of a video's file, told apart by content: an animated GIF, WebP or PNG, or H.264
/// or AV1 in MP4 or QuickTime.
///
/// The pictures of animations have the times at which they are shown; those of others, as the reference has it, the time that
/// follows from their number and the rate that the file has on average. They are turned as the file says.
///
/// # Errors
/// If it is no such file, is damaged or too large; [`Error::Elsewhere`] if it is a video that others may decode.
pub fn decode(bytes: &[u8]) -> Result<Vec<Shot>, Error> {
    match kind::of(bytes)? {
        Kind::Animation(kind) => animation::decode(bytes, kind),
        Kind::Mp4 => guard::guarded("MP4", || of_mp4(bytes)),
    }
}

/// Whether a video has a sound track, as far as it is known here.
pub fn has_sound(bytes: &[u8]) -> bool {
    matches!(kind::of(bytes), Ok(Kind::Mp4)) && mp4::track(bytes).is_ok_and(|track| track.sound)
}

fn of_mp4(bytes: &[u8]) -> Result<Vec<Shot>, Error> {
    let track = mp4::track(bytes)?;
    let decode = match &track.codec {
        b"avc1" | b"avc3" => h264::decode,
        b"av01" => av01::decode,
        codec => return Err(Error::Elsewhere { what: format!("{} in MP4", kind::of_fourcc(*codec)) }),
    };
    let frames = sample(track.shown.len(), Some(track.fps));
    let numbers: Vec<usize> = frames.iter().map(|frame| frame.index).collect();
    let pictures = decode(bytes, &track, &numbers)?;
    Ok(frames.iter().zip(pictures).map(|(frame, picture)| Shot { seconds: frame.seconds, picture }).collect())
}
