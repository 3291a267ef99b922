//! AV1: coded pictures to planes.
//!
//! The decoder is a port of dav1d, built without its assembly. It runs on the calling thread alone, so that what goes wrong in it
//! stays there, and never takes more pixels than it was told to expect.

use crate::limits::MAX_STILL_FRAMES;
use rusty_av1d::{Decoder, Picture, PixelLayout, PlanarImageComponent, Rav1dError, Settings, pixel};

/// How a picture's numbers are to be read: the code points of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub primaries: u16,
    pub matrix: u16,
    /// Whether all values are used.
    pub full_range: bool,
}

/// What is not there at one of two or four pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Luma alone.
    Grey,
    /// 4:2:0: one pair of colour values for two pixels by two.
    Quarter,
    /// 4:2:2: one for two side by side.
    Half,
    /// 4:4:4.
    Full,
}

impl Layout {
    /// Columns and rows of a colour plane, of a picture of this size.
    pub fn chroma(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Layout::Grey => (0, 0),
            Layout::Quarter => (width.div_ceil(2), height.div_ceil(2)),
            Layout::Half => (width.div_ceil(2), height),
            Layout::Full => (width, height),
        }
    }
}

/// A decoded picture.
#[derive(Clone, Debug)]
pub(crate) struct Planes {
    pub width: usize,
    pub height: usize,
    /// Bits of a value: 8, 10 or 12.
    pub depth: u8,
    pub layout: Layout,
    /// Luma, then the two colour planes, row by row.
    pub planes: [Vec<u16>; 3],
}

/// The first picture in `data`, which may have at most `most` pixels, and what its numbers mean. The error says why not.
pub(crate) fn still(data: &[u8], most: u64) -> Result<(Planes, Meaning), String> {
    let frames = frames(data);
    if frames > MAX_STILL_FRAMES {
        return Err(format!("a picture of it consists of {frames} frames, at most {MAX_STILL_FRAMES} are decoded"));
    }
    let mut settings = Settings::new();
    settings.set_n_threads(1);
    settings.set_max_frame_delay(1);
    settings.set_all_layers(false);
    settings.set_frame_size_limit(u32::try_from(most).unwrap_or(u32::MAX));
    let mut decoder = Decoder::with_settings(&settings).map_err(explain)?;
    let mut sent = decoder.send_data(data.into(), None, None, None);
    let picture = loop {
        match (decoder.get_picture(), sent) {
            (Ok(picture), _) => break picture,
            (Err(Rav1dError::TryAgain), Err(Rav1dError::TryAgain)) => sent = decoder.send_pending_data(),
            (Err(Rav1dError::TryAgain), Ok(())) => return Err("there is no picture in it".to_owned()),
            (Err(Rav1dError::TryAgain), Err(error)) | (Err(error), _) => return Err(explain(error)),
        }
    };
    let meaning = Meaning {
        primaries: picture.color_primaries() as u16,
        matrix: picture.matrix_coefficients() as u16,
        full_range: picture.color_range() == pixel::YUVRange::Full,
    };
    Ok((planes(&picture)?, meaning))
}

fn planes(picture: &Picture) -> Result<Planes, String> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let depth = picture.bits_per_component().map_or(0, |bits| bits.0);
    let layout = match picture.pixel_layout() {
        PixelLayout::I400 => Layout::Grey,
        PixelLayout::I420 => Layout::Quarter,
        PixelLayout::I422 => Layout::Half,
        PixelLayout::I444 => Layout::Full,
    };
    let plane = |which: PlanarImageComponent, (columns, rows): (usize, usize)| {
        if columns == 0 {
            return Some(Vec::new());
        }
        let (bytes, stride) = (picture.plane(which), picture.stride(which) as usize);
        let row_bytes = if depth == 8 { columns } else { 2 * columns };
        let mut values = Vec::with_capacity(columns * rows);
        for row in 0..rows {
            let row = bytes.get(row * stride..)?.get(..row_bytes)?;
            match depth {
                8 => values.extend(row.iter().map(|&byte| u16::from(byte))),
                _ => values.extend(row.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))),
            }
        }
        Some(values)
    };
    let chroma = layout.chroma(width, height);
    let planes = [
        plane(PlanarImageComponent::Y, (width, height)),
        plane(PlanarImageComponent::U, chroma),
        plane(PlanarImageComponent::V, chroma),
    ];
    match planes {
        [Some(y), Some(u), Some(v)] => Ok(Planes { width, height, depth, layout, planes: [y, u, v] }),
        _ => Err("its planes are smaller than it says".to_owned()),
    }
}

/// How many frames are coded in `data`: units that say what a frame is like. Source: AV1 Bitstream & Decoding Process
/// Specification, 5.3.
fn frames(mut data: &[u8]) -> usize {
    const FRAME_HEADER: u8 = 3;
    const FRAME: u8 = 6;
    let mut frames = 0;
    while let Some((&header, rest)) = data.split_first() {
        let (has_extension, has_size) = (header & 4 != 0, header & 2 != 0);
        let rest = rest.get(usize::from(has_extension)..).unwrap_or_default();
        let bytes = rest.iter().take(8).position(|byte| byte & 0x80 == 0).map_or(rest.len().min(8), |last| last + 1);
        let size = rest.iter().take(bytes).rev().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
        frames += usize::from(matches!(header >> 3 & 15, FRAME_HEADER | FRAME));
        let end = bytes.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        data = if has_size { rest.get(end..).unwrap_or_default() } else { &[] };
    }
    frames
}

fn explain(error: Rav1dError) -> String {
    match error {
        Rav1dError::OutOfRange => "it has more pixels than announced".to_owned(),
        error => format!("AV1: {error}"),
    }
}
