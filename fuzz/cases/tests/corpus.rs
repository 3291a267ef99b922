//! Every input in `fuzz/corpus` goes through the laws of its parser.

use std::fs;
use std::path::{Path, PathBuf};

use carat_fuzz_cases::CASES;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let dir = corpus().join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|entry| entry.expect("a readable directory").path()).collect()
}

#[test]
fn every_input_of_the_corpus_keeps_the_laws() {
    for (name, case) in CASES {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for path in inputs {
            // Printed where the test fails.
            println!("{}", path.display());
            case(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn truncated_and_damaged_inputs_keep_the_laws() {
    for (name, case) in CASES {
        for path in inputs(name) {
            println!("{}", path.display());
            let whole = fs::read(&path).unwrap();
            let step = (whole.len() / 40).max(1);
            for at in (0..whole.len()).step_by(step) {
                case(&whole[..at]);
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << (at % 8);
                case(&damaged);
            }
        }
    }
}

#[test]
fn every_directory_of_the_corpus_has_a_case_and_a_target() {
    let targets = corpus().join("../fuzz_targets");
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(CASES.iter().any(|case| case.0 == name), "`{name}` has no case");
        assert!(targets.join(format!("{name}.rs")).is_file(), "`{name}` has no fuzz target");
    }
}
