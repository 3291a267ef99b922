#!/usr/bin/env python3
"""Times carat and llama.cpp by turns on the same files, and writes a table with machine, load and commits.

    python3 benches/peers.py --llama-bench PATH MODEL.gguf [MODEL.gguf …]

Each round runs carat, then every peer, once per setting; figures are medians over the rounds, so a machine whose
memory slows down for a while slows all of them. Further peers with llama.cpp's benchmark program (forks of it) can be
added with `--peer NAME=PATH`. Needs Python only; carat is built first.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="+", type=pathlib.Path, metavar="MODEL", help="a GGUF file that all can load")
    ap.add_argument("--llama-bench", type=pathlib.Path, metavar="PATH", help="llama.cpp's benchmark program")
    ap.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="one more of its kind")
    ap.add_argument("-p", "--prompt", default="512", metavar="N,…", help="tokens of the prompts [%(default)s]")
    ap.add_argument("-n", "--answer", default="32", metavar="N,…", help="tokens of the answers [%(default)s]")
    ap.add_argument("-d", "--depth", default="0", metavar="N,…", help="tokens already in the context [%(default)s]")
    ap.add_argument("-t", "--threads", default="1,2", metavar="N,…", help="[%(default)s]")
    ap.add_argument("--int8", action="store_true", help="time prompts with 8-bit activations throughout as well, as peers have them")
    ap.add_argument("-r", "--rounds", type=int, default=5, metavar="N", help="[%(default)s]")
    ap.add_argument("--name", help="of the files under benches/results/ [the date and the commit]")
    args = ap.parse_args()
    args.peers = {"llama.cpp": args.llama_bench} if args.llama_bench else {}
    for peer in args.peer:
        name, found, path = peer.partition("=")
        if not found:
            ap.error(f"--peer {peer}: expected NAME=PATH")
        args.peers[name] = pathlib.Path(path)
    for path in [*args.peers.values(), *args.models]:
        if not path.is_file():
            ap.error(f"{path}: no such file")
    return args


def output(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def build():
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "carat-cli"], cwd=HERE.parent, check=True)
    return HERE.parent / "target" / "release" / "carat"


def carat(program, model, args, threads):
    """Speeds by `key`, and the report they came with."""
    def bench(answer, *more):
        shape = ["-p", args.prompt, "-n", answer, "-d", args.depth, "-t", threads, "-r", 1]
        return json.loads(output(program, "bench", model, *shape, *more, "--json"))["results"][0]

    report = bench(args.answer)
    if args.int8:
        report["tests"] += [test | {"test": "int8 prompt"} for test in bench(0, "--precision", "int8")["tests"]]
    return {key(test): test["tokens_per_second"]["median"] for test in report["tests"]}, report


def key(test):
    return test["test"], test["tokens"], test["depth"]


def llama(program, model, args, threads):
    shape = ["-p", args.prompt, "-n", args.answer, "-d", args.depth, "-t", threads, "-r", 1]
    report = json.loads(output(program, "-m", model, *shape, "-o", "json"))
    speeds = {}
    for test in report:
        kind, tokens = ("prompt", test["n_prompt"]) if test["n_prompt"] else ("answer", test["n_gen"])
        speeds[kind, tokens, test["n_depth"]] = test["avg_ts"]
    return speeds, report[0]["build_commit"]


def rounds(program, model, args, threads, versions):
    """All speeds of all programs, and what carat measured of the machine at each round."""
    speeds = {name: {} for name in ["carat", *args.peers]}
    reports = []
    for i in range(args.rounds):
        print(f"{model.name}, {threads} threads, round {i + 1} of {args.rounds}", file=sys.stderr)
        found, report = carat(program, model, args, threads)
        reports.append(report | {"load": os.getloadavg()[0]})
        for test, speed in found.items():
            speeds["carat"].setdefault(test, []).append(speed)
        for name, path in args.peers.items():
            found, versions[name] = llama(path, model, args, threads)
            for test, speed in found.items():
                speeds[name].setdefault(test, []).append(speed)
    return speeds, reports


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def table(model, threads, speeds, reports, peers):
    """Lines of one model and number of threads."""
    lines = []
    for test in speeds["carat"]:
        what, tokens, depth = test
        shares = [t["share"] for r in reports for t in r["tests"] if key(t) == test]
        limit = next(t["limit"] for t in reports[0]["tests"] if key(t) == test)
        shown = model.name + (", interleaved" if reports[0]["interleaved"] else "")
        cells = [shown, threads, f"{what} {tokens}", depth, spread(speeds["carat"][test])]
        cells.append(f"{100 * statistics.median(shares):.0f} % of {limit.replace('_', ' ')}")
        for name in peers:
            theirs = speeds[name][what.split()[-1], tokens, depth]
            ratio = statistics.median(speeds["carat"][test]) / statistics.median(theirs)
            cells.append(f"{spread(theirs)}, {ratio:.2f} ×")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def machine():
    info = pathlib.Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def main():
    args = arguments()
    program = build()
    commit = output("git", "-C", HERE, "rev-parse", "--short", "HEAD").strip()
    if output("git", "-C", HERE, "status", "--porcelain", "--untracked-files=no").strip():
        commit += " and changes"
    versions, lines, raw = {}, [], []
    for model in args.models:
        for threads in map(int, args.threads.split(",")):
            speeds, reports = rounds(program, model, args, threads, versions)
            found = table(model, threads, speeds, reports, args.peers)
            print("\n".join(found), file=sys.stderr)
            lines += found
            kept = {name: {" ".join(map(str, test)): v for test, v in of.items()} for name, of in speeds.items()}
            raw.append({"model": model.name, "threads": threads, "speeds": kept, "carat": reports})
    reports = [report for part in raw for report in part["carat"]]
    head = [
        f"# {datetime.date.today()}, carat {commit}",
        "",
        f"{machine()}; {reports[0]['backend']}; load at the rounds {min(r['load'] for r in reports):.1f} to "
        f"{max(r['load'] for r in reports):.1f}. Peers: "
        + (", ".join(f"{name} {versions[name]}" for name in args.peers) or "none") + ".",
        f"`python3 benches/peers.py -p {args.prompt} -n {args.answer} -d {args.depth} -t {args.threads} -r {args.rounds}{' --int8' * args.int8}`; "
        "tokens per second, median (least–most); shares are of limits measured in the same round.",
        "",
        "| model | threads | test | depth | carat | share | " + " | ".join(args.peers) + " |",
        "| --- | --- | --- | --- | --- | --- |" + " --- |" * len(args.peers),
    ]
    text = "\n".join(head + lines) + "\n"
    print(text)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    name = args.name or f"{datetime.date.today()}-{commit.split()[0]}"
    (results / f"{name}.md").write_text(text)
    (results / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
