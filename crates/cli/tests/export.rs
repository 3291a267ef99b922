//! Writing models: what `quantize` and `convert` write is what llama.cpp's converter and transformers would read, is
//! there whole or not at all, and never takes the place of its source.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use carat_tensor::quant::decode_row;
use carat_tensor::{Bytes, DType};
use carat_weights::{Checkpoint, GgufFile, GgufWriter, HfDir, StoredType, Value, ValueType};
use program::{carat, done};
use serde_json::json;

/// A directory of a test's own, removed with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("carat-export-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// Names of what lies in it.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn repository(path: &str) -> String {
    format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The embedded model's files.
fn nano() -> String {
    repository("nano/checkpoint")
}

#[track_caller]
fn runs(args: &[&str]) -> String {
    String::from_utf8(done(carat(args).output().unwrap())).unwrap()
}

#[track_caller]
fn fails(args: &[&str], code: i32, says: &[&str]) {
    let output = carat(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for says in says {
        assert!(stderr.contains(says), "`{says}` is not in: {stderr}");
    }
}

fn gguf(path: &str) -> GgufFile {
    GgufFile::open(Path::new(path)).unwrap()
}

/// A process that was killed can't take away what it wrote; the next one for the same output does.
#[cfg(target_os = "linux")]
#[test]
fn what_a_killed_process_left_goes_with_the_next() {
    let dir = Dir::new("killed");
    for (out, args) in [("out.gguf", vec!["quantize", "--type", "q4_k_m", "--threads", "1"]), ("out", vec!["convert"])]
    {
        let (nano, target) = (nano(), dir.path(out));
        let args: Vec<&str> = args.into_iter().chain([nano.as_str(), target.as_str()]).collect();
        let left = || dir.names().into_iter().any(|name| name.starts_with('.') && name.ends_with(".part"));
        // Some are done before they are hit.
        for _ in 0..200 {
            let mut child = carat(&args).spawn().unwrap();
            while child.try_wait().unwrap().is_none() && !left() {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if left() {
                break;
            }
            let path = dir.0.join(out);
            drop(if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) });
        }
        assert!(left(), "{out}: no process was killed while it wrote");
        runs(&args);
        assert!(!left(), "{:?}", dir.names());
    }
    assert_eq!(dir.names(), ["out", "out.gguf"]);
}

/// A value as `make_gguf_facts.py` writes it.
fn fact(value: &Value) -> serde_json::Value {
    let name = |ty: ValueType| match ty {
        ValueType::U32 => "UINT32",
        ValueType::I32 => "INT32",
        ValueType::F32 => "FLOAT32",
        ValueType::Str => "STRING",
        ValueType::Bool => "BOOL",
        other => panic!("{}", other.name()),
    };
    match value {
        Value::Str(text) => json!(["STRING", text]),
        Value::Bool(v) => json!(["BOOL", v]),
        Value::Int(ty, v) => json!([name(*ty), *v as i64]),
        Value::Float(ty, v) => json!([name(*ty), v]),
        Value::Array(a) => {
            let kind = format!("{}[]", name(a.element()));
            if a.len() > 16 {
                let strings = a.strings().flat_map(|s| [&(s.len() as u64).to_le_bytes()[..], s].concat());
                let bytes: Vec<u8> = match a.element() {
                    ValueType::Str => strings.collect(),
                    ValueType::F32 => a.floats().unwrap().flat_map(|v| (v as f32).to_le_bytes()).collect(),
                    _ => a.ints().unwrap().flat_map(|v| (v as i32).to_le_bytes()).collect(),
                };
                let fnv = bytes
                    .iter()
                    .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
                return json!([kind, {"len": a.len(), "fnv": format!("{fnv:016x}")}]);
            }
            let values: Vec<serde_json::Value> = match a.element() {
                ValueType::Bool => a.bools().unwrap().map(|v| json!(v)).collect(),
                _ => a.ints().unwrap().map(|v| json!(v as i64)).collect(),
            };
            json!([kind, values])
        }
    }
}

#[test]
fn a_converted_file_is_what_llama_cpps_converter_writes() {
    let dir = Dir::new("facts");
    let out = dir.path("nano.gguf");
    runs(&["convert", &nano(), &out]);
    let facts: serde_json::Value = serde_json::from_str(include_str!("data/nano_gguf.json")).unwrap();
    let file = gguf(&out);
    let mut found: BTreeMap<_, _> = file.metadata.iter().map(|(k, v)| (k.to_owned(), fact(v))).collect();
    let mut expected: BTreeMap<_, _> =
        facts["metadata"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    // Names follow the directory's.
    assert_eq!(found.remove("general.name").unwrap(), json!(["STRING", "checkpoint"]));
    assert_eq!(expected.remove("general.name").unwrap(), json!(["STRING", "Nano"]));
    // transformers' list of special tokens lacks the picture-sequence marker of this tokenizer, which its file marks as
    // special; the published vocabularies' files have it as a control token, as here.
    let types = file.metadata.i32s("tokenizer.ggml.token_type").unwrap();
    assert_eq!((types[11], types[10], types[12], types[48], types[108]), (3, 3, 1, 4, 6));
    let key = "tokenizer.ggml.token_type";
    let mut theirs = types;
    theirs[11] = 1;
    let mut writer = GgufWriter::new();
    writer.i32s(key, &theirs);
    let theirs = GgufFile::from_bytes("theirs", Bytes::from_vec(writer.to_bytes::<Vec<u8>>(&[]))).unwrap();
    found.insert(key.into(), fact(theirs.metadata.get(key).unwrap()));
    assert_eq!(found, expected);

    let tensors: BTreeMap<_, _> =
        file.tensors.iter().map(|t| (t.name.clone(), json!([t.dtype.to_string(), t.shape]))).collect();
    let expected: BTreeMap<_, _> =
        facts["tensors"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    assert_eq!(tensors, expected);
}

/// Gemma 3's directories store norms less one and its GGUF files don't; none has divisors of RoPE's frequencies.
#[test]
fn a_converted_gemma_3_is_the_reference_packages_file() {
    let dir = Dir::new("gemma3");
    let (ours, theirs) = (dir.path("g3.gguf"), repository("fixtures/g3/bf16.gguf"));
    runs(&["convert", &repository("fixtures/g3"), &ours]);
    let tensors = |path: &str| -> BTreeMap<_, _> {
        let all = gguf(path).tensors;
        all.iter().map(|t| (t.name.clone(), (t.dtype.to_string(), t.shape.clone(), t.data.to_vec()))).collect()
    };
    assert!(tensors(&ours) == tensors(&theirs), "{:?} {:?}", tensors(&ours).keys(), tensors(&theirs).keys());
    let config = |path: &str| carat_model::load::config(&carat_weights::open(Path::new(path)).unwrap()).unwrap();
    assert_eq!(config(&ours), config(&theirs));

    let small = dir.path("q8_0.gguf");
    runs(&["quantize", &theirs, &small, "--type", "q8_0"]);
    assert!(tensors(&small).keys().eq(tensors(&theirs).keys()));
    assert_eq!(config(&small), config(&theirs));
    fails(&["convert", &theirs, &dir.path("back")], 1, &["Gemma 4 only", "gemma3"]);
}

/// To GGUF and back nothing of the text model is lost: not a weight, a setting, a token.
#[test]
fn there_and_back_is_the_same_model() {
    let dir = Dir::new("back");
    let (file, back) = (dir.path("nano.gguf"), dir.path("nano"));
    runs(&["convert", &nano(), &file]);
    runs(&["convert", &file, &back]);
    let (before, after) = (HfDir::open(Path::new(&nano())).unwrap(), HfDir::open(Path::new(&back)).unwrap());
    let of_text: Vec<_> = before.tensors.iter().filter(|t| t.name.starts_with("model.language_model.")).collect();
    assert_eq!(of_text.len(), after.tensors.len());
    for tensor in of_text {
        let copy = after.tensors.get(&tensor.name).unwrap_or_else(|| panic!("{}", tensor.name));
        assert_eq!((copy.dtype, &copy.shape), (tensor.dtype, &tensor.shape), "{}", tensor.name);
        assert!(copy.data[..] == tensor.data[..], "{}", tensor.name);
    }
    let json = |bytes: Option<Bytes>| serde_json::from_slice::<serde_json::Value>(&bytes.unwrap()).unwrap();
    assert_eq!(json(before.tokenizer_json), json(after.tokenizer_json));
    let generation = after.generation_config.unwrap();
    assert_eq!((&generation["top_k"], &generation["eos_token_id"]), (&json!(1), &json!([1, 50, 106])));
    let config = |path: &str| carat_model::load::config(&carat_weights::open(Path::new(path)).unwrap()).unwrap();
    assert_eq!(config(&back), config(&nano()));
    let answer = |model: &str| runs(&["run", model, "Spell apple.", "--temperature", "0"]);
    assert_eq!(answer(&back), answer(&nano()));
    assert_eq!(dir.names(), ["nano", "nano.gguf"], "nothing else is left behind");
}

/// Types of tensors in a file, by the tail of their names.
fn types(path: &str) -> BTreeMap<String, String> {
    gguf(path).tensors.iter().map(|t| (t.name.clone(), t.dtype.to_string())).collect()
}

#[test]
fn every_type_gives_a_model_that_answers() {
    let dir = Dir::new("types");
    for (name, matrix, embedding) in [
        ("bf16", "BF16", "BF16"),
        ("q8_0", "Q8_0", "Q8_0"),
        // Rows of 96 hold no block of 256: the next type down takes their place.
        ("q6_k", "Q8_0", "Q8_0"),
        ("q4_k_m", "Q5_0", "Q8_0"),
        ("q4_0", "Q4_0", "Q8_0"),
    ] {
        let out = dir.path(&format!("{name}.gguf"));
        let report = runs(&["quantize", &nano(), &out, "--type", name, "--report"]);
        assert!(report.contains("relative error of all that was changed"), "{report}");
        let types = types(&out);
        assert_eq!(types["blk.1.ffn_gate.weight"], matrix, "{name}");
        assert_eq!(types["token_embd.weight"], embedding, "{name}");
        assert_eq!(types["per_layer_model_proj.weight"], "BF16", "{name}");
        assert_eq!(types["blk.1.ffn_norm.weight"], "F32", "{name}");
        let answer = runs(&["run", &out, "Spell apple.", "--temperature", "0"]);
        assert!(answer.to_lowercase().contains('p'), "{name}: {answer}");
    }
}

/// A file with rows that hold blocks of 256, its types as published for this mix.
#[test]
fn the_mix_of_types_is_the_published_one() {
    let dir = Dir::new("mix");
    let (input, out) = (dir.path("wide.gguf"), dir.path("q4_k_m.gguf"));
    let file = gguf(&repository("fixtures/a4b/bf16.gguf"));
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata.iter() {
        match key {
            "gemma4.embedding_length" | "gemma4.feed_forward_length" | "gemma4.expert_feed_forward_length" => {
                writer.u32(key, 256);
            }
            _ => _ = writer.value(key, value),
        }
    }
    let mut data = Vec::new();
    for tensor in file.tensors.iter() {
        // Widths of 64 and 32 become 256: all but the rows of attention's output, and of what has no such width.
        let wide = |(i, &d): (usize, &usize)| match (d, tensor.name.as_str()) {
            (_, name) if name.contains("rope") || name.contains("q_norm") || name.contains("k_norm") => d,
            (_, name) if i == 0 && (name.contains("attn_q") || name.contains("attn_k") || name.contains("attn_v")) => d,
            (_, name) if i == 1 && name.contains("attn_output") => d,
            (32 | 64, name) if i == 1 && name.contains("ffn_gate_up_exps") => 512,
            (32 | 64, _) => 256,
            _ => d,
        };
        let shape: Vec<usize> = tensor.shape.iter().enumerate().map(wide).collect();
        let StoredType::Known(dtype) = tensor.dtype else { panic!("{}", tensor.dtype) };
        writer.tensor(&tensor.name, dtype, &shape);
        let values = (0..shape.iter().product::<usize>()).map(|i| ((i * 7919) % 1021) as f32 / 1021.0 - 0.5);
        data.push(match dtype {
            DType::F32 if tensor.name.contains("rope") => tensor.data.to_vec(),
            DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
            _ => values.flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
        });
    }
    std::fs::write(&input, writer.to_bytes(&data)).unwrap();
    runs(&["quantize", &input, &out, "--type", "q4_k_m"]);
    let types = types(&out);
    let of = |name: &str| -> Vec<&str> {
        (0..6).filter_map(|l| types.get(&format!("blk.{l}.{name}.weight"))).map(String::as_str).collect()
    };
    // Six layers, five with values: the first eighth is none, the last starts at 7 · n / 8, between them every third.
    assert_eq!(of("ffn_down"), ["Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K"]);
    assert_eq!(of("ffn_down_exps"), of("ffn_down"));
    assert_eq!(of("attn_v"), ["Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q6_K"]);
    assert!(of("ffn_gate").iter().chain(&of("ffn_gate_up_exps")).all(|t| *t == "Q4_K"));
    assert_eq!(types["token_embd.weight"], "Q6_K");
    assert_eq!(of("ffn_gate_inp"), ["F32"; 6]);
}

#[test]
fn importance_lowers_the_error_where_it_lies() {
    let dir = Dir::new("imatrix");
    let name = "blk.0.attn_q.weight";
    let (plain, weighted, imatrix) = (dir.path("plain.gguf"), dir.path("weighted.gguf"), dir.path("imatrix.gguf"));
    let weights: Vec<f32> = (0..96).map(|i| if i % 8 == 0 { 50.0 } else { 0.5 }).collect();
    let mut writer = GgufWriter::new();
    writer.str("general.type", "imatrix");
    writer.tensor(&format!("{name}.in_sum2"), DType::F32, &[1, 96]).tensor(
        &format!("{name}.counts"),
        DType::F32,
        &[1, 1],
    );
    let floats = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(&imatrix, writer.to_bytes(&[floats(&weights), floats(&[10.0])])).unwrap();
    runs(&["quantize", &nano(), &plain, "--type", "q4_0"]);
    let output = carat(&["quantize", &nano(), &weighted, "--type", "q4_0", "--imatrix", &imatrix]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 of the importance matrix's 1 entries were used"));

    let exact = HfDir::open(Path::new(&nano())).unwrap();
    let exact = exact.tensors.take("model.language_model.layers.0.self_attn.q_proj.weight").unwrap();
    let error = |path: &str| -> f32 {
        let stored = gguf(path).tensors.take(name).unwrap();
        let (mut x, mut back) = (vec![0.0; exact.len()], vec![0.0; exact.len()]);
        decode_row(exact.dtype, &exact.data, &mut x);
        decode_row(stored.dtype, &stored.data, &mut back);
        x.iter().zip(&back).enumerate().map(|(i, (x, b))| weights[i % 96] * (x - b) * (x - b)).sum()
    };
    assert!(error(&weighted) < 0.8 * error(&plain), "{} {}", error(&weighted), error(&plain));
    let other = dir.path("other.gguf");
    fails(&["quantize", &nano(), &other, "--type", "q4_0", "--imatrix", &plain], 1, &["importance matrix", "in_sum2"]);
    assert!(!Path::new(&other).exists());
}

#[test]
fn quantised_layouts_are_converted_with_what_they_lose_said() {
    let dir = Dir::new("layouts");
    let convert = |from: &str, to: &str| {
        let output =
            carat(&["convert", &repository(&format!("fixtures/layouts/{from}")), &dir.path(to)]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        done(output);
        stderr
    };
    // Packed integers with scales that f16 holds are blocks of GGUF: exact, and nothing to be said.
    assert!(!convert("packed", "packed.gguf").contains("rounded"));
    let types = types(&dir.path("packed.gguf"));
    assert!(types.values().any(|t| t == "Q4_0") && types.values().any(|t| t == "Q8_0"), "{types:?}");
    assert!(convert("float8", "float8.gguf").contains("17 tensors in F8_E4M3 x F32 were rounded to bf16"));
    assert!(convert("mixed.gguf", "mixed").contains("were rounded to bf16"));
    let Checkpoint::HfDir(mixed) = carat_weights::open(Path::new(&dir.path("mixed"))).unwrap() else { panic!() };
    assert!(mixed.tensors.contains("model.language_model.layers.1.experts.gate_up_proj"));
}

#[test]
fn outputs_take_nothings_place_unasked() {
    let dir = Dir::new("place");
    let (file, other) = (dir.path("model.gguf"), dir.path("other.gguf"));
    std::fs::write(&file, "mine").unwrap();
    fails(&["quantize", &nano(), &file, "--type", "q8_0"], 1, &["model.gguf", "is there already", "--force"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    runs(&["quantize", &nano(), &file, "--type", "q8_0", "--force"]);
    fails(&["quantize", &file, &file, "--type", "q4_0", "--force"], 2, &["is a part of the input", "another place"]);
    // Neither a part of the input's directory nor the directory around it.
    let model = dir.path("model");
    runs(&["convert", &file, &model]);
    let weights = format!("{model}/model.safetensors");
    fails(&["quantize", &model, &weights, "--type", "q4_0", "--force"], 2, &["is a part of the input"]);
    fails(&["convert", &weights, &model, "--force"], 2, &["is a part of the input"]);
    runs(&["convert", &file, &model, "--force"]);
    // Nothing but the like of it is replaced.
    let work = dir.path("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(dir.path("work/notes.txt"), "notes").unwrap();
    fails(&["quantize", &file, &work, "--type", "q4_0", "--force"], 2, &["work", "is a directory"]);
    fails(&["convert", &file, &work, "--force"], 2, &["work", "`notes.txt`", "a model's files alone"]);
    assert_eq!(std::fs::read_to_string(dir.path("work/notes.txt")).unwrap(), "notes");
    std::fs::remove_dir_all(&work).unwrap();
    fails(&["logits", &file, "--tokens", "2", "--out", &file], 2, &["model.gguf", "is read here"]);
    fails(&["logits", &model, "--tokens", "2", "--out", &weights], 2, &["model.safetensors", "is read here"]);
    let again = carat(&["quantize", &file, &other, "--type", "q4_0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("tensors were quantised before"));
    assert_eq!(dir.names(), ["model", "model.gguf", "other.gguf"], "no parts are left");
}

#[test]
fn errors_of_the_input_name_it() {
    let dir = Dir::new("named");
    let input = dir.path("model");
    std::fs::create_dir_all(&input).unwrap();
    std::fs::copy(format!("{}/model.safetensors", nano()), format!("{input}/model.safetensors")).unwrap();
    std::fs::write(format!("{input}/config.json"), r#"{"model_type": "llama"}"#).unwrap();
    for args in [vec!["convert"], vec!["quantize", "--type", "q8_0"]] {
        let out = dir.path("out.gguf");
        let args: Vec<&str> = args.into_iter().chain([input.as_str(), out.as_str()]).collect();
        fails(&args, 1, &[&input, "model_type", "llama"]);
    }
}

#[test]
fn what_goes_wrong_is_said_and_leaves_nothing() {
    let dir = Dir::new("wrong");
    let out = dir.path("out.gguf");
    fails(&["quantize", &nano(), &out, "--type", "q3_k"], 2, &["q3_k", "q4_0", "q4_k_m", "bf16"]);
    fails(&["quantize", &nano(), &out], 2, &["--type"]);
    fails(&["quantize", "no/such/model", &out, "--type", "q4_0"], 1, &["no/such/model"]);
    fails(&["quantize", &nano(), "no/such/dir/out.gguf", "--type", "q4_0"], 1, &["no/such/dir/out.gguf"]);
    fails(&["quantize", &nano(), &out, "--type", "q4_0", "--imatrix", "none.dat"], 1, &["none.dat"]);
    // A checkpoint whose last tensor is missing: found when the file is half written.
    let cut = dir.path("cut");
    std::fs::create_dir(&cut).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(format!("{}/{name}", nano()), format!("{cut}/{name}")).unwrap();
    }
    let whole = HfDir::open(Path::new(&nano())).unwrap();
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in whole.tensors.iter().filter(|t| !t.name.ends_with("layers.5.mlp.down_proj.weight")) {
        let end = data.len() + tensor.data.len();
        let entry =
            json!({"dtype": tensor.dtype.to_string(), "shape": tensor.shape, "data_offsets": [data.len(), end]});
        header.insert(tensor.name.clone(), entry);
        data.extend_from_slice(&tensor.data);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    std::fs::write(format!("{cut}/model.safetensors"), bytes).unwrap();
    fails(&["quantize", &cut, &out, "--type", "q4_0"], 1, &["layers.5.mlp.down_proj.weight", "missing"]);
    assert_eq!(dir.names(), ["cut"]);
}

#[test]
fn weights_that_are_no_numbers_are_named_and_not_quantised() {
    let dir = Dir::new("finite");
    let (input, out) = (dir.path("model"), dir.path("out.gguf"));
    std::fs::create_dir(&input).unwrap();
    std::fs::copy(format!("{}/config.json", nano()), format!("{input}/config.json")).unwrap();
    let mut bytes = std::fs::read(format!("{}/model.safetensors", nano())).unwrap();
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let entry = &header["model.language_model.layers.5.mlp.down_proj.weight"];
    assert_eq!((&entry["dtype"], &entry["shape"]), (&json!("BF16"), &json!([96, 384])));
    let at = data + entry["data_offsets"][0].as_u64().unwrap() as usize + (2 * 384 + 5) * 2;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    std::fs::write(format!("{input}/model.safetensors"), bytes).unwrap();
    let says = ["layers.5.mlp.down_proj.weight", "NaN in row 2, column 5", "Q4_0"];
    fails(&["quantize", &input, &out, "--type", "q4_0"], 1, &says);
    assert_eq!(dir.names(), ["model"]);
}
