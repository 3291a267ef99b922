//! What the numbers of a decoded picture mean as colours, and 8-bit RGB of them.
//!
//! With `Y` from 16 to 235, `U` and `V` from 16 to 240 (or all from 0 to 255), and `kr`, `kb` of the standard the video names:
//!
//! ```text
//! R = Y' + 2 (1 - kr) V'    B = Y' + 2 (1 - kb) U'    G = (Y' - kr R - kb B) / (1 - kr - kb)
//! ```
//!
//! One pair of `U` and `V` counts for four pixels. Source: ITU-T H.273, and FFmpeg's `libswscale`, with which the reference
//! makes RGB: it takes BT.601 where a video names no standard, large ones too, and its code for x86
//! (`ff_yuv2rgb_c_init_tables` in `yuv2rgb.c`, `x86/yuv_2_rgb.asm`) cuts off the fraction of each product before it adds them.
//! So do we: pixels are the same, and up to 3 below what the equations say.

/// How a picture's numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour {
    /// `MatrixCoefficients` of H.273; 2 where nothing says.
    pub matrix: u16,
    /// Whether all values from 0 to 255 are used.
    pub full_range: bool,
}

impl Colour {
    /// What holds where nothing says.
    pub const UNSPECIFIED: Colour = Colour { matrix: 2, full_range: false };
}

/// A picture with one pair of colour values for each square of four pixels.
pub(super) struct Planes<'a> {
    pub width: usize,
    pub height: usize,
    /// `[height, width]`.
    pub y: &'a [u8],
    /// `[ceil(height / 2), ceil(width / 2)]`.
    pub u: &'a [u8],
    /// As `u`.
    pub v: &'a [u8],
}

/// `[height, width, 3]`, red, green, blue; `None` if the planes are not as large as they say.
pub(super) fn rgb(planes: &Planes<'_>, colour: Colour) -> Option<Vec<u8>> {
    let Planes { width, height, y, u, v } = *planes;
    let half = width.div_ceil(2);
    if y.len() != width * height || u.len() != half * height.div_ceil(2) || v.len() != u.len() || width == 0 {
        return None;
    }
    let factors = Factors::of(colour);
    let mut rgb = Vec::with_capacity(3 * y.len());
    for (row, y) in y.chunks_exact(width).enumerate() {
        let start = row / 2 * half;
        let (u, v) = (&u[start..start + half], &v[start..start + half]);
        for (x, &y) in y.iter().enumerate() {
            rgb.extend(factors.pixel(y, u[x / 2], v[x / 2]));
        }
    }
    Some(rgb)
}

/// The equation's factors, over 2^13; values are multiplied by 8 before, so that products are over 2^16.
struct Factors {
    black: i32,
    y: i32,
    red_of_v: i32,
    green_of_u: i32,
    green_of_v: i32,
    blue_of_u: i32,
}

impl Factors {
    fn of(Colour { matrix, full_range }: Colour) -> Self {
        // Of V for red, of U for blue, of U and of V for green, over 2^16, for values of limited range (`ff_yuv2rgb_coeffs`).
        let chroma = match matrix {
            1 => [117_489, 138_438, 13_975, 34_925],
            4 => [104_448, 132_798, 24_759, 53_109],
            7 => [117_579, 136_230, 16_907, 35_559],
            9 | 10 => [110_013, 140_363, 12_277, 42_626],
            _ => [104_597, 132_201, 25_675, 53_279],
        };
        let (black, y) = if full_range { (0, 1 << 16) } else { (16, (1 << 16) * 255 / 219) };
        let fixed = |x: i32| (x + 4) >> 3;
        let [red_of_v, blue_of_u, green_of_u, green_of_v] =
            chroma.map(|factor: i32| if full_range { factor * 224 / 255 } else { factor });
        Factors {
            black,
            y: fixed(y),
            red_of_v: fixed(red_of_v),
            green_of_u: fixed(-green_of_u),
            green_of_v: fixed(-green_of_v),
            blue_of_u: fixed(blue_of_u),
        }
    }

    fn pixel(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let product = |value: i32, factor: i32| (8 * value * factor) >> 16;
        let grey = product(i32::from(y) - self.black, self.y);
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let red = grey + product(v, self.red_of_v);
        let green = grey + product(u, self.green_of_u) + product(v, self.green_of_v);
        [red, green, grey + product(u, self.blue_of_u)].map(|value| value.clamp(0, 255) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The equations of H.273 in f64.
    #[test]
    fn all_values_are_those_of_the_equations_rounded_down() {
        for (matrix, kr, kb) in [(1, 0.2126, 0.0722), (2, 0.299, 0.114), (9, 0.2627, 0.0593)] {
            for full_range in [false, true] {
                let factors = Factors::of(Colour { matrix, full_range });
                for (y, u, v) in (0..=255).step_by(5).flat_map(|y| (0..=255).step_by(17).map(move |u| (y, u, 255 - u)))
                {
                    let (luma, c) = match full_range {
                        true => (f64::from(y) / 255.0, 255.0),
                        false => ((f64::from(y) - 16.0) / 219.0, 224.0),
                    };
                    let [u1, v1] = [u, v].map(|x: u8| (f64::from(x) - 128.0) / c);
                    let (red, blue) = (luma + 2.0 * (1.0 - kr) * v1, luma + 2.0 * (1.0 - kb) * u1);
                    let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
                    for (found, expected) in factors.pixel(y, u, v).into_iter().zip([red, green, blue]) {
                        let expected = (expected * 255.0).clamp(0.0, 255.0);
                        // Up to three fractions are cut off, and factors are off by half of 2^-13, and by what of the
                        // standards' table was rounded, times at most 255.
                        let off = expected - f64::from(found);
                        assert!((-0.1..3.1).contains(&off), "{y} {u} {v}: {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn planes_that_are_too_small_are_none() {
        let planes = |y: &'static [u8]| Planes { width: 2, height: 2, y, u: &[128], v: &[128] };
        assert_eq!(rgb(&planes(&[16, 235, 16, 16]), Colour::UNSPECIFIED).unwrap()[..6], [0, 0, 0, 255, 255, 255]);
        assert!(rgb(&planes(&[16; 3]), Colour::UNSPECIFIED).is_none());
    }
}
