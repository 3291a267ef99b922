//! Files to pixels, within limits.

use std::io::Cursor;

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::avif::{self, Still};
use super::{Picture, jpeg, kind, rgb, tiff};
use crate::limits::{MAX_DECODE_BYTES, MAX_PICTURE_BYTES, MAX_PIXELS, MAX_SIDE};
use crate::{Error, guard};

/// The picture in a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF file, told apart by content: the first frame of an animation, turned
/// as the file's orientation says, transparency over white.
pub fn decode(bytes: &[u8]) -> Result<Picture, Error> {
    let format = kind::of(bytes)?;
    let name = kind::name(format);
    check("bytes", bytes.len() as u64, MAX_PICTURE_BYTES as u64)?;
    if format == ImageFormat::Jpeg
        && let Some(why) = jpeg::missing(bytes)
    {
        return Err(Error::Damaged { format: name, why: why.to_owned() });
    }
    guard::guarded(name, || read(bytes, format, name))
}

fn read(bytes: &[u8], format: ImageFormat, name: &'static str) -> Result<Picture, Error> {
    if format == ImageFormat::Avif {
        let Still { width, height, rgb, orientation } = avif::decode(bytes)?;
        return Ok(turned(Picture { width, height, rgb }, orientation));
    }
    let palette = if format == ImageFormat::Tiff { tiff::palette(bytes) } else { None };
    let bytes = palette.as_ref().map_or(bytes, |(_, grey)| grey);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(decoder_limits());
    let mut decoder = reader.into_decoder().map_err(|error| explain(error, name))?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, name)?;
    let orientation = decoder.orientation().map_err(|error| explain(error, name))?;
    let pixels = DynamicImage::from_decoder(decoder).map_err(|error| explain(error, name))?;
    // Turned as RGB, where all kinds are alike.
    let rgb = match palette.and_then(|(palette, _)| palette.look_up(&pixels)) {
        Some(rgb) => rgb,
        None => rgb::from(pixels, name)?,
    };
    Ok(turned(Picture { width: width as usize, height: height as usize, rgb }, orientation))
}

/// A picture as it is to be seen.
pub(crate) fn turned(picture: Picture, orientation: Orientation) -> Picture {
    let Picture { width, height, rgb } = picture;
    let rgb = RgbImage::from_raw(width as u32, height as u32, rgb);
    let mut upright = DynamicImage::from(rgb.expect("a picture has three bytes for each of its pixels"));
    upright.apply_orientation(orientation);
    Picture { width: upright.width() as usize, height: upright.height() as usize, rgb: upright.into_bytes() }
}

/// What every decoder of pictures is held to.
pub(crate) fn decoder_limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    limits
}

/// Whether a picture of a file that claims this size may be decoded.
pub(crate) fn check_pixels(width: u32, height: u32, format: &'static str) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::Damaged { format, why: format!("it is {width} pixels wide and {height} high") });
    }
    check("pixels in width", width.into(), MAX_SIDE.into())?;
    check("pixels in height", height.into(), MAX_SIDE.into())?;
    check("pixels", u64::from(width) * u64::from(height), MAX_PIXELS)
}

pub(super) fn check(unit: &'static str, found: u64, limit: u64) -> Result<(), Error> {
    Error::within("picture", (found, unit), limit, "make it smaller first")
}

/// What a decoder said, as one of our errors.
pub(crate) fn explain(error: ImageError, format: &'static str) -> Error {
    match error {
        ImageError::Unsupported(error) => Error::Unsupported {
            what: format!("this kind of {format}"),
            why: format!("{error}; save it as an ordinary PNG or JPEG"),
        },
        ImageError::Limits(error) => {
            let why = match error.kind() {
                LimitErrorKind::DimensionError => format!("a side has more than {MAX_SIDE} pixels"),
                _ => format!("decoding it takes more than {MAX_DECODE_BYTES} bytes"),
            };
            Error::Unsupported { what: format!("a {format} this large"), why: format!("{why}; make it smaller first") }
        }
        error => Error::Damaged { format, why: error.to_string() },
    }
}
