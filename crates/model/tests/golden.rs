//! The whole model against the reference implementation, on tiny checkpoints with every feature of the family.
//!
//! `CARAT_FIXTURES=DIR` runs the same on other fixtures, made with another seed. With `--nocapture` the error of
//! every stage is printed.

mod fixture;

use carat_cpu::Precision;
use carat_model::{LogitRows, Step};
use carat_tensor::backend::KvType;
use fixture::{Recording, argmax, decoder, fixtures, reference, relative_error, run};

/// Largest relative error of any stage in f32.
const STAGE_BOUND: f64 = 1e-4;
/// Largest relative error of the logits with 8-bit activations. A block of 32 activations rounds to within half a
/// step of its largest value over 127: about 0.4 % of its norm, independent in each product. Some twenty products
/// between embedding and logits add up in quadrature to about 2 %.
const FAST_BOUND: f64 = 3e-2;

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
        let prompt = Step { tokens: &fixture.ids, logits: LogitRows::Last };
        let mut next = argmax(decoder.forward(prompt).unwrap());
        for (i, expected) in fixture.greedy.iter().enumerate() {
            assert_eq!(next, *expected, "{}: token {i} of the continuation", fixture.name);
            next = argmax(decoder.forward(Step { tokens: &[next], logits: LogitRows::Last }).unwrap());
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
            assert!(decoder.forward(Step { tokens: filled, logits: LogitRows::None }).unwrap().is_empty());
            let (last, after) = shown.split_at(30);
            let logits = decoder.forward(Step { tokens: last, logits: LogitRows::Last }).unwrap();
            let error = relative_error(logits, &full.logits[89 * vocab..90 * vocab]);
            assert!(error < 1e-5, "{} in chunks of {chunk}: off by {error:e}", fixture.name);
            for (i, token) in after.iter().enumerate() {
                let logits = decoder.forward(Step { tokens: &[*token], logits: LogitRows::Last }).unwrap();
                let error = relative_error(logits, &full.logits[(90 + i) * vocab..(91 + i) * vocab]);
                assert!(error < 1e-5, "{} {i} after: off by {error:e}", fixture.name);
            }
        }
    }
}

#[test]
fn the_fast_path_stays_near_the_same_quantised_weights_in_f32() {
    let mut worst = (0.0, String::new());
    for fixture in fixtures() {
        for path in fixture.gguf(&["q8_0", "q4_0"]) {
            let exact = run(&mut reference(&path), &fixture.ids, &[128]);
            for (chunk, kv) in [(128, KvType::F32), (1, KvType::F16)] {
                let mut fast = decoder(&path, Precision::Fast, kv, 256, 128);
                let fast = run(&mut fast, &fixture.ids, &[chunk]);
                let error = relative_error(&fast.logits, &exact.logits);
                let file = path.file_name().unwrap().to_string_lossy();
                let what = format!("{} {file} fast, chunk {chunk}, {kv:?} cache", fixture.name);
                println!("{what}: logits {error:.1e}");
                if error > worst.0 || error.is_nan() {
                    worst = (error, what);
                }
            }
        }
    }
    assert!(worst.0 < FAST_BOUND, "{}: off by {:e}", worst.1, worst.0);
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
