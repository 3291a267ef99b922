"""Writes quant_vectors.bin: random blocks of every type and what the Python `gguf` package makes of them.

    python make_quant_vectors.py        (numpy, gguf, torch; the result depends on the seed alone)

The file is a sequence of records, all little-endian:
    u8 kind (0 decode, 1 encode), u32 ggml type id, u32 number of values, u32 number of bytes, bytes, f32 values
A decode record gives bytes -> values. An encode record gives values -> bytes.

F8_E4M3 has no ggml type id. Its record has id 0xF8 and is what torch makes of all 256 codes.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, quants

rng = np.random.default_rng(4)

# Byte offsets of the f16 scales in a block. Random bits there would give infinities and NaNs.
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
# The same for types that joined later, whose records follow those above. MXFP4 and NVFP4 have scales of one byte,
# every one of which is a number.
MORE = {T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.NVFP4: []}

# And for those with codebooks. IQ1_M's scale lies in nibbles.
GRIDS = {T.IQ2_XXS: [0], T.IQ2_XS: [0], T.IQ2_S: [0], T.IQ3_XXS: [0], T.IQ3_S: [0], T.IQ1_S: [0], T.IQ1_M: []}


def scale(block):
    """A scale of either sign over the whole range of f16; the first two blocks hold zero and a subnormal."""
    if block == 0:
        return np.float16(0)
    if block == 1:
        return np.float16(3e-7)
    return np.float16(rng.choice([-1, 1]) * 2.0 ** rng.uniform(-14, 5))


def record(kind, dtype, data, values):
    data, values = np.ascontiguousarray(data), np.ascontiguousarray(values, dtype="<f4")
    head = struct.pack("<BIII", kind, int(dtype), values.size, data.nbytes)
    return head + data.tobytes() + values.tobytes()


def decode_record(dtype, offsets):
    length, size = GGML_QUANT_SIZES[dtype]
    n = 8 if length <= 64 else 5
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for i in range(n):
        for at in offsets:
            blocks[i, at:at + 2] = np.frombuffer(scale(i).tobytes(), np.uint8)
    if dtype == T.IQ1_M:
        blocks[:, 55] = blocks[:, 55] & 0x8F | 0x20  # its f16 is spread over nibbles, of which this is the highest
    if dtype == T.MXFP4:
        blocks[:4, 0] = [0, 1, 2, 254]
    if dtype == T.NVFP4:
        blocks[0, :4] = [0, 1, 0x7F, 0xFF]
    return record(0, dtype, blocks, quants.dequantize(blocks, dtype))


out = b"".join(decode_record(dtype, offsets) for dtype, offsets in SCALES.items())

halves = np.concatenate([
    np.array([0, 0x8000, 1, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00], np.uint16),
    rng.integers(0, 0x7C00, 55, dtype=np.uint16),
])
out += record(0, T.F16, halves, halves.view(np.float16).astype(np.float32))
out += record(0, T.BF16, halves, quants.dequantize(halves.view(np.uint8), T.BF16))

rows = rng.standard_normal((12, 32)).astype(np.float32)
rows[0] = 0
rows[1] = rng.integers(-127, 128, 32) / 2          # many exact halves
rows[2, :2] = [3, -3]                              # equal peaks of either sign
rows[3] *= 1e-6
rows[4] *= 1e3
rows[5] = -np.abs(rows[5])
for dtype in (T.Q8_0, T.Q4_0, T.BF16):
    out += record(1, dtype, quants.quantize(rows, dtype), rows)
out += record(1, T.F16, rows.astype(np.float16), rows)

out += b"".join(decode_record(dtype, offsets) for dtype, offsets in MORE.items())
out += record(1, T.Q5_0, quants.quantize(rows, T.Q5_0), rows)
out += b"".join(decode_record(dtype, offsets) for dtype, offsets in GRIDS.items())
codes = torch.arange(256, dtype=torch.uint8)
out += record(0, 0xF8, codes.numpy(), codes.view(torch.float8_e4m3fn).float().numpy())

Path(__file__).with_name("quant_vectors.bin").write_bytes(out)
