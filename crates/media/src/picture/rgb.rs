//! Pixels of every kind to 8-bit RGB, as the reference sees them.
//!
//! Transparency lies over white (`convert_to_rgb` in transformers' `image_transforms.py`), and of 16 bits the upper 8 count,
//! as Pillow and libpng do it. (Pillow alone clips 16-bit grey without alpha at 255, which shows almost everything white:
//! we don't.)

use image::DynamicImage;

use crate::Error;

/// `[height, width, 3]`, 8 bits. `format` is for the message.
pub(crate) fn from(pixels: DynamicImage, format: &'static str) -> Result<Vec<u8>, Error> {
    Ok(match pixels {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageLuma8(pixels) => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => grey_alpha(pixels.chunks_exact(2).map(|p| [p[0], p[1]])),
        DynamicImage::ImageRgba8(pixels) => rgb_alpha(pixels.chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]])),
        DynamicImage::ImageRgb16(pixels) => pixels.iter().map(|&value| upper(value)).collect(),
        DynamicImage::ImageLuma16(pixels) => pixels.iter().flat_map(|&grey| [upper(grey); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) => grey_alpha(pixels.chunks_exact(2).map(|p| [p[0], p[1]].map(upper))),
        DynamicImage::ImageRgba16(pixels) => {
            rgb_alpha(pixels.chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]].map(upper)))
        }
        other => {
            return Err(Error::Unsupported {
                what: format!("{format} with pixels of the kind {:?}", other.color()),
                why: "their range isn't known; save it with 8 or 16 bits per channel".to_owned(),
            });
        }
    })
}

fn upper(value: u16) -> u8 {
    (value >> 8) as u8
}

fn grey_alpha(pixels: impl Iterator<Item = [u8; 2]>) -> Vec<u8> {
    pixels.flat_map(|[grey, alpha]| [over_white(grey, alpha); 3]).collect()
}

fn rgb_alpha(pixels: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    pixels.flat_map(|[red, green, blue, alpha]| [red, green, blue].map(|value| over_white(value, alpha))).collect()
}

/// Pillow's `alpha_composite` over opaque white, rounded alike: checked there for all 65,536 pairs.
pub(super) fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
