//! A sound's container, by its first bytes.

use crate::{Error, mp4};

/// The formats that can be read.
pub(super) const EXPECTED: &str =
    "WAV, AIFF, FLAC, MP3, OGG with Vorbis or Opus, or AAC as such, and these in M4A or WebM";

/// What holds the coded sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Wav,
    Aiff,
    Flac,
    Ogg,
    Mp4,
    Matroska,
    Mp3,
    Adts,
}

impl Container {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Container::Wav => "WAV",
            Container::Aiff => "AIFF",
            Container::Flac => "FLAC",
            Container::Ogg => "OGG",
            Container::Mp4 => "M4A",
            Container::Matroska => "Matroska",
            Container::Mp3 => "MP3",
            Container::Adts => "AAC",
        }
    }
}

/// What people try besides.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0, b"RF64", "RF64"),
    (0, b"RIFX", "RIFX"),
    (0, b"caff", "CAF"),
    (0, b"#!AMR", "AMR"),
    (0, b".snd", "AU"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"MThd", "MIDI, which has notes and no sound"),
    (8, b"AVI ", "AVI (a video)"),
    (8, b"WEBP", "WebP (a picture)"),
    (0, b"\x89PNG", "PNG (a picture)"),
    (0, b"\xff\xd8\xff", "JPEG (a picture)"),
];

/// The container of a sound's file, and the bytes behind tags that stand before it.
pub(super) fn of(bytes: &[u8]) -> Result<(Container, &[u8]), Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { what: "sound", expected: EXPECTED });
    }
    let body = behind_id3(bytes);
    match container(body) {
        Some(container) => Ok((container, body)),
        None => Err(Error::Unknown { what: "sound", found: describe(bytes, body), expected: EXPECTED }),
    }
}

fn container(bytes: &[u8]) -> Option<Container> {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Some(match bytes {
        _ if at(0, b"RIFF") && at(8, b"WAVE") => Container::Wav,
        _ if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => Container::Aiff,
        _ if at(0, b"fLaC") => Container::Flac,
        _ if at(0, b"OggS") => Container::Ogg,
        _ if mp4::begins(bytes) => Container::Mp4,
        _ if at(0, b"\x1a\x45\xdf\xa3") => Container::Matroska,
        // A frame's sync, version and layer (ISO 11172-3, 2.4.1.3); layer 0 is ADTS's (ISO 13818-7, 6.2).
        [0xff, flags, ..] if flags & 0xf6 == 0xf0 => Container::Adts,
        [0xff, flags, ..] if flags & 0xe0 == 0xe0 && flags & 0x18 != 0x08 && flags & 0x06 != 0 => Container::Mp3,
        _ => return None,
    })
}

/// Skips ID3v2 tags: ten bytes whose last four say, seven bits each, how many follow.
fn behind_id3(mut bytes: &[u8]) -> &[u8] {
    while let [b'I', b'D', b'3', _, _, flags, size @ ..] = bytes
        && let Some(size) = size.first_chunk::<4>()
    {
        let len = size.iter().fold(0, |len, &byte| len << 7 | usize::from(byte & 0x7f));
        let footer = if flags & 0x10 != 0 { 10 } else { 0 };
        bytes = bytes.get(10 + len + footer..).unwrap_or_default();
    }
    bytes
}

fn describe(bytes: &[u8], body: &[u8]) -> String {
    if body.is_empty() {
        return "tags that nothing follows".to_owned();
    }
    let known = FOREIGN.iter().find(|(at, magic, _)| body.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    match known {
        Some((.., name)) => (*name).to_owned(),
        None => format!("the bytes {}", crate::error::first_bytes(bytes)),
    }
}
