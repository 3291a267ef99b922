//! Sounds against other decoders, and features against the reference (`fixtures/media/make_sounds.py`, `make_opus.py`,
//! `make_cuts.py`).

mod waves;

use std::fs;
use std::path::{Path, PathBuf};

use carat_media::sound::{Wave, decode, log_mel, raw_frames};
use serde_json::Value;
use sha2::{Digest, Sha256};
use waves::wave;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media")
}

fn rows(name: &str) -> Vec<Value> {
    serde_json::from_slice(&fs::read(fixtures().join(name)).expect("a fixture")).expect("rows")
}

fn files() -> Vec<Value> {
    [rows("sounds.json"), rows("opus.json")].concat()
}

/// Matroska's files, what others leave out at their beginning, and whether they leave out something behind.
const PADDED: [(&str, usize, bool); 3] = [("opus.webm", 0, true), ("aac.mka", 1024, false), ("mp3.mka", 1105, true)];

/// The sound of a row's file; of those in Matroska without what is left of their first or last packets, which others don't hear.
fn heard(row: &Value) -> Wave {
    let name = row["name"].as_str().expect("a name");
    let file = fs::read(fixtures().join("sounds").join(name)).expect("a fixture");
    let mut wave = decode(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
    if let Some((_, before, behind)) = PADDED.into_iter().find(|(padded, ..)| *padded == name) {
        wave.samples.drain(..before);
        if behind {
            assert!(wave.samples.len() < number(row, "samples") + 1152, "{name}: {}", wave.samples.len());
            wave.samples.truncate(number(row, "samples"));
        }
    }
    wave
}

fn number(row: &Value, name: &str) -> usize {
    row[name].as_u64().expect("a number") as usize
}

/// The largest difference of `got` and the thinned values in `row`.
fn difference(got: &[f32], row: &Value) -> f64 {
    let expected = row["values"].as_array().expect("a list");
    let got: Vec<f32> = got.iter().copied().step_by(number(row, "step")).collect();
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b.as_f64().expect("a number")).abs()).fold(0.0, f64::max)
}

/// Values in the fixtures have six decimals.
const WRITTEN: f64 = 0.5e-6;

#[test]
fn files_hold_what_other_decoders_find() {
    let rows = [files(), rows("cuts.json")].concat();
    assert_eq!(rows.len(), 40);
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let wave = heard(&row);
        let found = [wave.rate as usize, wave.samples.len()];
        assert_eq!(found, [number(&row, "rate"), number(&row, "samples")], "{name}");
        // Lossless ones to the rounding of a mean in f32; decoders of the others round inside: 16 bits of it are right.
        let lossy = ["wav", "aiff", "flac", "flac.mka", "pcm.mka"].iter().all(|extension| !name.ends_with(extension));
        let bound = WRITTEN + if lossy { 2f64.powi(-16) } else { f64::from(f32::EPSILON) };
        let most = difference(&wave.samples, &row);
        assert!(most <= bound, "{name}: {most}");
    }
}

#[test]
fn streams_that_follow_each_other_in_ogg_are_all_heard() {
    for name in ["vorbis.ogg", "opus_silk_wide.opus"] {
        let file = fs::read(fixtures().join("sounds").join(name)).expect("a fixture");
        let once = decode(&file).expect("a sound").samples;
        let twice = decode(&[&file[..], &file].concat()).expect("a sound").samples;
        assert!(twice == [&once[..], &once].concat(), "{name}: {} samples, then {}", once.len(), twice.len());
    }
    let [vorbis, opus] = ["vorbis.ogg", "opus.ogg"].map(|name| fs::read(fixtures().join("sounds").join(name)));
    let error = decode(&[vorbis.expect("a fixture"), opus.expect("a fixture")].concat()).unwrap_err().to_string();
    assert!(error.contains("its sample rate changes to 48000 Hz on the way"), "{error}");
}

/// soxr's pass band ends at 0.91 of half the rate, ours at 0.95: where the files' noise, ±0.02, lies between, it is kept or
/// lost. What is left of it there is less than half as strong.
#[test]
fn resampled_files_are_those_of_soxr_but_for_the_edge_of_the_pass_band() {
    for row in files() {
        let name = row["name"].as_str().unwrap();
        let samples = heard(&row).at_16_khz();
        let bound = if row["rate"] == 16_000 { 2f64.powi(-16) } else { 0.01 };
        let most = difference(&samples, &row["at_16_khz"]);
        assert!(most <= bound, "{name}: {most}");
    }
}

#[test]
fn features_are_the_reference_s() {
    for row in rows("features.json") {
        let samples = wave(row["kind"].as_str().unwrap(), number(&row, "samples"));
        let mel = log_mel(&samples).unwrap();
        let counts = [mel.n_frames(), mel.valid, mel.soft_tokens()];
        assert_eq!(counts, ["frames", "valid", "soft_tokens"].map(|name| number(&row, name)), "{row}");
        let most = difference(&mel.values, &row);
        // Values reach 7, where f32 has steps of 2^-21: one for our rounding, one for the reference's f32 transform.
        assert!(most <= WRITTEN + 2.0 * 2f64.powi(-21), "{} of {}: {most}", row["kind"], row["samples"]);
        let raw = raw_frames(&samples).unwrap();
        assert_eq!(raw.n_frames(), number(&row, "chunks"));
        let digest = Sha256::digest(raw.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), row["raw"]);
    }
}

/// Level in dB of the middle half of `samples` at 16 kHz, a sine of full scale being 0.
fn level(samples: impl Iterator<Item = f64>) -> f64 {
    10.0 * (samples.map(|x| x * x).sum::<f64>() / 8000.0 * 2.0).log10()
}

/// A second of a tone of `hertz`, sampled at `rate`, in steps from `at` on.
fn tone(hertz: f64, rate: f64, at: std::ops::Range<usize>) -> impl Iterator<Item = f64> {
    at.map(move |i| (std::f64::consts::TAU * hertz * i as f64 / rate + 0.3).sin())
}

/// What resampling a tone leaves beside the tone, as it would be at 16 kHz, in dB: level and phase are in it.
fn error(rate: u32, hertz: f64) -> f64 {
    let samples = tone(hertz, rate.into(), 0..rate as usize).map(|x| x as f32).collect();
    let got = Wave { rate, samples }.at_16_khz();
    assert_eq!(got.len(), 16_000);
    let expected: Vec<f64> =
        if hertz < 8000.0 { tone(hertz, 16_000.0, 4000..12_000).collect() } else { vec![0.0; 8000] };
    level(got[4000..12_000].iter().zip(expected).map(|(&a, b)| f64::from(a) - b))
}

#[test]
fn tones_keep_level_and_phase_up_to_95_percent_of_half_the_rate() {
    for rate in [8000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
        let half = f64::from(rate.min(16_000)) / 2.0;
        for share in [0.003, 0.1, 0.5, 0.8, 0.9, 0.95] {
            let error = error(rate, half * share);
            assert!(error < -100.0, "{rate} Hz, tone at {share} of half of it: {error:.0} dB");
        }
    }
}

#[test]
fn tones_beyond_8_khz_leave_nothing() {
    for rate in [22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
        for hertz in [8000.0, 8010.0, 8200.0, 9000.0, 10_000.0, 10_900.0] {
            let error = error(rate, hertz);
            assert!(error < -120.0, "{rate} Hz, tone of {hertz} Hz: {error:.0} dB");
        }
    }
}

/// Its filter is as long as the second of sound itself, whose beginning and end are heard in the middle of it.
#[test]
fn a_rate_that_shares_no_factor_is_resampled_well() {
    for share in [0.01, 0.5, 0.9] {
        assert!(error(44_101, 8000.0 * share) < -90.0);
    }
    assert!(error(44_101, 8200.0) < -75.0 && error(44_101, 12_000.0) < -90.0);
}
