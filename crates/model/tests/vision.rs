//! The picture encoder against the reference implementation, from pixels to soft tokens, on tiny towers of both kinds
//! (`fixtures/make_towers.py`), and what loading it refuses.
//!
//! `CARAT_TOWERS=DIR` runs the same on other fixtures, made with another seed. With `--nocapture` the error of every
//! stage is printed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../../media/tests/drawing/mod.rs"]
mod drawing;

use std::path::{Path, PathBuf};

use carat_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use carat_media::picture::{Budget, Patches, Patching, patches};
use carat_model::{ModelError, VisionTap, VisionTower};
use carat_tensor::{Bytes, DType};
use carat_weights::{Checkpoint, HfDir, StoredType, TensorInfo, Weights, map_file, safetensors};
use drawing::pattern;
use serde_json::{Value, json};

/// Largest relative error of any stage, in f32.
const STAGE_BOUND: f64 = 1e-4;
/// The same where products are of 16-bit integers: half of what one rounding to bf16 is off by, as the reference rounds after
/// every operation when it runs the published weights in their own type.
const ROUNDED_BOUND: f64 = 1.0 / 1024.0;
const KINDS: [&str; 2] = ["clipped", "standard"];

fn dir(kind: &str) -> PathBuf {
    let committed = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
    std::env::var_os("CARAT_TOWERS").map_or_else(committed, PathBuf::from).join("vision").join(kind)
}

fn backend(precision: Precision, isa: Option<Isa>) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: Some(2), precision, isa }).unwrap()
}

/// What the reference computed.
struct Expected(Weights);

impl Expected {
    fn open(kind: &str) -> Self {
        let bytes = map_file(&dir(kind).join("expected.safetensors")).unwrap();
        Expected(Weights::new("expected".into(), safetensors::read("expected", &bytes).unwrap()).unwrap())
    }

    fn bytes(&self, name: &str) -> Bytes {
        self.0.get(name).unwrap_or_else(|| panic!("{name}")).data.clone()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn counts(&self, name: &str) -> Vec<usize> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect()
    }

    /// The patches of picture `index`, checked against those the reference's processor made.
    fn patches(&self, index: usize) -> Patches {
        let size = self.counts(&format!("{index}.size"));
        let patches = patches(&pattern(size[0], size[1]), Budget::ALL[0], Patching::Tower);
        let positions: Vec<u8> = patches.positions.iter().flatten().map(|&c| c as u8).collect();
        assert_eq!(positions, self.bytes(&format!("{index}.positions"))[..]);
        let pixels = self.bytes(&format!("{index}.pixel_values"));
        for (row, pixels) in self.counts(&format!("{index}.rows")).into_iter().zip(pixels.chunks_exact(768)) {
            let given = patches.values[row * 768..(row + 1) * 768].iter();
            assert!(given.zip(pixels).all(|(v, p)| *v == f32::from(*p) * (1.0 / 255.0)), "patch {row} of {index}");
        }
        patches
    }
}

/// All rows of every stage.
#[derive(Default)]
struct Recording {
    hidden: Vec<Vec<f32>>,
    pooled: Vec<f32>,
}

impl VisionTap for Recording {
    fn hidden(&mut self, stage: usize, rows: &[f32]) {
        assert_eq!(stage, self.hidden.len());
        self.hidden.push(rows.to_vec());
    }

    fn pooled(&mut self, rows: &[f32]) {
        self.pooled = rows.to_vec();
    }
}

/// `‖a − b‖ / ‖b‖`, not a number where either is not finite.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (distance / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

/// Every stage of every picture.
fn check(kind: &str, precision: Precision, isa: Option<Isa>) {
    let (expected, checkpoint) = (Expected::open(kind), carat_weights::open(&dir(kind)).unwrap());
    let mut backend = backend(precision, isa);
    let bound = if precision == Precision::Reference { STAGE_BOUND } else { ROUNDED_BOUND };
    let mut tower = VisionTower::load(&mut backend, &checkpoint, 70 * 9).unwrap();
    let (d, d_text) = (tower.config().d_model, tower.config().d_text);
    for index in 0..3 {
        let patches = expected.patches(index);
        let mut seen = Recording::default();
        let soft =
            tower.encode(&mut backend, &patches.values, &patches.positions, Some(&mut seen)).expect("a whole picture");
        assert_eq!(soft.len(), patches.soft_tokens * d_text);
        let rows = expected.counts(&format!("{index}.rows"));
        let recorded = |all: &[f32]| rows.iter().flat_map(|r| all[r * d..(r + 1) * d].to_vec()).collect::<Vec<f32>>();
        let mut stages: Vec<(String, Vec<f32>)> =
            seen.hidden.iter().enumerate().map(|(i, all)| (format!("hidden.{i}"), recorded(all))).collect();
        assert_eq!(stages.len(), tower.config().n_layers + 1);
        stages.push(("pooled".into(), seen.pooled[..rows.len() * d].to_vec()));
        stages.push(("soft_tokens".into(), soft[soft.len() - rows.len() * d_text..].to_vec()));
        let mut line = format!("{kind:<9} {precision:?} {isa:?} picture {index} ({} patches)", patches.positions.len());
        for (stage, found) in stages {
            let error = relative_error(&found, &expected.floats(&format!("{index}.{stage}")));
            line += &format!(" {stage} {error:.1e}");
            assert!(error < bound, "{kind}, picture {index}: {stage} is off by {error:e}");
        }
        println!("{line}");
    }
}

#[test]
fn every_stage_of_a_tower_with_bounds_agrees() {
    for precision in [Precision::Reference, Precision::Fast] {
        check("clipped", precision, None);
        check("clipped", precision, Some(Isa::Scalar));
    }
}

#[test]
fn every_stage_of_a_tower_with_standards_agrees() {
    for precision in [Precision::Reference, Precision::Fast] {
        check("standard", precision, None);
        check("standard", precision, Some(Isa::Scalar));
    }
}

#[test]
fn pictures_leave_nothing_behind() {
    let (expected, checkpoint) = (Expected::open("clipped"), carat_weights::open(&dir("clipped")).unwrap());
    let mut backend = backend(Precision::Fast, None);
    let mut tower = VisionTower::load(&mut backend, &checkpoint, 70 * 9).unwrap();
    let mut encode = |index| {
        let Patches { values, positions, .. } = expected.patches(index);
        tower.encode(&mut backend, &values, &positions, None).unwrap()
    };
    let (first, _, again) = (encode(0), encode(1), encode(0));
    assert_eq!(first, again);
}

// ---- what is refused

/// A checkpoint to change.
struct Parts {
    config: Value,
    tensors: Vec<TensorInfo>,
}

impl Parts {
    fn tensor(&mut self, name: &str) -> &mut TensorInfo {
        self.tensors.iter_mut().find(|t| t.name == format!("model.vision_tower.{name}")).unwrap()
    }

    fn load(self) -> Result<VisionTower<CpuBackend>, ModelError> {
        let checkpoint = Checkpoint::HfDir(HfDir {
            config: self.config,
            generation_config: None,
            tokenizer_json: None,
            tokenizer_config: None,
            chat_template: None,
            tensors: Weights::new("changed".into(), self.tensors).unwrap(),
        });
        VisionTower::load(&mut backend(Precision::Fast, None), &checkpoint, 70 * 9)
    }
}

fn parts(kind: &str) -> Parts {
    let dir = HfDir::open(&dir(kind)).unwrap();
    Parts { config: dir.config, tensors: dir.tensors.iter().cloned().collect() }
}

/// Loads the changed checkpoint; the error must contain every text.
#[track_caller]
fn refuses(kind: &str, change: impl FnOnce(&mut Parts), texts: &[&str]) {
    let mut parts = parts(kind);
    change(&mut parts);
    let error = parts.load().err().expect("an error").to_string();
    for text in texts {
        assert!(error.contains(text), "`{text}` is not in: {error}");
    }
}

#[test]
fn tensors_are_checked_by_name() {
    let gone = |name: &'static str| move |p: &mut Parts| p.tensors.retain(|t| !t.name.ends_with(name));
    refuses("clipped", gone("layers.1.mlp.up_proj.linear.weight"), &["layers.1.mlp.up_proj.linear.weight", "missing"]);
    refuses("standard", gone("std_scale"), &["model.vision_tower.std_scale", "[16]"]);
    refuses("standard", gone("embedding_projection.weight"), &["model.embed_vision.embedding_projection.weight"]);
    let reshape = |p: &mut Parts| p.tensor("patch_embedder.position_embedding_table").shape = vec![64, 2, 16];
    refuses("clipped", reshape, &["position_embedding_table", "[64, 2, 16]", "[2, 64, 16]"]);
    let more = |p: &mut Parts| p.tensor("std_bias").name = "model.vision_tower.std_bias_2".into();
    refuses("standard", more, &["std_bias"]);
    // Bounds in a tower that has none by its config would change every number.
    let unclipped = |p: &mut Parts| p.config["vision_config"]["use_clipped_linears"] = json!(false);
    refuses("clipped", unclipped, &["84 tensors this model has no place for", "input_max"]);
}

#[test]
fn bounds_are_checked() {
    let set = |name: &'static str, value: f32| {
        move |p: &mut Parts| {
            let tensor = p.tensor(&format!("encoder.layers.2.self_attn.q_proj.{name}"));
            (tensor.dtype, tensor.data) =
                (StoredType::Known(DType::F32), Bytes::from_vec(value.to_le_bytes().to_vec()));
        }
    };
    refuses("clipped", set("output_max", -7.0), &["layers.2.self_attn.q_proj.output_max", "-7", "not below"]);
    refuses("clipped", set("input_min", f32::NAN), &["layers.2.self_attn.q_proj", "NaN"]);
    let mut open = parts("clipped");
    set("input_max", f32::INFINITY)(&mut open);
    open.tensors.retain(|t| !t.name.ends_with("layers.0.mlp.down_proj.output_min"));
    assert!(open.load().is_ok(), "a bound may be absent or infinite");
}

#[test]
fn models_without_a_tower_say_so() {
    let without = |p: &mut Parts| p.config["vision_config"] = json!(null);
    refuses("clipped", without, &["no picture encoder", "config.json has no vision_config"]);
    let gguf = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/g3/bf16.gguf"));
    let error =
        VisionTower::load(&mut backend(Precision::Fast, None), &open(&gguf), 9).err().expect("an error").to_string();
    assert!(error.contains("GGUF") && error.contains("directory"), "{error}");
}

fn open(path: &Path) -> Checkpoint {
    carat_weights::open(path).unwrap()
}

#[test]
fn patches_that_are_no_picture_are_refused() {
    for kind in KINDS {
        let mut backend = backend(Precision::Fast, None);
        let mut tower = VisionTower::load(&mut backend, &open(&dir(kind)), 9).unwrap();
        let row: Vec<[i32; 2]> = (0..18).map(|x| [x % 6, x / 6]).collect();
        let mut encode = |values: &[f32], positions: &[[i32; 2]]| {
            tower.encode(&mut backend, values, positions, None).unwrap_err().to_string()
        };
        let error = encode(&[0.0; 18 * 768], &row);
        assert!(error.contains("18 patches") && error.contains("up to 9"), "{error}");
        let error = encode(&[0.0; 9 * 768 - 1], &row[..9]);
        assert!(error.contains("9 patches of 6911 values"), "{error}");
        let error = encode(&[0.0; 9 * 768], &row[..9]);
        assert!(error.contains("up to 6 side by side"), "{error}");
    }
}
