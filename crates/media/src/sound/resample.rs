//! To 16 kHz.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use super::RATE;

/// Frames that the filter spans at the lower of both rates, at least: the longer, the steeper. With fewer the transition
/// band widens in proportion.
const FILTER_FRAMES: usize = 512;

/// Samples at 16 kHz of samples at another rate that come bit by bit: a linear-phase low pass, applied by FFT, delay taken off.
pub(super) struct Resampler {
    rate: u32,
    /// `None` where the rate is ours.
    filter: Option<Fft<f32>>,
    /// What is too short to be filtered yet.
    held: Vec<f32>,
    /// Of the filter.
    filtered: Vec<f32>,
    /// Frames of the filter's delay that are yet to be left out.
    delay: usize,
    /// Samples that came, and samples that were made of them.
    taken: u64,
    made: u64,
}

impl Resampler {
    pub fn new(rate: u32) -> Self {
        let filter = (rate != RATE).then(|| {
            let window = WindowFunction::BlackmanHarris2;
            Fft::<f32>::new_custom(rate as usize, RATE as usize, chunk(rate), 1, 1, window, FixedSync::Input)
                .expect("neither the rates nor the chunk are 0")
        });
        let filtered = vec![0.0; filter.as_ref().map_or(0, |filter| filter.output_frames_max())];
        let delay = filter.as_ref().map_or(0, |filter| filter.output_delay());
        Resampler { rate, filter, held: Vec::new(), filtered, delay, taken: 0, made: 0 }
    }

    /// Takes samples, and adds to `out` what can be made of all that came.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        let Some(filter) = &self.filter else { return out.extend_from_slice(samples) };
        let chunk = filter.input_frames_next();
        self.held.extend_from_slice(samples);
        if self.held.len() < chunk {
            return;
        }
        let whole = self.held.len() / chunk * chunk;
        let held = std::mem::take(&mut self.held);
        held[..whole].chunks_exact(chunk).for_each(|chunk| self.filter(chunk, out));
        self.held.extend_from_slice(&held[whole..]);
    }

    /// Adds what is left: `ceil(len · 16000 / rate)` in all.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let Some(filter) = &self.filter else { return };
        let chunk = filter.input_frames_next();
        let wanted = (self.taken * u64::from(RATE)).div_ceil(u64::from(self.rate));
        while self.made < wanted {
            let mut last = std::mem::take(&mut self.held);
            last.resize(chunk, 0.0);
            self.filter(&last, out);
        }
        let surplus = (self.made - wanted) as usize;
        out.truncate(out.len() - surplus);
    }

    /// Filters one chunk.
    fn filter(&mut self, chunk: &[f32], out: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else { return };
        let input = InterleavedSlice::new(chunk, 1, chunk.len()).expect("as long as it says");
        let len = self.filtered.len();
        let mut output = InterleavedSlice::new_mut(&mut self.filtered, 1, len).expect("as long as it says");
        let (_, made) = filter.process_into_buffer(&input, &mut output, None).expect("as long as the filter asked for");
        let start = self.delay.min(made);
        self.delay -= start;
        out.extend_from_slice(&self.filtered[start..made]);
        self.made += (made - start) as u64;
    }
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
