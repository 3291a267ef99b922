//! To 16 kHz.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use super::RATE;

/// Frames that the filter spans at the lower of both rates, at least: the longer, the steeper. With fewer the transition
/// band widens in proportion.
const FILTER_FRAMES: usize = 512;

/// `samples` of `rate` Hz at 16 kHz: a linear-phase low pass, applied by FFT, delay taken off.
pub(super) fn resample(samples: &[f32], rate: u32) -> Vec<f32> {
    if samples.is_empty() {
        return Vec::new();
    }
    let chunk = chunk(rate);
    let window = WindowFunction::BlackmanHarris2;
    let mut resampler = Fft::<f32>::new_custom(rate as usize, RATE as usize, chunk, 1, 1, window, FixedSync::Input)
        .expect("neither the rates nor the chunk are 0");
    let mut out = vec![0.0; resampler.process_all_needed_output_len(samples.len())];
    let input = InterleavedSlice::new(samples, 1, samples.len()).expect("as long as it says");
    let len = out.len();
    let mut output = InterleavedSlice::new_mut(&mut out, 1, len).expect("as long as it says");
    let (_, made) = resampler
        .process_all_into_buffer(&input, &mut output, samples.len(), None)
        .expect("the buffers are as long as the resampler asked for");
    let wanted = (samples.len() as u64 * u64::from(RATE)).div_ceil(u64::from(rate)) as usize;
    out.truncate(made.min(wanted));
    out
}

/// Input frames that are filtered at once. Their number and that of the output they become are even, so that the delay is
/// a whole number of frames and can be taken off.
fn chunk(rate: u32) -> usize {
    let step = 2 * (rate / gcd(rate, RATE)) as usize;
    let wanted = FILTER_FRAMES * rate.max(RATE) as usize / RATE as usize;
    wanted.next_multiple_of(step)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
