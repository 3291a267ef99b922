#!/usr/bin/env python3
"""Adds a sound tower of E2B's dimensions, with random weights, to an mmproj file, for timing alone.

    python3 benches/sound_tower.py MMPROJ.gguf OUT.gguf

Names and shapes are those llama.cpp's converter writes. Needs `gguf` and `numpy`.
"""

import sys

import gguf
import numpy as np

D, LAYERS, HEADS, FF, OUT, TEXT, FILTERS, BANDS = 1024, 12, 8, 4096, 1536, 1536, (128, 32), 128


def main():
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "clip")
    for name, field in reader.fields.items():
        kind = field.types[0]
        if name.startswith("GGUF.") or name == "general.architecture" or kind == gguf.GGUFValueType.ARRAY:
            continue
        writer.add_key_value(name, field.contents(), kind)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", reader.fields[f"clip.vision.{name}"].contents())
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.audio.projector_type", "gemma4a")
    counts = {"projection_dim": TEXT, "embedding_length": D, "feed_forward_length": FF, "block_count": LAYERS,
              "attention.head_count": HEADS, "num_mel_bins": BANDS}
    for name, count in counts.items():
        writer.add_uint32(f"clip.audio.{name}", count)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-6)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)

    random = np.random.default_rng(4)

    def plain(name, *shape, mean=0.0, std=0.02):
        writer.add_tensor(name, random.normal(mean, std, shape).astype(np.float32))

    def matrix(name, rows, cols):
        values = random.normal(0.0, 0.02, (rows, cols)).astype(np.float32)
        halves = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)
        writer.add_tensor(f"{name}.weight", halves, raw_dtype=gguf.GGMLQuantizationType.BF16)

    for i, (channels, filters) in enumerate([(1, FILTERS[0]), FILTERS]):
        plain(f"a.conv1d.{i}.weight", filters, channels, 3, 3, std=0.1)
        plain(f"a.conv1d.{i}.norm.weight", filters, mean=1.0)
    matrix("a.input_projection", D, FILTERS[1] * BANDS // 4)
    for layer in range(LAYERS):
        at = f"a.blk.{layer}."
        for norm in ("ffn_norm", "ffn_post_norm", "ffn_norm_1", "ffn_post_norm_1", "norm_conv", "conv_norm", "ln2",
                     "attn_pre_norm", "attn_post_norm"):
            plain(f"{at}{norm}.weight", D, mean=1.0)
        plain(f"{at}per_dim_scale.weight", D // HEADS, mean=1.0)
        plain(f"{at}conv_dw.weight", D, 5, std=0.2)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out", "attn_k_rel", "conv_pw2"):
            matrix(at + name, D, D)
        matrix(at + "conv_pw1", 2 * D, D)
        for name in ("", "_1"):
            matrix(f"{at}ffn_up{name}", FF, D)
            matrix(f"{at}ffn_down{name}", D, FF)
    matrix("a.pre_encode.out", OUT, D)
    plain("a.pre_encode.out.bias", OUT)
    matrix("mm.a.input_projection", TEXT, OUT)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
