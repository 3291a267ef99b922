//! Checkpoints: safetensors, GGUF and `config.json`.
//!
//! What opens is walked to its end: every value is read, every tensor's size agrees with its shape, and whatever
//! the model and the tokenizer make of the metadata is an error or works.

use carat_chat::tokenizer::{Tokenizer, VocabParts};
use carat_model::load::FileBytes;
use carat_model::{DecoderOptions, ModelConfig, memory_plan, plan};
use carat_tensor::{Bytes, TokenId};
use carat_weights::{Array, Checkpoint, GgufFile, Importance, StoredType, Value, Weights, WeightsError, gguf};

use crate::tokenizer::encodes;

/// A safetensors file: tensors cover its data exactly, each as large as its shape says.
pub fn safetensors(data: &[u8]) -> bool {
    let Ok(tensors) = carat_weights::safetensors::read("input", &Bytes::from_vec(data.to_vec())) else { return false };
    let taken: usize = tensors.iter().map(|t| t.data.len()).sum();
    assert!(taken <= data.len(), "{taken} bytes of tensors in {} bytes", data.len());
    let weights = Weights::new("input".into(), tensors).expect("the header's keys are unique");
    walk_tensors(&weights);
    true
}

/// A GGUF file with its metadata, the model config and the tokenizer that they make.
pub fn gguf(data: &[u8]) -> bool {
    let Ok(file) = GgufFile::from_bytes("input", Bytes::from_vec(data.to_vec())) else { return false };
    for (key, value) in file.metadata.iter() {
        assert!(file.metadata.contains(key));
        if let Value::Array(array) = value {
            assert!(walk_array(array) <= data.len(), "`{key}` is longer than the file");
        }
        // The wrong type is an error, the right one a value.
        let _ = (file.metadata.u32(key), file.metadata.f32(key), file.metadata.u32s(key), file.metadata.f32s(key));
    }
    walk_tensors(&file.tensors);
    if let Ok(Some(tokenizer)) = gguf_tokenizer(&file) {
        encodes(&tokenizer, data);
    }
    if let Ok(config) = carat_model::load::config(&Checkpoint::Gguf(file)) {
        walk_config(&config);
    }
    true
}

/// A GGUF checkpoint in parts, each from one `GGUF` to the next: the whole has the tensors of all.
pub fn gguf_split(data: &[u8]) -> bool {
    let starts: Vec<usize> = (0..data.len()).filter(|&at| data[at..].starts_with(b"GGUF")).collect();
    let ends = starts.iter().skip(1).copied().chain([data.len()]);
    let parts: Vec<Bytes> =
        starts.iter().zip(ends).map(|(&start, end)| Bytes::from_vec(data[start..end].to_vec())).collect();
    let Ok(whole) = gguf::split::from_bytes("input", &parts) else { return false };
    let alone = |part: &Bytes| GgufFile::from_bytes("input", part.clone()).expect("a part is a file").tensors.len();
    assert_eq!(whole.tensors.len(), parts.iter().map(alone).sum::<usize>());
    walk_tensors(&whole.tensors);
    true
}

/// The index of a sharded checkpoint: every shard is a file beside it.
pub fn safetensors_index(data: &[u8]) -> bool {
    let Ok(index) = carat_weights::safetensors::read_index("input", data) else { return false };
    for shard in index.values() {
        let below = std::path::Path::new("dir").join(shard);
        assert_eq!(below.parent(), Some(std::path::Path::new("dir")), "`{shard}` leads out");
    }
    true
}

/// An importance matrix: weights are finite, none is negative, and they are no more than the file has room for.
pub fn imatrix(data: &[u8]) -> bool {
    let Ok(importance) = Importance::from_bytes("input", &Bytes::from_vec(data.to_vec())) else { return false };
    let mut values = 0;
    for (name, weights) in importance.iter() {
        assert!(weights.iter().all(|w| w.is_finite() && *w >= 0.0), "`{name}`: {weights:?}");
        values += weights.len();
        assert!(importance.of(name, weights.len(), 1).is_ok_and(|found| found == Some(weights)));
    }
    assert!(4 * values <= data.len(), "{values} values in {} bytes", data.len());
    true
}

/// A `config.json`: a config that passes its check can be planned.
pub fn config_json(data: &[u8]) -> bool {
    let Ok(json) = serde_json::from_slice(data) else { return false };
    let Ok(config) = ModelConfig::from_json(&json) else { return false };
    walk_config(&config);
    true
}

fn walk_tensors(weights: &Weights) {
    for info in weights.iter() {
        let tensor = match weights.take(&info.name) {
            Ok(tensor) => tensor,
            Err(_) => {
                assert!(matches!(info.dtype, StoredType::Other(_)), "{} can't be taken", info.name);
                continue;
            }
        };
        let values: usize = tensor.shape.iter().product();
        let blocks = values / tensor.dtype.block_len();
        assert_eq!(tensor.data.len(), blocks * tensor.dtype.block_bytes(), "{}: {:?}", tensor.name, tensor.shape);
    }
    let taken = weights.iter().filter(|t| matches!(t.dtype, StoredType::Known(_))).count();
    assert_eq!(weights.unused().len(), weights.len() - taken);
}

/// Reads all that an array holds and returns how many values those are.
fn walk_array(array: &Array) -> usize {
    let strings = array.strings().map(<[u8]>::len).sum::<usize>();
    let ints = array.ints().map_or(0, |values| values.fold(0, |n, _| n + 1));
    let floats = array.floats().map_or(0, |values| values.fold(0, |n, _| n + 1));
    let bools = array.bools().map_or(0, Iterator::count);
    strings + ints + floats + bools
}

fn walk_config(config: &ModelConfig) {
    config.check().expect("a config that was read has been checked");
    assert_eq!(plan::plan(config).len(), config.layers.len());
    for layer in &config.layers {
        let frequencies = config.rope(layer.layer_type).inv_freq(layer.head_dim);
        assert_eq!(frequencies.len(), layer.head_dim / 2);
    }
    let file = FileBytes::default();
    if let Ok(plan) = memory_plan(config, &DecoderOptions::default(), file) {
        assert!(!plan.to_string().is_empty());
    }
}

/// The tokenizer in a file's metadata, read as the runtime does; `None` where texts aren't UTF-8 or it is refused.
fn gguf_tokenizer(file: &GgufFile) -> Result<Option<Tokenizer>, WeightsError> {
    let metadata = &file.metadata;
    let id = |key: &str| metadata.opt_u32(key).map(|id| id.map(TokenId));
    let texts = |key: &str| -> Result<Option<Vec<&str>>, WeightsError> {
        Ok(metadata.strings(key)?.map(|text| std::str::from_utf8(text).ok()).collect())
    };
    let Some(tokens) = texts("tokenizer.ggml.tokens")? else { return Ok(None) };
    let parts = VocabParts {
        tokens,
        token_types: &metadata.i32s("tokenizer.ggml.token_type").unwrap_or_default(),
        merges: texts("tokenizer.ggml.merges").ok().flatten().unwrap_or_default(),
        scores: &metadata.f32s("tokenizer.ggml.scores").unwrap_or_default(),
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos: id("tokenizer.ggml.eos_token_id")?,
        unk: id("tokenizer.ggml.unknown_token_id")?,
        pad: id("tokenizer.ggml.padding_token_id")?,
    };
    Ok(Tokenizer::from_parts(parts).ok())
}
