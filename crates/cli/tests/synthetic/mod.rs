//! Models of any shape with meaningless weights, large enough to measure memory on.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use carat_model::config::LayerType;
use carat_model::load::{ModelTensors, Role};
use carat_tensor::DType;
use carat_weights::{Checkpoint, GgufFile, GgufWriter, HfDir, Weights};
use serde_json::{Value, json};

use crate::program::{Scratch, carat, done};

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");

/// The embedded model's `config.json` with other values in its `text_config`.
pub fn config(changes: &[(&str, Value)]) -> Value {
    let text = std::fs::read_to_string(format!("{NANO}/config.json")).expect("the model is in the repository");
    let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
    for (key, value) in changes {
        config["text_config"][*key] = value.clone();
    }
    config
}

/// Writes a GGUF file with the tensors that `config` asks for, matrices in `dtype`, and the embedded model's
/// vocabulary. Every block has the same scale and the rest of it at random.
pub fn write_gguf(path: &Path, config: Value, dtype: DType) {
    let nano = Scratch::new(&format!("nano-for-{}.gguf", path.file_stem().unwrap_or_default().display()));
    done(carat(&["convert", NANO, nano.arg()]).output().expect("the program starts"));
    let nano = GgufFile::open(&nano.0).expect("the program writes what it reads");
    let bare = Checkpoint::HfDir(HfDir {
        config,
        generation_config: None,
        tokenizer_json: None,
        tokenizer_config: None,
        chat_template: None,
        tensors: Weights::new("none".into(), Vec::new()).expect("no names, no double ones"),
    });
    let tensors = ModelTensors::new(&bare).expect("a sound config");
    let mut writer = GgufWriter::new();
    for (key, value) in nano.metadata.iter().filter(|(key, _)| !key.starts_with("gemma4.")) {
        writer.value(key, value);
    }
    hyperparameters(&mut writer, tensors.config());
    let stored = |role: Role| if role == Role::Vector || role == Role::Router { DType::F32 } else { dtype };
    for tensor in tensors.iter() {
        writer.tensor(&tensor.gguf, stored(tensor.role), &tensor.shape);
    }
    let mut data = writer.begin(BufWriter::new(File::create(path).expect("a writable directory"))).expect("disk space");
    let (ones, blocks, floats) = (1f32.to_le_bytes().repeat(1 << 16), random_blocks(dtype), random_floats());
    for tensor in tensors.iter() {
        let dtype = stored(tensor.role);
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let rows: usize = tensor.shape.iter().rev().skip(1).product();
        let mut left = dtype.row_bytes(cols).expect("whole blocks") * rows;
        let pattern = match tensor.role {
            Role::Vector => &ones,
            // Other logits for every expert, so that all of them are chosen by some rows.
            Role::Router => &floats,
            _ => &blocks,
        };
        while left > 0 {
            let piece = left.min(pattern.len());
            data.write(&pattern[..piece]).expect("disk space");
            left -= piece;
        }
    }
    data.finish().expect("disk space");
}

/// The keys that the reader asks for.
fn hyperparameters(w: &mut GgufWriter, config: &carat_model::ModelConfig) {
    let key = |name: &str| format!("gemma4.{name}");
    let of = |t: LayerType| config.layers.iter().find(|l| l.layer_type == t).map_or(0, |l| l.head_dim) as u32;
    let ints = |f: fn(&carat_model::config::LayerConfig) -> usize| -> Vec<i32> {
        config.layers.iter().map(|l| f(l) as i32).collect()
    };
    w.u32(&key("block_count"), config.layers.len() as u32);
    w.u32(&key("context_length"), config.max_context as u32);
    w.u32(&key("embedding_length"), config.d_model as u32);
    w.i32s(&key("feed_forward_length"), &ints(|l| l.ffn_width));
    w.u32(&key("attention.head_count"), config.n_heads as u32);
    w.i32s(&key("attention.head_count_kv"), &ints(|l| l.n_kv_heads));
    w.u32(&key("attention.sliding_window"), config.window as u32);
    w.u32(&key("attention.shared_kv_layers"), config.n_shared_layers as u32);
    w.u32(&key("embedding_length_per_layer_input"), config.per_layer.map_or(0, |p| p.width) as u32);
    for (end, dim) in [("", of(LayerType::Full)), ("_swa", of(LayerType::Sliding))] {
        w.u32(&key(&format!("attention.key_length{end}")), dim);
        w.u32(&key(&format!("attention.value_length{end}")), dim);
    }
    let sliding: Vec<bool> = config.layers.iter().map(|l| l.layer_type == LayerType::Sliding).collect();
    w.bools(&key("attention.sliding_window_pattern"), &sliding);
    if let Some(experts) = config.experts {
        w.u32(&key("expert_count"), experts.n_experts as u32);
        w.u32(&key("expert_used_count"), experts.top_k as u32);
        w.u32(&key("expert_feed_forward_length"), experts.width as u32);
    }
}

fn random_floats() -> Vec<u8> {
    let bytes = random_blocks(DType::F32);
    bytes.as_chunks::<4>().0.iter().flat_map(|b| (f32::from(b[3] as i8) / 128.0).to_le_bytes()).collect()
}

/// About a MiB of blocks of `dtype`, whose scale comes first.
fn random_blocks(dtype: DType) -> Vec<u8> {
    let size = dtype.block_bytes();
    let mut state = 1u64;
    let mut blocks: Vec<u8> = (0..(1 << 20) / size * size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    // 2^-4 in half precision: rows of the embedding are large beside what layers add, so tokens stay different.
    blocks.chunks_exact_mut(size).for_each(|block| block[..2].copy_from_slice(&0x2c00_u16.to_le_bytes()));
    blocks
}

/// Layers of both kinds, every third full.
pub fn layer_types(n: usize) -> Value {
    (1..=n).map(|i| if i % 3 == 0 { json!("full_attention") } else { json!("sliding_attention") }).collect()
}
