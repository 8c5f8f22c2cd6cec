#!/bin/sh
# The study of docs/moments.md: perplexity and needles against work, for the methods and corrections that it compares.
# Stopped, it goes on where it was when run again.
# usage: tools/moments_study.sh [--model FILE] [--device D] [--out DIRECTORY] [--samples N] [--tokens N] [--ctx LIST] TEXT...
#   TEXT       books that the model has not seen, plain text
#   --samples  needle prompts a length and method: 4 kinds x 3 depths x N (25, that is 300)
#   --tokens   tokens of every book (131072: with four books 524288 a length and method)
set -eu
cd "$(dirname "$0")/.."
model=models/prism-testbed-32m-q8_0.gguf
device=cpu out=build/moments samples=25 tokens=131072 lengths=8K,32K,64K
while [ $# -gt 0 ]; do
    case $1 in
    --model) model=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --samples) samples=$2; shift 2 ;;
    --tokens) tokens=$2; shift 2 ;;
    --ctx) lengths=$2; shift 2 ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \?//' >&2; exit 2; }
methods=dense
for p in 0.98 0.95 0.9 0.8; do methods=$methods,prism:top_p=$p,prism:top_p=$p:correct=moments; done
for e in 0.03 0.04 0.06 0.08 0.12 0.16 0.24; do methods=$methods,moments:moments_error=$e; done
for e in 0.04 0.08 0.16; do methods=$methods,moments:moments_error=$e:correct=none,moments:moments_error=$e:correct=mean; done
methods=$methods,prism:correct=mean,xattention,flexprefill,flexprefill:flex_gamma=0.95,flashprefill
where="--device $device"
if [ "$device" = cpu ]; then # what the GPU has no kernels for
    for e in 0.04 0.08 0.16; do methods=$methods,moments:moments_error=$e:block_size=64; done
    for m in xattention flexprefill flashprefill; do methods=$methods,$m:correct=mean; done
    for m in xattention flexprefill flashprefill; do methods=$methods,$m:correct=moments; done
else
    where="$where --plan-on-cpu"
fi
mkdir -p "$out"

texts=
for text in "$@"; do texts="$texts --text $text"; done
evaluate() { # name, then prism eval's arguments
    name=$1
    shift
    echo "== $name: prism eval $*" >&2
    build/prism eval "$@" -m "$model" $where --methods "$methods" --results "$out/$name.jsonl"
}

evaluate ppl ppl --ctx "$lengths" --max-tokens "$tokens" $texts
needles() { # name, keys, haystack, value type
    evaluate "needle-$1" needle --ctx "$lengths" --depths 0.1,0.5,0.9 --samples "$samples" --text "$first" \
        --haystack "$3" --keys "$2" --value-type "$4"
}
first=$1
needles one 1 book number
needles four 4 book number
needles many 16 book word
needles needles 1 needle number
python3 tools/moments_table.py "$out" "$out/moments.svg"
