#!/bin/sh
# Measures everything in docs/results.md and writes it again. Takes about 40 minutes on two cores; stopped, it goes on
# where it was when run again.
# usage: tools/results.sh [DIRECTORY]     keeps what it measured in DIRECTORY (build/results)
set -eu
cd "$(dirname "$0")/.."
out=${1:-build/results}
model=models/prism-testbed-32m-q8_0.gguf
methods=dense,prism,meanpool,minference:minference_vertical=512:minference_slash=2048,flexprefill,xattention,flashprefill
mkdir -p "$out"

evaluate() { # name, then prism eval's arguments
    name=$1
    shift
    echo "== $name: prism eval $*" >&2
    build/prism eval "$@" -m "$model" --methods "$methods" --results "$out/$name.jsonl" --json >"$out/$name.json.part"
    mv "$out/$name.json.part" "$out/$name.json"
    echo "prism eval $* -m $model --methods $methods" >"$out/$name.cmd"
}

evaluate ppl-8k ppl --ctx 8K --max-tokens 65536
evaluate needle-8k needle --ctx 8K --depths 0.1,0.5,0.9 --samples 4
evaluate ppl-32k ppl --ctx 32K --max-tokens 65536
evaluate ruler-8k ruler --ctx 8K --samples 3 --tasks niah_single_1,niah_single_2,niah_multikey_1,niah_multikey_2
evaluate needle-16k needle --ctx 16K --depths 0.1,0.5,0.9 --samples 2

bench="bench attention -m $model -f eval/data/nostromo.txt --lengths 2K,4K,8K,16K,32K --methods $methods --reps 3 --seconds 4"
echo "== bench: prism $bench" >&2
[ -s "$out/bench.json" ] || { build/prism $bench --json >"$out/bench.json.part" && mv "$out/bench.json.part" "$out/bench.json"; }
echo "prism $bench" >"$out/bench.cmd"

mkdir -p docs/images
tools/plot_bench.py "$out/bench.json" docs/images/bench.png
python3 tools/results_table.py "$out" >docs/results.md
