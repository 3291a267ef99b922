//! Long sounds cut into clips that an encoder takes, where nothing is said.
//!
//! The reference cuts off what is longer than 30 s; this is our choice. A clip ends in the quietest fifth of a second of its
//! last third. Where even that is loud, a word may lie across the cut: the next clip then starts a second earlier.

use std::ops::Range;

use super::{MAX_CLIP, RATE};

/// What power is measured over: 20 ms.
const HOP: usize = RATE as usize / 50;

/// Hops of a pause: 200 ms.
const PAUSE: usize = 10;

/// How much quieter than its clip a pause is, at least: 25 dB.
const QUIET: f64 = 0.003;

/// What two clips share where no pause lies between them.
const OVERLAP: usize = RATE as usize;

/// What a clip of a longer sound may be limited to at least: 5 s. Shorter ones would share most of what they hold.
pub const MIN_CLIP: usize = 5 * RATE as usize;

/// Places of clips in `samples` at 16 kHz, each of at most `longest`; together they cover it. Without samples, none.
///
/// # Panics
///
/// When `longest` is not within [`MIN_CLIP`] and [`MAX_CLIP`].
pub fn clips(samples: &[f32], longest: usize) -> Vec<Range<usize>> {
    assert!((MIN_CLIP..=MAX_CLIP).contains(&longest), "clips of {longest} samples");
    let mut clips = Vec::new();
    let mut start = 0;
    while samples.len() - start > longest {
        let (end, next) = cut(&samples[start..start + longest]);
        clips.push(start..start + end);
        start += next;
    }
    if start < samples.len() {
        clips.push(start..samples.len());
    }
    clips
}

/// Where a clip of the longest kind ends, and where the next starts.
fn cut(clip: &[f32]) -> (usize, usize) {
    let powers: Vec<f64> = clip.chunks_exact(HOP).map(power).collect();
    let mean = powers.iter().sum::<f64>() / powers.len() as f64;
    let first = powers.len() * 2 / 3;
    let pauses = powers[first..].windows(PAUSE).map(|hops| hops.iter().sum::<f64>() / PAUSE as f64);
    let quietest = pauses.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    let (at, quietest) = quietest.expect("a third of the longest clip holds pauses");
    let end = (first + at + PAUSE / 2) * HOP;
    if quietest <= QUIET * mean { (end, end) } else { (end, end - OVERLAP) }
}

fn power(samples: &[f32]) -> f64 {
    samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / samples.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `seconds` of a loud tone, silent where `pauses` say, in seconds.
    fn tone(seconds: usize, pauses: &[Range<f64>]) -> Vec<f32> {
        let rate = f64::from(RATE);
        let sample = |i: usize| {
            let t = i as f64 / rate;
            if pauses.iter().any(|pause| pause.contains(&t)) {
                0.0
            } else {
                (t * 440.0 * std::f64::consts::TAU).sin() as f32
            }
        };
        (0..seconds * RATE as usize).map(sample).collect()
    }

    #[track_caller]
    fn check(samples: &[f32], expected_ms: &[[usize; 2]]) {
        let ms: Vec<_> = clips(samples, MAX_CLIP).iter().map(|clip| [clip.start / 16, clip.end / 16]).collect();
        assert_eq!(ms, expected_ms);
    }

    #[test]
    fn what_fits_stays_whole() {
        check(&tone(30, &[]), &[[0, 30_000]]);
        check(&[], &[]);
    }

    #[test]
    fn cuts_lie_within_pauses() {
        check(&tone(40, &[10.0..11.0, 25.0..25.3]), &[[0, 25_100], [25_100, 40_000]]);
    }

    #[test]
    fn silence_is_cut_without_overlap() {
        check(&vec![0.0; 45 * RATE as usize], &[[0, 20_100], [20_100, 45_000]]);
    }

    #[test]
    fn clips_without_a_pause_overlap_and_cover_everything() {
        let samples = tone(100, &[]);
        for longest in [MIN_CLIP, 7 * RATE as usize + 123, MAX_CLIP] {
            let clips = clips(&samples, longest);
            assert_eq!((clips[0].start, clips.last().unwrap().end), (0, samples.len()));
            for pair in clips.windows(2) {
                assert_eq!(pair[0].end - pair[1].start, OVERLAP);
            }
            assert!(clips.iter().all(|clip| clip.len() <= longest));
        }
    }
}
