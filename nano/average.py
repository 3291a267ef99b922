"""Averages two checkpoints' weights: `python nano/average.py A B SHARE OUT` writes `(1 - SHARE) · A + SHARE · B` in A's types.

Weights that were trained on from the same ones differ little enough for that, and err less than either (Wortsman et al. 2022).
"""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def main():
    first, second, share, out = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys(), f"{first} and {second} have other tensors"
    mean = {name: ((1 - share) * a[name].float() + share * b[name].float()).to(a[name].dtype) for name in a}
    with safe_open(first / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    out.mkdir(parents=True, exist_ok=True)
    for path in first.glob("*.json"):
        (out / path.name).write_bytes(path.read_bytes())
    save_file(mean, out / "model.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
