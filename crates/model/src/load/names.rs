//! The names of every tensor of the text model and the encoders: the only place where they are spelt.
//!
//! Sources: transformers `modeling_gemma4`; llama.cpp `src/llama-arch.cpp`, `src/models/gemma4.cpp`, and for encoders
//! `tools/mtmd/clip.cpp`, `gguf-py/gguf/tensor_mapping.py`, `conversion/gemma.py`.

/// One tensor's names: within the text model or a layer of it in a Hugging Face file; in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub hf: &'static str,
    pub gguf: &'static str,
}

const fn name(hf: &'static str, gguf: &'static str) -> Name {
    Name { hf, gguf }
}

pub(super) const EMBEDDING: Name = name("embed_tokens.weight", "token_embd.weight");
pub(super) const FINAL_NORM: Name = name("norm.weight", "output_norm.weight");
pub(super) const PER_LAYER_TABLE: Name = name("embed_tokens_per_layer.weight", "per_layer_token_embd.weight");
pub(super) const PER_LAYER_PROJECTION: Name = name("per_layer_model_projection.weight", "per_layer_model_proj.weight");
pub(super) const PER_LAYER_NORM: Name = name("per_layer_projection_norm.weight", "per_layer_proj_norm.weight");

// ---- of a layer
pub(super) const ATTENTION_NORM: Name = name("input_layernorm.weight", "attn_norm.weight");
pub(super) const POST_ATTENTION_NORM: Name = name("post_attention_layernorm.weight", "post_attention_norm.weight");
pub(super) const FFN_NORM: Name = name("pre_feedforward_layernorm.weight", "ffn_norm.weight");
pub(super) const POST_FFN_NORM: Name = name("post_feedforward_layernorm.weight", "post_ffw_norm.weight");
pub(super) const SCALE: Name = name("layer_scalar", "layer_output_scale.weight");
pub(super) const Q: Name = name("self_attn.q_proj.weight", "attn_q.weight");
pub(super) const K: Name = name("self_attn.k_proj.weight", "attn_k.weight");
pub(super) const V: Name = name("self_attn.v_proj.weight", "attn_v.weight");
/// Queries, keys and values in one, one below the other.
pub(super) const QKV: Name = name("self_attn.qkv_proj.weight", "attn_qkv.weight");
pub(super) const O: Name = name("self_attn.o_proj.weight", "attn_output.weight");
pub(super) const Q_NORM: Name = name("self_attn.q_norm.weight", "attn_q_norm.weight");
pub(super) const K_NORM: Name = name("self_attn.k_norm.weight", "attn_k_norm.weight");
/// Which values are normed without.
pub(super) const V_NORM: Name = name("self_attn.v_norm.weight", "attn_v_norm.weight");
pub(super) const GATE: Name = name("mlp.gate_proj.weight", "ffn_gate.weight");
pub(super) const UP: Name = name("mlp.up_proj.weight", "ffn_up.weight");
pub(super) const DOWN: Name = name("mlp.down_proj.weight", "ffn_down.weight");
pub(super) const INPUT_GATE: Name = name("per_layer_input_gate.weight", "inp_gate.weight");
pub(super) const INPUT_PROJECTION: Name = name("per_layer_projection.weight", "proj.weight");
pub(super) const INPUT_NORM: Name = name("post_per_layer_input_norm.weight", "post_norm.weight");
pub(super) const ROUTER: Name = name("router.proj.weight", "ffn_gate_inp.weight");
pub(super) const ROUTER_SCALE: Name = name("router.scale", "ffn_gate_inp.scale");
pub(super) const PER_EXPERT_SCALE: Name = name("router.per_expert_scale", "ffn_down_exps.scale");
pub(super) const EXPERTS_GATE_UP: Name = name("experts.gate_up_proj", "ffn_gate_up_exps.weight");
pub(super) const EXPERTS_GATE: Name = name("experts.gate_proj", "ffn_gate_exps.weight");
pub(super) const EXPERTS_UP: Name = name("experts.up_proj", "ffn_up_exps.weight");
pub(super) const EXPERTS_DOWN: Name = name("experts.down_proj", "ffn_down_exps.weight");
/// Experts one by one, `{}` the expert's number.
pub(super) const EXPERT_GATE: Name = name("experts.{}.gate_proj.weight", "ffn_gate.{}.weight");
pub(super) const EXPERT_UP: Name = name("experts.{}.up_proj.weight", "ffn_up.{}.weight");
pub(super) const EXPERT_DOWN: Name = name("experts.{}.down_proj.weight", "ffn_down.{}.weight");

/// Whether a tensor is the experts', by its name in either kind of file.
pub fn is_of_experts(name: &str) -> bool {
    let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let one_by_one = ["ffn_gate.", "ffn_up.", "ffn_down."].into_iter().filter_map(|part| name.split_once(part));
    name.contains(".experts.") || name.contains("_exps.") || one_by_one.into_iter().any(|(_, rest)| is_number(rest))
}

pub(super) const EXPERTS_NORM: Name = name("pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight");
pub(super) const POST_DENSE_NORM: Name = name("post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight");
pub(super) const POST_EXPERTS_NORM: Name = name("post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight");

// ---- with their full names
/// How the names of all norms' weights end.
pub(super) const NORM_END: &str = "norm.weight";
pub(super) const HEADS: [&str; 4] =
    ["lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight", "output.weight"];
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

// ---- of encoders
/// What precedes their names in Hugging Face files, the published one first.
pub(super) const TOWER_PREFIXES: [&str; 2] = ["model.", ""];
/// What follows a matrix's name between bounds, and one's without them.
pub(super) const BOUNDED_MATRIX: Name = name(".linear.weight", ".weight");
/// Bounds of the input, lower and upper, then of the output.
pub(super) const BOUNDS: [&str; 4] = [".input_min", ".input_max", ".output_min", ".output_max"];

// ---- of the picture encoder
/// Its parts of a checkpoint, as names start.
pub(super) const VISION_PARTS: [Name; 2] = [name("vision_tower.", "v."), name("embed_vision.", "mm.")];
/// `{}` is the layer's number.
pub(super) const VISION_LAYER: Name = name("vision_tower.encoder.layers.{}.", "v.blk.{}.");
pub(super) const PATCH_PROJECTION: Name = name("vision_tower.patch_embedder.input_proj.weight", "v.patch_embd.weight");
pub(super) const PATCH_POSITIONS: Name =
    name("vision_tower.patch_embedder.position_embedding_table", "v.position_embd.weight");
pub(super) const STANDARD_BIAS: Name = name("vision_tower.std_bias", "v.std_bias");
pub(super) const STANDARD_SCALE: Name = name("vision_tower.std_scale", "v.std_scale");
pub(super) const VISION_SOFT_TOKENS: Name =
    name("embed_vision.embedding_projection.weight", "mm.input_projection.weight");
// Of a layer.
pub(super) const VISION_NORMS: [Name; 4] = [
    name("input_layernorm.weight", "ln1.weight"),
    name("post_attention_layernorm.weight", "attn_post_norm.weight"),
    name("pre_feedforward_layernorm.weight", "ln2.weight"),
    name("post_feedforward_layernorm.weight", "ffn_post_norm.weight"),
];
pub(super) const VISION_Q: Name = name("self_attn.q_proj", "attn_q");
pub(super) const VISION_K: Name = name("self_attn.k_proj", "attn_k");
pub(super) const VISION_V: Name = name("self_attn.v_proj", "attn_v");
pub(super) const VISION_O: Name = name("self_attn.o_proj", "attn_out");
pub(super) const VISION_GATE: Name = name("mlp.gate_proj", "ffn_gate");
pub(super) const VISION_UP: Name = name("mlp.up_proj", "ffn_up");
pub(super) const VISION_DOWN: Name = name("mlp.down_proj", "ffn_down");

// ---- of the sound encoder
/// Its parts of a checkpoint, as names start.
pub(super) const AUDIO_PARTS: [Name; 2] = [name("audio_tower.", "a."), name("embed_audio.", "mm.a.")];
/// `{}` is the layer's number.
pub(super) const AUDIO_LAYER: Name = name("audio_tower.layers.{}.", "a.blk.{}.");
/// Filters of both layers that subsample, and their norms. One-dimensional in GGUF by name only.
pub(super) const SUBSAMPLING: [[Name; 2]; 2] = [
    [
        name("audio_tower.subsample_conv_projection.layer0.conv.weight", "a.conv1d.0.weight"),
        name("audio_tower.subsample_conv_projection.layer0.norm.weight", "a.conv1d.0.norm.weight"),
    ],
    [
        name("audio_tower.subsample_conv_projection.layer1.conv.weight", "a.conv1d.1.weight"),
        name("audio_tower.subsample_conv_projection.layer1.norm.weight", "a.conv1d.1.norm.weight"),
    ],
];
pub(super) const SUBSAMPLED: Name =
    name("audio_tower.subsample_conv_projection.input_proj_linear.weight", "a.input_projection.weight");
pub(super) const AUDIO_OUT: Name = name("audio_tower.output_proj.weight", "a.pre_encode.out.weight");
pub(super) const AUDIO_OUT_BIAS: Name = name("audio_tower.output_proj.bias", "a.pre_encode.out.bias");
pub(super) const AUDIO_SOFT_TOKENS: Name =
    name("embed_audio.embedding_projection.weight", "mm.a.input_projection.weight");
// Of a layer.
/// Of both feed-forwards: the norm before, the widening and the narrowing matrix, the norm after.
pub(super) const AUDIO_FFNS: [[Name; 4]; 2] = [
    [
        name("feed_forward1.pre_layer_norm.weight", "ffn_norm.weight"),
        name("feed_forward1.ffw_layer_1", "ffn_up"),
        name("feed_forward1.ffw_layer_2", "ffn_down"),
        name("feed_forward1.post_layer_norm.weight", "ffn_post_norm.weight"),
    ],
    [
        name("feed_forward2.pre_layer_norm.weight", "ffn_norm_1.weight"),
        name("feed_forward2.ffw_layer_1", "ffn_up_1"),
        name("feed_forward2.ffw_layer_2", "ffn_down_1"),
        name("feed_forward2.post_layer_norm.weight", "ffn_post_norm_1.weight"),
    ],
];
pub(super) const AUDIO_ATTENTION_NORM: Name = name("norm_pre_attn.weight", "attn_pre_norm.weight");
pub(super) const AUDIO_Q: Name = name("self_attn.q_proj", "attn_q");
pub(super) const AUDIO_K: Name = name("self_attn.k_proj", "attn_k");
pub(super) const AUDIO_V: Name = name("self_attn.v_proj", "attn_v");
pub(super) const AUDIO_O: Name = name("self_attn.post", "attn_out");
pub(super) const AUDIO_DISTANCES: Name = name("self_attn.relative_k_proj.weight", "attn_k_rel.weight");
/// In GGUF the softplus is already applied.
pub(super) const AUDIO_QUERY_SCALE: Name = name("self_attn.per_dim_scale", "per_dim_scale.weight");
pub(super) const AUDIO_POST_ATTENTION_NORM: Name = name("norm_post_attn.weight", "attn_post_norm.weight");
/// GGUF's names of this norm and of the one after the taps are crossed.
pub(super) const AUDIO_CONV_NORM: Name = name("lconv1d.pre_layer_norm.weight", "conv_norm.weight");
pub(super) const AUDIO_CONV_START: Name = name("lconv1d.linear_start", "conv_pw1");
pub(super) const AUDIO_TAPS: Name = name("lconv1d.depthwise_conv1d.weight", "conv_dw.weight");
pub(super) const AUDIO_TAPS_NORM: Name = name("lconv1d.conv_norm.weight", "norm_conv.weight");
pub(super) const AUDIO_CONV_END: Name = name("lconv1d.linear_end", "conv_pw2");
pub(super) const AUDIO_OUT_NORM: Name = name("norm_out.weight", "ln2.weight");

// ---- of models that see and hear without a tower
/// A tensor's names in Hugging Face files, after the same prefixes, the published one first, then transformers' own; and in GGUF
/// files.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub hf: &'static [&'static str],
    pub gguf: &'static str,
}

const fn names(hf: &'static [&'static str], gguf: &'static str) -> Names {
    Names { hf, gguf }
}

pub(super) const BLOCK_PARTS: [&str; 2] = ["vision_embedder.", "embed_vision."];
pub(super) const FRAME_PARTS: [&str; 1] = ["embed_audio."];
pub(super) const WEIGHT_END: &str = ".weight";
pub(super) const BIAS_END: &str = ".bias";
pub(super) const PIXEL_NORM: Names = names(&["vision_embedder.patch_ln1", "embed_vision.patch_ln1"], "v.patch_norm.1");
pub(super) const BLOCK_PROJECTION: Names =
    names(&["vision_embedder.patch_dense", "embed_vision.patch_dense"], "v.patch_embd");
pub(super) const BLOCK_NORM: Names = names(&["vision_embedder.patch_ln2", "embed_vision.patch_ln2"], "v.patch_norm.2");
pub(super) const BLOCK_POSITIONS: Names =
    names(&["vision_embedder.pos_embedding", "embed_vision.pos_embedding"], "v.position_embd.weight");
pub(super) const POSITION_NORM: Names = names(&["vision_embedder.pos_norm", "embed_vision.pos_norm"], "v.patch_norm.3");
pub(super) const BLOCK_SOFT_TOKENS: Names = names(
    &["embed_vision.embedding_projection", "embed_vision.multimodal_embedder.embedding_projection"],
    "mm.input_projection",
);
pub(super) const FRAME_SOFT_TOKENS: Names = names(&["embed_audio.embedding_projection"], "mm.a.input_projection");
