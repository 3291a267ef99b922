"""Prints the relative errors that ggml's own quantisers leave on values anyone can make again.

    python make_ggml_errors.py PATH/libggml-base.so        (numpy, gguf, a build of llama.cpp)

They are the constants of `quantisers_err_no_more_than_ggmls` in `tests/encode.rs`, which makes the same values: see
`values` for how. Errors are `sqrt(sum w (x' - x)^2 / sum w x^2)`, all weights 1 where there are no importances.
"""

import ctypes
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, quants

ROWS, COLS = 64, 1024


def uniform(n, seed):
    """Numerical Recipes' LCG: 24 bits of each state as [0, 1)."""
    out, state = np.empty(n), seed
    for i in range(n):
        state = (1664525 * state + 1013904223) & 0xFFFFFFFF
        out[i] = (state >> 8) / 2**24
    return out


def values(kind):
    n = ROWS * COLS
    normal = uniform(12 * n, 1).reshape(n, 12).sum(-1) - 6       # a sum of twelve: nearly normal
    if kind == "heavy":
        normal = normal * np.abs(uniform(12 * n, 2).reshape(n, 12).sum(-1) - 6)
    return (0.02 * normal).astype(np.float32).reshape(ROWS, COLS)


importance = (uniform(COLS, 3) ** 4 * 10 + 0.01).astype(np.float32)
lib = ctypes.CDLL(sys.argv[1])
pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)
for name, dtype in (("q4_K", T.Q4_K), ("q6_K", T.Q6_K), ("q4_0", T.Q4_0)):
    for kind in ("normal", "heavy"):
        for weighted in (False, True):
            x = values(kind)
            block, size = GGML_QUANT_SIZES[dtype]
            out = np.zeros((ROWS, COLS // block * size), np.uint8)
            quantise = getattr(lib, f"quantize_{name}")
            quantise.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
            quantise(pointer(x), pointer(out), ROWS, COLS, pointer(importance) if weighted else None)
            back = quants.dequantize(out, dtype).astype(np.float64)
            w = importance.astype(np.float64) if weighted else np.ones(COLS)
            error = np.sqrt((w * (back - x) ** 2).sum() / (w * x.astype(np.float64) ** 2).sum())
            print(name, kind, "weighted" if weighted else "plain", f"{error:.6f}")
