//! Writes the encoders of a Hugging Face directory as a GGUF file, as llama.cpp's converter does: its names, its orders of values,
//! its types (`conversion/gemma.py`: `Gemma4VisionAudioModel`, `Gemma4UnifiedVisionAudioModel`).

use carat_tensor::{DType, quant};
use carat_weights::{GgufWriter, HfDir, StoredType, TensorInfo};
use serde_json::Value;

const COLOURS: usize = 3;
/// Values of a patch of 16 × 16 pixels, and of a block of 48 × 48.
const PATCH: usize = 16 * 16 * COLOURS;
const BLOCK: usize = 9 * PATCH;

/// Stems of names without a layer. What lies between `layers.N.` and the end of a name is in [`OF_LAYERS`].
const STEMS: [(&str, &str); 17] = [
    ("vision_tower.patch_embedder.input_proj", "v.patch_embd"),
    ("vision_tower.patch_embedder.position_embedding_table", "v.position_embd.weight"),
    ("vision_tower.std_bias", "v.std_bias"),
    ("vision_tower.std_scale", "v.std_scale"),
    ("vision_embedder.pos_embedding", "v.position_embd.weight"),
    ("vision_embedder.patch_ln1", "v.patch_norm.1"),
    ("vision_embedder.patch_dense", "v.patch_embd"),
    ("vision_embedder.patch_ln2", "v.patch_norm.2"),
    ("vision_embedder.pos_norm", "v.patch_norm.3"),
    ("embed_vision.embedding_projection", "mm.input_projection"),
    ("embed_audio.embedding_projection", "mm.a.input_projection"),
    ("audio_tower.output_proj", "a.pre_encode.out"),
    ("audio_tower.subsample_conv_projection.input_proj_linear", "a.input_projection"),
    ("audio_tower.subsample_conv_projection.layer0.conv", "a.conv1d.0"),
    ("audio_tower.subsample_conv_projection.layer0.norm", "a.conv1d.0.norm"),
    ("audio_tower.subsample_conv_projection.layer1.conv", "a.conv1d.1"),
    ("audio_tower.subsample_conv_projection.layer1.norm", "a.conv1d.1.norm"),
];
const OF_LAYERS: [(&str, &str); 32] = [
    ("input_layernorm", "ln1"),
    ("post_attention_layernorm", "attn_post_norm"),
    ("pre_feedforward_layernorm", "ln2"),
    ("post_feedforward_layernorm", "ffn_post_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_out"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("feed_forward1.pre_layer_norm", "ffn_norm"),
    ("feed_forward1.ffw_layer_1", "ffn_up"),
    ("feed_forward1.ffw_layer_2", "ffn_down"),
    ("feed_forward1.post_layer_norm", "ffn_post_norm"),
    ("feed_forward2.pre_layer_norm", "ffn_norm_1"),
    ("feed_forward2.ffw_layer_1", "ffn_up_1"),
    ("feed_forward2.ffw_layer_2", "ffn_down_1"),
    ("feed_forward2.post_layer_norm", "ffn_post_norm_1"),
    ("norm_pre_attn", "attn_pre_norm"),
    ("norm_post_attn", "attn_post_norm"),
    ("norm_out", "ln2"),
    ("self_attn.post", "attn_out"),
    ("self_attn.per_dim_scale", "per_dim_scale.weight"),
    ("self_attn.relative_k_proj", "attn_k_rel"),
    ("lconv1d.pre_layer_norm", "conv_norm"),
    ("lconv1d.conv_norm", "norm_conv"),
    ("lconv1d.depthwise_conv1d", "conv_dw"),
    ("lconv1d.linear_start", "conv_pw1"),
    ("lconv1d.linear_end", "conv_pw2"),
];
/// Matrices that are stored in f32 all the same, beside the taps of convolutions.
const FINE: [&str; 3] = ["v.patch_embd.weight", "v.position_embd.weight", "a.input_projection.weight"];

/// The file, its matrices stored as `matrices`.
pub fn write(dir: &HfDir, matrices: DType) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.str("general.architecture", "clip").str("general.type", "mmproj");
    encoder(&mut writer, dir, "vision", ["gemma4v", "gemma4uv"]);
    encoder(&mut writer, dir, "audio", ["gemma4a", "gemma4ua"]);
    let mut data: Vec<Vec<u8>> = Vec::new();
    for tensor in dir.tensors.iter() {
        let hf = tensor.name.strip_prefix("model.").unwrap_or(&tensor.name);
        let Some(name) = gguf_name(hf) else { continue };
        let (shape, values) = ordered(&name, tensor);
        let fine = shape.len() != 2 || FINE.contains(&name.as_str()) || name.ends_with("conv_dw.weight");
        let dtype = if fine { DType::F32 } else { matrices };
        let mut bytes = vec![0; values.len() / dtype.block_len() * dtype.block_bytes()];
        quant::encode_row(dtype, &values, &mut bytes);
        writer.tensor(&name, dtype, &shape);
        data.push(bytes);
    }
    writer.to_bytes(&data)
}

/// What the file says of an encoder, if the model has it: its kind with a tower, or without.
fn encoder(writer: &mut GgufWriter, dir: &HfDir, part: &str, kinds: [&str; 2]) {
    let config = &dir.config[format!("{part}_config")];
    if config.is_null() {
        return;
    }
    let n = |key: &str| config.get(key).and_then(Value::as_u64).map(|n| n as u32);
    let tower = n("num_hidden_layers").is_some();
    writer.bool(&format!("clip.has_{part}_encoder"), true);
    writer.str(&format!("clip.{part}.projector_type"), kinds[usize::from(!tower)]);
    match part {
        "vision" => writer.u32("clip.vision.patch_size", 16),
        _ => writer.u32("clip.audio.num_mel_bins", 128),
    };
    if let (Some(layers), Some(d), Some(heads)) = (n("num_hidden_layers"), n("hidden_size"), n("num_attention_heads")) {
        let ffn = n("intermediate_size").unwrap_or(4 * d);
        let counts = [("embedding_length", d), ("feed_forward_length", ffn), ("block_count", layers)];
        for (key, count) in counts.into_iter().chain([("attention.head_count", heads)]) {
            writer.u32(&format!("clip.{part}.{key}"), count);
        }
    }
}

/// `None` for what is no part of an encoder.
fn gguf_name(hf: &str) -> Option<String> {
    let ends = [".linear.weight", ".weight", ".bias", ".input_min", ".input_max", ".output_min", ".output_max"];
    let end = ends.into_iter().find(|end| hf.ends_with(end)).unwrap_or("");
    let stem = &hf[..hf.len() - end.len()];
    let end = if end == ".linear.weight" { ".weight" } else { end };
    let of = |table: &[(&str, &'static str)], stem: &str| table.iter().find(|(hf, _)| *hf == stem).map(|(_, to)| *to);
    if let Some(stem) = of(&STEMS, stem) {
        return Some(format!("{stem}{end}"));
    }
    let towers = [("vision_tower.encoder.layers.", "v"), ("audio_tower.layers.", "a")];
    let (rest, tower) = towers.into_iter().find_map(|(start, tower)| Some((stem.strip_prefix(start)?, tower)))?;
    let (layer, stem) = rest.split_once('.').unwrap();
    let stem = of(&OF_LAYERS, stem).unwrap_or_else(|| panic!("{hf} has no name in GGUF"));
    Some(format!("{tower}.blk.{layer}.{stem}{end}"))
}

/// A tensor's shape and values as they lie in the file.
fn ordered(name: &str, tensor: &TensorInfo) -> (Vec<usize>, Vec<f32>) {
    let StoredType::Known(dtype) = tensor.dtype else { panic!("{name} is stored as {}", tensor.dtype) };
    let mut values = vec![0.0; tensor.shape.iter().product()];
    quant::decode_row(dtype, &tensor.data, &mut values);
    // Colours lie together pixel by pixel, and in the file apart.
    let apart = |values: &[f32], pixels: usize| -> Vec<f32> {
        let colours = |block: &[f32]| -> Vec<f32> {
            (0..COLOURS).flat_map(|c| block[c..].iter().step_by(COLOURS).copied()).collect()
        };
        values.chunks(pixels).flat_map(colours).collect()
    };
    match (name, tensor.shape.as_slice()) {
        ("v.patch_embd.weight", &[d, PATCH]) => (vec![d, COLOURS, 16, 16], apart(&values, PATCH)),
        ("v.patch_embd.weight", &[d, BLOCK]) => (vec![d, BLOCK], apart(&values, BLOCK)),
        ("v.patch_norm.1.weight" | "v.patch_norm.1.bias", shape) => (shape.to_vec(), apart(&values, BLOCK)),
        // A unified model has both axes for each position.
        ("v.position_embd.weight", &[n, 2, d]) => {
            let axis = |axis: usize| values.chunks(d).skip(axis).step_by(2).flatten().copied();
            (vec![2, n, d], axis(0).chain(axis(1)).collect())
        }
        (name, &[d, 1, taps]) if name.ends_with("conv_dw.weight") => (vec![d, taps], values),
        (name, shape) if name.ends_with("per_dim_scale.weight") => {
            (shape.to_vec(), values.iter().map(|v| f64::from(*v).exp().ln_1p() as f32).collect())
        }
        // Bounds.
        (_, []) => (vec![1], values),
        (_, shape) => (shape.to_vec(), values),
    }
}
