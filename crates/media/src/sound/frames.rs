//! Raw frames: what 12B hears, which has no audio tower.
//!
//! Source: `Gemma4UnifiedAudioFeatureExtractor` in transformers.

use crate::Error;

/// Samples of one frame, 40 ms: one soft token.
pub const SAMPLES_PER_FRAME: usize = 640;

/// A sound cut into frames.
#[derive(Clone, Debug, PartialEq)]
pub struct RawFrames {
    /// `[n_frames, 640]`, samples as they are; zeros fill the last frame.
    pub values: Vec<f32>,
}

impl RawFrames {
    /// Frames, each of which is a soft token.
    pub fn n_frames(&self) -> usize {
        self.values.len() / SAMPLES_PER_FRAME
    }
}

/// `samples` at 16 kHz, at least one, in frames.
pub fn raw_frames(samples: &[f32]) -> Result<RawFrames, Error> {
    if samples.is_empty() {
        return Err(Error::TooShort { found: 0, least: 1 });
    }
    let mut values = samples.to_vec();
    values.resize(samples.len().next_multiple_of(SAMPLES_PER_FRAME), 0.0);
    Ok(RawFrames { values })
}
