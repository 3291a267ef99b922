//! The packets of a sound in MP4 or QuickTime, and what of them is heard.
//!
//! Symphonia says how the sound is coded. Where its packets lie is read here: Symphonia takes no note of edit lists, and for each
//! packet goes through the tables of all tracks from their beginnings.

use std::iter::Peekable;

use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::Error;
use crate::mp4::{self, Edit, MAX_SHARED, Sample, Samples, Sound};

/// Seconds that are decoded before those that are heard, for the decoder to settle (FFmpeg's `mov_fix_index` takes as many).
const LEAD: i64 = 1;

/// Bytes of a packet to which no more samples are joined.
const JOINED: u32 = 1 << 14;

/// The packets of a track.
pub(super) struct Mp4<'a> {
    file: &'a [u8],
    track: u32,
    /// In order and apart from each other: what is to be heard twice is heard once.
    edits: Vec<Edit>,
    /// Units per second.
    timescale: u32,
    samples: Peekable<Samples<'a>>,
    /// Whether samples that follow each other become one packet.
    joins: bool,
    /// Whether its numbers begin with the highest byte, and their name doesn't say so.
    pub big_endian: bool,
    /// Samples so far, and their bytes.
    count: u64,
    bytes: u64,
}

impl<'a> Mp4<'a> {
    /// Those of the track with this number.
    pub fn new(file: &'a [u8], track: u32) -> Result<Self, Error> {
        let Sound { samples, mut edits, timescale, big_endian } = mp4::sound(file, track)?;
        edits.sort_unstable_by_key(|edit| edit.start);
        edits.dedup_by(|next, edit| {
            let together = next.start <= edit.end;
            if together {
                edit.end = edit.end.max(next.end);
            }
            together
        });
        let samples = samples.peekable();
        Ok(Mp4 { file, track, edits, timescale, samples, joins: false, big_endian, count: 0, bytes: 0 })
    }

    /// From now on, samples that follow each other are one packet: theirs are of a codec that takes as many as there are.
    pub fn join(&mut self) {
        self.joins = true;
    }

    /// How much is heard of a track of `total`, at most, in the track's units.
    pub fn heard(&self, total: u64) -> u64 {
        let edits = self.edits.iter().map(|edit| edit.end.abs_diff(edit.start));
        if self.edits.is_empty() { total } else { total.min(edits.fold(0, u64::saturating_add)) }
    }

    /// The next packet that is heard, or is decoded before one that is; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Packet>, Error> {
        let lead = LEAD * i64::from(self.timescale);
        while let Some(sample) = self.samples.next() {
            let sample = sample?;
            self.check(sample)?;
            let end = end_of(sample).saturating_add(lead);
            let edit = edit_after(&self.edits, sample.shown).cloned();
            if self.edits.is_empty() || edit.as_ref().is_some_and(|edit| edit.start < end) {
                return self.packet(sample, edit).map(Some);
            }
        }
        Ok(None)
    }

    /// Counts a sample.
    fn check(&mut self, sample: Sample) -> Result<(), Error> {
        let damaged = |why: String| Err(Error::Damaged { format: "M4A", why });
        let of = self.file.len() as u64;
        self.count += 1;
        self.bytes += sample.of(self.file).map_or(0, |found| found.len() as u64);
        // Each takes one at least; those of fragments can be claimed for nothing.
        if self.count > of {
            return damaged(format!("it has more packets than bytes, of which there are {of}"));
        }
        if self.bytes > MAX_SHARED.saturating_mul(of) {
            return damaged(format!("its packets lie upon each other: they have {} bytes, of {of}", self.bytes));
        }
        Ok(())
    }

    /// A packet of a sample, which is in or before `edit`, and of those that may be joined to it.
    fn packet(&mut self, first: Sample, edit: Option<Edit>) -> Result<Packet, Error> {
        let mut whole = first;
        while self.joins && whole.len < JOINED {
            let follows = |next: &Sample| {
                next.start == whole.start.saturating_add(whole.len.into())
                    && next.shown == end_of(whole)
                    && edit.as_ref().is_none_or(|edit| next.shown < edit.end)
            };
            let Some(Ok(next)) = self.samples.next_if(|next| next.as_ref().is_ok_and(follows)) else { break };
            self.check(next)?;
            whole.len = whole.len.saturating_add(next.len);
            whole.duration = whole.duration.saturating_add(next.duration);
        }
        let data = whole.of(self.file).ok_or_else(|| {
            let (end, of) = (whole.start.saturating_add(whole.len.into()), self.file.len());
            let why = format!("packet {} ends at byte {end}, and the file has {of}: it was cut off", self.count);
            Error::Damaged { format: "M4A", why }
        })?;
        let (time, duration) = (Timestamp::new(whole.shown), Duration::from(whole.duration));
        Ok(Packet::new(self.track, time, duration, data))
    }

    /// Of the `n` samples that a packet makes at `rate`, how many come before those that are heard. `left_out` others came before
    /// them. Packets that are heard at their beginning are heard whole, as FFmpeg has it.
    pub fn unheard(&self, packet: &Packet, rate: u32, left_out: usize, n: usize) -> usize {
        let time = packet.pts.get();
        if self.edits.is_empty() {
            return 0;
        }
        let Some(edit) = edit_after(&self.edits, time) else { return n };
        let units = edit.start.saturating_sub(time).max(0);
        let samples = i128::from(units) * i128::from(rate) / i128::from(self.timescale);
        usize::try_from(samples).unwrap_or(usize::MAX).saturating_sub(left_out).min(n)
    }
}

/// When a sample ends.
fn end_of(sample: Sample) -> i64 {
    sample.shown.saturating_add(sample.duration.into())
}

/// The first edit that ends after `time`.
fn edit_after(edits: &[Edit], time: i64) -> Option<&Edit> {
    edits.get(edits.partition_point(|edit| edit.end <= time))
}
