//! Files as tests make and read them.
#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../media/tests/drawing/mod.rs"]
mod drawing;

use std::path::Path;

use carat_media::picture::Picture;
use carat_tensor::Bytes;
use carat_weights::{Weights, map_file, safetensors};
use drawing::pattern;

/// The tensors of a safetensors file.
pub fn tensors(path: &Path) -> Weights {
    let bytes = map_file(path).unwrap();
    Weights::new("file".into(), safetensors::read("file", &bytes).unwrap()).unwrap()
}

/// Little-endian values.
pub fn floats(bytes: &Bytes) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The drawing of `pattern` in `fixtures/media/make_pictures.py` as a BMP file.
pub fn bmp(width: usize, height: usize) -> Vec<u8> {
    rolled_bmp(width, height, 0)
}

/// The drawing with each row rolled left by so many pixels, as a BMP file: from the bottom up, blue first.
pub fn rolled_bmp(width: usize, height: usize, by: usize) -> Vec<u8> {
    let Picture { mut rgb, .. } = pattern(width, height);
    rgb.chunks_exact_mut(width * 3).for_each(|row| row.rotate_left(by % width * 3));
    let row_bytes = (width * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    for word in [54 + row_bytes * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend((word as u32).to_le_bytes());
    }
    for y in (0..height).rev() {
        let row = rgb[3 * width * y..][..3 * width].chunks_exact(3).flat_map(|pixel| pixel.iter().rev().copied());
        file.extend(row.chain(std::iter::repeat_n(0, row_bytes - width * 3)));
    }
    file
}

/// Within 1e-4 of each other, relative.
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let error = relative_error(found, expected);
    assert!(error < 1e-4, "{what} is off by {error:e}");
}

/// `‖a − b‖ / ‖b‖`, not a number where either is not finite.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (distance / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// A WAV file of floats at 16 kHz.
pub fn wav(samples: &[f32]) -> Vec<u8> {
    let data = 4 * samples.len() as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + data).to_le_bytes());
    file.extend(b"WAVEfmt ");
    let words: [(u32, usize); 7] = [(16, 4), (3, 2), (1, 2), (16_000, 4), (64_000, 4), (4, 2), (32, 2)];
    words.iter().for_each(|(word, bytes)| file.extend(&word.to_le_bytes()[..*bytes]));
    file.extend(b"data");
    file.extend(data.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}
