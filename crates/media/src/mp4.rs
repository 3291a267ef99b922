//! MP4 and QuickTime files: where the samples of a track lie, pictures or packets of sound, and when they are shown or heard
//! (ISO/IEC 14496-12).
//!
//! A file says it with tables for all samples or, cut into fragments, with small ones for each. Edit lists choose what of a track is
//! shown. Source of what they leave undefined: FFmpeg's `libavformat/mov.c`, which the reference reads files with.

mod fragments;

use image::metadata::Orientation;

use crate::Error;
use crate::boxes::{Fields, boxes, find};
use crate::limits::MAX_VIDEO_FRAMES;

/// How often the bytes of a file may be taken for samples: once, but for those of an odd file that shares them.
pub(crate) const MAX_SHARED: u64 = 4;

/// The video track of a file.
#[derive(Debug)]
pub(crate) struct Track {
    /// In decoding order, at least one.
    pub samples: Vec<Sample>,
    /// Those that are shown, in order, as places in `samples`; at least one.
    pub shown: Vec<usize>,
    /// Samples per second, on average.
    pub fps: f64,
    /// How a picture is to be turned and mirrored.
    pub orientation: Orientation,
    /// Its codec, as the file spells it.
    pub codec: [u8; 4],
    /// The boxes that say how the codec was set up.
    pub setup: Vec<u8>,
    /// Whether there is a sound track beside it.
    pub sound: bool,
}

/// A coded picture, or a packet of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Where it lies in the file.
    pub start: u64,
    pub len: u32,
    /// When it is shown, in the track's units.
    pub shown: i64,
    /// In the track's units.
    pub duration: u32,
}

impl Sample {
    /// Its bytes; `None` where the file was cut off before its end.
    pub fn of<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        file.get(usize::try_from(self.start).ok()?..)?.get(..self.len as usize)
    }
}

/// What of a track is shown, in its units.
pub(crate) type Edit = std::ops::Range<i64>;

/// Samples, one after another.
pub(crate) type Samples<'a> = Box<dyn Iterator<Item = Result<Sample, Error>> + 'a>;

/// The sound track of a file.
pub(crate) struct Sound<'a> {
    /// In order.
    pub samples: Samples<'a>,
    /// None where all is heard.
    pub edits: Vec<Edit>,
    /// Units per second.
    pub timescale: u32,
    /// Whether its numbers begin with the highest byte, and the codec's name doesn't say so.
    pub big_endian: bool,
}

/// A `trak` box.
struct Trak<'a> {
    id: u32,
    /// Units per second.
    timescale: u32,
    handler: [u8; 4],
    orientation: Orientation,
    edits: Option<&'a [u8]>,
    stbl: &'a [u8],
}

/// The video track of a file.
pub(crate) fn track(bytes: &[u8]) -> Result<Track, Error> {
    let moov = moov(bytes)?;
    let traks = traks(moov)?;
    let sound = traks.iter().any(|trak| trak.handler == *b"soun");
    let video = traks.iter().find(|trak| trak.handler == *b"vide");
    let video =
        video.ok_or_else(|| damaged(if sound { "it has sound and no video" } else { "it has no video track" }))?;
    let stsd = find(video.stbl, b"stsd").ok_or_else(|| damaged("its video track has no box `stsd`"))?;
    let (codec, setup) = sample_entry(stsd)?;
    check_count(Sizes::read(video.stbl)?.n)?;
    let (mut samples, mut whole) = (Vec::new(), 0);
    for sample in video.samples(bytes, moov)? {
        let sample = sample?;
        whole += sample.of(bytes).map_or(0, |found| found.len() as u64);
        samples.push(sample);
        check_count(samples.len())?;
    }
    if whole > MAX_SHARED.saturating_mul(bytes.len() as u64) {
        return Err(damaged(&format!("its pictures lie upon each other: they have {whole} bytes, of {}", bytes.len())));
    }
    let duration: u64 = samples.iter().map(|sample| u64::from(sample.duration)).sum();
    if samples.is_empty() {
        return Err(damaged("its video has no pictures"));
    }
    let fps = samples.len() as f64 * f64::from(video.timescale) / duration as f64;
    let shown = shown(&samples, &video.edits(moov)?);
    Ok(Track { samples, shown, fps, orientation: video.orientation, codec, setup: setup.to_vec(), sound })
}

/// The track of a file that has this number.
pub(crate) fn sound(bytes: &[u8], id: u32) -> Result<Sound<'_>, Error> {
    let moov = moov(bytes)?;
    let trak = traks(moov)?.into_iter().find(|trak| trak.id == id);
    let trak = trak.ok_or_else(|| damaged(&format!("it has no track {id}")))?;
    let samples = Box::new(trak.samples(bytes, moov)?);
    let big_endian = find(trak.stbl, b"stsd").is_some_and(big_endian);
    Ok(Sound { samples, edits: trak.edits(moov)?, timescale: trak.timescale, big_endian })
}

/// Whether a file begins as these do: those of QuickTime don't always say what they are.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    let kind = bytes.get(4..8).unwrap_or_default();
    [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"].iter().any(|first| kind == *first)
}

pub(crate) fn moov(bytes: &[u8]) -> Result<&[u8], Error> {
    find(bytes, b"moov").ok_or_else(|| damaged("it has no box `moov`: it was cut off, or is no video"))
}

fn traks(moov: &[u8]) -> Result<Vec<Trak<'_>>, Error> {
    boxes(moov).filter(|found| found.kind == *b"trak").map(|found| Trak::read(found.body)).collect()
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
        let orientation = orientation(fields.bytes(36)?);
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
        Ok(Trak { id, timescale, handler, orientation, edits, stbl })
    }

    /// The samples, in decoding order.
    fn samples<'b>(
        &self,
        file: &'b [u8],
        moov: &'b [u8],
    ) -> Result<impl Iterator<Item = Result<Sample, Error>> + use<'a, 'b>, Error> {
        let mut end = 0u64;
        for (count, duration) in runs(self.stbl, "stts")? {
            end = end.saturating_add(u64::from(count) * u64::from(duration));
        }
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        Ok(samples_of_tables(self.stbl)?.chain(fragments::samples(file, moov, self.id, end)?))
    }

    /// The edits in the track's units; none where all is shown.
    fn edits(&self, moov: &[u8]) -> Result<Vec<Edit>, Error> {
        let movie_timescale = find(moov, b"mvhd").map(timescale_of_mvhd).transpose()?.unwrap_or(0);
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
            edits.push(start..start.saturating_add(units));
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

/// Of a display matrix (8.3.2.3): where the picture's axes point to. torchcodec, which the reference reads films with, takes no note
/// of mirrors and shows such films upside down; FFmpeg does it as here.
fn orientation(matrix: &[u8]) -> Orientation {
    let value = |at: usize| matrix.get(4 * at..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_be_bytes(*b));
    match [0, 1, 3, 4].map(|at| value(at).signum()) {
        [0, 1, 1, 0] => Orientation::Rotate90FlipH,
        [0, -1, -1, 0] => Orientation::Rotate270FlipH,
        [-1, 0, 0, 1] => Orientation::FlipHorizontal,
        [1, 0, 0, -1] => Orientation::FlipVertical,
        [0, 1, ..] => Orientation::Rotate90,
        [-1, 0, ..] => Orientation::Rotate180,
        [0, -1, ..] => Orientation::Rotate270,
        _ => Orientation::NoTransforms,
    }
}

/// The codec of the first sample entry, and the boxes in it.
fn sample_entry(stsd: &[u8]) -> Result<([u8; 4], &[u8]), Error> {
    let entry = stsd.get(8..).and_then(|entries| boxes(entries).next());
    let entry = entry.ok_or_else(|| damaged("its box `stsd` is empty"))?;
    // Of every video codec first come 78 bytes that the codec's own setup repeats (12.1.3.2).
    Ok((entry.kind, entry.body.get(78..).unwrap_or_default()))
}

/// Whether the first sample entry is of 24, 32 or 64 bits with the highest byte first: it is, unless a box `enda` says otherwise
/// (QuickTime File Format, Sound Sample Descriptions).
fn big_endian(stsd: &[u8]) -> bool {
    let Some(entry) = stsd.get(8..).and_then(|entries| boxes(entries).next()) else { return false };
    if ![b"in24", b"in32", b"fl32", b"fl64"].contains(&&entry.kind) {
        return false;
    }
    // Of version 0 first come 28 bytes, of version 1 another 16.
    let fields = if entry.body.get(8..10) == Some(&[0, 0]) { 28 } else { 44 };
    let inner = entry.body.get(fields..).unwrap_or_default();
    let enda = find(inner, b"wave").and_then(|wave| find(wave, b"enda")).or_else(|| find(inner, b"enda"));
    enda.and_then(|enda| enda.get(1)) != Some(&1)
}

/// How long samples are (`stsz`, 8.7.3.2).
struct Sizes<'a> {
    n: usize,
    /// Of all of them, if it isn't 0.
    size: u32,
    /// Of each of them, if it is.
    each: &'a [u8],
}

impl<'a> Sizes<'a> {
    /// None in files that are all fragments.
    fn read(stbl: &'a [u8]) -> Result<Self, Error> {
        let Some(stsz) = find(stbl, b"stsz") else {
            return match find(stbl, b"stz2") {
                None => Ok(Sizes { n: 0, size: 0, each: &[] }),
                Some(_) => Err(damaged("its sizes are in a box `stz2`, which nobody writes")),
            };
        };
        let mut fields = Fields::new("stsz", stsz);
        fields.version_and_flags()?;
        let size = fields.u32()?;
        let n = if size == 0 { fields.count(4)? } else { fields.u32()? as usize };
        Ok(Sizes { n, size, each: fields.rest() })
    }
}

/// The samples that the tables of a track list; none in files that are all fragments.
fn samples_of_tables(stbl: &[u8]) -> Result<impl Iterator<Item = Result<Sample, Error>> + use<'_>, Error> {
    let Sizes { n, size, each } = Sizes::read(stbl)?;
    let mut durations = runs(stbl, "stts")?.flat_map(repeated);
    let mut offsets = runs(stbl, "ctts")?.flat_map(repeated);
    let mut places = places(stbl)?;
    let mut decoded = 0i64;
    let (mut end_of_last, mut chunk) = (0, u64::MAX);
    Ok((0..n).map(move |index| {
        let len = if size == 0 { word(each.get(4 * index..).unwrap_or_default()) } else { size };
        let duration = durations.next().unwrap_or(0);
        // Version 0 says unsigned and means signed (`mov_read_ctts`).
        let offset = offsets.next().unwrap_or(0) as i32;
        let place = places.next().ok_or_else(|| damaged(&format!("its box `stsc` places {index} of {n} samples")))?;
        let start = if place == chunk { end_of_last } else { place };
        chunk = place;
        let sample = Sample { start, len, shown: decoded.saturating_add(offset.into()), duration };
        end_of_last = start.saturating_add(len.into());
        decoded = decoded.saturating_add(duration.into());
        Ok(sample)
    }))
}

/// Whether so many samples are taken.
fn check_count(n: usize) -> Result<(), Error> {
    Error::within("video", (n as u64, "frames"), MAX_VIDEO_FRAMES, "cut it first")
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

/// A table of runs, `stts` or `ctts`: how many samples have a value, and the value. Empty without the table.
fn runs<'a>(stbl: &'a [u8], name: &'static str) -> Result<impl Iterator<Item = (u32, u32)> + use<'a>, Error> {
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
    Ok(entries.chunks_exact(8).map(|run| (word(run), word(&run[4..]))))
}

fn repeated((count, value): (u32, u32)) -> impl Iterator<Item = u32> {
    std::iter::repeat_n(value, count as usize)
}

/// Of each sample, where its chunk begins (`stco` or `co64`, `stsc`, 8.7.4 and 8.7.5).
fn places(stbl: &[u8]) -> Result<impl Iterator<Item = u64> + use<'_>, Error> {
    let (name, width, body) = match (find(stbl, b"stco"), find(stbl, b"co64")) {
        (Some(stco), _) => ("stco", 4, stco),
        (_, Some(co64)) => ("co64", 8, co64),
        _ => ("stco", 4, &[0; 8][..]),
    };
    let mut fields = Fields::new(name, body);
    fields.version_and_flags()?;
    let n = fields.count(width)?;
    let chunks = fields.bytes(n * width)?;
    let mut fields = Fields::new("stsc", find(stbl, b"stsc").unwrap_or(&[0; 8]));
    fields.version_and_flags()?;
    let mut runs = Vec::new();
    let mut before = 0;
    for _ in 0..fields.count(12)? {
        let (first, per_chunk) = (fields.u32()? as usize, fields.u32()? as usize);
        fields.u32()?;
        if first <= before {
            return Err(fields.damaged(format!("has chunk {first} behind chunk {before}")));
        }
        if per_chunk == 0 {
            return Err(fields.damaged(format!("has no samples in chunk {first}")));
        }
        before = first;
        runs.push((first - 1, per_chunk));
    }
    let mut left = runs.into_iter().peekable();
    let runs = std::iter::from_fn(move || {
        let (first, per_chunk) = left.next()?;
        Some((first..left.peek().map_or(n, |next| next.0.min(n)), per_chunk))
    });
    let places = runs.flat_map(move |(run, per_chunk)| {
        let chunks = chunks.get(run.start * width..run.end * width).unwrap_or_default();
        let place = |bytes: &[u8]| bytes.iter().fold(0, |place, &byte| place << 8 | u64::from(byte));
        chunks.chunks_exact(width).flat_map(move |chunk| std::iter::repeat_n(place(chunk), per_chunk))
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As FFmpeg turns pictures.
    #[test]
    fn pictures_are_turned_and_mirrored() {
        for (axes, expected) in [
            ([1, 0, 0, 1], Orientation::NoTransforms),
            ([0, 1, -1, 0], Orientation::Rotate90),
            ([-1, 0, 0, -1], Orientation::Rotate180),
            ([0, -1, 1, 0], Orientation::Rotate270),
            ([-1, 0, 0, 1], Orientation::FlipHorizontal),
            ([1, 0, 0, -1], Orientation::FlipVertical),
            ([0, 1, 1, 0], Orientation::Rotate90FlipH),
            ([0, -1, -1, 0], Orientation::Rotate270FlipH),
        ] {
            let [a, b, c, d] = axes.map(|axis| axis << 16);
            let matrix: Vec<u8> =
                [a, b, 0, c, d, 0, 0, 0, 1 << 30].iter().flat_map(|v: &i32| v.to_be_bytes()).collect();
            assert_eq!(orientation(&matrix), expected, "{axes:?}");
        }
    }
}
