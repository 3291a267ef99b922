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

/// The type of sequence parameter sets.
const SEQUENCE: u8 = 7;

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
    /// Pixels of a coded picture, at most.
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
        for set in units.iter().filter(|unit| unit[0] & TYPE == SEQUENCE) {
            let sps = Sps::read(set).ok_or_else(|| damaged(format!("a set in picture {} can't be read", index + 1)))?;
            if sps.pixels > self.setup.pixels {
                return Err(Error::Elsewhere { what: "H.264 whose pictures grow on the way".to_owned() });
            }
        }
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
        let (mut sets, mut sequences) = (Vec::new(), Vec::new());
        for mask in [0x1f, 0xff] {
            for _ in 0..fields.u8()? & mask {
                let len = fields.u16()?;
                let set = fields.bytes(len.into())?;
                if set.first().is_some_and(|first| first & TYPE == SEQUENCE) {
                    sequences.push(set);
                }
                sets.extend(START_CODE.iter().chain(set));
            }
        }
        let read: Option<Vec<Sps>> = sequences.into_iter().map(Sps::read).collect();
        let read = read.ok_or_else(|| fields.damaged("has a sequence parameter set that can't be read"))?;
        let Some(first) = read.first() else {
            return Err(Error::Elsewhere { what: "H.264 that is set up on the way".to_owned() });
        };
        let pixels = read.iter().map(|sps| sps.pixels).max().unwrap_or(0);
        if pixels > MAX_FRAME_PIXELS {
            let what = format!("H.264 with {pixels} pixels in each frame, more than {MAX_FRAME_PIXELS},");
            return Err(Error::Elsewhere { what });
        }
        let colour = first.colour.or_else(|| colour_of_box(boxes)).unwrap_or(Colour::UNSPECIFIED);
        Ok(Setup { length_bytes, sets, pixels, colour })
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

    /// A set of the baseline profile, of so many macroblocks, in a unit.
    fn set(columns: u32, rows: u32) -> Vec<u8> {
        let ue = |value: u32| {
            let code = format!("{:b}", u64::from(value) + 1);
            "0".repeat(code.len() - 1) + &code
        };
        // Its number, the bits of frame numbers, the order of decoding, no reference pictures, no gaps; behind the size frames only,
        // direct, not cropped, no more, the end.
        let bits = [ue(0), ue(0), ue(2), ue(0), "0".into(), ue(columns - 1), ue(rows - 1), "11001".into()].concat();
        let mut unit = vec![0x67, 66, 0, 30];
        for byte in bits.as_bytes().chunks(8) {
            let byte = byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | (bit - b'0') << (7 - at));
            // What would look like a start code doesn't.
            if byte < 4 && unit.ends_with(&[0, 0]) {
                unit.push(3);
            }
            unit.push(byte);
        }
        unit
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(8 + body.len() as u32).to_be_bytes()[..], kind, body].concat()
    }

    /// A setup with these sets.
    fn setup(sets: &[Vec<u8>]) -> Result<Setup, Error> {
        let mut body = vec![1, 66, 0, 30, 0xff, 0xe0 | sets.len() as u8];
        sets.iter().for_each(|set| body.extend([&(set.len() as u16).to_be_bytes()[..], set].concat()));
        body.push(0);
        Setup::read(&boxed(b"avcC", &body))
    }

    #[test]
    fn every_set_is_held_to_the_limits() {
        assert_eq!(setup(&[set(4, 3)]).unwrap().pixels, 12 * 256);
        assert_eq!(setup(&[set(4, 3), set(8, 3)]).unwrap().pixels, 24 * 256);
        for (sets, says) in [
            (vec![set(4, 3), set(1024, 1024)], "268435456 pixels in each frame"),
            (vec![set(u32::MAX, u32::MAX)], "18446744073709551615 pixels in each frame"),
            (vec![], "H.264 that is set up on the way"),
        ] {
            let error = setup(&sets).err().unwrap();
            assert!(matches!(error, Error::Elsewhere { .. }) && error.to_string().contains(says), "{error}");
        }
        assert!(matches!(setup(&[set(4, 3), vec![0x67]]), Err(Error::Damaged { .. })));
        let within = |set: Vec<u8>| {
            let file = [&(set.len() as u32).to_be_bytes()[..], &set].concat();
            let samples = [Sample { start: 0, len: file.len() as u32, shown: 0, duration: 1 }];
            let setup = setup(&[super::tests::set(4, 3)]).unwrap();
            Stream { file: &file, samples: &samples, setup }.unit(0).map(drop)
        };
        assert!(within(set(4, 3)).is_ok());
        assert!(matches!(within(set(5, 3)), Err(Error::Elsewhere { .. })));
    }

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
