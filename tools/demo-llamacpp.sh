#!/bin/sh
# An unmodified llama.cpp answers a bundled prompt, without and with the plug-in, and says how far apart they are.
# usage: tools/demo-llamacpp.sh PLUGIN [PROMPT]     PROMPT: examples/needle-32k.json
#        LLAMACPP=DIR: use the llama.cpp programs there
set -eu
plugin=$1 prompt=${2:-examples/needle-32k.json}
cd "$(dirname "$0")/.."
bin=$(tools/llamacpp.sh)
model=models/prism-testbed-32m-q8_0.gguf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 - "$prompt" >"$dir/prompt" <<'P'
import json, sys
print(json.load(open(sys.argv[1]))["0"]["origin_prompt"][0]["prompt"], end="")
P
head -c 70000 eval/data/nostromo.txt >"$dir/text"

# Builds without loadable backends read GGML_BACKEND_PATH only for a tensor override; this one overrides nothing.
load="-ot nothing=CPU"
threads=$(nproc)

answer() { # label, environment
    label=$1
    shift
    # shellcheck disable=SC2086
    env "$@" "$bin/llama-completion" -m $model -f "$dir/prompt" -c 32768 -n 10 --temp 0 -t "$threads" -no-cnv \
        --no-warmup -fa on --no-display-prompt $load >"$dir/out" 2>"$dir/log" || { tail -n 5 "$dir/log"; exit 1; }
    speed=$(cat "$dir/out" "$dir/log" | sed -n 's/.*prompt eval time.* \([0-9.]*\) tokens per second.*/\1/p')
    printf '%-26s %16s   %s\n' "$label" "$speed" "$(grep -ao '[0-9]\{7\}' "$dir/out" | head -n 1)"
}

divergence() { # label, flash attention, environment
    label=$1 flash=$2
    shift 2
    # shellcheck disable=SC2086
    env "$@" "$bin/llama-perplexity" -m $model -f "$dir/text" -c 8192 --chunks 1 -t "$threads" -fa "$flash" $load \
        --kl-divergence-base "$dir/base" ${kl-} >"$dir/log" 2>&1 || { tail -n 5 "$dir/log"; exit 1; }
    [ -z "${kl-}" ] || printf '%-26s %16s   %s\n' "$label" "$(sed -n 's/.*Mean *KLD: *\([0-9.]*\).*/\1/p' "$dir/log")" \
        "$(sed -n 's/.*Mean PPL(Q) *: *\([0-9.]*\).*/\1/p' "$dir/log")"
}

printf '%-26s %16s   %s\n' "$(basename "$prompt" .json), gold 9890590" "prompt tokens/s" "answer"
answer "llama.cpp" -u GGML_BACKEND_PATH
answer "plug-in, full attention" GGML_BACKEND_PATH="$plugin" PRISM_METHOD=dense
answer "plug-in, prism" GGML_BACKEND_PATH="$plugin" PRISM_METHOD=prism
answer "plug-in, moments" GGML_BACKEND_PATH="$plugin" PRISM_METHOD=moments

printf '\n%-26s %16s   %s\n' "8192 tokens of a novel" "KL to llama.cpp" "perplexity"
divergence "" on -u GGML_BACKEND_PATH
kl=--kl-divergence
divergence "llama.cpp, -fa off" off -u GGML_BACKEND_PATH
divergence "plug-in, full attention" on GGML_BACKEND_PATH="$plugin" PRISM_METHOD=dense
divergence "plug-in, prism" on GGML_BACKEND_PATH="$plugin" PRISM_METHOD=prism
divergence "plug-in, moments" on GGML_BACKEND_PATH="$plugin" PRISM_METHOD=moments
