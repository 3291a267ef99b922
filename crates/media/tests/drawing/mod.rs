//! What recipes and tests draw alike.

use carat_media::picture::Picture;

/// The drawing of `pattern` in `fixtures/media/make_pictures.py`.
pub fn pattern(width: usize, height: usize) -> Picture {
    let pixel = |x: usize, y: usize, c: usize| match ((x >> 3) + (y >> 3)) % 3 {
        0 => {
            let mixed = (x * 73_856_093) ^ (y * 19_349_663) ^ (c * 83_492_791);
            ((mixed as u64).wrapping_mul(2_654_435_761) as u32 >> 24) as u8
        }
        1 => ((x * 7 + y * 13 + c * 85) % 256) as u8,
        _ => ((x + y + c) % 2 * 255) as u8,
    };
    let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| pixel(x, y, c))));
    Picture { width, height, rgb: rows.collect() }
}
