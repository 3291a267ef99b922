//! A picture's format, by its first bytes.

use image::ImageFormat;

use crate::Error;

/// The formats that can be read.
pub(super) const EXPECTED: &str = "JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF";

/// `offset`, the bytes found there, and what they say.
const KNOWN: &[(usize, &[u8], ImageFormat)] = &[
    (0, b"\xff\xd8\xff", ImageFormat::Jpeg),
    (0, b"\x89PNG\r\n\x1a\n", ImageFormat::Png),
    (8, b"WEBP", ImageFormat::WebP),
    (0, b"GIF87a", ImageFormat::Gif),
    (0, b"GIF89a", ImageFormat::Gif),
    (0, b"BM", ImageFormat::Bmp),
    (0, b"II*\0", ImageFormat::Tiff),
    (0, b"MM\0*", ImageFormat::Tiff),
    (0, b"II+\0", ImageFormat::Tiff),
    (0, b"MM\0+", ImageFormat::Tiff),
];

/// What people try besides.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftyp", "MP4 (a video)"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "HTML"),
    (0, b"<html", "HTML"),
    (8, b"WAVE", "WAV (a sound)"),
];

/// The format of a picture's file.
pub(super) fn of(bytes: &[u8]) -> Result<ImageFormat, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { what: "picture", expected: EXPECTED });
    }
    let starts = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((.., format)) = KNOWN.iter().find(|(at, magic, _)| starts(*at, magic)) {
        return Ok(*format);
    }
    if is_avif(bytes) {
        return Ok(ImageFormat::Avif);
    }
    let found = match FOREIGN.iter().find(|(at, magic, _)| starts(*at, magic)) {
        Some((.., name)) => (*name).to_owned(),
        None => format!("the bytes {}", crate::error::first_bytes(bytes)),
    };
    Err(Error::Unknown { what: "picture", found, expected: EXPECTED })
}

/// Whether a file names AVIF among the brands that it keeps to; the first of them may be another.
fn is_avif(bytes: &[u8]) -> bool {
    let Some((size, [b'f', b't', b'y', b'p', brands @ ..])) = bytes.split_first_chunk::<4>() else { return false };
    let brands = brands.get(..(u32::from_be_bytes(*size) as usize).saturating_sub(8)).unwrap_or(brands);
    // After the first, a version.
    let mut brands = brands.chunks_exact(4).enumerate().filter(|(index, _)| *index != 1);
    brands.any(|(_, brand)| matches!(brand, b"avif" | b"avis"))
}

/// A format's name in messages.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Avif => "AVIF",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        _ => "TIFF",
    }
}
