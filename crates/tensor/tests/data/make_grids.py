"""Writes ../../src/quant/grids.bin: the codebooks that define ggml's IQ1, IQ2 and IQ3 types.

    python make_grids.py        (gguf)

Little-endian 16-bit words, one for each entry of each codebook in the order of `GRIDS`. A word holds the codes of the
entry's values, lowest first: eight of two bits, or four of four bits (of which three are used). What a code stands for
is in `grid.rs`, and `quant_vectors.bin` proves both.
"""

from pathlib import Path

from gguf import quants

GRIDS = [quants.IQ2_XXS, quants.IQ2_XS, quants.IQ2_S, quants.IQ3_XXS, quants.IQ3_S, quants.IQ1_S]
words = b""
for grid in GRIDS:
    entries, width = grid.grid_shape
    data = bytes.fromhex(grid.grid_hex.decode())
    assert len(data) == 2 * entries and width in (4, 8)
    words += data
(Path(__file__).parent / "../../src/quant/grids.bin").write_bytes(words)
