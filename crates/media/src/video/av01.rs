//! AV1 in MP4: decodes what the wanted pictures depend on.
//!
//! Decoding begins at the last key frame before a wanted picture. Pictures are stored in the order in which they are shown. Source:
//! AV1 Codec ISO Media File Format Binding, 2.3 and 2.4.

use std::collections::BTreeMap;

use super::FRAMES;
use super::colour::{self, Colour};
use super::h264::sample;
use crate::Error;
use crate::av1::{self, Layout, Meaning, Planes, Shown, Stream};
use crate::boxes::{Fields, find};
use crate::limits::{MAX_FRAME_PIXELS, MAX_VIDEO_PIXELS};
use crate::mp4::Track;
use crate::picture::{Budget, Fitted, Picture, turned};

/// The pictures with these numbers among those that are shown.
pub(super) fn decode(file: &[u8], track: &Track, numbers: &[usize]) -> Result<Vec<Fitted>, Error> {
    let mut seen = BTreeMap::new();
    visit(file, track, numbers, &mut |index, shown| {
        let (planes, meaning) = shown.planes().map_err(damaged)?;
        let picture = turned(picture(&planes, meaning)?, track.orientation);
        seen.insert(index, Fitted::new(&picture, Budget::FRAME));
        Ok(())
    })?;
    let of_number = |&number: &usize| seen.get(&track.shown[number]).cloned();
    numbers.iter().map(of_number).collect::<Option<_>>().ok_or_else(|| damaged("pictures are missing".to_owned()))
}

/// Shows the pictures with these numbers to `see`, in order.
fn visit(
    file: &[u8],
    track: &Track,
    numbers: &[usize],
    see: &mut dyn FnMut(usize, &Shown) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut wanted: Vec<usize> = numbers.iter().map(|&number| track.shown[number]).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let config = config(&track.setup)?;
    let (mut next, mut work) = (0, 0u64);
    let mut stream = None;
    for index in wanted {
        // From the last key frame on, if that is not behind us.
        let mut start = index;
        while start > next && !av1::is_key(sample(file, &track.samples, start)?) {
            start -= 1;
        }
        if stream.is_none() || av1::is_key(sample(file, &track.samples, start)?) {
            let mut fresh = Stream::new(MAX_FRAME_PIXELS).map_err(damaged)?;
            if !config.is_empty() {
                fresh.decode(config).map_err(damaged)?;
            }
            stream = Some(fresh);
        }
        let Some(stream) = &mut stream else { continue };
        for at in start..=index {
            let unit = sample(file, &track.samples, at)?;
            let explain = |why: String| damaged(format!("picture {}: {why}", at + 1));
            let shown = stream.decode(unit).map_err(explain)?;
            let shown = shown.ok_or_else(|| explain("nothing is shown".to_owned()))?;
            work = work.saturating_add(shown.pixels().saturating_mul(av1::frames(unit) as u64));
            if work > MAX_VIDEO_PIXELS {
                let what = format!(
                    "AV1 with so few key pictures that {work} pixels and more must be decoded for {FRAMES} frames"
                );
                return Err(Error::Elsewhere { what });
            }
            if at == index {
                see(at, &shown)?;
            }
        }
        next = index + 1;
    }
    Ok(())
}

/// What the sample entry says of the stream, as units of it.
fn config(setup: &[u8]) -> Result<&[u8], Error> {
    let av1c = find(setup, b"av1C").ok_or_else(|| damaged("its sample entry has no box `av1C`".to_owned()))?;
    let mut fields = Fields::new("av1C", av1c);
    fields.bytes(4)?;
    Ok(fields.rest())
}

fn picture(planes: &Planes, meaning: Meaning) -> Result<Picture, Error> {
    let Planes { width, height, depth, layout, planes: [y, u, v] } = planes;
    if (*depth, *layout) != (8, Layout::Quarter) {
        return Err(Error::Elsewhere { what: format!("AV1 of {depth} bits, {}, in MP4", layout.name()) });
    }
    let [y, u, v] = [y, u, v].map(|plane| plane.iter().map(|&value| value as u8).collect::<Vec<_>>());
    let colour = Colour { matrix: meaning.matrix, full_range: meaning.full_range };
    let rgb = colour::rgb(&colour::Planes { width: *width, height: *height, y: &y, u: &u, v: &v }, colour);
    let rgb = rgb.ok_or_else(|| damaged(format!("a picture of {width} × {height} is incomplete")))?;
    Ok(Picture { width: *width, height: *height, rgb })
}

fn damaged(why: String) -> Error {
    Error::Damaged { format: "AV1", why }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::mp4;
    use crate::video::indices;

    /// What FFmpeg decodes, bit by bit (`fixtures/media/make_av1.py`).
    #[test]
    fn decoded_pictures_are_ffmpeg_s() {
        let media = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media");
        let rows = std::fs::read(media.join("av1.json")).unwrap();
        for row in serde_json::from_slice::<Vec<serde_json::Value>>(&rows).unwrap() {
            let (name, expected) = (row["file"].as_str().unwrap(), row["yuv_sha256"].as_str().unwrap());
            let file = std::fs::read(media.join("videos").join(name)).unwrap();
            let track = mp4::track(&file).unwrap();
            assert_eq!(track.shown.len() as u64, row["shown"], "{name}");
            let numbers: Vec<usize> = indices(track.shown.len()).collect();
            let mut sha = Sha256::new();
            visit(&file, &track, &numbers, &mut |_, shown| {
                let (planes, _) = shown.planes().unwrap();
                let values = planes.planes.iter().flatten().map(|&value| value as u8);
                sha.update(values.collect::<Vec<u8>>());
                Ok(())
            })
            .unwrap();
            let found: String = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
