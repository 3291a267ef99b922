//! Planes of an AVIF picture to 8-bit RGB, as libavif makes it for Pillow.
//!
//! Of `Y`, `U`, `V` scaled to 1, with `kr` and `kb` of the matrix:
//!
//! ```text
//! R = Y + 2 (1 - kr) V    B = Y + 2 (1 - kb) U    G = Y - 2 (kr (1 - kr) V + kb (1 - kb) U) / (1 - kr - kb)
//! ```
//!
//! Where colour is coarser than luma, it is weighted 9:3:3:1 between the four nearest values. Pictures of 8 bits with the usual
//! matrices go through libyuv there, which rounds factors to 1/64 and is up to 4 off the equations; pixels here are the same.
//! Source: ITU-T H.273, table 4; libavif's `reformat.c` and `reformat_libyuv.c`; libyuv's `row_common.cc`.

use crate::av1::{Layout, Meaning, Planes};

/// Whether transparency is kept beside RGB, which makes libavif choose other conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Rgb,
    Rgba,
}

/// `[height, width, 3]`; `None` for a matrix that there is no equation of.
pub(super) fn rgb(picture: &Planes, meaning: Meaning, target: Target) -> Option<Vec<u8>> {
    let [luma, ..] = &picture.planes;
    let mut rgb = Vec::with_capacity(3 * luma.len());
    match (fixed(picture, meaning, target), Equation::of(meaning)) {
        (Some(fixed), _) => each(picture, Edge::Nearest, fixed.shift, |y, u, v| {
            rgb.extend(fixed.pixel(y, u.rounded(), v.rounded()));
        }),
        (None, Some(equation)) => {
            let range = Range { depth: picture.depth, full: meaning.full_range };
            let chroma = |taps: Taps| match equation {
                Equation::Identity => range.luma(taps.sum()),
                _ => range.chroma(taps.sum()),
            };
            each(picture, Edge::Weighted, 0, |y, u, v| {
                rgb.extend(equation.pixel(range.luma(16.0 * f64::from(y)), chroma(u), chroma(v)))
            });
        }
        (None, None) => return None,
    }
    Some(rgb)
}

/// The values of a plane that is how opaque a picture is, in 8 bits.
pub(super) fn alpha(picture: &Planes, full_range: bool) -> Vec<u8> {
    let range = Range { depth: picture.depth, full: full_range };
    picture.planes[0].iter().map(|&value| to_8_bits(range.luma(16.0 * f64::from(value)))).collect()
}

/// The colour values around a pixel, of one plane: the nearest, the next in the row, in the column, and across.
#[derive(Clone, Copy)]
struct Taps([u16; 4]);

impl Taps {
    /// 16 times their weighted mean.
    fn sum(self) -> f64 {
        f64::from(self.total())
    }

    fn total(self) -> u32 {
        let [near, row, column, across] = self.0.map(u32::from);
        9 * near + 3 * (row + column) + across
    }

    fn rounded(self) -> u16 {
        ((self.total() + 8) >> 4) as u16
    }
}

/// What the last pixel of a row gets that has a colour value of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// That one.
    Nearest,
    /// What all get.
    Weighted,
}

/// Shows every pixel's luma and the colour values around it, all without their lowest `shift` bits.
fn each(picture: &Planes, edge: Edge, shift: u8, mut see: impl FnMut(u16, Taps, Taps)) {
    let Planes { width, height, layout, planes: [luma, us, vs], .. } = picture;
    let (columns, rows) = layout.chroma(*width, *height);
    if columns == 0 {
        let middle = Taps([1 << (picture.depth - 1 - shift); 4]);
        return luma.iter().for_each(|&y| see(y >> shift, middle, middle));
    }
    // The nearest value and the next one, of `n`, on an axis of which every other has one.
    let near = |at: usize, halved: bool, n: usize| match (halved, at % 2) {
        (false, _) => (at, at),
        (true, 0) => (at / 2, (at / 2).saturating_sub(1)),
        (true, _) => (at / 2, (at / 2 + 1).min(n - 1)),
    };
    for (row, luma) in luma.chunks_exact(*width).enumerate() {
        let (near_row, next_row) = near(row, *layout == Layout::Quarter, rows);
        let [u0, u1] = [near_row, next_row].map(|row| &us[row * columns..][..columns]);
        let [v0, v1] = [near_row, next_row].map(|row| &vs[row * columns..][..columns]);
        for (x, &y) in luma.iter().enumerate() {
            let (a, b) = match near(x, *layout != Layout::Full, columns) {
                (a, _) if x + 1 == *width && edge == Edge::Nearest => (a, a),
                both => both,
            };
            let taps = |row: &[u16], next: &[u16]| Taps([row[a], row[b], next[a], next[b]].map(|value| value >> shift));
            see(y >> shift, taps(u0, u1), taps(v0, v1));
        }
    }
}

/// What values mean.
#[derive(Clone, Copy)]
struct Range {
    depth: u8,
    full: bool,
}

impl Range {
    /// Of 16 times a value, in [0, 1] from black to white.
    fn luma(self, sum: f64) -> f64 {
        let (black, span) = if self.full { (0.0, self.most()) } else { (self.scaled(16.0), self.scaled(219.0)) };
        (sum / 16.0 - black) / span
    }

    /// Of 16 times a value, in [−1/2, 1/2].
    fn chroma(self, sum: f64) -> f64 {
        let span = if self.full { self.most() } else { self.scaled(224.0) };
        (sum / 16.0 - self.scaled(128.0)) / span
    }

    fn most(self) -> f64 {
        f64::from((1u32 << self.depth) - 1)
    }

    /// What is `value` in 8 bits.
    fn scaled(self, value: f64) -> f64 {
        value * f64::from(1u32 << (self.depth - 8))
    }
}

fn to_8_bits(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

/// How colours follow from the values.
#[derive(Clone, Copy)]
enum Equation {
    /// The planes are green, blue and red.
    Identity,
    YCgCo,
    Weights {
        kr: f64,
        kb: f64,
    },
}

impl Equation {
    fn of(meaning: Meaning) -> Option<Self> {
        let weights = |kr, kb| Some(Equation::Weights { kr, kb });
        match (meaning.matrix, meaning.primaries) {
            (0, _) => Some(Equation::Identity),
            (1, _) | (12, 1 | 2) => weights(0.2126, 0.0722),
            (4, _) => weights(0.30, 0.11),
            // Nothing said counts as BT.601.
            (2 | 5 | 6, _) | (12, 5 | 6) => weights(0.299, 0.114),
            (7, _) => weights(0.212, 0.087),
            (8, _) if meaning.full_range => Some(Equation::YCgCo),
            (9, _) | (12, 9) => weights(0.2627, 0.0593),
            _ => None,
        }
    }

    fn pixel(self, y: f64, u: f64, v: f64) -> [u8; 3] {
        let rgb = match self {
            Equation::Identity => [v, y, u],
            Equation::YCgCo => [y - u + v, y + u, y - u - v],
            Equation::Weights { kr, kb } => {
                let green = y - 2.0 * (kr * (1.0 - kr) * v + kb * (1.0 - kb) * u) / (1.0 - kr - kb);
                [y + 2.0 * (1.0 - kr) * v, green, y + 2.0 * (1.0 - kb) * u]
            }
        };
        rgb.map(to_8_bits)
    }
}

/// libyuv's factors: of luma over 2^16, of colour over 64.
struct Fixed {
    y: i32,
    bias: i32,
    blue_of_u: i32,
    green_of_u: i32,
    green_of_v: i32,
    red_of_v: i32,
    /// Bits that are left out before, and those of values then: 8 or 10.
    shift: u8,
    depth: u8,
}

/// The factors, where libavif takes libyuv.
fn fixed(picture: &Planes, meaning: Meaning, target: Target) -> Option<Fixed> {
    let factors = match (meaning.matrix, meaning.primaries, meaning.full_range) {
        (2 | 5 | 6, ..) | (12, 5 | 6, _) if meaning.full_range => [113, 22, 46, 90],
        (2 | 5 | 6, ..) | (12, 5 | 6, _) => [128, 25, 52, 102],
        (1, ..) | (12, 1 | 2, _) if meaning.full_range => [119, 12, 30, 101],
        (1, ..) | (12, 1 | 2, _) => [128, 14, 34, 115],
        (9, ..) | (12, 9, _) if meaning.full_range => [120, 11, 37, 94],
        (9, ..) | (12, 9, _) => [128, 12, 42, 107],
        _ => return None,
    };
    let (y, bias) = match (meaning.matrix, meaning.primaries) {
        _ if meaning.full_range => (16_320, 32),
        (9, _) | (12, 9) => (19_003, -1160),
        _ => (18_997, -1160),
    };
    let [blue_of_u, green_of_u, green_of_v, red_of_v] = factors;
    let depth = match (picture.depth, picture.layout, target) {
        (_, Layout::Grey, Target::Rgb) => return None,
        (10, Layout::Quarter | Layout::Half | Layout::Full, Target::Rgba) => 10,
        _ => 8,
    };
    let shift = picture.depth - depth;
    Some(Fixed { y, bias, blue_of_u, green_of_u, green_of_v, red_of_v, shift, depth })
}

impl Fixed {
    fn pixel(&self, y: u16, u: u16, v: u16) -> [u8; 3] {
        // In 16 bits, the upper ones repeated below.
        let (y, shift) = match self.depth {
            8 => (u32::from(y) * 0x101, 0),
            _ => (u32::from(y) << 6 | u32::from(y) >> 4, 2),
        };
        let luma = ((y * self.y as u32) >> 16) as i32 + self.bias;
        let [u, v] = [u, v].map(|value| i32::from(value >> shift).min(255) - 128);
        let green = luma - u * self.green_of_u - v * self.green_of_v;
        [luma + v * self.red_of_v, green, luma + u * self.blue_of_u].map(|value| (value >> 6).clamp(0, 255) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(depth: u8, [y, u, v]: [u16; 3]) -> Planes {
        Planes { width: 1, height: 1, depth, layout: Layout::Full, planes: [vec![y], vec![u], vec![v]] }
    }

    /// libyuv's factors are off by half of 1/64, times at most 128, twice for green; blue's stop at 2 of up to 2.14.
    #[test]
    fn what_is_rounded_stays_near_the_equations() {
        for matrix in [1, 6, 9] {
            for full_range in [false, true] {
                let meaning = Meaning { primaries: 2, matrix, full_range };
                for y in (0..=255).step_by(15) {
                    for (u, v) in (16..=240).step_by(14).flat_map(|u| [(u, u), (u, 256 - u)]) {
                        let rounded = rgb(&one(8, [y, u, v]), meaning, Target::Rgb).unwrap();
                        let equation = Equation::of(meaning).unwrap();
                        let range = Range { depth: 8, full: full_range };
                        let chroma = |value: u16| range.chroma(16.0 * f64::from(value));
                        let exact = equation.pixel(range.luma(16.0 * f64::from(y)), chroma(u), chroma(v));
                        let blue = if full_range { 2 } else { 17 };
                        for ((a, b), most) in rounded.iter().zip(exact).zip([2, 3, blue]) {
                            assert!(a.abs_diff(b) <= most, "{matrix} {full_range} {y} {u} {v}: {rounded:?}, {exact:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn planes_of_colours_are_colours() {
        let identity = Meaning { primaries: 1, matrix: 0, full_range: true };
        assert_eq!(rgb(&one(8, [1, 2, 3]), identity, Target::Rgb).unwrap(), [3, 1, 2]);
        assert_eq!(rgb(&one(10, [1023, 0, 4]), identity, Target::Rgb).unwrap(), [1, 255, 0]);
        let unknown = Meaning { matrix: 14, ..identity };
        assert_eq!(rgb(&one(8, [1, 2, 3]), unknown, Target::Rgb), None);
    }

    /// The nearest value counts 9 of 16; at an edge, it stands for those beyond.
    #[test]
    fn coarse_colour_is_weighted_between_its_neighbours() {
        let picture = Planes {
            width: 4,
            height: 1,
            depth: 8,
            layout: Layout::Quarter,
            planes: [vec![0; 4], vec![100, 200], vec![0, 0]],
        };
        let mut seen = Vec::new();
        each(&picture, Edge::Weighted, 0, |_, u, _| seen.push(u.rounded()));
        assert_eq!(seen, [100, 125, 175, 200]);
    }
}
