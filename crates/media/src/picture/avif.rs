//! AVIF: AV1 pictures in a file of items.
//!
//! Turned and mirrored as the file says; what it says in EXIF doesn't count, nor does a colour profile: Pillow, which the reference
//! opens files with, does the same.

use image::metadata::Orientation;

use super::decode::{check, check_pixels};
use super::heif::{Content, Heif, Item};
use super::yuv::{self, Target};
use crate::Error;
use crate::av1::{self, Layout, Meaning, Planes};
use crate::limits::MAX_PICTURE_BYTES;

/// Its name in messages.
const NAME: &str = "AVIF";

/// A decoded picture, yet to be turned.
pub(super) struct Still {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]`, over white.
    pub rgb: Vec<u8>,
    pub orientation: Orientation,
}

/// The picture that a file shows.
pub(super) fn decode(bytes: &[u8]) -> Result<Still, Error> {
    let file = Heif::read(bytes)?;
    let item = file.primary()?;
    let alpha = file.alpha();
    let (planes, meaning) = planes(&file, item)?;
    let Planes { width, height, .. } = planes;
    let meaning = item.meaning.unwrap_or(meaning);
    let target = if alpha.is_some() { Target::Rgba } else { Target::Rgb };
    let rgb = yuv::rgb(&planes, meaning, target).ok_or_else(|| Error::Unsupported {
        what: format!("an AVIF picture of the colour matrix {}", meaning.matrix),
        why: "its equations aren't known; save it as an ordinary PNG or JPEG".to_owned(),
    })?;
    // Much larger than pixels of 8 bits.
    drop(planes);
    let rgb = match alpha {
        None => rgb,
        Some(alpha) => {
            let premultiplied = file.premultiplied(alpha);
            over_white(rgb, &opacity(&file, alpha, (width, height))?, premultiplied)
        }
    };
    Ok(Still { width, height, rgb, orientation: orientation(item) })
}

fn opacity(file: &Heif<'_>, alpha: &Item, (width, height): (usize, usize)) -> Result<Vec<u8>, Error> {
    let (planes, meaning) = planes(file, alpha)?;
    if (planes.width, planes.height) != (width, height) {
        let found = (planes.width, planes.height);
        return Err(damaged(format!("its transparency is {} × {} pixels, of {width} × {height}", found.0, found.1)));
    }
    let meaning = alpha.meaning.unwrap_or(meaning);
    Ok(yuv::alpha(&planes, meaning.full_range))
}

fn over_white(mut rgb: Vec<u8>, opacity: &[u8], premultiplied: bool) -> Vec<u8> {
    for (pixel, &alpha) in rgb.chunks_exact_mut(3).zip(opacity) {
        for value in pixel {
            if premultiplied {
                let factor = 0x1_0000u32.checked_div(alpha.into()).unwrap_or(0);
                *value = ((u32::from(*value) * factor) >> 8).min(255) as u8;
            }
            *value = super::rgb::over_white(*value, alpha);
        }
    }
    rgb
}

/// An item's picture, and what its numbers mean by themselves.
fn planes(file: &Heif<'_>, item: &Item) -> Result<(Planes, Meaning), Error> {
    match file.content(item)? {
        Content::Coded(item) => coded(item, &file.data(item)?),
        Content::Grid { columns, rows, size: (width, height), cells } => {
            check_pixels(width, height, NAME)?;
            let (width, height) = (width as usize, height as usize);
            let (mut whole, mut bytes) = (None, 0);
            for (index, cell) in cells.into_iter().enumerate() {
                let data = file.data(cell)?;
                // A picture may be there many times, each of which is decoded.
                bytes += data.len() as u64;
                check("bytes in all parts of its grid", bytes, MAX_PICTURE_BYTES as u64)?;
                let (cell, meaning) = coded(cell, &data)?;
                let covers = columns * cell.width >= width
                    && rows * cell.height >= height
                    && (columns - 1) * cell.width < width
                    && (rows - 1) * cell.height < height;
                // Pairs of colour values must not be parted.
                let parted = |side: usize, n: usize| n > 1 && side % 2 == 1;
                let parts = match cell.layout {
                    Layout::Quarter => parted(cell.width, columns) || parted(cell.height, rows),
                    Layout::Half => parted(cell.width, columns),
                    _ => false,
                };
                if !covers || parts {
                    let (found, of) = ((cell.width, cell.height), (columns, rows));
                    return Err(damaged(format!(
                        "a grid of {} × {} pictures of {} × {} pixels doesn't make {width} × {height}",
                        of.0, of.1, found.0, found.1
                    )));
                }
                let (whole, _) = whole.get_or_insert_with(|| (empty(&cell, width, height), meaning));
                place(whole, &cell, (index % columns * cell.width, index / columns * cell.height))?;
            }
            whole.ok_or_else(|| damaged("its grid is empty".to_owned()))
        }
    }
}

fn coded(item: &Item, data: &[u8]) -> Result<(Planes, Meaning), Error> {
    let (width, height) = item.size.ok_or_else(|| damaged("a picture of it has no size (`ispe`)".to_owned()))?;
    check_pixels(width, height, NAME)?;
    let mut stream = av1::Stream::new(u64::from(width) * u64::from(height)).map_err(damaged)?;
    let shown = stream.decode(data).map_err(damaged)?;
    let shown = shown.ok_or_else(|| damaged("there is no picture in its AV1".to_owned()))?;
    let (planes, meaning) = shown.planes().map_err(damaged)?;
    if (planes.width, planes.height) != (width as usize, height as usize) {
        let found = (planes.width, planes.height);
        return Err(damaged(format!("a picture of {width} × {height} pixels has {} × {}", found.0, found.1)));
    }
    Ok((planes, meaning))
}

/// A picture of another size, without values yet.
fn empty(like: &Planes, width: usize, height: usize) -> Planes {
    let (columns, rows) = like.layout.chroma(width, height);
    let planes = [width * height, columns * rows, columns * rows].map(|len| vec![0; len]);
    Planes { width, height, planes, ..*like }
}

/// Puts a cell of a grid at its place.
fn place(whole: &mut Planes, cell: &Planes, (left, top): (usize, usize)) -> Result<(), Error> {
    if (cell.layout, cell.depth) != (whole.layout, whole.depth) {
        return Err(damaged("the pictures of its grid are of several kinds".to_owned()));
    }
    let layout = cell.layout;
    let chroma = |width: usize, height: usize| layout.chroma(width, height);
    let shapes = |planes: &Planes| {
        let half = chroma(planes.width, planes.height);
        [(planes.width, planes.height), half, half]
    };
    let corners = [(left, top), chroma(left, top), chroma(left, top)];
    let (of_whole, of_cell) = (shapes(whole), shapes(cell));
    for plane in 0..3 {
        let ((columns, rows), (cell_columns, cell_rows), (left, top)) =
            (of_whole[plane], of_cell[plane], corners[plane]);
        let (wide, high) = (cell_columns.min(columns.saturating_sub(left)), cell_rows.min(rows.saturating_sub(top)));
        for row in 0..high {
            let to = (top + row) * columns + left;
            let from = row * cell_columns;
            whole.planes[plane][to..to + wide].copy_from_slice(&cell.planes[plane][from..from + wide]);
        }
    }
    Ok(())
}

/// First turned, then mirrored (MIAF, 7.3.6.7).
fn orientation(item: &Item) -> Orientation {
    match (item.angle, item.mirror) {
        (0, None) => Orientation::NoTransforms,
        (1, None) => Orientation::Rotate270,
        (2, None) => Orientation::Rotate180,
        (_, None) => Orientation::Rotate90,
        // Left and right, or top and bottom, which is the same after half a turn.
        (0, Some(1)) | (2, Some(0)) => Orientation::FlipHorizontal,
        (0, Some(_)) | (2, Some(_)) => Orientation::FlipVertical,
        (1, Some(1)) | (3, Some(0)) => Orientation::Rotate270FlipH,
        (_, Some(_)) => Orientation::Rotate90FlipH,
    }
}

fn damaged(why: String) -> Error {
    Error::Damaged { format: NAME, why }
}
