//! `carat pack`: the same answers from interleaved weights, and what becomes of files that aren't right.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;

use std::path::{Path, PathBuf};

use files::{floats, tensors};
use program::{Scratch, carat, done};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/e2b");

/// A quantised model in a directory of its own.
fn model(dir: &Scratch, kind: &str) -> PathBuf {
    std::fs::create_dir(&dir.0).unwrap();
    let model = dir.0.join("model.gguf");
    done(carat(&["quantize", SOURCE, model.to_str().unwrap(), "--type", kind]).output().unwrap());
    model
}

fn logits(model: &Path) -> Vec<f32> {
    let out = Scratch::new(&format!("pack-{}.safetensors", model.parent().unwrap().file_name().unwrap().display()));
    let ids = (20..40).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    done(carat(&["logits", model.to_str().unwrap(), "--tokens", &ids, "--out", out.arg()]).output().unwrap());
    floats(&tensors(&out.0).get("logits").unwrap().data)
}

fn error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let distance: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (distance / expected.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// Makes the interleaved copy; `None` where this machine has no use for it, which the program must say.
fn packed(model: &Path) -> Option<PathBuf> {
    let said = String::from_utf8(done(carat(&["pack", model.to_str().unwrap()]).output().unwrap())).unwrap();
    let tiles = PathBuf::from(format!("{}.tiles", model.display()));
    if said.contains("nothing to do") {
        assert!(!tiles.exists() && !cfg!(target_arch = "x86_64"), "{said}");
        return None;
    }
    assert!(said.contains("model.gguf.tiles"), "{said}");
    Some(tiles)
}

#[test]
fn answers_are_the_same_from_interleaved_weights() {
    for kind in ["q4_0", "q8_0", "bf16"] {
        let dir = Scratch::new(&format!("pack-{kind}"));
        let model = model(&dir, kind);
        let before = logits(&model);
        let Some(tiles) = packed(&model) else { return };
        // Products are integers, exact in any order, or those of the same floats: what differs is the rounding of sums in f32.
        let after = error(&logits(&model), &before);
        assert!(after < 1e-5, "{kind}: {after:e}");
        let check = || carat(&["pack", "--check", model.to_str().unwrap()]).output().unwrap();
        done(check());
        // That it is read shows when it is wrong.
        let mut bytes = std::fs::read(&tiles).unwrap();
        let len = bytes.len();
        bytes[len - len / 3..].iter_mut().for_each(|b| *b &= 0x3b);
        std::fs::write(&tiles, bytes).unwrap();
        assert!(error(&logits(&model), &before) > 1e-3, "{kind}: the copy isn't read");
        let checked = check();
        assert!(!checked.status.success());
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(said.contains("is not what the model gives") && said.contains("expected 0x"), "{said}");
        done(carat(&["pack", "--remove", model.to_str().unwrap()]).output().unwrap());
        assert!(!tiles.exists() && logits(&model) == before);
    }
}

#[test]
fn a_directory_keeps_its_copy_in_itself() {
    let dir = Scratch::new("pack-directory");
    std::fs::create_dir(&dir.0).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(SOURCE).join(file), dir.0.join(file)).unwrap();
    }
    let before = logits(&dir.0);
    let said = String::from_utf8(done(carat(&["pack", dir.arg()]).output().unwrap())).unwrap();
    let tiles = dir.0.join("model.tiles");
    if said.contains("nothing to do") {
        assert!(!tiles.exists() && !cfg!(target_arch = "x86_64"), "{said}");
        return;
    }
    assert!(said.contains("model.tiles"), "{said}");
    assert!(error(&logits(&dir.0), &before) < 1e-5);
    done(carat(&["pack", "--check", dir.arg()]).output().unwrap());
    let first = std::fs::read(&tiles).unwrap();
    std::fs::write(&tiles, "of another model").unwrap();
    done(carat(&["pack", dir.arg()]).output().unwrap());
    assert!(std::fs::read(&tiles).unwrap() == first, "it is made anew");
    done(carat(&["pack", "--remove", dir.arg()]).output().unwrap());
    assert!(!tiles.exists() && logits(&dir.0) == before);
}

#[test]
fn a_copy_of_another_file_or_half_of_one_is_not_read() {
    let dir = Scratch::new("pack-stale");
    let model = model(&dir, "q4_0");
    let before = logits(&model);
    let Some(tiles) = packed(&model) else { return };
    let bytes = std::fs::read(&tiles).unwrap();
    for broken in [&bytes[..bytes.len() / 2], &[][..], &[255; 64]] {
        std::fs::write(&tiles, broken).unwrap();
        assert_eq!(logits(&model), before);
    }
    // The model is written anew: with other bytes it would be another model.
    std::fs::write(&tiles, &bytes).unwrap();
    let copy = std::fs::read(&model).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&model, copy).unwrap();
    assert_eq!(logits(&model), before);
    packed(&model).unwrap();
    assert!(error(&logits(&model), &before) < 1e-5);
}
