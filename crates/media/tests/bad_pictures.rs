//! What can't be a picture is refused by an error that says what and why.

use std::fs;
use std::path::Path;

use carat_media::picture::decode;

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/pictures").join(name)).expect("a fixture")
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = decode(bytes).expect_err("this is no picture").to_string();
    assert!(error.contains(expected), "{error}");
}

/// A PNG's header with other sides, and its checksum.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = file("png_rgb.png");
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn no_bytes() {
    refused(b"", "the picture is empty: expected a file of JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF");
}

#[test]
fn another_format() {
    refused(b"hello, world", "it starts with the bytes 68 65 6c 6c 6f 2c 20 77; expected JPEG");
    refused(b"\0\0\0\x18ftypheic\0\0\0\0", "it starts with HEIC");
    refused(b"%PDF-1.7", "it starts with PDF");
    refused(b"RIFF\x24\0\0\0WAVEfmt ", "it starts with WAV (a sound)");
}

#[test]
fn hundred_megapixels() {
    refused(&png_of(10_000, 10_000), "has 100000000 pixels; at most 67108864 are taken: make it smaller first");
}

#[test]
fn a_side_that_no_camera_has() {
    refused(&png_of(1_000_000, 1), "65535");
    refused(&png_of(0, 7), "damaged");
}

#[test]
fn a_bomb_of_many_frames_or_layers_is_read_up_to_its_first() {
    let gif = file("gif_animated.gif");
    let mut long = gif[..gif.len() - 1].to_vec();
    long.extend(std::iter::repeat_n(b"\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x01\x01\0".as_slice(), 10_000).flatten());
    assert_eq!(decode(&long).unwrap(), decode(&gif).unwrap());
}

#[test]
fn every_format_cut_short() {
    for name in [
        "jpeg_420.jpg",
        "jpeg_progressive.jpg",
        "png_rgb.png",
        "gif_palette.gif",
        "webp_lossy.webp",
        "avif_8_420.avif",
        "avif_10_444_alpha.avif",
        "avif_grid.avif",
        "bmp_rgb.bmp",
        "tiff_rgb.tiff",
    ] {
        let whole = file(name);
        for share in [2, 3, 10] {
            let cut = &whole[..whole.len() * (share - 1) / share];
            assert!(decode(cut).is_err(), "{name} cut to {} of {} bytes", cut.len(), whole.len());
        }
    }
}

#[test]
fn a_jpeg_without_an_end() {
    let whole = file("jpeg_444.jpg");
    refused(&whole[..whole.len() - 2], "the JPEG file is damaged: it ends before its end marker");
    refused(&whole[..100], "the JPEG file is damaged");
}

#[test]
fn a_jpeg_with_something_behind_it_is_whole() {
    let mut bytes = file("jpeg_444.jpg");
    let picture = decode(&bytes).unwrap();
    bytes.extend(b"\0\0 a note of the camera");
    assert_eq!(decode(&bytes).unwrap(), picture);
}

/// An AVIF with other numbers behind the first `mark`.
fn avif_with(name: &str, mark: &[u8], skip: usize, numbers: &[u8]) -> Vec<u8> {
    let mut bytes = file(name);
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("such a box") + mark.len() + skip;
    bytes[at..at + numbers.len()].copy_from_slice(numbers);
    bytes
}

#[test]
fn an_avif_that_claims_a_size() {
    let sized = |width: u32, height: u32| {
        avif_with("avif_8_420.avif", b"ispe", 4, &[width.to_be_bytes(), height.to_be_bytes()].concat())
    };
    refused(&sized(10_000, 10_000), "the picture has 100000000 pixels; at most 67108864 are taken");
    refused(&sized(1_000_000, 1), "65535");
    refused(&sized(0, 7), "the AVIF file is damaged: it is 0 pixels wide");
    refused(&sized(4, 4), "the AVIF file is damaged: it has more pixels than announced");
    refused(&sized(100, 100), "a picture of 100 × 100 pixels has 23 × 17");
}

#[test]
fn an_avif_grid_that_claims_a_size() {
    // Version, flags, rows and columns less one, width, height: the first of the data.
    let grid = |numbers: &[u8]| avif_with("avif_grid.avif", b"mdat", 2, numbers);
    assert!(decode(&grid(&[1, 1, 0, 128, 0, 128])).is_ok());
    refused(&grid(&[1, 1, 255, 255, 255, 255]), "pixels; at most 67108864 are taken");
    refused(&grid(&[1, 1, 0, 200, 0, 128]), "a grid of 2 × 2 pictures of 64 × 64 pixels doesn't make 200 × 128");
    refused(&grid(&[1, 1, 0, 64, 0, 128]), "doesn't make 64 × 128");
    refused(&grid(&[7, 7, 0, 128, 0, 128]), "a grid of 8 × 8 has 4 pictures of AV1");
}

#[test]
fn an_avif_of_many_frames() {
    let whole = file("avif_8_420.avif");
    // The coded data, made longer by frames that nobody shows: a header of no bytes each.
    let long = [whole.clone(), b"\x1a\x00".repeat(9)].concat();
    let iloc = long.windows(4).position(|window| window == b"iloc").expect("a box") + 4;
    let mut patched = long.clone();
    // Version 0, one item of one extent: offset and length are the last eight bytes.
    let length = u32::from_be_bytes(long[iloc + 18..iloc + 22].try_into().unwrap());
    patched[iloc + 18..iloc + 22].copy_from_slice(&(length + 18).to_be_bytes());
    refused(&patched, "a picture of it consists of 10 frames, at most 8 are decoded");
}

#[test]
fn avif_files_without_a_picture() {
    refused(b"\0\0\0\x1cftypavif\0\0\0\0", "the AVIF file is damaged: it has no box `meta`");
    refused(&avif_with("avif_8_420.avif", b"pitm", 4, &[0, 99]), "there is no item 99");
    refused(
        &avif_with("avif_8_420.avif", b"infe", 8, b"hvc1"),
        "a picture of the kind `hvc1` in AVIF can't be decoded",
    );
    refused(&avif_with("avif_8_420.avif", b"nclx", 4, &[0, 14]), "an AVIF picture of the colour matrix 14");
}

#[test]
fn a_tiff_of_four_bits() {
    refused(&file("tiff_palette_4_bits.tiff"), "this kind of TIFF can't be decoded");
}

#[test]
fn a_wrong_checksum() {
    let mut bytes = file("png_rgb.png");
    bytes[30] ^= 1;
    refused(&bytes, "the PNG file is damaged");
}
