//! Which pictures of a video are seen, and their times, against the reference (`fixtures/media/make_videos.py`).
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::Path;

use carat_media::Error;
use carat_media::picture::Patching;
use carat_media::video::{FRAMES, Shot, decode, has_sound, sample, stamp};
use serde_json::Value;
use sha2::{Digest, Sha256};

#[test]
fn frames_and_stamps_are_the_reference_s() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/videos.json");
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for row in rows {
        let frames = sample(row["total"].as_u64().unwrap() as usize, row["fps"].as_f64());
        let indices: Vec<usize> = frames.iter().map(|frame| frame.index).collect();
        assert_eq!(Value::from(indices), row["indices"], "{row}");
        let stamps: Vec<String> = frames.iter().map(|frame| stamp(frame.seconds)).collect();
        assert_eq!(stamps.join(" "), row["stamps"], "{row}");
    }
}

#[test]
fn short_videos_are_seen_whole() {
    assert!(sample(0, None).is_empty());
    assert_eq!(sample(3, Some(1.0)).iter().map(|frame| frame.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(sample(usize::MAX, Some(30.0)).len(), FRAMES);
}

#[test]
fn rates_that_are_none_count_as_24() {
    for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(sample(4800, Some(fps)), sample(4800, None));
    }
}

/// Frames and times of animated pictures against Pillow and the reference (`fixtures/media/make_animations.py`).
#[test]
fn animations_are_seen_as_the_reference_sees_their_frames() {
    let media = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media");
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(media.join("animations.json")).unwrap()).unwrap();
    for row in rows {
        let name = row["file"].as_str().unwrap();
        let shots = decode(&file(name)).unwrap();
        let seconds: Vec<f64> = shots.iter().map(|shot| (shot.seconds * 1e6).round() / 1e6).collect();
        assert_eq!(Value::from(seconds), row["seconds"], "{name}");
        for shot in &shots {
            let picture = shot.picture.picture();
            assert_eq!(
                [picture.width, picture.height].map(Value::from),
                ["width", "height"].map(|side| row[side].clone())
            );
        }
        // image-webp rounds down where it blends: pixels are up to 1 off those of the same frames as PNG. Each axis of
        // resizing makes 1.25 times as much of it, the sum of bicubic weights without signs, and rounds two numbers:
        // 1.25 (1.25 + 1) + 1, in whole steps 3.
        match name.strip_suffix(".webp") {
            None => assert_eq!(sha256(&shots), row["sha256"].as_str().unwrap(), "{name}"),
            Some(stem) => {
                let step = largest_step(&shots, &decode(&file(&format!("{stem}.png"))).unwrap());
                assert!(step <= 3, "{name} is off by {step}");
            }
        }
    }
}

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/videos").join(name)).unwrap()
}

/// Of all pixels, frame by frame.
fn sha256(shots: &[Shot]) -> String {
    let mut pixels = Sha256::new();
    shots.iter().for_each(|shot| pixels.update(&shot.picture.picture().rgb));
    pixels.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The largest difference of any two values.
fn largest_step(a: &[Shot], b: &[Shot]) -> u8 {
    let values = |shots: &[Shot]| shots.iter().flat_map(|s| s.picture.picture().rgb.clone()).collect::<Vec<u8>>();
    assert_eq!(values(a).len(), values(b).len());
    values(a).iter().zip(values(b)).map(|(a, b)| a.abs_diff(b)).max().unwrap()
}

#[track_caller]
fn refused(bytes: &[u8], says: &[&str]) {
    let error = decode(bytes).unwrap_err().to_string();
    assert!(says.iter().all(|text| error.contains(text)), "{error}");
}

#[test]
fn what_does_not_move_or_ends_too_early_says_so() {
    refused(&[], &["the video is empty"]);
    refused(b"what", &["not a video", "77 68 61 74"]);
    refused(&file("still.png"), &["PNG without frames", "--image"]);
    refused(&file("still.webp"), &["WebP without frames", "--image"]);
    for name in ["uneven.gif", "uneven.png", "uneven.webp"] {
        let whole = file(name);
        refused(&whole[..whole.len() / 2], &["file is damaged"]);
    }
    // Frames of 8000 × 8000 pixels on a screen of one.
    let frame = b"\x2c\0\0\0\0\x40\x1f\x40\x1f\0\x02\0";
    let large = [&b"GIF89a\x01\0\x01\0\0\0\0"[..], &frame.repeat(300), b";"].concat();
    refused(&large, &["the video has 19200000000 pixels in all frames", "at most"]);
    // A screen of 65,535 × 65,535 pixels.
    let mut huge = file("uneven.gif");
    huge[6..10].fill(0xff);
    refused(&huge, &["pixels", "at most"]);
}

/// Frames and times of films against the reference's own reading of them (`fixtures/media/make_clips.py`).
#[test]
fn films_are_seen_as_the_reference_sees_them() {
    let media = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media");
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(media.join("clips.json")).unwrap()).unwrap();
    for row in rows {
        let name = row["file"].as_str().unwrap();
        let shots = decode(&file(name)).unwrap();
        let seconds: Vec<f64> = shots.iter().map(|shot| (shot.seconds * 1e6).round() / 1e6).collect();
        assert_eq!(Value::from(seconds), row["seconds"], "{name}");
        let picture = shots[0].picture.picture();
        assert_eq!([picture.width, picture.height].map(Value::from), ["width", "height"].map(|side| row[side].clone()));
        let mut values = Sha256::new();
        for shot in &shots {
            let patches = shot.picture.patches(Patching::Tower).values;
            values.update(patches.iter().map(|value| (value * 255.0).round() as u8).collect::<Vec<u8>>());
        }
        let found: String = values.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, row["sha256"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn what_others_decode_is_named() {
    for (name, what) in [
        ("interlaced.mp4", "H.264 with interlace"),
        ("hevc.mp4", "H.265 (HEVC) in MP4"),
        ("av1_10_bits.mp4", "AV1 of 10 bits, 4:2:0, in MP4"),
        ("vp9.webm", "VP9 in Matroska or WebM"),
        ("h264.mkv", "H.264 in Matroska or WebM"),
    ] {
        assert!(matches!(decode(&file(name)), Err(Error::Elsewhere { .. })), "{name}");
        refused(&file(name), &[what, "is not decoded here", "install ffmpeg"]);
    }
}

#[test]
fn broken_films_say_what_is_wrong() {
    let whole = file("main.mp4");
    assert!(has_sound(&whole) && !has_sound(&file("high.mp4")) && !has_sound(&[]));
    // The tables come last.
    refused(&whole[..whole.len() / 2], &["MP4 file is damaged", "no box `moov`"]);
    let sound = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/sounds/aac.m4a")).unwrap();
    refused(&sound, &["it has sound and no video"]);
    refused(b"\0\0\0\x08ftyp", &["no box `moov`"]);
    let place = |file: &[u8], kind: &[u8]| file.windows(4).position(|window| window == kind).unwrap();
    let (mdat, moov) = (place(&whole, b"mdat") - 4, place(&whole, b"moov") - 4);
    refused(&[&whole[..mdat], &whole[moov..]].concat(), &["file is damaged"]);
    let fragments = file("fragments.mp4");
    let last = fragments.windows(4).rposition(|window| window == b"mdat").unwrap();
    refused(&fragments[..last + 10], &["picture", "the file has", "it was cut off"]);
    let changed = |kind: &[u8], at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        let start = place(&whole, kind) + 4 + at;
        changed[start..start + bytes.len()].copy_from_slice(bytes);
        changed
    };
    // Of no pictures, and of too many.
    refused(&changed(b"stsz", 8, &[0; 4]), &["no pictures"]);
    refused(&changed(b"stsz", 4, &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), &["4294967295 frames", "at most 108000"]);
    refused(&changed(b"stts", 4, &[0xff; 4]), &["`stts` claims 4294967295 entries"]);
    refused(&changed(b"stsc", 8, &[0; 4]), &["`stsc` has chunk 0 behind chunk 0"]);
    refused(&changed(b"stsc", 12, &[0; 4]), &["`stsc` has no samples in chunk 1"]);
    refused(&changed(b"stsz", 4, &3000u32.to_be_bytes()), &["its pictures lie upon each other"]);
    refused(&changed(b"avcC", 8, &[0xff; 4]), &["H.264"]);
    refused(&changed(b"mdhd", 12, &[0; 4]), &["`mdhd` has 0 units per second"]);
    for step in (0..whole.len()).step_by(509) {
        let mut flipped = whole.clone();
        flipped[step] ^= 0x55;
        if let Ok(shots) = decode(&flipped) {
            assert!((1..=FRAMES).contains(&shots.len()));
        }
    }
}
