//! Pictures that move: GIF, WebP and PNG with several frames.
//!
//! How many frames there are only decoding tells, so a file is decoded twice: once to count them and to add up their
//! times, once to keep those that are seen.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageError};

use super::kind::Animation;
use super::{Shot, indices};
use crate::limits::{MAX_VIDEO_FRAMES, MAX_VIDEO_PIXELS};
use crate::picture::{Picture, check_pixels, decoder_limits, explain, over_white};
use crate::{Error, guard};

/// What a GIF's frame takes if it says less than [`SHORTEST`], in seconds: players never believed such times
/// (`GIF_DEFAULT_DELAY` and `GIF_MIN_DELAY` in FFmpeg's `libavformat/gifdec.c`).
const USUAL: f64 = 0.1;

/// See [`USUAL`].
const SHORTEST: f64 = 0.02;

/// The frames that are seen.
pub(super) fn decode(bytes: &[u8], kind: Animation) -> Result<Vec<Shot>, Error> {
    guard::guarded(kind.name(), || {
        let starts = starts(bytes, kind)?;
        let mut wanted = indices(starts.len()).peekable();
        let mut shots = Vec::with_capacity(wanted.len());
        for (index, frame) in frames(bytes, kind)?.enumerate() {
            if wanted.peek().is_none() {
                break;
            }
            let frame = frame.map_err(|error| explain(error, kind.name()))?;
            if wanted.next_if_eq(&index).is_some() {
                let (width, height) = frame.buffer().dimensions();
                let rgb = over_white(DynamicImage::from(frame.into_buffer()), kind.name())?;
                let picture = Picture { width: width as usize, height: height as usize, rgb };
                shots.push(Shot::new(starts[index], &picture));
            }
        }
        Ok(shots)
    })
}

/// When each frame is shown, in seconds.
fn starts(bytes: &[u8], kind: Animation) -> Result<Vec<f64>, Error> {
    if kind == Animation::Gif {
        let areas = gif_frames(bytes).map(|(width, height)| u64::from(width) * u64::from(height));
        check("pixels in all frames", areas.fold(0, u64::saturating_add), MAX_VIDEO_PIXELS)?;
    }
    let (mut starts, mut now, mut pixels) = (Vec::new(), 0.0, 0);
    for frame in frames(bytes, kind)? {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Err(after(starts.len(), error, kind)),
        };
        pixels += frame.buffer().pixels().len() as u64;
        starts.push(now);
        check("frames", starts.len() as u64, MAX_VIDEO_FRAMES)?;
        check("pixels in all frames", pixels, MAX_VIDEO_PIXELS)?;
        let (ms, parts) = frame.delay().numer_denom_ms();
        let seconds = f64::from(ms) / f64::from(parts.max(1)) / 1000.0;
        now += if kind == Animation::Gif && seconds < SHORTEST { USUAL } else { seconds };
    }
    if starts.is_empty() {
        return Err(Error::Damaged { format: kind.name(), why: "it has no frames".to_owned() });
    }
    Ok(starts)
}

/// Width and height of a GIF's frames, which may be larger than its screen, as far as it makes sense. Source: GIF89a, 18 to 25.
fn gif_frames(bytes: &[u8]) -> impl Iterator<Item = (u16, u16)> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 6 << (flags & 7) };
    let mut rest = bytes.get(13 + bytes.get(10).map_or(0, |&flags| table(flags))..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            // Behind a frame's description there may be colours, and there is the width of its codes.
            let (frame, blocks) = match rest {
                [0x2c, _, _, _, _, w, w2, h, h2, flags, ..] => {
                    (Some((u16::from_le_bytes([*w, *w2]), u16::from_le_bytes([*h, *h2]))), 11 + table(*flags))
                }
                [0x21, ..] => (None, 2),
                _ => return None,
            };
            rest = rest.get(blocks..).unwrap_or_default();
            while let Some((&len, blocks)) = rest.split_first().filter(|(len, _)| **len > 0) {
                rest = blocks.get(usize::from(len)..).unwrap_or_default();
            }
            rest = rest.get(1..).unwrap_or_default();
            if frame.is_some() {
                return frame;
            }
        }
    })
}

/// What a decoder said of the frame after `n` good ones.
fn after(n: usize, error: ImageError, kind: Animation) -> Error {
    match explain(error, kind.name()) {
        Error::Damaged { format, why } => Error::Damaged { format, why: format!("frame {}: {why}", n + 1) },
        other => other,
    }
}

fn frames(bytes: &[u8], kind: Animation) -> Result<Frames<'_>, Error> {
    let explain = |error| explain(error, kind.name());
    let (file, still) = (Cursor::new(bytes), || Error::Unsupported {
        what: format!("a {} without frames", kind.name()),
        why: "it is a picture and doesn't move; show it with --image".to_owned(),
    });
    match kind {
        Animation::Gif => {
            let mut decoder = GifDecoder::new(file).map_err(explain)?;
            check_size(&mut decoder, kind)?;
            Ok(decoder.into_frames())
        }
        Animation::WebP => {
            let mut decoder = WebPDecoder::new(file).map_err(explain)?;
            check_size(&mut decoder, kind)?;
            if decoder.has_animation() { Ok(decoder.into_frames()) } else { Err(still()) }
        }
        Animation::Png => {
            let mut decoder = PngDecoder::with_limits(file, decoder_limits()).map_err(explain)?;
            check_size(&mut decoder, kind)?;
            if !decoder.is_apng().map_err(explain)? {
                return Err(still());
            }
            Ok(decoder.apng().map_err(explain)?.into_frames())
        }
    }
}

/// Checks the size before anything is decoded.
fn check_size(decoder: &mut impl ImageDecoder, kind: Animation) -> Result<(), Error> {
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, kind.name())?;
    decoder.set_limits(decoder_limits()).map_err(|error| explain(error, kind.name()))
}

fn check(unit: &'static str, found: u64, limit: u64) -> Result<(), Error> {
    Error::within("video", (found, unit), limit, "cut it or make it smaller first")
}
