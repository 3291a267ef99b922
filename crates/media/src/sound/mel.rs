//! Log-mel features: what the audio towers hear.
//!
//! Frame `i` is the 320 samples from `160·i − 160` on, zeros before the first. With `w` the periodic Hann window:
//!
//! ```text
//! X = FFT512(frame · w)          out[i, b] = ln( Σ_k |X_k| · triangle_b(k · 31.25 Hz) + 0.001 )
//! ```
//!
//! over 128 triangles that are equally wide on the HTK mel scale, `2595·log10(1 + f/700)`, from 0 to 8 kHz. Source:
//! `Gemma4AudioFeatureExtractor` in transformers. It rounds the transform to f32; here it is f64.

use std::f64::consts::TAU;

use realfft::RealFftPlanner;

use super::{MAX_CLIP, RATE};
use crate::Error;

/// Features per frame.
pub const BANDS: usize = 128;

const FRAME: usize = 320;
const HOP: usize = 160;
/// The most frames of a sound that a model hears at once.
pub const MAX_FRAMES: usize = super::MAX_CLIP / HOP;
const FFT: usize = 512;
const FLOOR: f64 = 1e-3;

/// The reference fills clips up with zeros to a multiple of this.
const PADDING: usize = 128;

/// The samples that a frame takes: one more than it uses.
const SPAN: usize = FRAME + 1;

/// Features of one clip.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMel {
    /// `[n_frames, 128]`, frames of 10 ms; those from `valid` on are zeros.
    pub values: Vec<f32>,
    /// Frames that hold nothing but sound.
    pub valid: usize,
}

impl LogMel {
    /// Frames, valid or not.
    pub fn n_frames(&self) -> usize {
        self.values.len() / BANDS
    }

    /// Soft tokens that an audio tower makes of them: it halves the frames twice.
    pub fn soft_tokens(&self) -> usize {
        self.valid.div_ceil(4)
    }
}

/// Features of `samples` at 16 kHz, 161 to [`MAX_CLIP`] of them.
pub fn log_mel(samples: &[f32]) -> Result<LogMel, Error> {
    let least = HOP + 1;
    if samples.len() < least {
        return Err(Error::TooShort { found: samples.len(), least });
    }
    Error::within("sound", (samples.len() as u64, "samples at 16 kHz"), MAX_CLIP as u64, "cut it into clips")?;
    let padded = samples.len().next_multiple_of(PADDING);
    let n_frames = (padded + HOP - SPAN) / HOP + 1;
    let valid = (samples.len() - least) / HOP + 1;
    let mut values = spectra(samples, valid);
    values.resize(n_frames * BANDS, 0.0);
    Ok(LogMel { values, valid })
}

/// The first `n` frames.
fn spectra(samples: &[f32], n: usize) -> Vec<f32> {
    let window: Vec<f32> = (0..FRAME).map(|i| (0.5 - 0.5 * (TAU * i as f64 / FRAME as f64).cos()) as f32).collect();
    let bands = bands();
    let fft = RealFftPlanner::<f64>::new().plan_fft_forward(FFT);
    let (mut frame, mut spectrum) = (fft.make_input_vec(), fft.make_output_vec());
    let mut values = Vec::with_capacity(n * BANDS);
    for i in 0..n {
        frame.fill(0.0);
        for (at, &w) in window.iter().enumerate() {
            let sample = (i * HOP + at).checked_sub(HOP).and_then(|at| samples.get(at)).unwrap_or(&0.0);
            frame[at] = f64::from(sample * w);
        }
        fft.process(&mut frame, &mut spectrum).expect("both buffers are the plan's");
        let magnitudes: Vec<f64> = spectrum.iter().map(|x| x.norm()).collect();
        values.extend(bands.iter().map(|band| {
            let sum: f64 = magnitudes[band.start..].iter().zip(&band.weights).map(|(m, w)| m * w).sum();
            (sum + FLOOR).ln() as f32
        }));
    }
    values
}

/// A triangle: its weights from FFT bin `start` on.
struct Band {
    start: usize,
    weights: Vec<f64>,
}

/// The triangles. Some of the lowest lie between two bins and are empty.
fn bands() -> Vec<Band> {
    let top = f64::from(RATE / 2);
    let top_mel = 2595.0 * (1.0 + top / 700.0).log10();
    let hertz = |i: usize| 700.0 * (10f64.powf(top_mel * i as f64 / (BANDS + 1) as f64 / 2595.0) - 1.0);
    let triangle = |b: usize, f: f64| {
        let (low, middle, high) = (hertz(b), hertz(b + 1), hertz(b + 2));
        ((f - low) / (middle - low)).min((high - f) / (high - middle)).max(0.0)
    };
    let bin = top / (FFT / 2) as f64;
    let band = |b: usize| {
        let weights: Vec<f64> = (0..=FFT / 2).map(|k| triangle(b, k as f64 * bin)).collect();
        let start = weights.iter().position(|&w| w > 0.0).unwrap_or(0);
        let end = weights.iter().rposition(|&w| w > 0.0).map_or(start, |last| last + 1);
        Band { start, weights: weights[start..end].to_vec() }
    };
    (0..BANDS).map(band).collect()
}
