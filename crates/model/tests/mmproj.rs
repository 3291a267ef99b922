//! Encoders from GGUF files, written by llama.cpp's converter (`fixtures/make_mmproj.py`), against what the reference computes
//! from the directories they come from.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../../media/tests/drawing/mod.rs"]
mod drawing;
mod mmproj_file;
#[path = "../../media/tests/waves/mod.rs"]
mod waves;

use std::path::{Path, PathBuf};

use carat_cpu::{CpuBackend, CpuOptions, Precision};
use carat_media::picture::{Budget, Patching, patches};
use carat_media::sound::{BANDS, log_mel, raw_frames};
use carat_model::{AudioTap, AudioTower, ModelError, PictureEncoder, SoundEncoder, VisionTap, VisionTower};
use carat_tensor::{Bytes, DType, quant};
use carat_weights::{Checkpoint, GgufFile, StoredType, TensorInfo, Weights, map_file, safetensors};
use drawing::pattern;
use waves::wave;

/// Largest relative error of any stage, as of directories.
const STAGE_BOUND: f64 = 1e-4;

fn fixtures(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

fn backend() -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: Some(2), precision: Precision::Reference, isa: None }).unwrap()
}

fn open(name: &str) -> GgufFile {
    match carat_weights::open(&fixtures("mmproj").join(name)).unwrap() {
        Checkpoint::Gguf(file) => file,
        Checkpoint::HfDir(_) => panic!("{name} is a directory"),
    }
}

/// The file with its tensors changed.
fn changed(name: &str, change: impl FnOnce(&mut Vec<TensorInfo>)) -> Checkpoint {
    let file = open(name);
    let mut tensors: Vec<TensorInfo> = file.tensors.iter().cloned().collect();
    change(&mut tensors);
    Checkpoint::Gguf(GgufFile { tensors: Weights::new("changed".into(), tensors).unwrap(), ..file })
}

/// All matrices whose type may change and whose rows are whole blocks, as `dtype`.
fn stored_as(name: &str, dtype: DType) -> Checkpoint {
    changed(name, |tensors| {
        for tensor in tensors.iter_mut().filter(|t| t.dtype == StoredType::Known(DType::BF16)) {
            if tensor.shape[1].is_multiple_of(dtype.block_len()) {
                let values = floats(tensor);
                let mut data = vec![0; values.len() / dtype.block_len() * dtype.block_bytes()];
                quant::encode_row(dtype, &values, &mut data);
                (tensor.dtype, tensor.data) = (StoredType::Known(dtype), Bytes::from_vec(data));
            }
        }
    })
}

fn floats(tensor: &TensorInfo) -> Vec<f32> {
    match tensor.dtype {
        StoredType::Known(DType::BF16) => {
            let words = tensor.data.as_chunks::<2>().0.iter();
            words.map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
        }
        _ => tensor.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

/// What the reference computed.
fn expected(dir: &str) -> Weights {
    let bytes = map_file(&fixtures(dir).join("expected.safetensors")).unwrap();
    Weights::new("expected".into(), safetensors::read("expected", &bytes).unwrap()).unwrap()
}

#[derive(Default)]
struct Recording {
    stages: Vec<Vec<f32>>,
}

impl VisionTap for Recording {
    fn hidden(&mut self, _: usize, rows: &[f32]) {
        self.stages.push(rows.to_vec());
    }
}

impl AudioTap for Recording {
    fn hidden(&mut self, _: usize, rows: &[f32]) {
        self.stages.push(rows.to_vec());
    }
}

/// `‖a − b‖ / ‖b‖`.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (distance / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &Weights, name: &str, bound: f64) {
    let error = relative_error(found, &floats(expected.get(name).unwrap()));
    println!("{name} {error:.1e}");
    assert!(error < bound, "{name} is off by {error:e}");
}

fn hears(checkpoint: &Checkpoint, bound: f64) {
    let (expected, mut backend) = (expected("audio/clipped"), backend());
    let mut tower = AudioTower::load(&mut backend, checkpoint, 128).unwrap();
    for (index, kind, n) in [(0, "noise", 161), (3, "mixed", 14_400)] {
        let mel = log_mel(&wave(kind, n)).unwrap();
        let mut seen = Recording::default();
        let soft = tower.encode(&mut backend, &mel.values[..mel.valid * BANDS], Some(&mut seen)).unwrap();
        for (i, rows) in seen.stages.iter().enumerate() {
            assert_close(rows, &expected, &format!("{index}.hidden.{i}"), bound);
        }
        assert_close(&soft, &expected, &format!("{index}.soft_tokens"), bound);
    }
}

fn sees(checkpoint: &Checkpoint, dir: &str, bound: f64) {
    let (expected, mut backend) = (expected(dir), backend());
    let mut tower = VisionTower::load(&mut backend, checkpoint, 70 * 9).unwrap();
    let d = tower.config().d_model;
    let patches = patches(&pattern(500, 200), Budget::ALL[0], Patching::Tower);
    let mut seen = Recording::default();
    let soft = tower.encode(&mut backend, &patches.values, &patches.positions, Some(&mut seen)).unwrap();
    let rows = expected.get("0.rows").unwrap().data.as_chunks::<4>().0.iter();
    let rows: Vec<usize> = rows.map(|b| u32::from_le_bytes(*b) as usize).collect();
    for (i, all) in seen.stages.iter().enumerate() {
        let recorded: Vec<f32> = rows.iter().flat_map(|r| all[r * d..(r + 1) * d].to_vec()).collect();
        assert_close(&recorded, &expected, &format!("0.hidden.{i}"), bound);
    }
    let last = expected.get("0.soft_tokens").unwrap().shape.iter().product::<usize>();
    assert_close(&soft[soft.len() - last..], &expected, "0.soft_tokens", bound);
}

#[test]
fn both_towers_of_one_file_agree_at_every_stage() {
    let checkpoint = Checkpoint::Gguf(open("edge.gguf"));
    hears(&checkpoint, STAGE_BOUND);
    sees(&checkpoint, "vision/clipped", STAGE_BOUND);
}

#[test]
fn a_tower_with_standards_agrees_at_every_stage() {
    sees(&Checkpoint::Gguf(open("large.gguf")), "vision/standard", STAGE_BOUND);
}

#[test]
fn matrices_may_be_stored_otherwise() {
    // Both hold every value of bf16 in these files: their magnitudes are far from f16's ends.
    for dtype in [DType::F32, DType::F16] {
        let checkpoint = stored_as("edge.gguf", dtype);
        hears(&checkpoint, STAGE_BOUND);
        sees(&checkpoint, "vision/clipped", STAGE_BOUND);
    }
}

/// A weight is off by up to 1/254 of the largest of its 32, which of normal values is 1/120 of their deviation, and by 0.58 of
/// that in the root mean square: 5e-3 of a product, relative. Of each of the two layers, both matrices that narrow a
/// feed-forward are so stored, and they add half of the stream at most.
#[test]
fn matrices_in_blocks_of_8_bits_are_as_near_as_their_steps() {
    let checkpoint = stored_as("edge.gguf", DType::Q8_0);
    let blocks = checkpoint.tensors().iter().filter(|t| t.dtype == StoredType::Known(DType::Q8_0)).count();
    assert_eq!(blocks, 4);
    hears(&checkpoint, 2e-2);
}

/// The encoders of a fixture's directory, their matrices stored as `matrices`.
fn written(dir: &str, matrices: DType) -> Checkpoint {
    let Checkpoint::HfDir(dir) = carat_weights::open(&fixtures(dir)).unwrap() else { panic!("a file") };
    let bytes = mmproj_file::write(&dir, matrices);
    Checkpoint::Gguf(GgufFile::from_bytes("written", Bytes::from_vec(bytes)).unwrap())
}

/// What tests write is what llama.cpp's converter wrote.
#[test]
fn files_are_written_as_the_converter_writes_them() {
    let of_part = |tensors: &Weights, part: &str| -> Vec<TensorInfo> {
        let mut found: Vec<_> = tensors.iter().filter(|t| t.name.starts_with(part)).cloned().collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    };
    for (dir, theirs, parts) in [
        ("vision/clipped", "edge.gguf", &["v.", "mm.input"]),
        ("audio/clipped", "edge.gguf", &["a.", "mm.a."]),
        ("vision/standard", "large.gguf", &["v.", "mm.input"]),
    ] {
        let (ours, theirs) = (written(dir, DType::BF16), open(theirs));
        for part in parts {
            let (ours, theirs) = (of_part(ours.tensors(), part), of_part(&theirs.tensors, part));
            let kind = |t: &TensorInfo| (t.name.clone(), t.dtype, t.shape.clone());
            assert_eq!(ours.iter().map(kind).collect::<Vec<_>>(), theirs.iter().map(kind).collect::<Vec<_>>());
            for (our, their) in ours.iter().zip(&theirs) {
                // The converter computes the softplus in f32.
                let bound = if our.name.contains("per_dim_scale") { 2.0 * f32::EPSILON } else { 0.0 };
                let near = |(a, b): (f32, f32)| (a - b).abs() <= bound * b.abs();
                let (our_values, their_values) = (floats(our), floats(their));
                let near = our_values.into_iter().zip(their_values).all(near);
                assert!(near, "{}", our.name);
            }
        }
    }
}

#[test]
fn what_sees_and_hears_without_a_tower_agrees() {
    let (checkpoint, expected, mut backend) =
        (written("multimodal/12b", DType::F32), expected("multimodal/12b"), backend());
    assert!(carat_model::encoders::hears(&checkpoint).unwrap());
    let mut eyes = PictureEncoder::load(&mut backend, &checkpoint, 70).unwrap();
    let last = |rows: &[f32], name: &str| {
        let n = expected.get(name).unwrap().shape.iter().product::<usize>();
        assert_close(&rows[rows.len() - n..], &expected, name, STAGE_BOUND);
    };
    for (index, width, height) in [(0, 400, 30), (1, 90, 110), (2, 300, 200)] {
        let patches = patches(&pattern(width, height), Budget::ALL[0], Patching::of_side(eyes.patch_side()));
        last(&eyes.encode(&mut backend, &patches.values, &patches.positions, None).unwrap(), &format!("soft.{index}"));
    }
    let wave = |i: usize| (0.5 * (i as f64 / 7.0).sin() + 0.25 * (i as f64 / 3.1).sin()) as f32;
    let samples: Vec<f32> = (0..640 * 5 + 77).map(wave).collect();
    let mut ears = SoundEncoder::load(&mut backend, &checkpoint, 9).unwrap();
    last(&ears.encode(&mut backend, &raw_frames(&samples).unwrap().values).unwrap(), "soft.5");
}

// ---- what is refused

#[track_caller]
fn refuses(checkpoint: &Checkpoint, texts: &[&str]) {
    let mut backend = backend();
    let errors: [Option<ModelError>; 2] =
        [AudioTower::load(&mut backend, checkpoint, 9).err(), VisionTower::load(&mut backend, checkpoint, 9).err()];
    let errors: Vec<String> = errors.into_iter().flatten().map(|error| error.to_string()).collect();
    let says = |error: &String| texts.iter().all(|text| error.contains(text));
    assert!(errors.iter().any(says), "{texts:?} are not in: {errors:?}");
}

#[test]
fn what_the_files_can_t_be_is_refused_by_name() {
    refuses(&Checkpoint::Gguf(open("large.gguf")), &["no sound encoder", "GGUF", "mmproj"]);
    let text = carat_weights::open(&fixtures("g3/bf16.gguf")).unwrap();
    refuses(&text, &["no picture encoder", "GGUF", "mmproj", "directory"]);
    let gone = |name: &'static str| changed("edge.gguf", |tensors| tensors.retain(|t| t.name != name));
    refuses(&gone("a.blk.1.per_dim_scale.weight"), &["a.blk.1.per_dim_scale.weight", "missing", "[8]"]);
    refuses(&gone("a.blk.0.conv_dw.weight"), &["a.blk.0.conv_dw.weight", "found none", "2 dimensions"]);
    refuses(&gone("v.patch_embd.weight"), &["v.patch_embd.weight", "[16, 3, 16, 16]"]);
    let named = |from: &'static str, to: &'static str| {
        changed("edge.gguf", |tensors| tensors.iter_mut().find(|t| t.name == from).unwrap().name = to.into())
    };
    refuses(
        &named("a.blk.1.attn_q.input_max", "a.blk.2.attn_q.input_max"),
        &["no place for", "a.blk.2.attn_q.input_max"],
    );
    refuses(&named("v.blk.1.attn_q.input_max", "mm.input_max"), &["no place for", "mm.input_max"]);
    let reshaped = |name: &'static str, shape: Vec<usize>| {
        changed("edge.gguf", |tensors| tensors.iter_mut().find(|t| t.name == name).unwrap().shape = shape)
    };
    refuses(&reshaped("a.conv1d.1.weight", vec![128, 4, 3, 3]), &["a.conv1d.1", "[128, 4, 3, 3]"]);
    refuses(&reshaped("v.position_embd.weight", vec![64, 2, 16]), &["v.position_embd.weight", "[64, 2, 16]"]);
    refuses(&reshaped("v.blk.0.attn_q_norm.weight", vec![1, 8]), &["attn_q_norm", "[1, 8]"]);
}
