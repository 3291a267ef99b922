//! Block formats against vectors made by the Python `gguf` package (recipe: `data/make_quant_vectors.py`).
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use carat_tensor::DType;
use carat_tensor::quant::{can_encode, decode_row, encode_row};

struct Record {
    encode: bool,
    dtype: DType,
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
            dtype: DType::from_ggml(word(&head[1..5])).unwrap(),
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
    for Record { dtype, bytes, values, .. } in records().into_iter().filter(|r| !r.encode) {
        let mut out = vec![f32::NAN; values.len()];
        decode_row(dtype, &bytes, &mut out);
        for (i, (found, expected)) in out.iter().zip(&values).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{dtype} value {i}: {found}, expected {expected}");
        }
        seen.push(dtype);
    }
    seen.sort();
    let all: Vec<_> = DType::ALL.into_iter().filter(|&t| t != DType::F32).collect();
    assert_eq!(seen, all, "every type but F32 has vectors");
}

#[test]
fn encoding_equals_gguf_byte_for_byte() {
    let mut seen = 0;
    for Record { dtype, bytes, values, .. } in records().into_iter().filter(|r| r.encode) {
        let mut out = vec![0xEE; bytes.len()];
        encode_row(dtype, &values, &mut out);
        assert_eq!(out, bytes, "{dtype}");
        seen += 1;
    }
    assert_eq!(seen, 4);
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
            let mut bytes = vec![0; dtype.row_bytes(32).unwrap()];
            encode_row(dtype, &[value; 32], &mut bytes);
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
