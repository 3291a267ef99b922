#!/usr/bin/env bash
# Holds the files that carat quantises to llama.cpp, which must run them.
#
#   scripts/prove-quantize.sh MODEL LLAMA_BIN [CTX]
#
# MODEL is a real checkpoint, a directory or a GGUF file. Its copy in BF16 is what the others are made of. LLAMA_BIN is the
# folder with llama-perplexity and llama-quantize. For each --type the table has the size of the file that
# `carat quantize` writes and four perplexities on fixtures/text/alice.txt, over windows apart of CTX tokens (512):
#   llama.cpp   of the file as it is: it loads and runs. It rounds what it multiplies with quantised weights to 8 bits
#   widened     llama.cpp's of the same weights in F32, which carat must agree with, to 0.2 %
#   carat       of the file, default precision
#   apart       the difference of the last two
# TEXT=FILE takes another text, an absolute path; TYPES="q4_0 q6_k" some of the types.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
model=$(realpath "$1") llama=$(realpath "$2") ctx=${3:-512}
cd "$(dirname "$0")/.."
text=${TEXT:-fixtures/text/alice.txt} threads=${THREADS:-$(nproc)} bound=0.2
carat=${CARAT:-target/release/carat}
[ -x "$carat" ] || cargo build --release -p carat-cli
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

theirs() {
    "$llama/llama-perplexity" -m "$1" -f "$text" -c "$ctx" -b "$ctx" -t "$threads" --no-escape "${@:2}" >"$work/log" 2>&1 ||
        { echo "llama.cpp does not run $1:" >&2; tail -5 "$work/log" >&2; exit 1; }
    sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$work/log"
}
ours() {
    "$carat" perplexity "$1" "$text" --windows apart --ctx "$ctx" --threads "$threads" |
        sed -n 's/^perplexity \([0-9.]*\),.*/\1/p'
}

quantize() {
    "$carat" quantize "$1" "$2" --type "$3" --threads "$threads" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}
quantize "$model" "$work/source.gguf" bf16
printf '%-8s %10s %11s %11s %11s %10s\n' type MiB llama.cpp widened carat apart
failed=0
for type in ${TYPES:-bf16 q8_0 q6_k q4_k_m q4_0}; do
    file=$work/$type.gguf
    quantize "$work/source.gguf" "$file" $type
    "$llama/llama-quantize" --allow-requantize "$file" "$work/f32.gguf" f32 "$threads" >"$work/log" 2>&1 ||
        { tail -5 "$work/log" >&2; exit 1; }
    as_is=$(theirs "$file")
    exact=$(theirs "$work/f32.gguf" -ctk f32 -ctv f32 -fa off)
    found=$(ours "$file")
    awk -v t=$type -v s="$(stat -c %s "$file")" -v a="$as_is" -v e="$exact" -v x="$found" -v b=$bound 'BEGIN {
        d = 100 * (x / e - 1)
        printf "%-8s %10.1f %11.4f %11.4f %11.4f %+8.3f %%\n", t, s / 1048576, a, e, x, d
        exit !(d < b && -d < b)
    }' || { echo "carat is off by more than $bound % on $type" >&2; failed=1; }
    rm "$file" "$work/f32.gguf"
done
exit $failed
