//! Whole models with pictures, frames and sounds in their sequences against the reference implementation, on tiny checkpoints
//! with text model and encoder (`fixtures/make_media_models.py`): in one pass, in chunks of any length, and from the cache.
//!
//! `CARAT_MEDIA_MODELS=DIR` runs the same on other fixtures, made with another seed. With `--nocapture` the error of every
//! stage is printed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../../media/tests/drawing/mod.rs"]
mod drawing;
mod fixture;

use std::path::PathBuf;

use carat_cpu::{CpuBackend, CpuOptions, Precision};
use carat_media::picture::{Budget, Patching, patches};
use carat_media::sound::{BANDS, MAX_FRAMES, log_mel, raw_frames};
use carat_model::{
    Decoder, DecoderOptions, LogitRows, ModelError, PictureEncoder, Piece, SoftKind, SoundEncoder, Step,
};
use carat_tensor::TokenId;
use carat_tensor::backend::KvType;
use carat_weights::Checkpoint;
use drawing::pattern;
use fixture::{Fixture, Recording, argmax, relative_error};

/// Largest relative error of any stage, in f32.
const STAGE_BOUND: f64 = 1e-4;
/// Of soft tokens and the logits after them where encoders multiply 16-bit integers: half of what one rounding to bf16 is off by.
const ROUNDED_BOUND: f64 = 1.0 / 1024.0;
const MODELS: [&str; 3] = ["e2b", "31b", "12b"];

fn open(name: &str) -> Fixture {
    let committed = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/multimodal"));
    Fixture::open(&std::env::var_os("CARAT_MEDIA_MODELS").map_or_else(committed, PathBuf::from).join(name))
}

/// One picture, frame or sound.
struct Medium {
    kind: SoftKind,
    n: usize,
    rows: Vec<f32>,
}

fn bound(precision: Precision) -> f64 {
    if precision == Precision::Reference { STAGE_BOUND } else { ROUNDED_BOUND }
}

/// Encodes what the fixture's sequence shows, and compares the soft tokens.
fn media(fixture: &Fixture, precision: Precision) -> Vec<Medium> {
    let mut backend = CpuBackend::new(CpuOptions { threads: Some(2), precision, isa: None }).unwrap();
    let checkpoint = carat_weights::open(&fixture.dir).unwrap();
    let mut eyes = PictureEncoder::load(&mut backend, &checkpoint, Budget::ALL[0].tokens()).unwrap();
    let described: Vec<[usize; 4]> =
        fixture.counts("media").as_chunks::<4>().0.iter().map(|m| m.map(|v| v as usize)).collect();
    let mut media = Vec::new();
    for (index, [kind, width, height, n]) in described.into_iter().enumerate() {
        let kind = [SoftKind::Image, SoftKind::Video, SoftKind::Audio][kind - 1];
        let rows = if kind == SoftKind::Audio {
            let wave = |i: usize| (0.5 * (i as f64 / 7.0).sin() + 0.25 * (i as f64 / 3.1).sin()) as f32;
            let samples: Vec<f32> = (0..width).map(wave).collect();
            let mut ears = SoundEncoder::load(&mut backend, &checkpoint, MAX_FRAMES).unwrap();
            let input = match &ears {
                SoundEncoder::Frames(_) => raw_frames(&samples).unwrap().values,
                SoundEncoder::Tower(_) => {
                    let mel = log_mel(&samples).unwrap();
                    mel.values[..mel.valid * BANDS].to_vec()
                }
            };
            ears.encode(&mut backend, &input).unwrap()
        } else {
            let patching = if eyes.patch_side() == 16 { Patching::Tower } else { Patching::Blocks };
            let patches = patches(&pattern(width, height), Budget::ALL[0], patching);
            eyes.encode(&mut backend, &patches.values, &patches.positions, None).unwrap()
        };
        let expected = fixture.expected(&format!("soft.{index}"));
        let error = relative_error(&rows[rows.len() - expected.len()..], &expected);
        println!("{} medium {index}, {precision:?}: soft tokens {error:.1e}", fixture.name);
        assert!(error < bound(precision), "{}: soft tokens of medium {index} are off by {error:e}", fixture.name);
        media.push(Medium { kind, n, rows });
    }
    media
}

/// The sequence with soft tokens in the place of placeholder runs.
fn pieces<'a>(fixture: &'a Fixture, media: &'a [Medium]) -> Vec<Piece<'a>> {
    let (mut pieces, mut at, mut next) = (Vec::new(), 0, media.iter());
    let is_place = |id: &TokenId| [7, 10, 11].contains(&id.0);
    while at < fixture.ids.len() {
        let rest = &fixture.ids[at..];
        let words = rest.iter().take_while(|id| !is_place(id)).count();
        pieces.push(Piece::Tokens(&rest[..words]));
        at += words;
        if let (true, Some(Medium { kind, n, rows })) = (at < fixture.ids.len(), next.next()) {
            pieces.push(Piece::Soft { kind: *kind, n: *n, rows });
            at += n;
        }
    }
    assert!(next.next().is_none() && carat_model::input::n_rows(&pieces) == fixture.ids.len());
    pieces
}

fn decoder(fixture: &Fixture, precision: Precision, chunk: usize) -> Decoder<CpuBackend> {
    with_room(fixture, precision, chunk, Budget::ALL[0].tokens())
}

/// For pictures of up to `block` soft tokens.
fn with_room(fixture: &Fixture, precision: Precision, chunk: usize, block: usize) -> Decoder<CpuBackend> {
    let backend = CpuBackend::new(CpuOptions { threads: Some(2), precision, isa: None }).unwrap();
    let mut checkpoint = carat_weights::open(&fixture.dir).unwrap();
    let options = DecoderOptions { ctx: block + 442, kv: KvType::F32, chunk, block, ..DecoderOptions::default() };
    Decoder::load(backend, &mut checkpoint, options).unwrap().0
}

#[track_caller]
fn close(fixture: &Fixture, found: &Recording, how: &str) {
    let mut worst: f64 = 0.0;
    for (stage, rows) in found.stages().filter(|(stage, _)| stage != "final_norm") {
        let error = relative_error(&fixture.recorded(rows), &fixture.expected(&stage));
        assert!(error < STAGE_BOUND, "{}, {how}: {stage} is off by {error:e}", fixture.name);
        worst = worst.max(error);
    }
    println!("{} {how}: every stage within {worst:.1e}", fixture.name);
}

#[test]
fn every_stage_agrees_in_one_pass() {
    for name in MODELS {
        let fixture = open(name);
        let media = media(&fixture, Precision::Reference);
        let pieces = pieces(&fixture, &media);
        let mut found = Recording::default();
        let mut decoder = decoder(&fixture, Precision::Reference, 400);
        let step = Step { pieces: &pieces, logits: LogitRows::All };
        found.logits = decoder.forward_tapped(step, &mut found).unwrap().to_vec();
        close(&fixture, &found, "one pass");
    }
}

#[test]
fn every_stage_agrees_in_chunks_of_any_length() {
    for name in MODELS {
        let fixture = open(name);
        let media = media(&fixture, Precision::Reference);
        let pieces = pieces(&fixture, &media);
        for chunk in [1, 7, 61, 64, 130] {
            let mut decoder = decoder(&fixture, Precision::Reference, chunk);
            let (mut found, mut start) = (Recording::default(), 0);
            let ends = decoder.pass_ends(&pieces);
            for end in ends {
                let part: Vec<Piece<'_>> = carat_model::input::parts(&pieces, start..end).collect();
                let step = Step { pieces: &part, logits: LogitRows::All };
                let logits = decoder.forward_tapped(step, &mut found).unwrap().to_vec();
                found.logits.extend(logits);
                start = end;
            }
            close(&fixture, &found, &format!("chunks of {chunk}"));
        }
    }
}

/// As an answer is made: only the last row passes all layers.
#[test]
fn the_next_tokens_are_the_reference_s() {
    for name in MODELS {
        let fixture = open(name);
        for (precision, chunk) in [(Precision::Reference, 50), (Precision::Reference, 400), (Precision::Fast, 64)] {
            let media = media(&fixture, precision);
            let pieces = pieces(&fixture, &media);
            let mut decoder = decoder(&fixture, precision, chunk);
            let logits = decoder.forward(Step { pieces: &pieces, logits: LogitRows::Last }).unwrap().to_vec();
            let expected = fixture.expected("logits");
            let error = relative_error(&logits, &expected[expected.len() - logits.len()..]);
            println!("{name} {precision:?} chunk {chunk}: last logits {error:.1e}");
            assert!(error < bound(precision), "{name}, chunk {chunk}: the last logits are off by {error:e}");
            let (mut next, mut made) = (argmax(&logits), Vec::new());
            while made.len() < fixture.greedy.len() {
                made.push(next);
                let step = Step { pieces: &[Piece::Tokens(&[next])], logits: LogitRows::Last };
                next = argmax(decoder.forward(step).unwrap());
            }
            assert_eq!(made, fixture.greedy, "{name}, chunk {chunk}");
        }
    }
}

/// A prompt may end with a picture: then the last row isn't cut off, as it belongs to the others.
#[test]
fn a_sequence_may_end_in_a_picture() {
    for name in MODELS {
        let fixture = open(name);
        let media = media(&fixture, Precision::Reference);
        let pieces = &pieces(&fixture, &media)[..2];
        let n = carat_model::input::n_rows(pieces);
        let all = Step { pieces, logits: LogitRows::All };
        let all = decoder(&fixture, Precision::Reference, 128).forward(all).unwrap().to_vec();
        let mut decoder = decoder(&fixture, Precision::Reference, 16);
        let last = decoder.forward(Step { pieces, logits: LogitRows::Last }).unwrap();
        assert!(relative_error(last, &all[all.len() / n * (n - 1)..]) < STAGE_BOUND, "{name}");
    }
}

/// A picture of the largest budget is longer than any chunk and passes in one all the same: its tokens see each other as they do
/// where one chunk holds the whole sequence.
#[test]
fn the_largest_picture_is_never_parted() {
    const BLOCK: usize = 1120;
    assert_eq!(Budget::ALL[Budget::ALL.len() - 1].tokens(), BLOCK);
    for name in ["31b", "12b"] {
        let fixture = open(name);
        let words: Vec<TokenId> = (0..60).map(|i| TokenId(20 + i)).collect();
        let logits = |kind: SoftKind, chunk: usize| -> Vec<f32> {
            let mut decoder = with_room(&fixture, Precision::Reference, chunk, BLOCK);
            let width = decoder.config().d_model;
            let rows: Vec<f32> = (0..BLOCK * width).map(|i| (i as f32 * 0.37).sin()).collect();
            let picture = Piece::Soft { kind, n: BLOCK, rows: &rows };
            let pieces = [Piece::Tokens(&words[..37]), picture, Piece::Tokens(&words[37..])];
            let (mut all, mut start) = (Vec::new(), 0);
            for end in decoder.pass_ends(&pieces) {
                let parted = kind == SoftKind::Image && (38..37 + BLOCK).contains(&end);
                assert!(!parted, "{name}: chunks of {chunk} end after {end} rows, in the picture");
                let part: Vec<Piece<'_>> = carat_model::input::parts(&pieces, start..end).collect();
                all.extend_from_slice(decoder.forward(Step { pieces: &part, logits: LogitRows::All }).unwrap());
                start = end;
            }
            all
        };
        let whole = logits(SoftKind::Image, BLOCK + 60);
        for chunk in [16, 37, 500] {
            let error = relative_error(&logits(SoftKind::Image, chunk), &whole);
            println!("{name} chunks of {chunk}: {error:.1e}");
            assert!(error < STAGE_BOUND, "{name}: in chunks of {chunk} logits are off by {error:e}");
        }
        // The tokens of a sound see those before them only, and it shows.
        assert!(relative_error(&logits(SoftKind::Audio, 500), &whole) > 1e-2, "{name}");
    }
}

/// That the text model has no use for a tower's tensors says nothing of the tower's loader.
#[test]
fn towers_are_checked_after_the_text_model_was_loaded() {
    let Checkpoint::HfDir(mut dir) = carat_weights::open(&open("e2b").dir).unwrap() else { panic!("a file") };
    dir.config["vision_config"]["use_clipped_linears"] = false.into();
    dir.config["audio_config"]["use_clipped_linears"] = false.into();
    let mut checkpoint = Checkpoint::HfDir(dir);
    let backend = || CpuBackend::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let options = DecoderOptions { ctx: 64, ..DecoderOptions::default() };
    Decoder::load(backend(), &mut checkpoint, options).unwrap();
    let eyes = PictureEncoder::load(&mut backend(), &checkpoint, 70).err();
    let ears = SoundEncoder::load(&mut backend(), &checkpoint, 128).err();
    for error in [eyes, ears] {
        let error = error.expect("the file has bounds").to_string();
        assert!(error.contains("no place for") && error.contains("input_max"), "{error}");
    }
}

#[test]
fn soft_tokens_that_do_not_fit_are_refused() {
    let fixture = open("31b");
    let mut decoder = decoder(&fixture, Precision::Reference, 16);
    let width = decoder.config().d_model;
    let mut error = |n: usize, values: usize| -> ModelError {
        let piece = Piece::Soft { kind: SoftKind::Image, n, rows: &vec![0.5; values] };
        decoder.forward(Step { pieces: &[piece], logits: LogitRows::None }).unwrap_err()
    };
    let wrong = error(3, 3 * width - 1).to_string();
    assert!(wrong.contains("3 soft tokens have 95 values; expected 32"), "{wrong}");
    let long = error(71, 71 * width).to_string();
    assert!(long.contains("71 soft tokens") && long.contains("room for 70"), "{long}");
    assert_eq!(decoder.position(), 0);
}
