//! The GGUF reader and writer: against a file of the Python `gguf` package (recipe: `data/make_files.py`), and
//! against files that are wrong on purpose.

use carat_tensor::quant::{decode_row, encode_row};
use carat_tensor::{Bytes, DType};
use carat_weights::{GgufFile, GgufWriter, StoredType, WeightsError};

const TINY: &[u8] = include_bytes!("data/tiny.gguf");

fn read(bytes: &[u8]) -> Result<GgufFile, WeightsError> {
    GgufFile::from_bytes("test.gguf", Bytes::from_vec(bytes.to_vec()))
}

fn matrix() -> Vec<f32> {
    (0..96).map(|i| (i as f32 - 50.0) / 7.0).collect()
}

/// The writer's version of `tiny.gguf`, its metadata written by `metadata`.
fn tiny_written(metadata: impl FnOnce(&mut GgufWriter)) -> Vec<u8> {
    let mut q8 = vec![0; 3 * 34];
    encode_row(DType::Q8_0, &matrix(), &mut q8);
    let norm: Vec<u8> = (0..5).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let mut cube = vec![0; 48];
    encode_row(DType::F16, &(0..24).map(|i| i as f32).collect::<Vec<_>>(), &mut cube);
    let mut w = GgufWriter::new();
    metadata(&mut w);
    w.tensor("token_embd.weight", DType::Q8_0, &[3, 32]).tensor("output_norm.weight", DType::F32, &[5]).tensor(
        "blk.0.cube.weight",
        DType::F16,
        &[2, 3, 4],
    );
    let bytes = w.to_bytes(&[q8, norm, cube]);
    assert_eq!(bytes.len() as u64, w.file_bytes());
    bytes
}

fn tiny_metadata(w: &mut GgufWriter) {
    w.str("general.architecture", "gemma4")
        .str("general.name", "tiny – ein Test")
        .u32("gemma4.block_count", 2)
        .f32("gemma4.attention.layer_norm_rms_epsilon", 1e-6)
        .bool("tokenizer.ggml.add_bos_token", true)
        .bools("gemma4.attention.sliding_window_pattern", &[true, false])
        .i32s("gemma4.feed_forward_length", &[6144, 12288])
        .f32s("tokenizer.ggml.scores", &[-1.5, 0.25])
        .strings("tokenizer.ggml.tokens", &["<pad>", "", "▁a", "😀"]);
}

#[test]
fn a_file_of_the_python_package_is_read() {
    let file = read(TINY).unwrap();
    let m = &file.metadata;
    assert_eq!(m.str("general.architecture").unwrap(), "gemma4");
    assert_eq!(m.str("general.name").unwrap(), "tiny – ein Test");
    assert_eq!(m.u32("gemma4.block_count").unwrap(), 2);
    assert_eq!(m.f32("gemma4.attention.layer_norm_rms_epsilon").unwrap(), 1e-6);
    assert!(m.bool("tokenizer.ggml.add_bos_token").unwrap());
    assert_eq!(m.bools("gemma4.attention.sliding_window_pattern").unwrap(), [true, false]);
    assert_eq!(m.u32s("gemma4.feed_forward_length").unwrap(), [6144, 12288]);
    assert_eq!(m.u32_each("gemma4.feed_forward_length", 2).unwrap(), [6144, 12288]);
    assert_eq!(m.u32_each("gemma4.block_count", 3).unwrap(), [2, 2, 2]);
    assert_eq!(m.f32s("tokenizer.ggml.scores").unwrap(), [-1.5, 0.25]);
    let tokens: Vec<_> = m.strings("tokenizer.ggml.tokens").unwrap().collect();
    assert_eq!(tokens, ["<pad>".as_bytes(), b"", "▁a".as_bytes(), "😀".as_bytes()]);
    assert_eq!(m.array("tokenizer.ggml.tokens").unwrap().len(), 4);
    assert_eq!(m.iter().count(), 9);
    assert_eq!(m.opt_str("tokenizer.chat_template").unwrap(), None);

    let names: Vec<_> = file.tensors.names().collect();
    assert_eq!(names, ["token_embd.weight", "output_norm.weight", "blk.0.cube.weight"]);
    let embed = file.tensors.take("token_embd.weight").unwrap();
    assert_eq!((embed.dtype, embed.shape.as_slice()), (DType::Q8_0, [3, 32].as_slice()));
    let mut values = vec![0.0; 96];
    decode_row(embed.dtype, &embed.data, &mut values);
    assert!(values.iter().zip(matrix()).all(|(a, b)| (a - b).abs() < 0.05));
    let cube = file.tensors.take("blk.0.cube.weight").unwrap();
    assert_eq!((cube.shape.as_slice(), cube.rows(), cube.cols()), ([2, 3, 4].as_slice(), 6, 4));
    assert_eq!(file.tensors.unused(), ["output_norm.weight"]);
}

#[test]
fn the_writer_writes_what_the_python_package_writes() {
    assert_eq!(tiny_written(tiny_metadata), TINY);
}

#[test]
fn metadata_of_another_file_is_copied_byte_for_byte() {
    let metadata = read(TINY).unwrap().metadata;
    assert_eq!(tiny_written(|w| metadata.iter().for_each(|(key, value)| _ = w.value(key, value))), TINY);
}

#[test]
fn data_may_be_written_in_pieces_of_any_size() {
    let mut w = GgufWriter::new();
    w.tensor("empty", DType::F32, &[0, 4]).tensor("a", DType::F16, &[3, 2]).tensor("b", DType::F32, &[2]);
    let (a, b) = ([1; 12], [2; 8]);
    let whole = w.to_bytes(&[&[][..], &a, &b]);
    let mut data = w.begin(Vec::new()).unwrap();
    a.chunks(5).chain(b.chunks(3)).for_each(|piece| data.write(piece).unwrap());
    assert_eq!(data.finish().unwrap(), whole);
    let file = read(&whole).unwrap();
    assert_eq!(file.tensors.take("a").unwrap().data[..], a);
    assert_eq!(file.tensors.take("b").unwrap().data[..], b);
}

#[test]
#[should_panic(expected = "tensor `a` has 4 of its 8 bytes")]
fn a_file_without_all_its_data_is_refused() {
    let mut w = GgufWriter::new();
    let mut data = w.tensor("a", DType::F32, &[2]).begin(Vec::new()).unwrap();
    data.write(&[0; 4]).unwrap();
    _ = data.finish();
}

#[test]
fn getters_name_key_found_and_expected() {
    let m = read(TINY).unwrap().metadata;
    let text = |e: WeightsError| e.to_string();
    assert_eq!(
        text(m.u32("general.name").unwrap_err()),
        "`test.gguf`: metadata key `general.name`: found string \"tiny – ein Test\", expected a u32"
    );
    assert_eq!(
        text(m.f32("gemma4.rope.freq_base").unwrap_err()),
        "`test.gguf`: metadata key `gemma4.rope.freq_base` is missing, expected an f32"
    );
    assert_eq!(
        text(m.u32_each("gemma4.feed_forward_length", 3).unwrap_err()),
        "`test.gguf`: metadata key `gemma4.feed_forward_length`: found an array of 2 i32, \
         expected a u32 or an array of 3"
    );
    assert!(text(m.strings("tokenizer.ggml.scores").map(drop).unwrap_err()).contains("expected an array of strings"));
    assert!(text(m.u32s("tokenizer.ggml.tokens").unwrap_err()).contains("found an array of 4 string"));
    assert!(text(m.opt_bool("gemma4.block_count").unwrap_err()).contains("found u32 2, expected a bool"));
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_and_not_a_panic() {
    let padding = 16; // After the last tensor's 48 bytes; a reader can spare it.
    for len in 0..TINY.len() - padding {
        let error = read(&TINY[..len]).expect_err("a cut file").to_string();
        assert!(error.contains("test.gguf"), "{error}");
    }
    assert!(read(&TINY[..TINY.len() - padding]).is_ok());
    let whole = read(&TINY[..40]).unwrap_err().to_string();
    assert_eq!(
        whole,
        "`test.gguf` is truncated: metadata key 0 reaches to byte 52, the file ends at byte 40: get it again"
    );
}

#[test]
fn a_vocabulary_without_tensors_may_end_after_its_metadata() {
    let mut w = GgufWriter::new();
    w.str("general.architecture", "gemma4").strings("tokenizer.ggml.tokens", &["a".as_bytes(), b"\xff\x00", b"c"]);
    let bytes = w.to_bytes::<Vec<u8>>(&[]);
    let head = 24 + (8 + 20 + 4 + 8 + 6) + (8 + 21 + 4 + 4 + 8) + 3 * 8 + 4;
    for bytes in [&bytes[..], &bytes[..head]] {
        let file = read(bytes).unwrap();
        assert!(file.tensors.is_empty());
        let tokens: Vec<_> = file.metadata.strings("tokenizer.ggml.tokens").unwrap().collect();
        assert_eq!(tokens, [b"a".as_slice(), b"\xff\x00", b"c"]);
    }
}

/// A file by hand: entries as raw bytes, so that they can be wrong.
fn by_hand(version: u32, n_tensors: u64, n_metadata: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(n_tensors.to_le_bytes());
    out.extend(n_metadata.to_le_bytes());
    out.extend(rest.concat());
    out
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A line of the tensor table; `ne` innermost first.
fn entry(name: &[u8], ne: &[u64], type_id: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name);
    out.extend((ne.len() as u32).to_le_bytes());
    out.extend(ne.iter().flat_map(|d| d.to_le_bytes()));
    out.extend(type_id.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// A file of tensors only, with `data` bytes of data.
fn with_tensors(entries: &[Vec<u8>], data: usize) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(Vec::as_slice).collect();
    let mut out = by_hand(3, entries.len() as u64, 0, &entries);
    out.resize(out.len().next_multiple_of(32) + data, 0);
    out
}

/// A file of one metadata entry.
fn with_metadata(key: &[u8], type_id: u32, value: &[u8]) -> Vec<u8> {
    by_hand(3, 0, 1, &[&string(key), &type_id.to_le_bytes(), value])
}

#[track_caller]
fn check_refused(bytes: &[u8], parts: &[&str]) {
    let error = read(bytes).map(drop).expect_err("a broken file").to_string();
    for part in parts.iter().chain(&["test.gguf"]) {
        assert!(error.contains(part), "`{error}` doesn't say `{part}`");
    }
}

#[test]
fn foreign_versions_are_named() {
    assert!(read(&by_hand(2, 0, 0, &[])).is_ok());
    check_refused(&by_hand(1, 0, 0, &[]), &["version", "found 1", "2 or 3"]);
    check_refused(&by_hand(4, 0, 0, &[]), &["version", "found 4"]);
    check_refused(&by_hand(3u32.swap_bytes(), 0, 0, &[]), &["big-endian"]);
    check_refused(b"GGML\x03\0\0\0", &["`GGML`", "`GGUF`"]);
}

#[test]
fn absurd_counts_are_refused_before_they_cost_memory() {
    check_refused(&by_hand(3, u64::MAX, 0, &[]), &["tensors", "limit"]);
    check_refused(&by_hand(3, 0, u64::MAX, &[]), &["metadata entries", "limit"]);
    check_refused(&by_hand(3, 1 << 20, 0, &[]), &["truncated", "the name of tensor 0"]);
    let huge = u64::MAX.to_le_bytes();
    check_refused(&by_hand(3, 0, 1, &[&huge]), &["metadata key 0", "limit"]);
    check_refused(&with_metadata(b"k", 8, &huge), &["`k`", "limit"]);
    // Arrays of u64 and of strings, as many as can be said.
    check_refused(&with_metadata(b"k", 9, &[&10u32.to_le_bytes()[..], &huge].concat()), &["`k`", "truncated"]);
    check_refused(&with_metadata(b"k", 9, &[&8u32.to_le_bytes()[..], &huge].concat()), &["`k`", "truncated"]);
    let mut nested = Vec::new();
    for _ in 0..100 {
        nested.extend(9u32.to_le_bytes());
        nested.extend(1u64.to_le_bytes());
    }
    check_refused(&with_metadata(b"k", 9, &nested), &["levels of arrays", "`k`", "limit is 4"]);
}

#[test]
fn broken_metadata_is_refused() {
    check_refused(&with_metadata(b"k", 13, &[0; 8]), &["`k`", "value type 13"]);
    check_refused(&with_metadata(b"k", 7, &[2]), &["`k`", "byte 2", "0 or 1"]);
    check_refused(&with_metadata(b"\xff", 4, &[0; 4]), &["metadata key 0", "UTF-8"]);
    check_refused(&with_metadata(b"k", 8, &string(b"ab\xff")), &["`k`", "UTF-8", "byte 2"]);
    // Of a long text the place is shown, and no more.
    let long = [&[b'a'; 100_000][..], b"left\xffright", &[b'b'; 100_000]].concat();
    let error = read(&with_metadata(b"k", 8, &string(&long))).map(drop).unwrap_err().to_string();
    assert!(error.contains("aaleft\\xffrightbb") && error.contains("byte 100004 of 200010"), "{error}");
    assert!(error.len() < 200, "{} bytes", error.len());
    let one = [&string(b"k")[..], &4u32.to_le_bytes(), &[0; 4]].concat();
    check_refused(&by_hand(3, 0, 2, &[&one, &one]), &["`k`", "twice"]);
    for bad in [0u32, 24, 1 << 20] {
        check_refused(
            &with_metadata(b"general.alignment", 4, &bad.to_le_bytes()),
            &["general.alignment", "power of two"],
        );
    }
}

#[test]
fn integers_of_every_width_convert_where_they_fit() {
    for (type_id, bytes) in [
        (0, &[200u8][..]),
        (2, &200u16.to_le_bytes()),
        (3, &200i16.to_le_bytes()),
        (5, &200i32.to_le_bytes()),
        (10, &200u64.to_le_bytes()),
        (11, &200i64.to_le_bytes()),
    ] {
        assert_eq!(read(&with_metadata(b"k", type_id, bytes)).unwrap().metadata.u32("k").unwrap(), 200);
    }
    let negative = read(&with_metadata(b"k", 1, &[0xFF])).unwrap();
    let error = negative.metadata.u32("k").unwrap_err().to_string();
    assert!(error.contains("found i8 -1, expected a u32"), "{error}");
    let big = read(&with_metadata(b"k", 10, &(1u64 << 32).to_le_bytes())).unwrap();
    assert!(big.metadata.u32("k").is_err());
}

#[test]
fn broken_tensor_entries_are_refused() {
    let f32s = |name: &[u8], n: u64, offset: u64| entry(name, &[n], 0, offset);
    assert!(read(&with_tensors(&[f32s(b"a", 8, 0), f32s(b"b", 8, 32)], 64)).is_ok());
    check_refused(&with_tensors(&[f32s(b"a", 8, 0), f32s(b"a", 8, 32)], 64), &["`a`", "second tensor"]);
    check_refused(&with_tensors(&[f32s(b"a", 16, 0), f32s(b"b", 8, 32)], 64), &["`b`", "overlaps `a`"]);
    check_refused(&with_tensors(&[f32s(b"a", 8, 4)], 64), &["`a`", "offset 4", "multiple of 32"]);
    check_refused(&with_tensors(&[f32s(b"a", 8, 64)], 64), &["`a`", "32 bytes of data", "a file of at least"]);
    check_refused(&with_tensors(&[f32s(b"a", 8, u64::MAX - 31)], 64), &["`a`", "offset"]);
    check_refused(&with_tensors(&[f32s(b"a", u64::MAX, 0)], 64), &["`a`", "size that can be counted"]);
    check_refused(&with_tensors(&[entry(b"a", &[1 << 32, 1 << 32], 0, 0)], 64), &["`a`", "counted"]);
    check_refused(&with_tensors(&[entry(b"a", &[33], 8, 0)], 64), &["`a`", "rows of 33", "32", "Q8_0"]);
    check_refused(&with_tensors(&[entry(b"a", &[32], 12, 0)], 64), &["`a`", "256", "Q4_K"]);
    check_refused(&with_tensors(&[entry(b"a", &[32], 99, 0)], 64), &["`a`", "type id 99"]);
    check_refused(&with_tensors(&[entry(b"a", &[1; 5], 0, 0)], 64), &["`a`", "dimensions", "limit is 4"]);
    check_refused(&with_tensors(&[f32s(b"\xc3", 8, 0)], 64), &["name of tensor 0", "UTF-8"]);
    check_refused(&with_tensors(&[f32s(&[b'a'; 2000], 8, 0)], 64), &["name of tensor 0", "limit is 1024"]);
}

#[test]
fn types_we_cannot_compute_with_are_listed_and_not_taken() {
    let file = read(&with_tensors(&[entry(b"a", &[256], 34, 0)], 54 + 16)).unwrap();
    assert_eq!(file.tensors.get("a").unwrap().dtype, StoredType::Other("TQ1_0"));
    let error = file.tensors.take("a").unwrap_err().to_string();
    assert!(error.contains("`a`") && error.contains("TQ1_0") && error.contains("Q4_K"), "{error}");
    assert_eq!(file.tensors.unused(), ["a"]);
    assert!(file.tensors.ignore("a") && !file.tensors.ignore("b"));
    assert!(file.tensors.unused().is_empty());
    assert_eq!(file.tensors.take("b").unwrap_err().to_string(), "tensor `b` is not in `test.gguf`");
    assert!(file.tensors.take_optional("b").unwrap().is_none());
}

#[test]
fn an_alignment_of_its_own_is_followed() {
    let alignment = [&string(b"general.alignment")[..], &4u32.to_le_bytes(), &64u32.to_le_bytes()].concat();
    let mut bytes = by_hand(3, 1, 1, &[&alignment, &entry(b"a", &[2], 0, 0)]);
    bytes.resize(bytes.len().next_multiple_of(64), 0xEE);
    bytes.extend(1.5f32.to_le_bytes());
    bytes.extend(2.5f32.to_le_bytes());
    let data = read(&bytes).unwrap().tensors.take("a").unwrap().data;
    assert_eq!(*data, [1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat());
}

#[test]
fn random_damage_is_an_error_or_a_sound_file() {
    let mut state = 7u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut survivors = 0;
    for _ in 0..20_000 {
        let mut bytes = TINY.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        let Ok(file) = read(&bytes) else { continue };
        survivors += 1;
        for tensor in file.tensors.iter() {
            let StoredType::Known(dtype) = tensor.dtype else { continue };
            let tensor = file.tensors.take(&tensor.name).unwrap();
            assert_eq!(Some(tensor.data.len()), dtype.row_bytes(tensor.cols()).map(|row| row * tensor.rows()));
        }
        for (key, _) in file.metadata.iter() {
            let _ = file.metadata.strings(key).map(Iterator::count);
            let _ = file.metadata.u32_each(key, 4);
        }
    }
    assert!(survivors > 1000, "damage to the data alone is not seen: {survivors}");
}
