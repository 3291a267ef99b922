//! Quantised checkpoints in every layout they are published in compute what the reference makes of the same weights.
//!
//! The checkpoints are written by the packages that define the formats, see `fixtures/make_layouts.py`.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod fixture;

use std::path::{Path, PathBuf};

use carat_cpu::{CpuBackend, CpuOptions, Precision};
use carat_model::load::ModelTensors;
use carat_model::{Decoder, DecoderOptions, LoadReport, ModelError};
use carat_tensor::backend::KvType;
use carat_tensor::{Bytes, DType, TokenId};
use carat_weights::{Checkpoint, GgufFile, HfDir, StoredType, TensorInfo, Weights, safetensors};
use fixture::{relative_error, run};
use serde_json::json;

const LAYOUTS: [&str; 5] = ["mixed.gguf", "packed", "int8", "float8", "float4"];
/// Largest relative error of logits in f32, as for golden fixtures.
const BOUND: f64 = 1e-4;

fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/layouts")).join(name)
}

fn expected(name: &str) -> TensorInfo {
    let file = safetensors::open_file(&path("logits.safetensors")).unwrap();
    file.get(name.trim_end_matches(".gguf")).unwrap().clone()
}

fn words(name: &str) -> Vec<u32> {
    expected(name).data.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

fn load(mut checkpoint: Checkpoint, precision: Precision) -> Result<(Decoder<CpuBackend>, LoadReport), ModelError> {
    let backend = CpuBackend::new(CpuOptions { threads: Some(2), precision, isa: None }).unwrap();
    Decoder::load(
        backend,
        &mut checkpoint,
        DecoderOptions { ctx: 64, kv: KvType::F32, chunk: 64, ..DecoderOptions::default() },
    )
}

/// Logits of every row of the fixtures' prompt.
fn logits(checkpoint: Checkpoint, precision: Precision) -> Vec<f32> {
    let ids: Vec<_> = words("ids").into_iter().map(TokenId).collect();
    run(&mut load(checkpoint, precision).unwrap().0, &ids, &[64]).logits
}

/// Relative error of the recorded rows against the reference.
fn error(name: &str, logits: &[f32]) -> f64 {
    let expected: Vec<_> = expected(name).data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let positions = words("positions");
    let width = expected.len() / positions.len();
    let rows: Vec<_> = positions.iter().flat_map(|&p| logits[p as usize * width..][..width].iter().copied()).collect();
    relative_error(&rows, &expected)
}

/// A directory whose config and tensors are changed.
fn changed(name: &str, change: impl FnOnce(&mut HfDir, &mut Vec<TensorInfo>)) -> Checkpoint {
    let mut dir = HfDir::open(&path(name)).unwrap();
    let mut tensors: Vec<_> = dir.tensors.iter().cloned().collect();
    change(&mut dir, &mut tensors);
    dir.tensors = Weights::new("changed".into(), tensors).unwrap();
    Checkpoint::HfDir(dir)
}

/// A GGUF file whose tensors are changed.
fn changed_gguf(change: impl FnOnce(&mut Vec<TensorInfo>)) -> Checkpoint {
    let GgufFile { metadata, tensors } = GgufFile::open(&path("mixed.gguf")).unwrap();
    let mut tensors: Vec<_> = tensors.iter().cloned().collect();
    change(&mut tensors);
    Checkpoint::Gguf(GgufFile { metadata, tensors: Weights::new("changed".into(), tensors).unwrap() })
}

#[track_caller]
fn refuses(checkpoint: Checkpoint, texts: &[&str]) {
    let error = load(checkpoint, Precision::Reference).err().expect("an error").to_string();
    for text in texts {
        assert!(error.contains(text), "`{text}` is not in: {error}");
    }
}

fn find<'a>(tensors: &'a mut [TensorInfo], end: &str) -> &'a mut TensorInfo {
    tensors.iter_mut().find(|t| t.name.ends_with(end)).unwrap()
}

#[test]
fn every_layout_computes_what_the_reference_does() {
    for name in LAYOUTS {
        let error = error(name, &logits(carat_weights::open(&path(name)).unwrap(), Precision::Reference));
        println!("{name}: logits off by {error:.1e}");
        assert!(error < BOUND, "{name}: logits are off by {error:e}");
    }
}

/// Relative rounding error of a product's input in 8 bits, times the root of the products on the way, twice for
/// random weights: the bound of the golden fixtures, for two layers of nine products and the head.
#[test]
fn integer_products_of_every_layout_stay_near() {
    for name in LAYOUTS {
        let open = || carat_weights::open(&path(name)).unwrap();
        let exact = logits(open(), Precision::Reference);
        let error = relative_error(&logits(open(), Precision::Fast), &exact);
        println!("{name}: 8-bit activations change logits by {error:.1e}");
        assert!(error < 2.0 * 2.07 / 127.0 / 12f64.sqrt() * 19f64.sqrt(), "{name}: logits are off by {error:e}");
    }
}

#[test]
fn the_mixed_file_holds_every_type_it_should() {
    let file = GgufFile::open(&path("mixed.gguf")).unwrap();
    let has = |dtype| file.tensors.iter().any(|t| t.dtype == StoredType::Known(dtype));
    use DType::*;
    for dtype in [Iq4Nl, Mxfp4, Nvfp4, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16, F32] {
        assert!(has(dtype), "{dtype}");
    }
}

#[test]
fn activation_scales_are_ignored_by_name() {
    let (_, report) = load(carat_weights::open(&path("float4")).unwrap(), Precision::Reference).unwrap();
    assert!(!report.ignored.is_empty());
    for tensor in report.ignored {
        assert!(tensor.name.ends_with(".input_scale"), "{}", tensor.name);
        assert_eq!(tensor.reason, "scale of activations");
    }
}

#[test]
fn copies_are_in_the_memory_plan() {
    for (name, copied) in [("mixed.gguf", false), ("packed", true), ("int8", true), ("float8", true), ("float4", true)]
    {
        let file = carat_model::load::file_bytes(&carat_weights::open(&path(name)).unwrap()).unwrap();
        assert_eq!(file.rearranged > 0, copied, "{name}");
    }
    // 8-bit floats: 36 bytes for 32 weights, whatever their scales.
    let checkpoint = carat_weights::open(&path("float8")).unwrap();
    let eight = checkpoint.tensors().iter().filter(|t| t.dtype == StoredType::Other("F8_E4M3"));
    let bytes: usize = eight.map(|t| t.data.len() / 32 * 36).sum();
    assert_eq!(carat_model::load::file_bytes(&checkpoint).unwrap().rearranged, bytes);
}

/// With scales in halves or beyond, zero points, several widths, and experts that take each other's type.
#[test]
fn the_plan_counts_what_reading_makes_to_the_byte() {
    for name in LAYOUTS.into_iter().filter(|name| !name.ends_with(".gguf")) {
        let checkpoint = carat_weights::open(&path(name)).unwrap();
        let file = carat_model::load::file_bytes(&checkpoint).unwrap();
        let tensors = ModelTensors::new(&checkpoint).unwrap();
        let read: usize = tensors.iter().map(|tensor| tensors.read(tensor).unwrap().data.len()).sum();
        assert_eq!(file.weights + file.rearranged, read, "{name}");
    }
}

/// transformers' own 8-bit checkpoints spell their scales with `_inv`, and name the block elsewhere.
#[test]
fn the_other_spelling_of_block_scales_is_read() {
    let inverse = changed("float8", |dir, tensors| {
        dir.config["quantization_config"] = json!({"quant_method": "fp8", "weight_block_size": [48, 32]});
        for tensor in tensors.iter_mut().filter(|t| t.name.ends_with(".weight_scale")) {
            tensor.name += "_inv";
        }
    });
    let error = error("float8", &logits(inverse, Precision::Reference));
    assert!(error < BOUND, "off by {error:e}");
}

/// Scales below f16's range keep their value: the matrix goes to blocks with f32 scales.
#[test]
fn scales_beyond_half_precision_are_kept() {
    let shrink = |by: f32| {
        changed("packed", move |_, tensors| {
            for tensor in tensors.iter_mut().filter(|t| t.name.ends_with("q_proj.weight_scale")) {
                let halves = tensor.data.as_chunks::<2>().0.iter();
                let small = halves.flat_map(|b| (half::bf16::from_le_bytes(*b).to_f32() * by).to_le_bytes());
                (tensor.data, tensor.dtype) = (Bytes::from_vec(small.collect()), StoredType::Known(DType::F32));
            }
        })
    };
    // Queries are normed: a power of two changes nothing but epsilon's share.
    let (exact, tiny) =
        (logits(shrink(1.0), Precision::Reference), logits(shrink(0.5f32.powi(14)), Precision::Reference));
    assert!(tiny.iter().all(|v| v.is_finite()) && tiny != exact);
    let third = logits(shrink(1.0 / 3.0), Precision::Reference);
    assert!(relative_error(&third, &exact) < 1e-3, "{:e}", relative_error(&third, &exact));
}

/// A block of MXFP4 has one scale for 32 values. Where a file has a scale for 64, or a second one, other blocks are
/// made that hold it.
#[test]
fn powers_of_two_need_not_be_those_of_blocks() {
    let tail = "layers.1.self_attn.q_proj.weight";
    let pairs = |by_pair: bool| {
        changed("float4", move |_, tensors| {
            let scale = find(tensors, &format!("{tail}_scale"));
            assert_eq!((scale.dtype, &scale.shape[..]), (StoredType::Other("U8"), &[128, 2][..]));
            let first: Vec<u8> = scale.data.iter().step_by(2).copied().collect();
            let (shape, data) = if by_pair {
                (vec![128, 1], first)
            } else {
                (vec![128, 2], first.into_iter().flat_map(|s| [s, s]).collect())
            };
            (scale.shape, scale.data) = (shape, Bytes::from_vec(data));
        })
    };
    let expected = logits(pairs(false), Precision::Reference);
    assert_eq!(logits(pairs(true), Precision::Reference), expected);
    let second = changed("float4", |_, tensors| {
        let stem = tensors.iter().find(|t| t.name.ends_with(&format!("{tail}_scale"))).unwrap().name.clone();
        let scale = find(tensors, &format!("{tail}_scale"));
        scale.data = Bytes::from_vec(scale.data.iter().map(|s| s - 1).collect());
        let (name, dtype) = (stem.replace("_scale", "_scale_2"), StoredType::Known(DType::F32));
        tensors.push(TensorInfo { name, dtype, shape: vec![], data: Bytes::from_vec(2f32.to_le_bytes().to_vec()) });
    });
    let error = error("float4", &logits(second, Precision::Reference));
    assert!(error < BOUND, "off by {error:e}");
}

/// GGUF files of NVFP4 carry the second scale in a tensor of its own.
#[test]
fn a_second_scale_in_a_gguf_file_is_applied() {
    let doubled = changed_gguf(|tensors| {
        let stems: Vec<_> = tensors
            .iter()
            .filter(|t| t.dtype == StoredType::Known(DType::Nvfp4) && !t.name.ends_with("ffn_down_exps.weight"))
            .map(|t| t.name.trim_end_matches(".weight").to_owned())
            .collect();
        assert!(!stems.is_empty());
        for stem in stems {
            let weight = find(tensors, &format!("{stem}.weight"));
            let mut data = weight.data.to_vec();
            for scale in data.chunks_exact_mut(36).flat_map(|block| &mut block[..4]) {
                // Twice the sub-block's scale: its exponent one up, or a subnormal's mantissa shifted.
                assert!(*scale <= 118, "the double is in range");
                *scale += (*scale).min(8);
            }
            weight.data = Bytes::from_vec(data);
            for (end, value) in [("scale", 0.5f32), ("input_scale", 0.3)] {
                let data = Bytes::from_vec(value.to_le_bytes().to_vec());
                let (name, dtype) = (format!("{stem}.{end}"), StoredType::Known(DType::F32));
                tensors.push(TensorInfo { name, dtype, shape: vec![1], data });
            }
        }
    });
    let error = error("mixed", &logits(doubled, Precision::Reference));
    assert!(error < BOUND, "off by {error:e}");
}

/// As old GGUF files hold them, and with gates and ups apart.
#[test]
fn experts_one_by_one_in_a_gguf_file_are_read() {
    let apart = changed_gguf(|tensors| {
        let mut out = Vec::new();
        for tensor in tensors.drain(..) {
            let parts: &[&str] = match &tensor.name {
                name if name.ends_with("ffn_gate_up_exps.weight") => &["ffn_gate", "ffn_up"],
                name if name.ends_with("ffn_down_exps.weight") => &["ffn_down"],
                _ => {
                    out.push(tensor);
                    continue;
                }
            };
            let (layer, _) = tensor.name.split_once("ffn_").unwrap();
            let [n, rows, cols] = tensor.shape[..] else { panic!("{:?}", tensor.shape) };
            let len = tensor.data.len() / n / parts.len();
            for (i, data) in tensor.data.chunks_exact(len).enumerate() {
                let (expert, part) = (i / parts.len(), parts[i % parts.len()]);
                out.push(TensorInfo {
                    name: format!("{layer}{part}.{expert}.weight"),
                    dtype: tensor.dtype,
                    shape: vec![rows / parts.len(), cols],
                    data: Bytes::from_vec(data.to_vec()),
                });
            }
        }
        *tensors = out;
    });
    let bytes = carat_model::load::file_bytes(&apart).unwrap();
    assert!(bytes.rearranged > 0);
    let error = error("mixed", &logits(apart, Precision::Reference));
    assert!(error < BOUND, "off by {error:e}");
}

/// Codes of whole bytes are read as they are: compressed-tensors takes zero points off them, and what is left may have 9 bits.
#[test]
fn zero_points_of_bytes_are_none_or_refused() {
    let with = |points: [u8; 64]| {
        changed("int8", move |_, tensors| {
            let name = "model.language_model.layers.0.self_attn.q_proj.weight_zero_point".into();
            let (dtype, data) = (StoredType::Other("I8"), Bytes::from_vec(points.to_vec()));
            tensors.push(TensorInfo { name, dtype, shape: vec![64, 1], data });
        })
    };
    let error = error("int8", &logits(with([0; 64]), Precision::Reference));
    assert!(error < BOUND, "off by {error:e}");
    let mut points = [0; 64];
    points[63] = 3;
    refuses(with(points), &["layers.0.self_attn.q_proj.weight`", "zero points other than 0", "packed integers"]);
}

#[test]
fn a_matrix_of_nothing_is_no_matrix() {
    for (end, dtype) in [("", "I8"), ("_packed", "I32")] {
        let empty = changed("int8", |_, tensors| {
            let mut add = |end: &str, dtype, shape: &[usize], data| {
                let (name, data) = (format!("nothing.weight{end}"), Bytes::from_vec(data));
                tensors.push(TensorInfo { name, dtype, shape: shape.to_vec(), data });
            };
            add(end, StoredType::Other(dtype), &[1, 0], Vec::new());
            add("_scale", StoredType::Known(DType::F32), &[1], vec![0; 4]);
        });
        assert!(carat_model::load::file_bytes(&empty).is_ok());
        refuses(empty, &["2 tensors this model has no place for", "nothing.weight"]);
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_reason() {
    let method = |method: &'static str| {
        changed("packed", |dir, _| dir.config["quantization_config"]["quant_method"] = json!(method))
    };
    refuses(method("gptq"), &["quantization_config.quant_method", "gptq", "compressed-tensors"]);
    let rotated = changed("packed", |dir, _| {
        dir.config["quantization_config"]["transform_config"] = json!({"config_groups": {"R1": {"type": "hadamard"}}});
    });
    refuses(rotated, &["transform_config", "hadamard", "rotated weights are not read"]);
    let sparse = changed("packed", |dir, _| {
        dir.config["quantization_config"]["sparsity_config"] = json!({"format": "sparse-24-bitmask"});
    });
    refuses(sparse, &["sparsity_config.format", "sparse-24-bitmask", "dense"]);
    let format = changed("packed", |dir, _| dir.config["quantization_config"]["format"] = json!("marlin-24"));
    refuses(format, &["quantization_config.format", "marlin-24", "pack-quantized"]);
    let group = changed("packed", |dir, _| {
        for group in dir.config["quantization_config"]["config_groups"].as_object_mut().unwrap().values_mut() {
            group["weights"]["group_size"] = json!(16);
        }
    });
    refuses(group, &["4 bits in groups of 32", "4 bits in groups of 16", "quantization_config"]);
}

#[test]
fn codes_without_their_scales_are_refused() {
    let q = "layers.0.self_attn.q_proj.weight";
    let without =
        |layout, end: &'static str| changed(layout, move |_, tensors| tensors.retain(|t| !t.name.ends_with(end)));
    refuses(without("packed", "layers.0.self_attn.q_proj.weight_scale"), &[q, "codes without scales", "_scale_inv"]);
    refuses(without("float8", "layers.0.self_attn.q_proj.weight_scale"), &[q, "codes without scales", "_scale_inv"]);
    let short = changed("packed", |_, tensors| {
        let tensor = find(tensors, "layers.0.self_attn.q_proj.weight_scale");
        (tensor.shape, tensor.data) = (vec![63, 2], tensor.data.slice(0..63 * 4));
    });
    refuses(short, &[q, "scales [63, 2]", "[64, 64]"]);
    let five = changed("packed", |_, tensors| {
        let tensor = find(tensors, "layers.0.self_attn.q_proj.weight_packed");
        (tensor.shape, tensor.data) = (vec![64, 10], Bytes::from_vec(vec![0; 64 * 40]));
    });
    refuses(five, &[q, "10 words a row", "2, 4 or 8 bits"]);
    let order = changed("packed", |_, tensors| {
        let (name, dtype) = (format!("model.language_model.{q}_g_idx"), StoredType::Other("I32"));
        tensors.push(TensorInfo { name, dtype, shape: vec![64], data: Bytes::from_vec(vec![0; 256]) });
    });
    refuses(order, &[q, "_g_idx", "their own order"]);
    let whole = changed("packed", |_, tensors| {
        let scale = find(tensors, "layers.1.self_attn.q_proj.weight_scale");
        (scale.shape, scale.data) = (vec![1], scale.data.slice(0..2));
    });
    refuses(whole, &["layers.1.self_attn.q_proj.weight", "128 bytes of zero points", "64"]);
    let plain = changed("packed", |_, tensors| find(tensors, "q_proj.weight_packed").dtype = StoredType::Other("I64"));
    refuses(plain, &[q, "I64", "F8_E4M3"]);
}
