//! The sound encoder against the reference implementation, from waves to soft tokens, on tiny towers
//! (`fixtures/make_towers.py`), and what loading it refuses.
//!
//! `CARAT_TOWERS=DIR` runs the same on other fixtures, made with another seed. With `--nocapture` the error of every
//! stage is printed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../../media/tests/waves/mod.rs"]
mod waves;

use std::path::{Path, PathBuf};

use carat_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use carat_media::sound::{BANDS, log_mel};
use carat_model::{AudioTap, AudioTower, EncoderPlan, ModelError, audio};
use carat_tensor::{Bytes, DType};
use carat_weights::{Checkpoint, HfDir, StoredType, TensorInfo, Weights, map_file, safetensors};
use serde_json::{Value, json};
use waves::wave;

/// Largest relative error of any stage, in f32.
const STAGE_BOUND: f64 = 1e-4;
/// The same where products are of 16-bit integers: half of what one rounding to bf16 is off by, as the reference rounds after
/// every operation when it runs the published weights in their own type.
const ROUNDED_BOUND: f64 = 1.0 / 1024.0;
/// Largest error of a feature, of which the reference rounds the transform to f32.
const FEATURE_BOUND: f32 = 1e-4;
/// The recipe's `WAVES`.
const WAVES: [(&str, usize); 5] =
    [("noise", 161), ("mixed", 3000), ("sweep", 7681), ("mixed", 14400), ("noise", 20000)];

fn dir(kind: &str) -> PathBuf {
    let committed = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
    std::env::var_os("CARAT_TOWERS").map_or_else(committed, PathBuf::from).join("audio").join(kind)
}

fn backend(precision: Precision, isa: Option<Isa>) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: Some(2), precision, isa }).unwrap()
}

/// What the reference computed.
fn expected(kind: &str) -> Weights {
    let bytes = map_file(&dir(kind).join("expected.safetensors")).unwrap();
    Weights::new("expected".into(), safetensors::read("expected", &bytes).unwrap()).unwrap()
}

fn floats(weights: &Weights, name: &str) -> Vec<f32> {
    let tensor = weights.get(name).unwrap_or_else(|| panic!("{name}"));
    tensor.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The features of wave `index`, those of frames that hold nothing but sound.
fn mel(index: usize) -> Vec<f32> {
    let (kind, n) = WAVES[index];
    let mel = log_mel(&wave(kind, n)).unwrap();
    mel.values[..mel.valid * BANDS].to_vec()
}

/// All rows of every stage.
#[derive(Default)]
struct Recording {
    stages: Vec<(String, Vec<f32>)>,
}

impl AudioTap for Recording {
    fn hidden(&mut self, stage: usize, rows: &[f32]) {
        assert_eq!(stage, self.stages.len());
        self.stages.push((format!("hidden.{stage}"), rows.to_vec()));
    }

    fn output(&mut self, rows: &[f32]) {
        self.stages.push(("output".into(), rows.to_vec()));
    }
}

/// `‖a − b‖ / ‖b‖`, not a number where either is not finite.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (distance / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

/// Every stage of every wave.
fn check(kind: &str, precision: Precision, isa: Option<Isa>) {
    let (expected, checkpoint) = (expected(kind), carat_weights::open(&dir(kind)).unwrap());
    let mut backend = backend(precision, isa);
    let bound = if precision == Precision::Reference { STAGE_BOUND } else { ROUNDED_BOUND };
    let mut tower = AudioTower::load(&mut backend, &checkpoint, 128).unwrap();
    for (index, (wave, _)) in WAVES.iter().enumerate() {
        let mel = mel(index);
        let first = floats(&expected, &format!("{index}.mel"));
        assert!(mel.iter().zip(&first).all(|(a, b)| (a - b).abs() < FEATURE_BOUND));
        let mut seen = Recording::default();
        let soft = tower.encode(&mut backend, &mel, Some(&mut seen)).unwrap();
        assert_eq!(soft.len(), audio::rows(mel.len() / BANDS) * tower.config().d_text);
        seen.stages.push(("soft_tokens".into(), soft));
        assert_eq!(seen.stages.len(), tower.config().n_layers + 3);
        let mut line = format!("{kind:<8} {precision:?} {isa:?} {wave} of {} frames", mel.len() / BANDS);
        for (stage, found) in seen.stages {
            let error = relative_error(&found, &floats(&expected, &format!("{index}.{stage}")));
            line += &format!(" {stage} {error:.1e}");
            assert!(error < bound, "{kind}, wave {index}: {stage} is off by {error:e}");
        }
        println!("{line}");
    }
}

#[test]
fn every_stage_of_the_published_kind_agrees() {
    for precision in [Precision::Reference, Precision::Fast] {
        check("clipped", precision, None);
        check("clipped", precision, Some(Isa::Scalar));
    }
}

#[test]
fn every_stage_of_a_tower_of_other_settings_agrees() {
    for precision in [Precision::Reference, Precision::Fast] {
        check("plain", precision, None);
        check("plain", precision, Some(Isa::Scalar));
    }
}

#[test]
fn sounds_leave_nothing_behind() {
    let checkpoint = carat_weights::open(&dir("clipped")).unwrap();
    let mut backend = backend(Precision::Fast, None);
    let mut tower = AudioTower::load(&mut backend, &checkpoint, 128).unwrap();
    let mut encode = |index| tower.encode(&mut backend, &mel(index), None).unwrap();
    let (first, _, again) = (encode(3), encode(4), encode(3));
    assert_eq!(first, again);
}

#[test]
fn what_follows_changes_nothing_before_it() {
    let checkpoint = carat_weights::open(&dir("clipped")).unwrap();
    let mut backend = backend(Precision::Fast, None);
    let mut tower = AudioTower::load(&mut backend, &checkpoint, 128).unwrap();
    let whole = mel(4);
    let all = tower.encode(&mut backend, &whole, None).unwrap();
    let part = tower.encode(&mut backend, &whole[..(4 * 16 + 3) * BANDS], None).unwrap();
    let error = relative_error(&part[..16 * 20], &all[..16 * 20]);
    assert!(error < 1e-5, "{error:e}");
}

/// 34 bytes for 32 codes of 8 bits, beside which the file's lie unread.
#[test]
fn copies_of_quantised_matrices_are_in_the_plan() {
    let checkpoint = |quantised: bool| {
        let dir = HfDir::open(&dir("clipped")).unwrap();
        let mut tensors: Vec<TensorInfo> = dir.tensors.iter().cloned().collect();
        let name = "model.audio_tower.layers.0.feed_forward1.ffw_layer_2.linear.weight";
        if quantised {
            let matrix = tensors.iter_mut().find(|t| t.name == name).unwrap();
            assert_eq!(matrix.shape, [16, 64]);
            (matrix.dtype, matrix.data) = (StoredType::Other("I8"), Bytes::from_vec(vec![1; 16 * 64]));
            let (dtype, data) = (StoredType::Known(DType::F32), Bytes::from_vec(1f32.to_le_bytes().repeat(16)));
            tensors.push(TensorInfo { name: format!("{name}_scale"), dtype, shape: vec![16, 1], data });
        }
        Checkpoint::HfDir(HfDir { tensors: Weights::new("changed".into(), tensors).unwrap(), ..dir })
    };
    let plan = |quantised| EncoderPlan::of_sounds(&checkpoint(quantised), 128, 20_480).unwrap().unwrap();
    let (plain, quantised) = (plan(false), plan(true));
    assert_eq!(quantised.buffers - plain.buffers, 16 * 64 / 32 * 34);
    assert_eq!(plain.weights - quantised.weights, 2 * 16 * 64);
    let products = |plan: &EncoderPlan| plan.work.products.iter().map(|p| (p.cols, p.dtype)).collect::<Vec<_>>();
    let (mut expected, quantised) = (products(&plain), products(&quantised));
    let changed = (0..expected.len()).find(|i| expected[*i] != quantised[*i]).unwrap();
    expected[changed] = (64, DType::Q8_0);
    assert_eq!(quantised, expected);
}

// ---- what is refused

/// A checkpoint to change.
struct Parts {
    config: Value,
    tensors: Vec<TensorInfo>,
}

impl Parts {
    fn tensor(&mut self, name: &str) -> &mut TensorInfo {
        self.tensors.iter_mut().find(|t| t.name == format!("model.audio_tower.{name}")).unwrap()
    }

    fn load(self) -> Result<AudioTower<CpuBackend>, ModelError> {
        let checkpoint = Checkpoint::HfDir(HfDir {
            config: self.config,
            generation_config: None,
            tokenizer_json: None,
            tokenizer_config: None,
            chat_template: None,
            tensors: Weights::new("changed".into(), self.tensors).unwrap(),
        });
        AudioTower::load(&mut backend(Precision::Fast, None), &checkpoint, 128)
    }
}

/// Loads the changed checkpoint; the error must contain every text.
#[track_caller]
fn refuses(kind: &str, change: impl FnOnce(&mut Parts), texts: &[&str]) {
    let dir = HfDir::open(&dir(kind)).unwrap();
    let mut parts = Parts { config: dir.config, tensors: dir.tensors.iter().cloned().collect() };
    change(&mut parts);
    let error = parts.load().err().expect("an error").to_string();
    for text in texts {
        assert!(error.contains(text), "`{text}` is not in: {error}");
    }
}

#[test]
fn tensors_are_checked_by_name() {
    let gone = |name: &'static str| move |p: &mut Parts| p.tensors.retain(|t| !t.name.ends_with(name));
    refuses(
        "clipped",
        gone("layers.1.self_attn.per_dim_scale"),
        &["layers.1.self_attn.per_dim_scale", "missing", "[8]"],
    );
    refuses("plain", gone("output_proj.bias"), &["model.audio_tower.output_proj.bias", "[36]"]);
    refuses(
        "plain",
        gone("embed_audio.embedding_projection.weight"),
        &["model.embed_audio.embedding_projection.weight"],
    );
    let reshape = |p: &mut Parts| p.tensor("subsample_conv_projection.layer1.conv.weight").shape = vec![128, 4, 3, 3];
    refuses("clipped", reshape, &["layer1.conv.weight", "[128, 4, 3, 3]", "[4, 128, 3, 3]"]);
    let more =
        |p: &mut Parts| p.tensor("layers.1.norm_out.weight").name = "model.audio_tower.layers.2.norm_out.weight".into();
    refuses("plain", more, &["layers.1.norm_out.weight"]);
    // Bounds in a tower that has none by its config would change every number.
    let unclipped = |p: &mut Parts| p.config["audio_config"]["use_clipped_linears"] = json!(false);
    refuses("clipped", unclipped, &["80 tensors this model has no place for", "input_max"]);
}

#[test]
fn values_are_checked() {
    let set = |name: &'static str, value: f32| {
        move |p: &mut Parts| {
            let tensor = p.tensor(name);
            let data = value.to_le_bytes().repeat(tensor.shape.iter().product());
            (tensor.dtype, tensor.data) = (StoredType::Known(DType::F32), Bytes::from_vec(data));
        }
    };
    let bound = "layers.0.lconv1d.linear_end.output_max";
    refuses("clipped", set(bound, -7.0), &[bound, "-7", "not below"]);
    let scale = "layers.0.self_attn.per_dim_scale";
    refuses("clipped", set(scale, f32::NAN), &[scale, "NaN", "finite"]);
}

#[test]
fn models_without_a_tower_say_so() {
    let without = |p: &mut Parts| p.config["audio_config"] = json!(null);
    refuses("clipped", without, &["no sound encoder", "config.json has no audio_config", "E2B or E4B"]);
    let gguf = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/g3/bf16.gguf"));
    let error =
        AudioTower::load(&mut backend(Precision::Fast, None), &open(&gguf), 9).err().expect("an error").to_string();
    assert!(error.contains("GGUF") && error.contains("directory"), "{error}");
}

fn open(path: &Path) -> Checkpoint {
    carat_weights::open(path).unwrap()
}

#[test]
fn features_that_are_no_sound_are_refused() {
    let mut backend = backend(Precision::Fast, None);
    let mut tower = AudioTower::load(&mut backend, &open(&dir("plain")), 9).unwrap();
    for len in [0, 127, 129, 10 * 128] {
        let error = tower.encode(&mut backend, &vec![0.0; len], None).unwrap_err().to_string();
        assert!(error.contains(&format!("{len} features")) && error.contains("1 to 9 frames of 128"), "{error}");
    }
}
