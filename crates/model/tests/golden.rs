//! The whole model against the reference implementation, on tiny checkpoints with every feature of the family.
//!
//! `CARAT_FIXTURES=DIR` runs the same on other fixtures, made with another seed. With `--nocapture` the error of
//! every stage is printed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod fixture;

use carat_cpu::Precision;
use carat_model::plan::{FfnPlan, KvSource, ValueSource};
use carat_model::{DecoderOptions, LayerPlan, LogitRows, Piece, Step};
use carat_tensor::backend::KvType;
use fixture::{Recording, argmax, decoder, fixtures, load, reference, relative_error, run};

/// Largest relative error of any stage in f32.
const STAGE_BOUND: f64 = 1e-4;
/// Largest relative error of logits on the fast path.
const FAST_BOUND: f64 = 3e-2;
/// The same with all inputs of products rounded to 8 bits, experts' choice with them.
const COARSE_BOUND: f64 = 6e-2;
/// Rounding error of a product's input of `steps` steps, relative: of 32 normal values the largest is 2.07 deviations
/// on average, a step so many times smaller, or up to twice as large for being a power of two under the row's, of which the root
/// mean square is 1.47; and a rounded value off by a step over √12.
const ROUNDING: f64 = 1.47 * 2.07 / 3.4641;
/// Steps of the largest value in 15 bits.
const FINE_STEPS: f64 = 127.0 * 128.0;
/// Steps where experts are chosen: 22 bits.
const FINEST_STEPS: f64 = FINE_STEPS * 128.0;
/// What sums in f32 leave in either path.
const SUMS: f64 = 5e-6;
/// Room for random weights, which amplify errors on their way: over 15 checkpoints of other seeds 0.6 to 1.5 times.
const MARGIN: f64 = 4.0;

/// Bound of the relative error that rounded activations leave after these layers: every product on the way adds its own,
/// independent of the others and about as large at the end as where it arose.
fn fine_bound(plan: &[LayerPlan]) -> f64 {
    let products = plan.iter().map(|p| {
        let kv = match (p.kv, p.value) {
            (KvSource::SharedWith(_), _) => 0,
            (KvSource::Own, ValueSource::SameAsKey) => 1,
            (KvSource::Own, ValueSource::Projected) => 2,
        };
        let experts = if matches!(p.ffn, FfnPlan::DenseAndExperts { .. }) { 3 } else { 0 };
        let per_layer = 3;
        4 + kv + experts + per_layer
    });
    let chooses = plan.iter().any(|p| matches!(p.ffn, FfnPlan::DenseAndExperts { .. }));
    let steps = if chooses { FINEST_STEPS } else { FINE_STEPS };
    let head = FINE_STEPS.powi(-2);
    SUMS + MARGIN * ROUNDING * (f64::from(products.sum::<i32>()) / steps.powi(2) + head).sqrt()
}

/// Checks every stage; returns the table's line.
#[track_caller]
fn check(what: &str, fixture: &fixture::Fixture, recording: &Recording) -> String {
    let mut line = format!("{:<4} {what:<16}", fixture.name);
    for (stage, rows) in recording.stages() {
        let error = relative_error(&fixture.recorded(rows), &fixture.expected(&stage));
        line += &format!(" {stage} {error:.1e}");
        assert!(error < STAGE_BOUND, "{} {what}: {stage} is off by {error:e}", fixture.name);
    }
    line
}

#[test]
fn every_stage_agrees_in_one_chunk() {
    for fixture in fixtures() {
        let recording = run(&mut reference(&fixture.dir), &fixture.ids, &[128]);
        println!("{}", check("one chunk", &fixture, &recording));
    }
}

#[test]
fn every_stage_agrees_in_uneven_chunks() {
    for fixture in fixtures() {
        let recording = run(&mut reference(&fixture.dir), &fixture.ids, &[1, 7, 16, 33, 2, 17]);
        println!("{}", check("uneven chunks", &fixture, &recording));
    }
}

#[test]
fn every_stage_agrees_token_by_token() {
    for fixture in fixtures() {
        let recording = run(&mut reference(&fixture.dir), &fixture.ids, &[1]);
        println!("{}", check("token by token", &fixture, &recording));
    }
}

#[test]
fn rings_as_small_as_a_window_and_a_chunk_suffice() {
    for fixture in fixtures() {
        let mut small = decoder(&fixture.dir, Precision::Reference, KvType::F32, 128, 17);
        let recording = run(&mut small, &fixture.ids, &[17]);
        println!("{}", check("small rings", &fixture, &recording));
    }
}

#[test]
fn gguf_files_of_the_same_weights_agree_at_every_stage() {
    for fixture in fixtures() {
        for path in fixture.gguf(&["bf16"]) {
            let recording = run(&mut reference(&path), &fixture.ids, &[40]);
            println!("{}", check("bf16.gguf", &fixture, &recording));
        }
    }
}

#[test]
fn greedy_continuation_is_the_references() {
    for fixture in fixtures() {
        let mut decoder = reference(&fixture.dir);
        let prompt = Step { pieces: &[Piece::Tokens(&fixture.ids)], logits: LogitRows::Last };
        let mut next = argmax(decoder.forward(prompt).unwrap());
        for (i, expected) in fixture.greedy.iter().enumerate() {
            assert_eq!(next, *expected, "{}: token {i} of the continuation", fixture.name);
            next =
                argmax(decoder.forward(Step { pieces: &[Piece::Tokens(&[next])], logits: LogitRows::Last }).unwrap());
        }
        assert_eq!(decoder.position(), fixture.ids.len() + fixture.greedy.len());
    }
}

/// Prefill runs the layers that nobody reads for the last row only; what they leave out must not show, neither in
/// the last row's logits nor in anything later.
#[test]
fn prefill_of_the_last_row_alone_gives_the_same_logits() {
    for fixture in fixtures() {
        let full = run(&mut reference(&fixture.dir), &fixture.ids, &[128]);
        let vocab = full.logits.len() / fixture.ids.len();
        for chunk in [1, 7, 33, 128] {
            let mut decoder = decoder(&fixture.dir, Precision::Reference, KvType::F32, 256, chunk);
            let (filled, shown) = fixture.ids.split_at(60);
            assert!(
                decoder.forward(Step { pieces: &[Piece::Tokens(filled)], logits: LogitRows::None }).unwrap().is_empty()
            );
            let (last, after) = shown.split_at(30);
            let logits = decoder.forward(Step { pieces: &[Piece::Tokens(last)], logits: LogitRows::Last }).unwrap();
            let error = relative_error(logits, &full.logits[89 * vocab..90 * vocab]);
            assert!(error < 1e-5, "{} in chunks of {chunk}: off by {error:e}", fixture.name);
            for (i, token) in after.iter().enumerate() {
                let logits =
                    decoder.forward(Step { pieces: &[Piece::Tokens(&[*token])], logits: LogitRows::Last }).unwrap();
                let error = relative_error(logits, &full.logits[(90 + i) * vocab..(91 + i) * vocab]);
                assert!(error < 1e-5, "{} {i} after: off by {error:e}", fixture.name);
            }
        }
    }
}

/// Rows whose logits are wanted are rounded to 15 bits, and up to the head to 22 where experts are chosen: 15 made another
/// choice in four of six files.
#[test]
fn the_fast_path_stays_near_the_same_quantised_weights_in_f32() {
    for fixture in fixtures() {
        for path in fixture.gguf(&["q8_0", "q4_0"]) {
            let exact = run(&mut reference(&path), &fixture.ids, &[128]);
            for chunk in [128, 1] {
                let mut decoder = decoder(&path, Precision::Fast, KvType::F32, 256, 128);
                let fast = run(&mut decoder, &fixture.ids, &[chunk]);
                let error = relative_error(&fast.logits, &exact.logits);
                let bound = fine_bound(decoder.plan());
                let what = format!("{} {:?} chunk {chunk}", fixture.name, path.file_name().unwrap());
                println!("{what}: logits off by {error:.1e} of {bound:.1e}");
                assert!(error < bound, "{what}: off by {error:e} of {bound:e}");
            }
        }
    }
}

/// Of many rows that only fill the cache of a model without experts, the feed-forward networks' inputs are rounded to 8 bits; a
/// coarse decoder rounds all inputs so, with experts too. The cache is f16.
#[test]
fn a_prompts_last_row_stays_near_the_same_quantised_weights_in_f32() {
    for fixture in fixtures() {
        for path in fixture.gguf(&["q8_0", "q4_0"]) {
            let exact = run(&mut reference(&path), &fixture.ids, &[128]);
            let vocab = exact.logits.len() / fixture.ids.len();
            let mut finer = 0.0;
            for coarse in [false, true] {
                let mut last_rows = [Vec::new(), Vec::new()];
                for len in (40..=fixture.ids.len()).step_by(4) {
                    let options = DecoderOptions { ctx: 256, chunk: 48, coarse, ..DecoderOptions::default() };
                    let mut decoder = load(&path, Precision::Fast, options);
                    let prompt = Step { pieces: &[Piece::Tokens(&fixture.ids[..len])], logits: LogitRows::Last };
                    last_rows[0].extend_from_slice(decoder.forward(prompt).unwrap());
                    last_rows[1].extend_from_slice(&exact.logits[(len - 1) * vocab..len * vocab]);
                }
                let error = relative_error(&last_rows[0], &last_rows[1]);
                let what = format!("{} {:?} coarse {coarse}", fixture.name, path.file_name().unwrap());
                let bound = if coarse { COARSE_BOUND } else { FAST_BOUND };
                println!("{what}: last rows off by {error:.1e} of {bound:.1e}");
                assert!(error < bound && (!coarse || error > finer), "{what}: off by {error:e}, else {finer:e}");
                finer = error;
            }
        }
    }
}

#[test]
fn an_f16_cache_costs_little() {
    for fixture in fixtures() {
        let mut decoder = decoder(&fixture.dir, Precision::Reference, KvType::F16, 256, 128);
        let recording = run(&mut decoder, &fixture.ids, &[20]);
        let error = relative_error(&fixture.recorded(&recording.logits), &fixture.expected("logits"));
        println!("{} f16 cache: logits {error:.1e}", fixture.name);
        assert!(error < 5e-3, "{}: off by {error:e}", fixture.name);
    }
}

/// A Q8_0 cache rounds to a 254th of the largest of 32 values: 4.7e-3 of normal ones. The fixtures' heads are too small
/// for its blocks, so this asks the embedded model, whose cache is rounded twice in each of three layers.
#[test]
fn a_q8_0_cache_costs_little() {
    let nano = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint"));
    let ids: Vec<_> = (0..200).map(|i| carat_tensor::TokenId(300 + i * 4)).collect();
    let exact = run(&mut decoder(nano, Precision::Reference, KvType::F32, 256, 64), &ids, &[64]);
    let rounded = run(&mut decoder(nano, Precision::Reference, KvType::Q8_0, 256, 64), &ids, &[64]);
    let error = relative_error(&rounded.logits, &exact.logits);
    let bound = MARGIN * ROUNDING / 127.0 * 6f64.sqrt();
    println!("q8_0 cache: logits off by {error:.1e} of {bound:.1e}");
    assert!(error > 1e-5 && error < bound, "off by {error:e} of {bound:e}");
}
