//! Every input in `fuzz/corpus` goes through the laws of its parser, and so do the pictures, sounds and videos of `fixtures/media`:
//! whole, cut short and damaged.
//!
//! `CARAT_DAMAGE=N` adds N rounds of heavier damage to each.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use carat_fuzz_cases::{CASES, Case, Law};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where a parser's inputs are. Decoders of media share those of their tests, so a corpus of theirs holds what broke them.
fn folders(name: &str) -> Vec<PathBuf> {
    let media = fuzz().join("../fixtures/media");
    let mut folders = vec![fuzz().join("corpus").join(name)];
    match name {
        "picture" => folders.push(media.join("pictures")),
        "sound" => folders.push(media.join("sounds")),
        "video" => folders.push(media.join("videos")),
        _ => {}
    }
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let entries = folders(name).into_iter().flat_map(|dir| fs::read_dir(dir).expect("a readable directory"));
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    // Pixels that the tests of pictures compare with.
    inputs.retain(|path| path.extension().is_none_or(|extension| extension != "rgb"));
    inputs.sort();
    inputs
}

/// A parser's law and an input.
struct Input {
    parser: &'static str,
    law: Law,
    path: PathBuf,
    whole: Vec<u8>,
}

fn all_inputs() -> Vec<Input> {
    let of = |&(parser, law): &Case| {
        let paths = inputs(parser);
        assert!(!paths.is_empty(), "{parser} has no inputs");
        paths.into_iter().map(move |path| Input { parser, law, whole: fs::read(&path).expect("a readable file"), path })
    };
    CASES.iter().flat_map(of).collect()
}

/// Says on which input a law was broken.
struct Trying<'a>(&'a Path);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.display());
        }
    }
}

/// Does so many things on all cores, in order as far as they are free: some take a thousand times as long as others.
fn on_all_cores(n: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < n) {
                    work(i);
                }
            });
        }
    });
}

#[test]
fn every_input_of_the_corpus_keeps_the_laws() {
    let inputs = all_inputs();
    let taken = Mutex::new(HashSet::new());
    on_all_cores(inputs.len(), |i| {
        let Input { parser, law, path, whole } = &inputs[i];
        let _trying = Trying(path);
        if law(whole) {
            taken.lock().expect("nobody panicked").insert(*parser);
        }
    });
    // Laws of a parser that takes nothing are kept for nothing.
    let taken = taken.into_inner().expect("nobody panicked");
    assert!(CASES.iter().all(|(parser, _)| taken.contains(parser)), "{taken:?} took an input, others didn't");
}

#[test]
fn truncated_and_damaged_inputs_keep_the_laws() {
    let rounds = std::env::var("CARAT_DAMAGE").map_or(10, |rounds| rounds.parse().expect("a number of rounds"));
    let inputs = all_inputs();
    let mut todo: Vec<(&Input, Damage)> = Vec::new();
    for input in &inputs {
        let step = (input.whole.len() / 40).max(1);
        todo.extend((0..input.whole.len()).step_by(step).map(|at| (input, Damage::At(at))));
        todo.extend((0..rounds).map(|round| (input, Damage::Round(round))));
    }
    on_all_cores(todo.len(), |i| {
        let (Input { law, path, whole, .. }, damage) = &todo[i];
        let _trying = Trying(path);
        match *damage {
            Damage::At(at) => {
                law(&whole[..at]);
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << (at % 8);
                law(&damaged);
                damaged[at] = 0xff;
                law(&damaged);
            }
            Damage::Round(round) => drop(law(&Dice((round << 32) + whole.len() as u64).damage(whole))),
        }
    });
}

/// What is done to an input.
enum Damage {
    /// It ends there, or another byte is there.
    At(usize),
    /// Whatever falls in this round.
    Round(u64),
}

/// A linear congruential generator (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    /// A few bytes changed, most of them near the start, where the sizes are; now and then a piece doubled or lost.
    fn damage(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        for _ in 0..1 + self.below(6) {
            let reach = if self.below(3) > 0 { bytes.len().min(120) } else { bytes.len() };
            let at = self.below(reach);
            let value = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(6)];
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
        }
        let (at, len) = (self.below(bytes.len()), self.below(64));
        let piece = at..(at + len).min(bytes.len());
        match self.below(4) {
            0 => drop(bytes.drain(piece)),
            1 => {
                let copy = bytes[piece].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {}
        }
        bytes
    }
}

#[test]
fn every_case_has_a_target_and_every_directory_of_the_corpus_a_case() {
    for (name, _) in CASES {
        assert!(fuzz().join(format!("fuzz_targets/{name}.rs")).is_file(), "`{name}` has no fuzz target");
    }
    for entry in fs::read_dir(fuzz().join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(CASES.iter().any(|case| case.0 == name), "`{name}` has no case");
    }
}
