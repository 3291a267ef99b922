//! TIFFs with a palette, which their decoder doesn't know: it reads them as grey, and the grey is looked up.
//!
//! Source: TIFF 6.0, sections 2 and 5: a directory of 12-byte entries (tag, type, count, value or offset); the colour map
//! holds all reds, then all greens, then all blues, 16 bits each.

use image::DynamicImage;

const BITS_PER_SAMPLE: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const COLOR_MAP: u16 = 320;

const SHORT: u16 = 3;
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;

/// The colours of a TIFF whose pixels are numbers of colours.
pub(super) struct Palette {
    colors: Vec<[u8; 3]>,
    bits: u32,
}

impl Palette {
    /// `[height, width, 3]`, given the numbers as 8-bit grey; none where the decoder made something else of them.
    pub(super) fn look_up(&self, pixels: &DynamicImage) -> Option<Vec<u8>> {
        let DynamicImage::ImageLuma8(grey) = pixels else { return None };
        // Fewer bits come spread over all eight.
        let color = |&grey: &u8| self.colors[usize::from(grey >> (8 - self.bits))];
        Some(grey.iter().flat_map(color).collect())
    }
}

/// The palette of a file's first picture, and the file with its pixels taken for grey. None without a palette, and where
/// the directory makes no sense: then the decoder says what is wrong.
pub(super) fn palette(bytes: &[u8]) -> Option<(Palette, Vec<u8>)> {
    let file = File { bytes, big_endian: bytes.starts_with(b"MM") };
    let photometric = file.entry(PHOTOMETRIC)?;
    if file.short(photometric)? != PALETTE {
        return None;
    }
    let bits = u32::from(file.short(file.entry(BITS_PER_SAMPLE)?)?);
    let len = 1usize.checked_shl(bits).filter(|_| bits <= 8)?;
    let map = file.long(file.entry(COLOR_MAP)?)?;
    // Pillow keeps the upper byte too.
    let value = |i: usize| file.short(map.checked_add(2 * i)?).map(|value| (value >> 8) as u8);
    let colors = (0..len).map(|i| Some([value(i)?, value(len + i)?, value(2 * len + i)?])).collect::<Option<_>>()?;
    let mut grey = bytes.to_vec();
    let black_is_zero = if file.big_endian { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
    grey.get_mut(photometric..photometric + 2)?.copy_from_slice(&black_is_zero);
    Some((Palette { colors, bits }, grey))
}

struct File<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl File<'_> {
    /// Where the value of an entry of shorts stands, or its offset.
    fn entry(&self, tag: u16) -> Option<usize> {
        let directory = self.long(4)?;
        let entries = usize::from(self.short(directory)?);
        let mut places = (0..entries).map_while(|i| directory.checked_add(2 + 12 * i));
        let at = places.find(|&at| self.short(at) == Some(tag))?;
        (self.short(at + 2)? == SHORT).then_some(at + 8)
    }

    fn short(&self, at: usize) -> Option<u16> {
        let value = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(value) } else { u16::from_le_bytes(value) })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let value = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(value) } else { u32::from_le_bytes(value) } as usize)
    }
}
