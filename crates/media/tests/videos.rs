//! Which pictures of a video are seen, and their times, against the reference (`fixtures/media/make_videos.py`).

use std::fs;
use std::path::Path;

use carat_media::video::{FRAMES, sample};
use serde_json::Value;

#[test]
fn frames_and_stamps_are_the_reference_s() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/videos.json");
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for row in rows {
        let frames = sample(row["total"].as_u64().unwrap() as usize, row["fps"].as_f64());
        let indices: Vec<usize> = frames.iter().map(|frame| frame.index).collect();
        assert_eq!(Value::from(indices), row["indices"], "{row}");
        let stamps: Vec<&str> = frames.iter().map(|frame| frame.stamp.as_str()).collect();
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
