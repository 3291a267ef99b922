//! The names of every tensor of the text model and the picture encoder: the only place where they are spelt.
//!
//! Sources: transformers `modeling_gemma4`; llama.cpp `src/llama-arch.cpp`, `src/models/gemma4.cpp`.

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
pub(super) const EXPERTS_NORM: Name = name("pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight");
pub(super) const POST_DENSE_NORM: Name = name("post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight");
pub(super) const POST_EXPERTS_NORM: Name = name("post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight");

// ---- with their full names
/// How the names of all norms' weights end.
pub(super) const NORM_END: &str = "norm.weight";
pub(super) const HEADS: [&str; 4] =
    ["lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight", "output.weight"];
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

// ---- of the picture encoder
/// What precedes its names in Hugging Face files, the published one first.
pub(super) const TOWER_PREFIXES: [&str; 2] = ["model.", ""];
/// The parts of a checkpoint that are the picture encoder's.
pub(super) const TOWER_PARTS: [&str; 2] = ["vision_tower.", "embed_vision."];
/// `{}` is the layer's number.
pub(super) const TOWER_LAYER: &str = "vision_tower.encoder.layers.{}.";
pub(super) const PATCH_PROJECTION: &str = "vision_tower.patch_embedder.input_proj.weight";
pub(super) const PATCH_POSITIONS: &str = "vision_tower.patch_embedder.position_embedding_table";
pub(super) const STANDARD_BIAS: &str = "vision_tower.std_bias";
pub(super) const STANDARD_SCALE: &str = "vision_tower.std_scale";
pub(super) const SOFT_TOKENS: &str = "embed_vision.embedding_projection.weight";
/// Of a layer, where matrices and their bounds have names below these; norms are named as the text model's.
pub(super) const TOWER_Q: &str = "self_attn.q_proj";
pub(super) const TOWER_K: &str = "self_attn.k_proj";
pub(super) const TOWER_V: &str = "self_attn.v_proj";
pub(super) const TOWER_O: &str = "self_attn.o_proj";
pub(super) const TOWER_GATE: &str = "mlp.gate_proj";
pub(super) const TOWER_UP: &str = "mlp.up_proj";
pub(super) const TOWER_DOWN: &str = "mlp.down_proj";
pub(super) const TOWER_MATRIX: &str = ".linear.weight";
/// Bounds of the input, lower and upper, then of the output.
pub(super) const TOWER_BOUNDS: [&str; 4] = [".input_min", ".input_max", ".output_min", ".output_max"];

// ---- of models that see and hear without a tower, after the same prefixes: the published names, then transformers' own
pub(super) const BLOCK_PARTS: [&str; 2] = ["vision_embedder.", "embed_vision."];
pub(super) const FRAME_PARTS: [&str; 1] = ["embed_audio."];
pub(super) const WEIGHT_END: &str = ".weight";
pub(super) const BIAS_END: &str = ".bias";
pub(super) const PIXEL_NORM: [&str; 2] = ["vision_embedder.patch_ln1", "embed_vision.patch_ln1"];
pub(super) const BLOCK_PROJECTION: [&str; 2] = ["vision_embedder.patch_dense", "embed_vision.patch_dense"];
pub(super) const BLOCK_NORM: [&str; 2] = ["vision_embedder.patch_ln2", "embed_vision.patch_ln2"];
pub(super) const BLOCK_POSITIONS: [&str; 2] = ["vision_embedder.pos_embedding", "embed_vision.pos_embedding"];
pub(super) const POSITION_NORM: [&str; 2] = ["vision_embedder.pos_norm", "embed_vision.pos_norm"];
pub(super) const BLOCK_SOFT_TOKENS: [&str; 2] =
    ["embed_vision.embedding_projection", "embed_vision.multimodal_embedder.embedding_projection"];
pub(super) const FRAME_SOFT_TOKENS: [&str; 1] = ["embed_audio.embedding_projection"];
