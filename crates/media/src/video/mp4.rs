//! MP4 and QuickTime files: where the pictures of the video track lie, and when they are shown (ISO/IEC 14496-12).
//!
//! A file says it with tables for all samples or, cut into fragments, with small ones for each. Edit lists choose what of a track is
//! shown. Source of what they leave undefined: FFmpeg's `libavformat/mov.c`, which the reference reads files with.

use super::fragments;
use crate::Error;
use crate::boxes::{Fields, boxes, find};
use crate::limits::MAX_VIDEO_FRAMES;

/// The video track of a file.
#[derive(Debug)]
pub(super) struct Track {
    /// In decoding order, at least one.
    pub samples: Vec<Sample>,
    /// Those that are shown, in order, as places in `samples`; at least one.
    pub shown: Vec<usize>,
    /// Samples per second, on average.
    pub fps: f64,
    /// How far a picture is to be turned to the right, in quarters.
    pub quarters: u8,
    /// Its codec, as the file spells it.
    pub codec: [u8; 4],
    /// The boxes that say how the codec was set up.
    pub setup: Vec<u8>,
    /// Whether there is a sound track beside it.
    pub sound: bool,
}

/// A coded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Where it lies in the file.
    pub start: u64,
    pub len: u32,
    /// When it is shown, in the track's units.
    pub shown: i64,
    /// In the track's units.
    pub duration: u32,
}

/// What of a track is shown, in its units.
struct Edit {
    start: i64,
    end: i64,
}

/// A `trak` box.
pub(super) struct Trak<'a> {
    pub id: u32,
    /// Units per second.
    timescale: u32,
    handler: [u8; 4],
    quarters: u8,
    edits: Option<&'a [u8]>,
    stbl: &'a [u8],
}

/// The video track of a file.
pub(super) fn track(bytes: &[u8]) -> Result<Track, Error> {
    let moov = find(bytes, b"moov").ok_or_else(|| damaged("it has no box `moov`: it was cut off, or is no video"))?;
    let mut traks = Vec::new();
    for found in boxes(moov).filter(|found| found.kind == *b"trak") {
        traks.push(Trak::read(found.body)?);
    }
    let sound = traks.iter().any(|trak| trak.handler == *b"soun");
    let video = traks.iter().find(|trak| trak.handler == *b"vide");
    let video =
        video.ok_or_else(|| damaged(if sound { "it has sound and no video" } else { "it has no video track" }))?;
    let stsd = find(video.stbl, b"stsd").ok_or_else(|| damaged("its video track has no box `stsd`"))?;
    let (codec, setup) = sample_entry(stsd)?;
    let mut samples = samples_of_tables(video.stbl)?;
    fragments::append(bytes, moov, video, &mut samples)?;
    let duration: u64 = samples.iter().map(|sample| u64::from(sample.duration)).sum();
    if samples.is_empty() {
        return Err(damaged("its video has no pictures"));
    }
    let fps = samples.len() as f64 * f64::from(video.timescale) / duration as f64;
    let movie_timescale = find(moov, b"mvhd").map(timescale_of_mvhd).transpose()?.unwrap_or(0);
    let shown = shown(&samples, &video.edits(movie_timescale)?);
    Ok(Track { samples, shown, fps, quarters: video.quarters, codec, setup: setup.to_vec(), sound })
}

fn damaged(why: &str) -> Error {
    Error::Damaged { format: "MP4", why: why.to_owned() }
}

impl<'a> Trak<'a> {
    fn read(trak: &'a [u8]) -> Result<Self, Error> {
        let missing = |name: &str| damaged(&format!("a track has no box `{name}`"));
        let tkhd = find(trak, b"tkhd").ok_or_else(|| missing("tkhd"))?;
        let mdia = find(trak, b"mdia").ok_or_else(|| missing("mdia"))?;
        let mdhd = find(mdia, b"mdhd").ok_or_else(|| missing("mdhd"))?;
        let hdlr = find(mdia, b"hdlr").ok_or_else(|| missing("hdlr"))?;
        let stbl = find(mdia, b"minf").and_then(|minf| find(minf, b"stbl")).unwrap_or_default();
        let mut fields = Fields::new("tkhd", tkhd);
        let (version, _) = fields.version_and_flags()?;
        fields.time(version)?;
        fields.time(version)?;
        let id = fields.u32()?;
        fields.u32()?;
        fields.time(version)?;
        // Reserved, layer, group, volume, reserved.
        fields.bytes(16)?;
        let quarters = quarters(fields.bytes(36)?);
        let mut fields = Fields::new("mdhd", mdhd);
        let (version, _) = fields.version_and_flags()?;
        fields.time(version)?;
        fields.time(version)?;
        let timescale = fields.u32()?;
        if timescale == 0 {
            return Err(fields.damaged("has 0 units per second"));
        }
        let mut fields = Fields::new("hdlr", hdlr);
        fields.bytes(8)?;
        let handler = fields.u32()?.to_be_bytes();
        let edits = find(trak, b"edts").and_then(|edts| find(edts, b"elst"));
        Ok(Trak { id, timescale, handler, quarters, edits, stbl })
    }

    /// The edits in the track's units; none where all is shown.
    fn edits(&self, movie_timescale: u32) -> Result<Vec<Edit>, Error> {
        let Some(elst) = self.edits.filter(|_| movie_timescale > 0) else { return Ok(Vec::new()) };
        let mut fields = Fields::new("elst", elst);
        let (version, _) = fields.version_and_flags()?;
        let n = fields.count(if version == 0 { 12 } else { 20 })?;
        let mut edits = Vec::with_capacity(n);
        for _ in 0..n {
            let duration = fields.time(version)?;
            let start = if version == 0 { fields.i32()?.into() } else { fields.u64()? as i64 };
            fields.u32()?;
            // Before 0 nothing is shown for a while.
            if start < 0 {
                continue;
            }
            let units = u128::from(duration) * u128::from(self.timescale) / u128::from(movie_timescale);
            // Files in fragments don't know how long they will be.
            let units = if units == 0 { i64::MAX } else { i64::try_from(units).unwrap_or(i64::MAX) };
            edits.push(Edit { start, end: start.saturating_add(units) });
        }
        Ok(edits)
    }
}

fn timescale_of_mvhd(mvhd: &[u8]) -> Result<u32, Error> {
    let mut fields = Fields::new("mvhd", mvhd);
    let (version, _) = fields.version_and_flags()?;
    fields.time(version)?;
    fields.time(version)?;
    fields.u32()
}

/// Quarter turns to the right of a display matrix (8.3.2.3): where the picture's x axis points to.
fn quarters(matrix: &[u8]) -> u8 {
    let value = |at: usize| matrix.get(4 * at..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_be_bytes(*b));
    match (value(0).signum(), value(1).signum()) {
        (0, 1) => 1,
        (-1, 0) => 2,
        (0, -1) => 3,
        _ => 0,
    }
}

/// The codec of the first sample entry, and the boxes in it.
fn sample_entry(stsd: &[u8]) -> Result<([u8; 4], &[u8]), Error> {
    let entry = stsd.get(8..).and_then(|entries| boxes(entries).next());
    let entry = entry.ok_or_else(|| damaged("its box `stsd` is empty"))?;
    // Of every video codec first come 78 bytes that the codec's own setup repeats (12.1.3.2).
    Ok((entry.kind, entry.body.get(78..).unwrap_or_default()))
}

/// The samples that the tables of a track list; none in files that are all fragments.
fn samples_of_tables(stbl: &[u8]) -> Result<Vec<Sample>, Error> {
    let Some(stsz) = find(stbl, b"stsz") else {
        return match find(stbl, b"stz2") {
            None => Ok(Vec::new()),
            Some(_) => Err(damaged("its sizes are in a box `stz2`, which nobody writes for video")),
        };
    };
    let mut sizes = Fields::new("stsz", stsz);
    sizes.version_and_flags()?;
    let size = sizes.u32()?;
    let n = if size == 0 { sizes.count(4)? } else { sizes.u32()? as usize };
    check_count(n)?;
    let (mut durations, mut offsets) = (runs(stbl, "stts")?, runs(stbl, "ctts")?);
    let mut places = places(stbl, n)?.into_iter();
    let mut samples = Vec::with_capacity(n);
    let mut decoded = 0i64;
    let (mut end_of_last, mut chunk) = (0, u64::MAX);
    for _ in 0..n {
        let len = if size == 0 { sizes.u32()? } else { size };
        let duration = durations.next().unwrap_or(0);
        // Version 0 says unsigned and means signed (`mov_read_ctts`).
        let offset = offsets.next().unwrap_or(0) as i32;
        let place = places.next().unwrap_or(chunk);
        let start = if place == chunk { end_of_last } else { place };
        chunk = place;
        samples.push(Sample { start, len, shown: decoded.saturating_add(offset.into()), duration });
        end_of_last = start.saturating_add(len.into());
        decoded += i64::from(duration);
    }
    Ok(samples)
}

/// Whether so many samples are taken.
pub(super) fn check_count(n: usize) -> Result<(), Error> {
    Error::within("video", (n as u64, "frames"), MAX_VIDEO_FRAMES, "cut it first")
}

/// The values of a table of runs, `stts` or `ctts`: none without the table.
fn runs<'a>(stbl: &'a [u8], name: &'static str) -> Result<impl Iterator<Item = u32> + use<'a>, Error> {
    let kind = name.as_bytes().first_chunk().expect("names of boxes have four letters");
    let entries = match find(stbl, kind) {
        None => &[],
        Some(body) => {
            let mut fields = Fields::new(name, body);
            fields.version_and_flags()?;
            let n = fields.count(8)?;
            fields.bytes(8 * n)?
        }
    };
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
    Ok(entries.chunks_exact(8).flat_map(move |run| std::iter::repeat_n(word(&run[4..]), word(run) as usize)))
}

/// Of each of `n` samples, where its chunk begins.
fn places(stbl: &[u8], n: usize) -> Result<Vec<u64>, Error> {
    let chunks: Vec<u64> = match (find(stbl, b"stco"), find(stbl, b"co64")) {
        (Some(stco), _) => {
            let mut fields = Fields::new("stco", stco);
            fields.version_and_flags()?;
            (0..fields.count(4)?).map(|_| fields.u32().map(u64::from)).collect::<Result<_, _>>()?
        }
        (_, Some(co64)) => {
            let mut fields = Fields::new("co64", co64);
            fields.version_and_flags()?;
            (0..fields.count(8)?).map(|_| fields.u64()).collect::<Result<_, _>>()?
        }
        _ => Vec::new(),
    };
    let mut fields = Fields::new("stsc", find(stbl, b"stsc").unwrap_or(&[0; 8]));
    fields.version_and_flags()?;
    let mut runs = Vec::new();
    for _ in 0..fields.count(12)? {
        runs.push((fields.u32()?, fields.u32()?));
        fields.u32()?;
    }
    let mut places = Vec::with_capacity(n);
    for (index, &(first, per_chunk)) in runs.iter().enumerate() {
        let first = (first as usize).saturating_sub(1);
        let end = runs.get(index + 1).map_or(chunks.len(), |next| (next.0 as usize).saturating_sub(1));
        for chunk in chunks.get(first..end.min(chunks.len())).unwrap_or_default() {
            let room = (n - places.len()).min(per_chunk as usize);
            places.extend(std::iter::repeat_n(*chunk, room));
        }
    }
    if places.len() < n {
        return Err(fields.damaged(format!("places {} of {n} samples", places.len())));
    }
    Ok(places)
}

/// The samples to be shown, in order. Edits that show nothing don't count.
fn shown(samples: &[Sample], edits: &[Edit]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&index| samples[index].shown);
    // A track may be shown again and again; more often than a video may be long, it isn't.
    let mut shown = Vec::new();
    for edit in edits {
        let before = |time: i64| order.partition_point(|&index| samples[index].shown < time);
        let room = MAX_VIDEO_FRAMES as usize - shown.len();
        shown.extend(order[before(edit.start)..before(edit.end)].iter().take(room));
    }
    if shown.is_empty() { order } else { shown }
}
