//! A video's format, by its first bytes.

use crate::Error;

/// The formats that can be read.
pub(super) const EXPECTED: &str = "an animated GIF, WebP or PNG";

/// Pictures that move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Animation {
    Gif,
    WebP,
    Png,
}

impl Animation {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Animation::Gif => "GIF",
            Animation::WebP => "WebP",
            Animation::Png => "PNG",
        }
    }
}

/// The format of a video's file.
pub(super) fn of(bytes: &[u8]) -> Result<Animation, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { what: "video", expected: EXPECTED });
    }
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Ok(match bytes {
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => Animation::Gif,
        _ if at(0, b"RIFF") && at(8, b"WEBP") => Animation::WebP,
        _ if at(0, b"\x89PNG\r\n\x1a\n") => Animation::Png,
        _ => {
            let found = format!("the bytes {}", crate::error::first_bytes(bytes));
            return Err(Error::Unknown { what: "video", found, expected: EXPECTED });
        }
    })
}
