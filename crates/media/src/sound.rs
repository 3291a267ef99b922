//! Sounds: files to samples to what an encoder hears.
//!
//! ```text
//! bytes ─┬─ decode ─ Wave, one channel ─ at_16_khz ─ clips ─┬─ log_mel      (audio tower)
//!        └─ Stream, at 16 kHz bit by bit ──────────── Clips ─┴─ raw_frames   (12B)
//! ```
//!
//! An encoder hears at most [`MAX_CLIP`] samples, 30 s, at once; [`clips`] cuts longer ones where nothing is said.

mod clips;
mod decode;
mod frames;
mod kind;
mod mel;
mod mp4;
mod opus;
mod resample;
mod stream;

pub use clips::{Clip, Clips, MIN_CLIP, clips};
pub use decode::{decode, decode_of_video};
pub use frames::{RawFrames, SAMPLES_PER_FRAME, raw_frames};
pub use mel::{BANDS, LogMel, MAX_FRAMES, log_mel};
pub use stream::Stream;

/// Samples per second that the encoders expect, in Hz.
pub const RATE: u32 = 16_000;

/// The longest clip of one encoder run in samples at [`RATE`]: 30 s, or 750 soft tokens.
pub const MAX_CLIP: usize = 480_000;

/// A sound of one channel, the mean of those in its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Wave {
    /// Samples per second, within [`RATES`](crate::limits::RATES).
    pub rate: u32,
    /// In [−1, 1], unless a file of floats says otherwise; finite.
    pub samples: Vec<f32>,
}

/// What no recorded speech stays below, in dB under full scale: the loudest sample of a sound that counts as silent is one
/// of 32 in 16 bits.
pub const SILENCE_DB: u32 = 60;

/// Whether nothing can be heard in `samples`: none is above [`SILENCE_DB`] below 1. Models make words of silence.
pub fn is_silent(samples: &[f32]) -> bool {
    let least = 10f32.powf(SILENCE_DB as f32 / -20.0);
    samples.iter().all(|sample| sample.abs() <= least)
}

impl Wave {
    /// The samples at [`RATE`], `ceil(len · 16000 / rate)` of them.
    ///
    /// Tones up to 95 % of half the lower of both rates keep level and phase with an error below −100 dB; of those beyond
    /// 8 kHz, less than −120 dB is left. Where the rates share few factors, as 44101 Hz and ours, these are −90 and −75 dB.
    /// The tests measure it.
    ///
    /// # Panics
    ///
    /// When the rate is 0.
    pub fn at_16_khz(self) -> Vec<f32> {
        if self.rate == RATE {
            return self.samples;
        }
        let (mut resampler, mut out) = (resample::Resampler::new(self.rate), Vec::new());
        resampler.push(&self.samples, &mut out);
        resampler.finish(&mut out);
        out
    }
}
