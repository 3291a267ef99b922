"""carat-nano's shape: every feature of Gemma 4 E2B, small.

Sliding and full layers with different head sizes, per-layer embeddings, key/value sharing with
double-wide feed-forward, trained layer scalars and the final softcap; a picture encoder and a sound encoder
of the published kinds, with patches of 16 pixels pooled 3 x 3 and with 128 mel bands. Only their linear layers have no
bounds (`use_clipped_linears`).
"""

import torch
from transformers import (Gemma4AudioConfig, Gemma4Config, Gemma4ForConditionalGeneration, Gemma4TextConfig,
                          Gemma4VisionConfig)

from tokenizer import VOCAB_SIZE

STOP_IDS = [1, 106, 50]
HIDDEN, FEED_FORWARD, HEADS = 96, 192, 4
SLIDING_HEAD, FULL_HEAD = 32, 64
PER_LAYER_EMBEDDING = 32
LAYERS, LAYERS_PER_FULL, SHARED_LAYERS = 6, 3, 3
SEEING = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 32}
POSITIONS = 256
"""Columns, and rows, of patches that have an embedding: the longest row at 70 soft tokens is of 210."""
HEARING = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "subsampling_conv_channels": [128, 16]}


def build_config() -> Gemma4Config:
    """The configuration of text model and encoders."""
    layer_types = ["full_attention" if (index + 1) % LAYERS_PER_FULL == 0 else "sliding_attention"
                   for index in range(LAYERS)]
    text = Gemma4TextConfig(
        vocab_size=VOCAB_SIZE, vocab_size_per_layer_input=VOCAB_SIZE, hidden_size=HIDDEN, intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=1, head_dim=SLIDING_HEAD,
        global_head_dim=FULL_HEAD, hidden_size_per_layer_input=PER_LAYER_EMBEDDING, num_kv_shared_layers=SHARED_LAYERS,
        use_double_wide_mlp=True, layer_types=layer_types, sliding_window=128, max_position_embeddings=4096,
        final_logit_softcapping=30.0, eos_token_id=STOP_IDS, initializer_range=0.04, enable_moe_block=False)
    vision = Gemma4VisionConfig(**SEEING, num_key_value_heads=SEEING["num_attention_heads"], position_embedding_size=POSITIONS,
                                default_output_length=70, use_clipped_linears=False, initializer_range=0.04)
    audio = Gemma4AudioConfig(**HEARING, output_proj_dims=HIDDEN, use_clipped_linears=False, initializer_range=0.04)
    return Gemma4Config(text_config=text, vision_config=vision, audio_config=audio, vision_soft_tokens_per_image=70, boi_token_id=5, eoi_token_id=6,
                        image_token_id=7, video_token_id=11, boa_token_id=8, eoa_token_index=9, audio_token_id=10)


def build_model(config, seed):
    """A freshly initialised model in f32.

    Attention here has no 1/sqrt(d) scale, so the query and key norms start at d**-0.25 each: else the
    softmax starts saturated and little is learnt. The layer scalars become parameters to be trained.
    """
    torch.manual_seed(seed)
    model = Gemma4ForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.fill_(parameter.numel() ** -0.25)
            elif "position_embedding_table" in name:
                parameter.normal_(0, 0.3)
            elif parameter.dim() == 4:
                torch.nn.init.kaiming_normal_(parameter)
            elif "depthwise" in name:
                parameter.normal_(0, 0.4)
    for layer in model.model.language_model.layers:
        scalar = layer._buffers.pop("layer_scalar")
        layer.layer_scalar = torch.nn.Parameter(scalar.clone().float())
    return model


def weights(model):
    """The tensors of the published form: the tied output head is left out."""
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
