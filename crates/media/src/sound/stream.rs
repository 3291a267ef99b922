//! Long sounds bit by bit: what is in memory doesn't grow with their length.

use super::decode::{self, Longest, Packets};
use super::resample::Resampler;
use super::{RATE, kind};
use crate::limits::{MAX_RECORDING_BYTES, MAX_RECORDING_SECONDS, RATES};
use crate::{Error, guard};

/// The sound in a file, see [`decode`](super::decode()), in pieces at [`RATE`]: those of the whole, piece by piece. After an error
/// nothing comes any more.
pub struct Stream<'a> {
    format: &'static str,
    packets: Packets<'a>,
    /// From the first packet on, which says at what rate they are.
    resampler: Option<Resampler>,
    ended: bool,
}

impl<'a> Stream<'a> {
    /// Looks at the beginning of the file.
    ///
    /// # Errors
    /// If it is no sound that is decoded here, or says that it is longer than [`MAX_RECORDING_SECONDS`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let (container, body) = kind::of(bytes)?;
        decode::check("bytes", bytes.len() as u64, MAX_RECORDING_BYTES)?;
        let most = MAX_RECORDING_SECONDS * u64::from(*RATES.end());
        let longest = Longest { samples: most, seconds: MAX_RECORDING_SECONDS };
        let format = container.name();
        let packets = guard::guarded(format, || Packets::open(container, body, longest))?;
        Ok(Stream { format, packets, resampler: None, ended: false })
    }

    /// Decodes the rest and counts the samples of the whole at [`RATE`]. What has an answer can be decoded to its end.
    ///
    /// # Errors
    /// If it is damaged or too long.
    pub fn length(mut self) -> Result<u64, Error> {
        guard::guarded(self.format, || {
            while self.packets.next()?.is_some() {}
            Ok((self.packets.found() * u64::from(RATE)).div_ceil(u64::from(self.packets.rate()?)))
        })
    }

    /// The next samples; `None` at the end.
    fn advance(&mut self) -> Result<Option<Vec<f32>>, Error> {
        let mut out = Vec::new();
        while out.is_empty() && !self.ended {
            let Some(samples) = self.packets.next()? else {
                self.ended = true;
                if let Some(resampler) = &mut self.resampler {
                    resampler.finish(&mut out);
                }
                break;
            };
            let samples = samples.to_vec();
            let rate = self.packets.rate()?;
            self.resampler.get_or_insert_with(|| Resampler::new(rate)).push(&samples, &mut out);
        }
        Ok(Some(out).filter(|out| !out.is_empty()))
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<Vec<f32>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = guard::guarded(self.format, || self.advance());
        self.ended |= next.is_err();
        next.transpose()
    }
}
