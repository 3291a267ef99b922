//! The packets of a sound in MP4 or QuickTime, and what of them is heard.
//!
//! Symphonia says how the sound is coded. Where its packets lie is read here: Symphonia takes no note of edit lists, and for each
//! packet goes through the tables of all tracks from their beginnings.

use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::Error;
use crate::mp4::{self, Edit, Sample, Sound};

/// Seconds that are decoded before those that are heard, for the decoder to settle (FFmpeg's `mov_fix_index` takes as many).
const LEAD: i64 = 1;

/// The packets of a track.
pub(super) struct Mp4<'a> {
    file: &'a [u8],
    track: u32,
    /// Of its edits, in order and apart from each other: what is to be heard twice is heard once.
    sound: Sound<'a>,
    /// Packets so far.
    count: u64,
}

impl<'a> Mp4<'a> {
    /// Those of the track with this number.
    pub fn new(file: &'a [u8], track: u32) -> Result<Self, Error> {
        let mut sound = mp4::sound(file, track)?;
        sound.edits.sort_unstable_by_key(|edit| edit.start);
        sound.edits.dedup_by(|next, edit| {
            let together = next.start <= edit.end;
            if together {
                edit.end = edit.end.max(next.end);
            }
            together
        });
        Ok(Mp4 { file, track, sound, count: 0 })
    }

    /// How much is heard of a track of `total`, at most, in the track's units.
    pub fn heard(&self, total: u64) -> u64 {
        let edits = self.sound.edits.iter().map(|edit| edit.end.abs_diff(edit.start));
        if self.sound.edits.is_empty() { total } else { total.min(edits.fold(0, u64::saturating_add)) }
    }

    /// The next packet that is heard, or is decoded before one that is; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Packet>, Error> {
        let lead = LEAD * i64::from(self.sound.timescale);
        for sample in self.sound.samples.by_ref() {
            let sample = sample?;
            self.count += 1;
            // Each takes one at least; those of fragments can be claimed for nothing.
            if self.count > self.file.len() as u64 {
                let why = format!("it has more packets than bytes, of which there are {}", self.file.len());
                return Err(Error::Damaged { format: "M4A", why });
            }
            let end = sample.shown.saturating_add(sample.duration.into()).saturating_add(lead);
            let edit = edit_after(&self.sound.edits, sample.shown);
            if self.sound.edits.is_empty() || edit.is_some_and(|edit| edit.start < end) {
                return self.packet(sample).map(Some);
            }
        }
        Ok(None)
    }

    fn packet(&self, sample: Sample) -> Result<Packet, Error> {
        let data = sample.of(self.file).ok_or_else(|| {
            let (end, of) = (sample.start.saturating_add(sample.len.into()), self.file.len());
            let why = format!("packet {} ends at byte {end}, and the file has {of}: it was cut off", self.count);
            Error::Damaged { format: "M4A", why }
        })?;
        let (time, duration) = (Timestamp::new(sample.shown), Duration::from(sample.duration));
        Ok(Packet::new(self.track, time, duration, data))
    }

    /// Of the `n` samples that a packet makes at `rate`, how many come before those that are heard. `left_out` others came before
    /// them. Packets that are heard at their beginning are heard whole, as FFmpeg has it.
    pub fn unheard(&self, packet: &Packet, rate: u32, left_out: usize, n: usize) -> usize {
        let time = packet.pts.get();
        if self.sound.edits.is_empty() {
            return 0;
        }
        let Some(edit) = edit_after(&self.sound.edits, time) else { return n };
        let units = edit.start.saturating_sub(time).max(0);
        let samples = i128::from(units) * i128::from(rate) / i128::from(self.sound.timescale);
        usize::try_from(samples).unwrap_or(usize::MAX).saturating_sub(left_out).min(n)
    }
}

/// The first edit that ends after `time`.
fn edit_after(edits: &[Edit], time: i64) -> Option<&Edit> {
    edits.get(edits.partition_point(|edit| edit.end <= time))
}
