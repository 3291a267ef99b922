//! A video's format, by its first bytes, and the names of what only others decode.

use crate::{Error, mp4};

/// The formats that can be read.
pub(super) const EXPECTED: &str = "MP4, an animated GIF, WebP or PNG";

/// What is decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Animation(Animation),
    Mp4,
}

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

/// Codecs by what MP4 calls them, Matroska and AVI.
const CODECS: &[(&str, &str)] = &[
    ("avc1", "H.264"),
    ("H264", "H.264"),
    ("h264", "H.264"),
    ("V_MPEG4/ISO/AVC", "H.264"),
    ("hvc1", "H.265 (HEVC)"),
    ("hev1", "H.265 (HEVC)"),
    ("V_MPEGH/ISO/HEVC", "H.265 (HEVC)"),
    ("dvh1", "Dolby Vision"),
    ("dvhe", "Dolby Vision"),
    ("av01", "AV1"),
    ("V_AV1", "AV1"),
    ("vp08", "VP8"),
    ("V_VP8", "VP8"),
    ("vp09", "VP9"),
    ("V_VP9", "VP9"),
    ("mp4v", "MPEG-4 Part 2"),
    ("XVID", "MPEG-4 Part 2"),
    ("FMP4", "MPEG-4 Part 2"),
    ("DIVX", "MPEG-4 Part 2"),
    ("DX50", "MPEG-4 Part 2"),
    ("V_MPEG4/ISO/ASP", "MPEG-4 Part 2"),
    ("V_MPEG2", "MPEG-2"),
    ("V_MPEG1", "MPEG-1"),
    ("V_THEORA", "Theora"),
    ("s263", "H.263"),
    ("h263", "H.263"),
    ("MJPG", "Motion JPEG"),
    ("jpeg", "Motion JPEG"),
    ("mjpa", "Motion JPEG"),
    ("mjpb", "Motion JPEG"),
    ("apcn", "ProRes"),
    ("apch", "ProRes"),
    ("apcs", "ProRes"),
    ("apco", "ProRes"),
    ("ap4h", "ProRes"),
    ("ap4x", "ProRes"),
    ("encv", "encrypted video"),
];

/// Containers that are known by name alone.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0, b"FLV\x01", "a Flash video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media video"),
    (0, b"\0\0\x01\xba", "an MPEG program stream"),
    (0, b"\0\0\x01\xb3", "an MPEG video stream"),
    (0, b"\0\0\0\x01\x67", "an H.264 stream without a container"),
    (0, b"\x47\x40", "an MPEG transport stream"),
    (0, b"\x47\x41", "an MPEG transport stream"),
    (0, b"OggS", "an Ogg video"),
];

/// The format of a video's file.
pub(super) fn of(bytes: &[u8]) -> Result<Kind, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { what: "video", expected: EXPECTED });
    }
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let elsewhere = |what: String| Err(Error::Elsewhere { what });
    match bytes {
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => Ok(Kind::Animation(Animation::Gif)),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => Ok(Kind::Animation(Animation::WebP)),
        _ if at(0, b"\x89PNG\r\n\x1a\n") => Ok(Kind::Animation(Animation::Png)),
        _ if mp4::begins(bytes) => Ok(Kind::Mp4),
        _ if at(0, b"\x1a\x45\xdf\xa3") => elsewhere(match matroska_codec(bytes) {
            Some(codec) => format!("{} in Matroska or WebM", name(codec)),
            None => "a Matroska or WebM video".to_owned(),
        }),
        _ if at(0, b"RIFF") && at(8, b"AVI ") => elsewhere(match avi_codec(bytes) {
            Some(codec) => format!("{} in AVI", name(codec)),
            None => "an AVI video".to_owned(),
        }),
        _ => {
            if let Some((.., name)) = FOREIGN.iter().find(|(offset, magic, _)| at(*offset, magic)) {
                return elsewhere((*name).to_owned());
            }
            let found = format!("the bytes {}", crate::error::first_bytes(bytes));
            Err(Error::Unknown { what: "video", found, expected: EXPECTED })
        }
    }
}

/// A codec's name, where MP4 calls it so.
pub(super) fn of_fourcc(fourcc: [u8; 4]) -> String {
    name(&String::from_utf8_lossy(&fourcc))
}

fn name(codec: &str) -> String {
    match CODECS.iter().find(|(id, _)| *id == codec) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("the codec `{}`", codec.escape_default()),
    }
}

/// The first video codec in a Matroska file: elements in elements, each an id, a length and a body (RFC 8794).
fn matroska_codec(bytes: &[u8]) -> Option<&str> {
    const SEGMENT: u64 = 0x1853_8067;
    const TRACKS: u64 = 0x1654_ae6b;
    const TRACK: u64 = 0xae;
    const CODEC: u64 = 0x86;
    let segment = elements(bytes).find(|(id, _)| *id == SEGMENT)?.1;
    let tracks = elements(segment).find(|(id, _)| *id == TRACKS)?.1;
    let codecs = elements(tracks).filter(|(id, _)| *id == TRACK).flat_map(|(_, track)| elements(track));
    let mut codecs = codecs.filter(|(id, _)| *id == CODEC).filter_map(|(_, codec)| std::str::from_utf8(codec).ok());
    codecs.find(|codec| codec.starts_with("V_"))
}

/// The elements in `bytes`; one that is cut off or of unknown length goes to the end.
fn elements(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let id_len = bytes.first()?.leading_zeros() as usize + 1;
        let id = bytes.get(..id_len.min(4))?.iter().fold(0, |id, &byte| id << 8 | u64::from(byte));
        let rest = bytes.get(id_len..)?;
        let first = *rest.first()?;
        let size_len = first.leading_zeros() as usize + 1;
        let marked = rest.get(..size_len.min(8))?.iter().fold(0u64, |size, &byte| size << 8 | u64::from(byte));
        let most = (1u64 << (7 * size_len.min(8))) - 1;
        let size = marked & most;
        let body = rest.get(size_len..)?;
        let size = if size == most { usize::MAX } else { usize::try_from(size).unwrap_or(usize::MAX) };
        let (body, behind) = body.split_at(size.min(body.len()));
        bytes = behind;
        Some((id, body))
    })
}

/// The codec of the first video stream of an AVI file: four letters behind `vids` in its header.
fn avi_codec(bytes: &[u8]) -> Option<&str> {
    const HEADER: usize = 4096;
    let header = &bytes[..bytes.len().min(HEADER)];
    let at = header.windows(4).position(|window| window == b"vids")?;
    std::str::from_utf8(header.get(at + 4..at + 8)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matroska_says_its_codec() {
        // A header, and a segment of unknown length with tracks of sound and video.
        let mut file = b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff".to_vec();
        let track = |codec: &[u8]| [&[0xae, 0x82 + codec.len() as u8, 0x86, 0x80 + codec.len() as u8], codec].concat();
        let tracks = [track(b"A_OPUS"), track(b"V_VP9")].concat();
        file.extend([&b"\x16\x54\xae\x6b"[..], &[0x80 + tracks.len() as u8], &tracks].concat());
        assert_eq!(matroska_codec(&file), Some("V_VP9"));
        let error = of(&file).unwrap_err().to_string();
        assert!(error.starts_with("VP9 in Matroska or WebM is not decoded here: install ffmpeg"), "{error}");
        for end in 0..file.len() {
            let _ = matroska_codec(&file[..end]);
        }
    }

    #[test]
    fn unknown_codecs_are_quoted() {
        assert_eq!(of_fourcc(*b"hvc1"), "H.265 (HEVC)");
        assert_eq!(of_fourcc(*b"x\n1\0"), "the codec `x\\n1\\u{0}`");
    }
}
