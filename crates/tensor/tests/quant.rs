//! Block formats against vectors made by the Python `gguf` package (recipe: `data/make_quant_vectors.py`).
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use carat_tensor::DType;
use carat_tensor::quant::{can_encode, decode_row, encode_row};

/// What the vectors call 8-bit floats, which ggml has no id for.
const F8_E4M3: u32 = 0xF8;

struct Record {
    encode: bool,
    type_id: u32,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

fn records() -> Vec<Record> {
    let mut file: &[u8] = include_bytes!("data/quant_vectors.bin");
    let mut take = |n: usize| {
        let (taken, rest) = file.split_at(n);
        file = rest;
        (taken.to_vec(), rest.is_empty())
    };
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
    let mut records = Vec::new();
    loop {
        let (head, _) = take(13);
        let (bytes, _) = take(word(&head[9..13]) as usize);
        let (values, last) = take(4 * word(&head[5..9]) as usize);
        records.push(Record {
            encode: head[0] == 1,
            type_id: word(&head[1..5]),
            bytes,
            values: values.chunks(4).map(|v| f32::from_bits(word(v))).collect(),
        });
        if last {
            return records;
        }
    }
}

#[test]
fn decoding_equals_gguf_bit_for_bit() {
    let mut seen = Vec::new();
    for Record { type_id, bytes, values, .. } in records().into_iter().filter(|r| !r.encode && r.type_id != F8_E4M3) {
        let dtype = DType::from_ggml(type_id).unwrap();
        let mut out = vec![f32::NAN; values.len()];
        decode_row(dtype, &bytes, &mut out);
        for (i, (found, expected)) in out.iter().zip(&values).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{dtype} value {i}: {found}, expected {expected}");
        }
        seen.push(dtype);
    }
    seen.sort();
    let all: Vec<_> = DType::ALL.into_iter().filter(|t| t.ggml_id().is_some() && *t != DType::F32).collect();
    assert_eq!(seen, all, "every type of the files but F32 has vectors");
}

/// A block of a type that exists in memory only: its scales, then its codes.
fn scaled(dtype: DType, scales: &[f32], codes: &[u8]) -> Vec<f32> {
    let bytes: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).chain(codes.iter().copied()).collect();
    let mut out = vec![f32::NAN; dtype.block_len()];
    decode_row(dtype, &bytes, &mut out);
    out
}

#[test]
fn eight_bit_floats_are_those_of_torch() {
    let record = records().into_iter().find(|r| r.type_id == F8_E4M3).unwrap();
    assert_eq!(record.bytes.len(), 256);
    for scale in [1.0, -3.0e-5] {
        for (codes, expected) in record.bytes.chunks(32).zip(record.values.chunks(32)) {
            for (found, expected) in scaled(DType::F8F32, &[scale], codes).iter().zip(expected) {
                assert!(*found == scale * expected || (found.is_nan() && expected.is_nan()), "{found} {expected}");
            }
        }
    }
}

#[test]
fn blocks_made_in_memory_keep_every_scale() {
    // Too small and too long for an f16.
    let scale = f32::from_bits(0x2f12_3456);
    let bytes: Vec<u8> = (0..32).map(|i| i * 8).collect();
    let expected: Vec<f32> = bytes.iter().map(|&b| scale * f32::from(b as i8)).collect();
    assert_eq!(scaled(DType::I8F32, &[scale], &bytes), expected);
    let codes = [0x80, 0x91, 0xA2, 0xB3, 0xC4, 0xD5, 0xE6, 0xF7].repeat(2);
    let floats = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let group = |scale: f32| floats.into_iter().chain(floats.map(|v| -v)).map(move |v| scale * v);
    let expected: Vec<f32> = group(scale).chain(group(2.5)).collect();
    assert_eq!(scaled(DType::F4F32, &[scale, 2.5], &codes), expected);
}

#[test]
fn encoding_equals_gguf_byte_for_byte() {
    let mut seen = 0;
    for Record { type_id, bytes, values, .. } in records().into_iter().filter(|r| r.encode) {
        let dtype = DType::from_ggml(type_id).unwrap();
        let mut out = vec![0xEE; bytes.len()];
        encode_row(dtype, &values, &mut out);
        assert_eq!(out, bytes, "{dtype}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn what_can_be_encoded_comes_back_within_half_a_step() {
    let values: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32 / 32.0 - 1.0).collect();
    for (dtype, step) in [
        (DType::F32, 0.0),
        (DType::F16, 1.0 / 1024.0),
        (DType::BF16, 1.0 / 128.0),
        (DType::Q8_0, 1.0 / 127.0),
        // One end of the scale is -8, the other 7: the far peak may be a whole step off.
        (DType::Q4_0, 2.0 / 8.0),
        (DType::Q5_0, 2.0 / 16.0),
    ] {
        assert!(can_encode(dtype));
        let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
        encode_row(dtype, &values, &mut bytes);
        let mut back = vec![0.0; values.len()];
        decode_row(dtype, &bytes, &mut back);
        for (a, b) in values.iter().zip(&back) {
            assert!((a - b).abs() <= 0.5 * step * 1.001, "{dtype}: {a} came back as {b}");
        }
    }
}

#[test]
fn values_beyond_every_range_do_not_panic() {
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE] {
        for dtype in DType::ALL.into_iter().filter(|&t| can_encode(t)) {
            let mut bytes = vec![0; dtype.row_bytes(256).unwrap()];
            encode_row(dtype, &[value; 256], &mut bytes);
        }
    }
}

#[test]
#[should_panic(expected = "bytes of 32 values of Q4_0")]
fn a_wrong_number_of_bytes_is_refused() {
    decode_row(DType::Q4_0, &[0; 17], &mut [0.0; 32]);
}

#[test]
#[should_panic(expected = "bytes of 31 values of Q8_0")]
fn a_part_of_a_block_is_refused() {
    decode_row(DType::Q8_0, &[0; 34], &mut [0.0; 31]);
}
