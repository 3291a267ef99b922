//! What can't be a sound is refused by an error that says what and why.

use std::fs;
use std::path::Path;

use carat_media::sound::{MAX_CLIP, decode, log_mel, raw_frames};

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/sounds").join(name)).expect("a fixture")
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = decode(bytes).expect_err("this is no sound").to_string();
    assert!(error.contains(expected), "{error}");
}

/// A WAV file of 32-bit floats, with a header of our choice.
fn wav(rate: u32, channels: u16, announced: u32, samples: &[f32]) -> Vec<u8> {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + announced).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x03\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate.wrapping_mul(u32::from(channels) * 4)).to_le_bytes());
    bytes.extend((channels.wrapping_mul(4)).to_le_bytes());
    bytes.extend(b"\x20\0data");
    bytes.extend(announced.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

#[test]
fn no_bytes() {
    refused(b"", "the sound is empty: expected a file of WAV, AIFF, FLAC, MP3");
    refused(b"ID3\x04\0\0\0\0\0\x02ab", "it starts with tags that nothing follows");
}

#[test]
fn another_format() {
    refused(b"hello, world", "it starts with the bytes 68 65 6c 6c 6f 2c 20 77; expected WAV");
    refused(b"\x1a\x45\xdf\xa3\x93\x42\x82\x88", "the Matroska file is damaged");
    refused(b"\x89PNG\r\n\x1a\n", "it starts with PNG (a picture)");
}

#[test]
fn codecs_that_are_not_here_are_named() {
    refused(&file("ac3.mka"), "AC-3 (in Matroska) can't be decoded: expected WAV");
    refused(&file("adpcm.wav"), "a codec other than PCM (in WAV) can't be decoded: expected WAV");
    refused(&file("alac.m4a"), "ALAC (in M4A) can't be decoded: expected WAV");
}

#[test]
fn no_samples() {
    refused(&wav(16_000, 1, 0, &[]), "the WAV file is damaged: it has no samples");
}

#[test]
fn fewer_samples_than_announced() {
    refused(&wav(16_000, 1, 4000, &[0.5; 500]), "the WAV file is damaged");
    let flac = file("flac_16.flac");
    refused(&flac[..flac.len() * 2 / 3], "the FLAC file is damaged");
    let aiff = file("aiff.aiff");
    refused(&aiff[..aiff.len() * 2 / 3], "the AIFF file is damaged");
    let webm = file("opus.webm");
    refused(&webm[..webm.len() * 2 / 3], "the Matroska file is damaged");
    let mp4 = file("opus.mp4");
    refused(&mp4[..mp4.len() / 2], "the M4A file is damaged");
}

#[test]
fn a_stream_of_unknown_length_is_read_to_its_end() {
    let mut bytes = wav(16_000, 1, 0, &[0.5; 500]);
    bytes[4..8].fill(0xff);
    bytes[40..44].fill(0xff);
    assert_eq!(decode(&bytes).unwrap().samples, [0.5; 500]);
}

#[test]
fn numbers_that_are_none() {
    refused(&wav(16_000, 1, 12, &[0.0, f32::NAN, 0.0]), "the WAV file is damaged: sample 1 is NaN");
    refused(&wav(16_000, 1, 4, &[f32::INFINITY]), "sample 0 is inf");
}

#[test]
fn rates_and_channels_that_no_sound_has() {
    refused(
        &wav(100, 1, 4, &[0.0]),
        "a sound of 100 samples per second can't be decoded: expected a rate of 1000 to 384000 Hz",
    );
    refused(&wav(4_000_000, 1, 4, &[0.0]), "a sound of 4000000 samples per second");
    assert!(decode(&wav(0, 1, 4, &[0.0])).is_err());
    assert!(decode(&wav(16_000, 0, 4, &[0.0])).is_err());
    assert!(decode(&wav(16_000, 65_535, 4, &[0.0])).is_err());
}

#[test]
fn longer_than_half_an_hour() {
    refused(
        &wav(16_000, 1, 16_000 * 4 * 1801, &[0.0]),
        "the sound has 1801 seconds; at most 1800 are taken: cut it first",
    );
    refused(&wav(96_000, 1, 96_000 * 4 * 1000, &[0.0]), "the sound has 96000000 samples; at most 86400000 are taken");
}

#[test]
fn features_of_too_little_or_too_much() {
    let error = log_mel(&[0.0; 160]).unwrap_err().to_string();
    assert_eq!(error, "the sound has 160 samples at 16 kHz; at least 161 are needed for one frame");
    let error = log_mel(&vec![0.0; MAX_CLIP + 1]).unwrap_err().to_string();
    assert_eq!(error, "the sound has 480001 samples at 16 kHz; at most 480000 are taken: cut it into clips");
    assert!(raw_frames(&[]).is_err());
}
