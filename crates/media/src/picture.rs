//! Pictures: files to pixels to patches.
//!
//! ```text
//! bytes ─ decode ─ RGB ─ Budget::fit ─ resize ─ Patches
//! ```
//!
//! A picture is always brought to the grid of its budget, small ones too: that many blocks of 48×48 pixels, in nearly the
//! same shape. A vision tower reads patches of 16×16 and pools 3×3 of them to one soft token; 12B reads whole blocks.

mod avif;
mod budget;
mod decode;
mod heif;
mod jpeg;
mod kind;
mod patches;
mod resize;
mod rgb;
mod tiff;
mod yuv;

pub use budget::{Budget, Grid};
pub use decode::decode;
pub(crate) use decode::{check_pixels, decoder_limits, explain, turned};
pub use patches::{Fitted, Patches, Patching, patches};
pub(crate) use rgb::from as over_white;

/// Pixels, upright, without transparency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// In pixels, at least 1.
    pub width: usize,
    /// In pixels, at least 1.
    pub height: usize,
    /// `[height, width, 3]`: red, green, blue.
    pub rgb: Vec<u8>,
}
