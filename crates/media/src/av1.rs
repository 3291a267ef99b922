//! AV1: coded pictures to planes.
//!
//! The decoder is a port of dav1d, built without its assembly. It runs on the calling thread alone, so that what goes wrong in it
//! stays there, and never takes more pixels than it was told to expect.

use crate::limits::MAX_UNIT_FRAMES;
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
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Grey => "4:0:0",
            Layout::Quarter => "4:2:0",
            Layout::Half => "4:2:2",
            Layout::Full => "4:4:4",
        }
    }

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

/// A picture that was decoded, still where the decoder put it.
pub(crate) struct Shown(Picture);

impl Shown {
    /// Pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.0.width()) * u64::from(self.0.height())
    }

    /// Its values, and what they mean.
    pub fn planes(&self) -> Result<(Planes, Meaning), String> {
        let picture = &self.0;
        let meaning = Meaning {
            primaries: picture.color_primaries() as u16,
            matrix: picture.matrix_coefficients() as u16,
            full_range: picture.color_range() == pixel::YUVRange::Full,
        };
        Ok((planes(picture)?, meaning))
    }
}

/// A stream of pictures.
pub(crate) struct Stream(Decoder);

impl Stream {
    /// One whose pictures have at most `most` pixels.
    pub fn new(most: u64) -> Result<Self, String> {
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_all_layers(false);
        settings.set_frame_size_limit(u32::try_from(most).unwrap_or(u32::MAX));
        Decoder::with_settings(&settings).map(Stream).map_err(explain)
    }

    /// The picture that a unit of the stream shows, the last if there are several; none if all are hidden. The error says what
    /// is wrong.
    pub fn decode(&mut self, unit: &[u8]) -> Result<Option<Shown>, String> {
        let frames = frames(unit);
        if frames > MAX_UNIT_FRAMES {
            return Err(format!("a picture of it consists of {frames} frames, at most {MAX_UNIT_FRAMES} are decoded"));
        }
        if unit.is_empty() {
            return Err("AV1: nothing is there".to_owned());
        }
        let mut shown = None;
        let mut sent = self.0.send_data(unit.into(), None, None, None);
        // It stops at each picture. What is left is taken once that has been fetched.
        for _ in 0..=2 * MAX_UNIT_FRAMES {
            match (self.0.get_picture(), sent) {
                (Ok(picture), _) => shown = Some(Shown(picture)),
                (Err(Rav1dError::TryAgain), Err(Rav1dError::TryAgain)) => sent = self.0.send_pending_data(),
                (Err(Rav1dError::TryAgain), Ok(())) => return Ok(shown),
                (Err(Rav1dError::TryAgain), Err(error)) | (Err(error), _) => return Err(explain(error)),
            }
        }
        Err("AV1: a unit has no end".to_owned())
    }
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

/// How many frames are coded in `data`, shown or not.
pub(crate) fn frames(data: &[u8]) -> usize {
    units(data).count()
}

/// Whether decoding may begin at a unit of a stream: its first frame is a key frame that is shown.
pub(crate) fn is_key(data: &[u8]) -> bool {
    // No frame that was there before, of type 0, shown.
    units(data).next().flatten().is_some_and(|first| first & 0xf0 == 0x10)
}

/// The first byte of every frame's header. Source: AV1 Bitstream & Decoding Process Specification, 5.3 and 5.9.2.
fn units(mut data: &[u8]) -> impl Iterator<Item = Option<u8>> {
    const FRAME_HEADER: u8 = 3;
    const FRAME: u8 = 6;
    std::iter::from_fn(move || {
        loop {
            let (&header, rest) = data.split_first()?;
            let (has_extension, has_size) = (header & 4 != 0, header & 2 != 0);
            let rest = rest.get(usize::from(has_extension)..).unwrap_or_default();
            let last = rest.iter().take(8).position(|byte| byte & 0x80 == 0);
            let bytes = if has_size { last.map_or(rest.len().min(8), |last| last + 1) } else { 0 };
            let size = rest.iter().take(bytes).rev().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
            let end = bytes.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            data = if has_size { rest.get(end..).unwrap_or_default() } else { &[] };
            if matches!(header >> 3 & 15, FRAME_HEADER | FRAME) {
                return Some(rest.get(bytes).copied());
            }
        }
    })
}

fn explain(error: Rav1dError) -> String {
    match error {
        Rav1dError::OutOfRange => "it has more pixels than announced".to_owned(),
        error => format!("AV1: {error}"),
    }
}
