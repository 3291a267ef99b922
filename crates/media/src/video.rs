//! Videos: which of their pictures a model sees, and the times written before them.
//!
//! Whoever decodes the video hands over single pictures: each becomes [`patches`](crate::picture::patches) of
//! [`Budget::FRAME`](crate::picture::Budget::FRAME). Source: `default_sample_indices_fn` in transformers' `video_utils.py`,
//! `replace_video_token` in `processing_gemma4.py`. The reference refuses videos of fewer pictures than [`FRAMES`]; here, all
//! of theirs are seen.

/// The most pictures of one video that a model sees.
pub const FRAMES: usize = 32;

/// Pictures per second of a video that doesn't say.
pub const FALLBACK_FPS: f64 = 24.0;

/// A picture to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number in the video, from 0.
    pub index: usize,
    /// When it is shown: minutes and seconds, `00:07`.
    pub stamp: String,
}

/// The pictures to be seen of a video of `total`, evenly spread from the first on. Without `fps`, or where it is no rate,
/// [`FALLBACK_FPS`] counts.
pub fn sample(total: usize, fps: Option<f64>) -> Vec<Frame> {
    let fps = fps.filter(|fps| fps.is_finite() && *fps > 0.0).unwrap_or(FALLBACK_FPS);
    let n = total.min(FRAMES);
    // In 128 bits: no video's length overflows.
    let index = |i: usize| (i as u128 * total as u128 / n as u128) as usize;
    (0..n).map(index).map(|index| Frame { index, stamp: stamp(index as f64 / fps) }).collect()
}

/// A time as it is written before a frame, minutes and seconds: `01:02`.
pub fn stamp(seconds: f64) -> String {
    format!("{:02}:{:02}", (seconds / 60.0).floor() as u64, (seconds % 60.0) as u64)
}
