//! Bicubic resizing with antialiasing, first across, then down.
//!
//! Output pixel `i` of an axis is a weighted sum of the input pixels around `c = s·(i + ½)`, `s` the ratio of input to
//! output size: those within `2·max(s, 1)` of `c`, by the cubic kernel with `a = −½` stretched by `max(s, 1)`, divided by
//! their sum. Weights are rounded to 16 bits and sums to whole grey levels after each axis, as torchvision's
//! `resize(antialias=True)` does with bytes (`UpSampleKernel.cpp` of PyTorch): results are the same bits.

use super::Picture;

/// The weights of one output pixel and the first input pixel they belong to.
struct Taps {
    start: usize,
    weights: Vec<i16>,
}

/// One axis: taps per output pixel, whose weights are integers over `2^shift`.
struct Axis {
    taps: Vec<Taps>,
    shift: u32,
}

/// `picture` in another size, all sides at least 1.
pub(crate) fn resize(picture: &Picture, width: usize, height: usize) -> Picture {
    let wide = if picture.width == width { picture.clone() } else { across(picture, width) };
    if wide.height == height { wide } else { down(&wide, height) }
}

fn across(picture: &Picture, width: usize) -> Picture {
    let axis = Axis::new(picture.width, width);
    let mut rgb = Vec::with_capacity(width * picture.height * 3);
    for row in picture.rgb.chunks_exact(picture.width * 3) {
        for taps in &axis.taps {
            let mut sums = [axis.half(); 3];
            for (pixel, &weight) in row[taps.start * 3..].chunks_exact(3).zip(&taps.weights) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(weight) * i32::from(byte);
                }
            }
            rgb.extend(sums.map(|sum| axis.round(sum)));
        }
    }
    Picture { width, height: picture.height, rgb }
}

fn down(picture: &Picture, height: usize) -> Picture {
    let axis = Axis::new(picture.height, height);
    let row_len = picture.width * 3;
    let mut rgb = Vec::with_capacity(row_len * height);
    let mut sums = vec![0; row_len];
    for taps in &axis.taps {
        sums.fill(axis.half());
        for (row, &weight) in picture.rgb[taps.start * row_len..].chunks_exact(row_len).zip(&taps.weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(weight) * i32::from(byte);
            }
        }
        rgb.extend(sums.iter().map(|&sum| axis.round(sum)));
    }
    Picture { width: picture.width, height, rgb }
}

impl Axis {
    fn new(from: usize, to: usize) -> Axis {
        let scale = from as f64 / to as f64;
        let weights: Vec<_> = (0..to).map(|i| float_weights(i, scale, from)).collect();
        let largest = weights.iter().flat_map(|(_, w)| w).fold(0.0, |a: f64, &b| a.max(b));
        // As fine as the largest weight leaves room for in 16 bits.
        let fits = |shift: u32| ((0.5 + largest * f64::from(1 << shift)) as i32) < 1 << 15;
        let shift = (0..22).find(|&shift| !fits(shift + 1)).unwrap_or(22);
        let rounded = |w: f64| (w * f64::from(1 << shift)).round() as i16;
        let taps = weights.into_iter().map(|(start, w)| Taps { start, weights: w.into_iter().map(rounded).collect() });
        Axis { taps: taps.collect(), shift }
    }

    /// What a sum starts with, so that cutting off its fraction rounds it.
    fn half(&self) -> i32 {
        1 << (self.shift - 1)
    }

    fn round(&self, sum: i32) -> u8 {
        (sum >> self.shift).clamp(0, 255) as u8
    }
}

/// The weights of output pixel `i`, and the input pixel that the first of them belongs to.
fn float_weights(i: usize, scale: f64, from: usize) -> (usize, Vec<f64>) {
    let stretch = scale.max(1.0);
    let center = scale * (i as f64 + 0.5);
    let start = (center - 2.0 * stretch + 0.5).max(0.0) as usize;
    let end = ((center + 2.0 * stretch + 0.5) as usize).min(from);
    let mut weights: Vec<f64> = (start..end).map(|at| cubic((at as f64 - center + 0.5) * (1.0 / stretch))).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    (start, weights)
}

/// Keys' cubic convolution kernel with `a = −½`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_that_colour_at_every_size() {
        for (from, to) in [(1, 480), (3, 7), (480, 1), (1000, 48), (65_535, 48)] {
            let picture = Picture { width: from, height: 1, rgb: vec![201; from * 3] };
            assert_eq!(resize(&picture, to, 2).rgb, vec![201; to * 6], "{from} to {to}");
        }
    }
}
