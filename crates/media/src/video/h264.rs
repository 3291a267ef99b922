//! H.264 in MP4: decodes what the wanted pictures depend on, and nothing else.
//!
//! Decoding begins at the last key picture before a wanted one; pictures that no other needs are left out. The stream in a file
//! has lengths before its units, the decoder wants start codes. Source: ISO/IEC 14496-15, 5.3.3 and 5.3.4.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rusty_h264_common::YuvFrame;
use rusty_h264_decoder::{DecodeError, Decoder};

use super::FRAMES;
use super::colour::{Colour, Planes, rgb};
use super::sps::Sps;
use crate::Error;
use crate::boxes::{Fields, find};
use crate::limits::{MAX_FRAME_PIXELS, MAX_VIDEO_PIXELS};
use crate::mp4::{Sample, Track};
use crate::picture::{Budget, Fitted, Picture, turned};

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Of a unit's first byte, its type (7.4.1).
const TYPE: u8 = 0x1f;

/// The type of a key picture's slices.
const KEY_SLICE: u8 = 5;

/// Of a unit's first byte, whether other pictures need it.
const NEEDED: u8 = 0x60;

/// How the stream is set up.
struct Setup {
    /// Bytes of the lengths before units.
    length_bytes: usize,
    /// The parameter sets, with start codes.
    sets: Vec<u8>,
    /// Pixels of a coded picture.
    pixels: u64,
    colour: Colour,
}

/// The pictures with these numbers among those that are shown.
pub(super) fn decode(file: &[u8], track: &Track, numbers: &[usize]) -> Result<Vec<Fitted>, Error> {
    let wanted = numbers.iter().map(|&number| track.shown[number]).collect();
    let mut seen = BTreeMap::new();
    visit(file, track, &wanted, &mut |index, frame, colour| {
        let picture = turned(picture(frame, colour)?, track.orientation);
        seen.insert(index, Fitted::new(&picture, Budget::FRAME));
        Ok(())
    })?;
    let of_number = |&number: &usize| seen.get(&track.shown[number]).cloned();
    numbers.iter().map(of_number).collect::<Option<_>>().ok_or_else(|| damaged("pictures are missing".to_owned()))
}

/// Shows the wanted samples' pictures to `see`, in decoding order.
fn visit(
    file: &[u8],
    track: &Track,
    wanted: &BTreeSet<usize>,
    see: &mut dyn FnMut(usize, &YuvFrame, Colour) -> Result<(), Error>,
) -> Result<(), Error> {
    let stream = Stream { file, samples: &track.samples, setup: Setup::read(&track.setup)? };
    for run in stream.runs(wanted)? {
        let mut decoder = Decoder::new();
        decoder.decode(&stream.setup.sets).map_err(|error| explain(error, run.start))?;
        for index in run {
            let wanted = wanted.contains(&index);
            let (unit, needed) = stream.unit(index)?;
            if !wanted && !needed {
                continue;
            }
            let frame = decoder.decode(&unit).map_err(|error| explain(error, index))?;
            if wanted {
                let frame = frame.ok_or_else(|| damaged(format!("picture {} is not complete", index + 1)))?;
                see(index, &frame, stream.setup.colour)?;
            }
        }
    }
    Ok(())
}

/// A track's coded pictures.
struct Stream<'a> {
    file: &'a [u8],
    samples: &'a [Sample],
    setup: Setup,
}

impl Stream<'_> {
    /// The samples to be gone through, each run from a key picture on.
    fn runs(&self, wanted: &BTreeSet<usize>) -> Result<Vec<Range<usize>>, Error> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for &index in wanted {
            let next = runs.last().map_or(0, |run| run.end);
            let mut start = index;
            while start > next && !self.is_key(start)? {
                start -= 1;
            }
            match runs.last_mut() {
                Some(run) if start == next && !self.is_key(start)? => run.end = index + 1,
                _ => runs.push(start..index + 1),
            }
        }
        let work = runs.iter().map(|run| run.len() as u64).sum::<u64>().saturating_mul(self.setup.pixels);
        if work > MAX_VIDEO_PIXELS {
            let what = format!("H.264 with so few key pictures that {work} pixels must be decoded for {FRAMES} frames");
            return Err(Error::Elsewhere { what });
        }
        Ok(runs)
    }

    /// The units of a sample, none of them empty.
    fn units(&self, index: usize) -> Result<Vec<&[u8]>, Error> {
        let mut rest = sample(self.file, self.samples, index)?;
        let mut units = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_at_checked(self.setup.length_bytes).unwrap_or((rest, &[]));
            let length = length.iter().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
            let Some((unit, behind)) = behind.split_at_checked(length) else {
                return Err(damaged(format!(
                    "a part of picture {} claims {length} bytes, of {}",
                    index + 1,
                    behind.len()
                )));
            };
            units.push(unit);
            rest = behind;
        }
        units.retain(|unit| !unit.is_empty());
        Ok(units)
    }

    /// Whether decoding may begin at a sample.
    fn is_key(&self, index: usize) -> Result<bool, Error> {
        Ok(self.units(index)?.iter().any(|unit| unit[0] & TYPE == KEY_SLICE))
    }

    /// A sample as the decoder wants it, and whether other pictures need it.
    fn unit(&self, index: usize) -> Result<(Vec<u8>, bool), Error> {
        let units = self.units(index)?;
        let needed = units.iter().any(|unit| unit[0] & NEEDED != 0);
        Ok((units.iter().flat_map(|unit| START_CODE.iter().chain(*unit).copied()).collect(), needed))
    }
}

/// The bytes of a picture.
pub(super) fn sample<'a>(file: &'a [u8], samples: &[Sample], index: usize) -> Result<&'a [u8], Error> {
    let sample = samples[index];
    sample.of(file).ok_or_else(|| {
        let (end, of) = (sample.start.saturating_add(sample.len.into()), file.len());
        let why = format!("picture {} ends at byte {end}, and the file has {of}: it was cut off", index + 1);
        Error::Damaged { format: "MP4", why }
    })
}

impl Setup {
    /// Of a sample entry's boxes.
    fn read(boxes: &[u8]) -> Result<Self, Error> {
        let avcc = find(boxes, b"avcC");
        let avcc = avcc.ok_or_else(|| damaged("its sample entry has no box `avcC`".to_owned()))?;
        let mut fields = Fields::new("avcC", avcc);
        fields.bytes(4)?;
        let length_bytes = usize::from(fields.u8()? & 3) + 1;
        let (mut sets, mut first) = (Vec::new(), None);
        for mask in [0x1f, 0xff] {
            for _ in 0..fields.u8()? & mask {
                let len = fields.u16()?;
                let set = fields.bytes(len.into())?;
                first.get_or_insert(set);
                sets.extend(START_CODE.iter().chain(set));
            }
        }
        let sps = first.and_then(Sps::read);
        let sps = sps.ok_or_else(|| fields.damaged("has no sequence parameter set that can be read"))?;
        if sps.pixels > MAX_FRAME_PIXELS {
            let what = format!("H.264 with {} pixels in each frame, more than {MAX_FRAME_PIXELS},", sps.pixels);
            return Err(Error::Elsewhere { what });
        }
        let colour = sps.colour.or_else(|| colour_of_box(boxes)).unwrap_or(Colour::UNSPECIFIED);
        Ok(Setup { length_bytes, sets, pixels: sps.pixels, colour })
    }
}

/// What the container says where the stream doesn't (ISO/IEC 14496-12, 12.1.5).
fn colour_of_box(boxes: &[u8]) -> Option<Colour> {
    let mut fields = Fields::new("colr", find(boxes, b"colr")?);
    let kind = fields.bytes(4).ok()?;
    fields.bytes(4).ok()?;
    let matrix = fields.u16().ok()?;
    match kind {
        b"nclx" => Some(Colour { matrix, full_range: fields.u8().ok()? & 0x80 != 0 }),
        b"nclc" => Some(Colour { matrix, full_range: false }),
        _ => None,
    }
}

fn picture(frame: &YuvFrame, colour: Colour) -> Result<Picture, Error> {
    let YuvFrame { width, height, y, u, v } = frame;
    let planes = Planes { width: *width, height: *height, y, u, v };
    let rgb = rgb(&planes, colour).ok_or_else(|| damaged(format!("a picture of {width} × {height} is incomplete")))?;
    Ok(Picture { width: *width, height: *height, rgb })
}

fn damaged(why: String) -> Error {
    Error::Damaged { format: "H.264", why }
}

/// What the decoder said of a sample.
fn explain(error: DecodeError, index: usize) -> Error {
    match error {
        DecodeError::Unsupported(tool) => Error::Elsewhere { what: format!("H.264 with {tool}") },
        other => damaged(format!("picture {}: {other}", index + 1)),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::mp4;
    use crate::video::indices;

    /// What FFmpeg decodes, bit by bit (`fixtures/media/make_clips.py`).
    #[test]
    fn decoded_pictures_are_ffmpeg_s() {
        let media = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media");
        let rows = std::fs::read(media.join("clips.json")).unwrap();
        for row in serde_json::from_slice::<Vec<serde_json::Value>>(&rows).unwrap() {
            let (name, expected) = (row["file"].as_str().unwrap(), row["yuv_sha256"].as_str().unwrap());
            let file = std::fs::read(media.join("videos").join(name)).unwrap();
            let track = mp4::track(&file).unwrap();
            let numbers: Vec<usize> = indices(track.shown.len()).collect();
            let mut frames = BTreeMap::new();
            let wanted = numbers.iter().map(|&number| track.shown[number]).collect();
            visit(&file, &track, &wanted, &mut |index, frame, _| {
                frames.insert(index, frame.clone());
                Ok(())
            })
            .unwrap();
            let mut sha = Sha256::new();
            for frame in numbers.iter().map(|&number| &frames[&track.shown[number]]) {
                [&frame.y, &frame.u, &frame.v].iter().for_each(|plane| sha.update(plane));
            }
            let found: String = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
