"""Writes tiny.gguf and tiny.safetensors with the Python packages `gguf` and `safetensors` (and numpy).

    python make_files.py
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter, quants
from safetensors.numpy import save_file

here = Path(__file__).parent

w = GGUFWriter(here / "tiny.gguf", "gemma4")
w.add_string("general.name", "tiny – ein Test")
w.add_uint32("gemma4.block_count", 2)
w.add_float32("gemma4.attention.layer_norm_rms_epsilon", 1e-6)
w.add_bool("tokenizer.ggml.add_bos_token", True)
w.add_array("gemma4.attention.sliding_window_pattern", [True, False])
w.add_array("gemma4.feed_forward_length", [6144, 12288])
w.add_array("tokenizer.ggml.scores", [-1.5, 0.25])
w.add_array("tokenizer.ggml.tokens", ["<pad>", "", "▁a", "😀"])
matrix = (np.arange(3 * 32, dtype=np.float32).reshape(3, 32) - 50) / 7
w.add_tensor("token_embd.weight", quants.quantize(matrix, T.Q8_0), raw_dtype=T.Q8_0)
w.add_tensor("output_norm.weight", np.arange(5, dtype=np.float32))
w.add_tensor("blk.0.cube.weight", np.arange(24, dtype=np.float16).reshape(2, 3, 4))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

save_file(
    {
        "model.norm.weight": np.arange(5, dtype=np.float32),
        "model.embed.weight": matrix.astype(np.float16),
        "model.steps": np.array([7, -7], dtype=np.int64),
        "model.scalar": np.array(2.5, dtype=np.float32),
    },
    here / "tiny.safetensors",
    metadata={"format": "pt"},
)
