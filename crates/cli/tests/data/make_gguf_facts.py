"""Writes nano_gguf.json: what llama.cpp's own converter makes of the embedded model, without the weights.

    cp -r nano/checkpoint COPY       and add "architectures": ["Gemma4ForConditionalGeneration"] to its config.json
    python LLAMA_CPP/convert_hf_to_gguf.py COPY --outtype bf16 --outfile FILE.gguf
    python make_gguf_facts.py FILE.gguf                     (gguf)

Metadata is `key: [type, value]`; of long arrays the value is their length and the FNV-1a hash of their elements, as
stored: strings as a u64 length and bytes. Tensors are `name: [type, shape, outermost first]`.
"""

import json
import struct
import sys
from pathlib import Path

from gguf import GGUFReader, GGUFValueType

PACK = {GGUFValueType.FLOAT32: "<f", GGUFValueType.INT32: "<i", GGUFValueType.BOOL: "<?"}


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def stored(kind, value):
    if kind == GGUFValueType.STRING:
        text = value.encode()
        return struct.pack("<Q", len(text)) + text
    return struct.pack(PACK[kind], value)


def fact(field):
    value = field.contents()
    if field.types[0] != GGUFValueType.ARRAY:
        return [field.types[0].name, value]
    kind = field.types[1]
    if len(value) > 16:
        value = {"len": len(value), "fnv": fnv(b"".join(stored(kind, v) for v in value))}
    return [f"{kind.name}[]", value]


reader = GGUFReader(sys.argv[1])
facts = {
    "metadata": {k: fact(f) for k, f in reader.fields.items() if not k.startswith("GGUF.")},
    "tensors": {t.name: [t.tensor_type.name, [int(d) for d in reversed(t.shape)]] for t in reader.tensors},
}
lines = [json.dumps(facts["metadata"], indent=1), json.dumps(facts["tensors"]).replace("], \"", "],\n\"")]
Path(__file__).with_name("nano_gguf.json").write_text('{"metadata": %s,\n"tensors": %s}\n' % tuple(lines))
