//! The safetensors reader: against a file of the Python `safetensors` package (recipe: `data/make_files.py`),
//! and against files that are wrong on purpose.

use carat_tensor::quant::decode_row;
use carat_tensor::{Bytes, DType};
use carat_weights::{StoredType, TensorInfo, Weights, WeightsError, safetensors};

const TINY: &[u8] = include_bytes!("data/tiny.safetensors");

fn read(bytes: &[u8]) -> Result<Vec<TensorInfo>, WeightsError> {
    safetensors::read("test.safetensors", &Bytes::from_vec(bytes.to_vec()))
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

#[track_caller]
fn check_refused(bytes: &[u8], parts: &[&str]) {
    let tensors = read(bytes).and_then(|t| Weights::new("test.safetensors".into(), t));
    let error = tensors.map(drop).expect_err("a broken file").to_string();
    for part in parts.iter().chain(&["test.safetensors"]) {
        assert!(error.contains(part), "`{error}` doesn't say `{part}`");
    }
}

#[test]
fn a_file_of_the_python_package_is_read() {
    let weights = Weights::new("tiny".into(), read(TINY).unwrap()).unwrap();
    assert_eq!(weights.len(), 4);
    let norm = weights.take("model.norm.weight").unwrap();
    let mut values = [0.0; 5];
    decode_row(norm.dtype, &norm.data, &mut values);
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0]);
    let embed = weights.take("model.embed.weight").unwrap();
    assert_eq!((embed.dtype, embed.shape.as_slice()), (DType::F16, [3, 32].as_slice()));
    let mut values = [0.0; 96];
    decode_row(embed.dtype, &embed.data, &mut values);
    assert!(values.iter().enumerate().all(|(i, v)| (v - (i as f32 - 50.0) / 7.0).abs() < 0.005));
    let scalar = weights.take("model.scalar").unwrap();
    assert_eq!((scalar.shape.len(), scalar.len(), scalar.rows()), (0, 1, 1));
    let steps = weights.get("model.steps").unwrap();
    assert_eq!((steps.dtype, steps.data.len()), (StoredType::Other("I64"), 16));
    assert_eq!(weights.unused(), ["model.steps"]);
    assert!(weights.take("model.steps").unwrap_err().to_string().contains("element type I64"));
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_and_not_a_panic() {
    for len in 0..TINY.len() {
        read(&TINY[..len]).expect_err("a cut file");
    }
    check_refused(&TINY[..5], &["the header length", "byte 8", "byte 5"]);
    check_refused(&TINY[..50], &["truncated", "the header"]);
    check_refused(&TINY[..TINY.len() - 1], &["data_offsets", "offsets within"]);
}

#[test]
fn broken_headers_are_refused() {
    let a = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    assert_eq!(read(&file(&format!("{{{a}}}   "), 8)).unwrap().len(), 1);
    assert!(read(&file("{}", 0)).unwrap().is_empty());
    check_refused(&u64::MAX.to_le_bytes(), &["bytes of safetensors header", "limit"]);
    check_refused(&file("[]", 0), &["header", "JSON", "an object from tensor names"]);
    check_refused(&file("{", 0), &["header", "JSON"]);
    check_refused(&file("{}x", 0), &["header", "JSON"]);
    check_refused(&file(&format!("{{{a},{a}}}"), 8), &["key `a` occurs twice"]);
    check_refused(&file(r#"{"a":{"dtype":"F32","shape":[2]}}"#, 8), &["data_offsets"]);
    check_refused(&file(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8), &["JSON"]);
    check_refused(&file(r#"{"__metadata__":{"n":1}}"#, 0), &["JSON"]);
    let mut not_utf8 = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    not_utf8[10] = 0xFF;
    check_refused(&not_utf8, &["JSON"]);
}

#[test]
fn broken_entries_are_refused() {
    let one = |dtype: &str, shape: &str, offsets: &str, data: usize| {
        file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), data)
    };
    assert!(read(&one("BF16", "[2,2]", "[0,8]", 8)).is_ok());
    check_refused(&one("F4", "[2]", "[0,1]", 1), &["`a`", "dtype `F4`", "BF16"]);
    check_refused(&one("F32", "[2]", "[0,4]", 4), &["`a`", "data_offsets 0..4", "8 bytes for F32 [2]"]);
    check_refused(&one("F32", "[2]", "[8,0]", 8), &["`a`", "data_offsets 8..0"]);
    check_refused(&one("F32", "[2]", "[0,8]", 7), &["`a`", "within the 7 bytes"]);
    check_refused(&one("F32", "[2]", "[0,8]", 9), &["data section", "found 9", "the 8 bytes"]);
    check_refused(&one("F32", "[2]", "[4,12]", 12), &["`a`", "from byte 4", "from byte 0"]);
    check_refused(&one("F32", "[4294967296,4294967296]", "[0,0]", 0), &["`a`", "more bytes than can be counted"]);
    check_refused(&one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4), &["`a`", "9 dimensions", "at most 8"]);
    let two = |second: &str| {
        let first = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        file(&format!(r#"{{{first},"b":{{"dtype":"F32","shape":[2],"data_offsets":{second}}}}}"#), 16)
    };
    assert!(read(&two("[8,16]")).is_ok());
    check_refused(&two("[4,12]"), &["`b`", "overlaps `a` at 0..8"]);
    check_refused(&two("[0,8]"), &["`b`", "overlaps `a`"]);
}

#[test]
fn a_tensor_without_values_takes_no_place() {
    let header = r#"{"e":{"dtype":"F32","shape":[0,4],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let tensors = read(&file(header, 4)).unwrap();
    assert_eq!((tensors[0].data.len(), tensors[1].data.len()), (0, 4));
}

#[test]
fn random_damage_is_an_error_or_a_sound_file() {
    let mut state = 7u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..20_000 {
        let mut bytes = TINY.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        for tensor in read(&bytes).into_iter().flatten() {
            if let StoredType::Known(dtype) = tensor.dtype {
                assert_eq!(tensor.data.len(), tensor.shape.iter().product::<usize>() * dtype.block_bytes());
            }
        }
    }
}
