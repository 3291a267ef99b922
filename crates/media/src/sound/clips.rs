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

/// A part of a longer sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// Where it starts in the whole.
    pub start: usize,
    /// At 16 kHz.
    pub samples: Vec<f32>,
}

impl Clip {
    /// Where it ends in the whole.
    pub fn end(&self) -> usize {
        self.start + self.samples.len()
    }
}

/// The clips of a sound that comes bit by bit, those that [`clips`] finds in the whole. No more of it is held than one of them and
/// a piece of what comes.
pub struct Clips<I> {
    pieces: I,
    longest: usize,
    /// What came and is in no clip yet, or in the next one too.
    held: Vec<f32>,
    /// Where that starts in the whole.
    start: usize,
}

impl<I> Clips<I> {
    /// Of pieces at 16 kHz.
    ///
    /// # Panics
    ///
    /// As [`clips`].
    pub fn new(pieces: impl IntoIterator<IntoIter = I>, longest: usize) -> Self {
        assert!((MIN_CLIP..=MAX_CLIP).contains(&longest), "clips of {longest} samples");
        Clips { pieces: pieces.into_iter(), longest, held: Vec::new(), start: 0 }
    }
}

impl<I: Iterator<Item = Result<Vec<f32>, E>>, E> Iterator for Clips<I> {
    type Item = Result<Clip, E>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.held.len() <= self.longest {
            match self.pieces.next() {
                Some(Ok(piece)) => self.held.extend(piece),
                Some(Err(error)) => return Some(Err(error)),
                None if self.held.is_empty() => return None,
                None => return Some(Ok(Clip { start: self.start, samples: std::mem::take(&mut self.held) })),
            }
        }
        let (end, next) = cut(&self.held[..self.longest]);
        let clip = Clip { start: self.start, samples: self.held[..end].to_vec() };
        self.held.drain(..next);
        self.start += next;
        Some(Ok(clip))
    }
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

    /// In pieces of any length.
    #[test]
    fn clips_of_what_comes_bit_by_bit_are_those_of_the_whole() {
        let samples = tone(75, &[20.0..20.3, 25.0..25.3, 61.0..64.0]);
        for (piece, longest) in [(1_152, MAX_CLIP), (100_000, MIN_CLIP), (samples.len(), 7 * RATE as usize + 123)] {
            let pieces = samples.chunks(piece).map(|piece| Ok::<_, ()>(piece.to_vec()));
            let found: Vec<Clip> = Clips::new(pieces, longest).map(Result::unwrap).collect();
            let expected = clips(&samples, longest);
            assert_eq!(found.iter().map(|clip| clip.start..clip.end()).collect::<Vec<_>>(), expected);
            assert!(found.iter().zip(expected).all(|(clip, range)| clip.samples == samples[range]));
        }
        assert_eq!(Clips::new([Ok::<_, ()>(Vec::new())], MAX_CLIP).count(), 0);
        assert_eq!(Clips::new([Ok(vec![0.5]), Err("gone")], MAX_CLIP).next(), Some(Err("gone")));
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
