#!/usr/bin/env python3
"""Times the encoders of carat and of llama.cpp's multimodal program by turns, and writes a table beside those of peers.py.

    python3 benches/encoders.py --llama-mtmd PATH --text MODEL.gguf MMPROJ.gguf

Pictures are of 960 × 672 and 1920 × 1344 pixels, which both programs make 280 and 1120 soft tokens of without resizing; the
sound is 30 s. Times are of the encoder alone, as each program says. A file without a sound tower can be given one by
`benches/sound_tower.py`. Needs Python only; carat is built first.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import wave
import zlib

import peers

PICTURES = {280: (960, 672), 1120: (1920, 1344)}
SECONDS, RATE = 30, 16000


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("mmproj", type=pathlib.Path, help="a GGUF file with both towers")
    ap.add_argument("--llama-mtmd", type=pathlib.Path, required=True, metavar="PATH")
    ap.add_argument("--text", type=pathlib.Path, required=True, metavar="MODEL", help="a text model, which llama.cpp wants")
    ap.add_argument("--carat", type=pathlib.Path, metavar="PATH", help="a program that is built already")
    ap.add_argument("-t", "--threads", type=int, default=2, metavar="N", help="[%(default)s]")
    ap.add_argument("--int8", action="store_true", help="time products of 8-bit integers as well, of which each side is rounded to 8 bits")
    ap.add_argument("-r", "--rounds", type=int, default=5, metavar="N", help="[%(default)s]")
    ap.add_argument("--only", default="280,audio,1120", metavar="LIST", help="[%(default)s]")
    ap.add_argument("--name", help="of the files under benches/results/ [the date, the commit, encoders]")
    return ap.parse_args()


def picture(path, width, height):
    noise = random.Random(1)
    rows = b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(random.Random(2).randbytes(2 * SECONDS * RATE))


def said(pattern, *command):
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return float(re.search(pattern, done.stderr + done.stdout).group(1))


def carat(args, program, precision, kind, file, out):
    shape = ["--soft-tokens-only", "--precision", precision, "--threads", args.threads, "--out", out]
    if kind != "audio":
        shape += ["--image-tokens", kind]
    what = "--audio" if kind == "audio" else "--image"
    return said(r"soft tokens in ([\d.]+) ms", program, "encode", "--mmproj", args.mmproj, what, file, *shape)


def llama(args, kind, file):
    what = "--audio" if kind == "audio" else "--image"
    shape = ["-p", "x", "-n", 1, "-t", args.threads, "--jinja", "--no-warmup", "-c", 4096]
    model = ["-m", args.text, "--mmproj", args.mmproj]
    return said(r"mtmd batch encoding done in (\d+) ms", args.llama_mtmd, *model, what, file, *shape)


def spread(times):
    return f"{statistics.median(times) / 1e3:.2f} ({min(times) / 1e3:.2f}–{max(times) / 1e3:.2f})"


def main():
    args = arguments()
    program = args.carat or peers.build()
    commit = peers.output("git", "-C", peers.HERE, "rev-parse", "--short", "HEAD").strip()
    loads, raw, lines = [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for kind in args.only.split(","):
            file = folder / ("sound.wav" if kind == "audio" else "picture.png")
            sound(file) if kind == "audio" else picture(file, *PICTURES[int(kind)])
            ours = {"carat": "fast"} | ({"carat int8": "int8"} if args.int8 else {})
            times = raw[kind] = {name: [] for name in [*ours, "llama.cpp"]}
            for i in range(args.rounds):
                print(f"{kind}, round {i + 1} of {args.rounds}", file=sys.stderr)
                loads.append(os.getloadavg()[0])
                for name, precision in ours.items():
                    times[name].append(carat(args, program, precision, kind, file, folder / "out.safetensors"))
                times["llama.cpp"].append(llama(args, kind, file))
            theirs = times["llama.cpp"]
            for name in ours:
                what = "30 s of sound" if kind == "audio" else f"picture, {kind} soft tokens"
                what += name.removeprefix("carat").replace(" ", ", ")
                ratio = statistics.median(theirs) / statistics.median(times[name])
                lines.append(f"| {what} | {spread(times[name])} | {spread(theirs)} | {ratio:.2f} × |")
    text = "\n".join([
        f"# {datetime.date.today()}, encoders, carat {commit}",
        "",
        f"{peers.machine()}; {args.threads} threads; load at the rounds {min(loads):.1f} to {max(loads):.1f}; {args.mmproj.name}.",
        f"`python3 benches/encoders.py -t {args.threads} -r {args.rounds}{' --int8' * args.int8}`; seconds, median (least–most).",
        "",
        "| | carat | llama.cpp | ratio |",
        "| --- | --- | --- | --- |",
        *lines,
    ]) + "\n"
    print(text)
    name = args.name or f"{datetime.date.today()}-{commit}-encoders"
    (peers.HERE / "results" / f"{name}.md").write_text(text)
    (peers.HERE / "results" / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
