#!/bin/sh
# The prism command from outside: exit codes, messages, what happens to files.
# Usage: command_test.sh PRISM SOURCE_DIR
prism=$1
model=$2/models/prism-testbed-32m-q8_0.gguf
golden=$2/tests/golden/needle.safetensors
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

expect() { # exit code, words that the output must hold, command
    want=$1 words=$2
    shift 2
    "$@" >out 2>&1
    got=$?
    if [ $got != "$want" ] || ! grep -qF -- "$words" out; then
        echo "FAILED: $*: exit $got, wanted $want and '$words':"
        tail -n 3 out
        failed=1
    fi
}

expect 2 "usage" "$prism"
expect 2 "unknown command" "$prism" magic
for command in run attend info convert needle eval bench "eval ppl" "bench stages"; do
    # shellcheck disable=SC2086
    expect 0 "usage" "$prism" $command --help
done
expect 0 "usage: prism eval ppl" "$prism" help eval ppl
expect 2 "unknown command 'magic'" "$prism" help magic
expect 0 "prism " "$prism" -V
expect 0 "kernels" "$prism" info
# Threads: OMP_NUM_THREADS counts; where there is little memory for them the program ends, with an error or without one.
expect 0 "threads       3" env OMP_NUM_THREADS=3 "$prism" info
(ulimit -v 150000 && timeout 20 "$prism" info >out 2>&1)
if [ $? = 124 ]; then
    echo "FAILED: prism info hangs with 150 MB of address space"
    failed=1
fi
expect 0 '"methods"' "$prism" info --json

# A pipe that nobody writes to: 3, at once.
mkfifo pipe
expect 3 "pipe: is not a regular file" timeout 20 "$prism" run -m pipe -p hello
expect 3 "pipe: is not a regular file" timeout 20 "$prism" attend --in pipe

# Arguments: 2.
expect 2 "no model" "$prism" run -p hello
expect 2 "give the prompt by -f, by -p or both" "$prism" run -m "$model"
expect 2 "'prism info' lists them" "$prism" run -m "$model" -p hello --method magic
expect 2 "top_p=3: give a number above 0, up to 1" "$prism" run -m "$model" -p hello --top-p 3
expect 2 "no such option; did you mean top_p?" "$prism" run -m "$model" -p hello -o top_q=0.9
expect 2 "correct=some: give default, none, mean or moments" "$prism" run -m "$model" -p hello --correct some
expect 2 "did you mean --threads?" "$prism" run -m "$model" -p hello --treads 2
expect 2 "'--threads' lacks its value" "$prism" run -m "$model" -p hello --threads
expect 2 "'--json' takes no value" "$prism" run -m "$model" -p hello --json=1
expect 2 "top_p=2: give" "$prism" eval ppl -m "$model" --methods prism:top_p=2
expect 2 "did you mean 'needle'?" "$prism" nedle
# Numbers: one grammar. 1K is 1024 everywhere; no space, no sign in front, no fraction, no exponent in a whole number.
for n in " 5" "+3" 1.5 1e3 0x10 K 1KK 99999999999999999999 ""; do
    expect 2 "give a whole number" "$prism" run -m "$model" -p hello -n "$n"
    expect 2 "give a whole number" "$prism" needle -m "$model" --haystack noise -o x.json --seed "$n"
    expect 2 "min_tokens=$n: give a whole number" "$prism" run -m "$model" -p hello -o "min_tokens=$n"
    expect 2 "by comma" "$prism" eval ppl -m "$model" --ctx "$n"
    expect 2 "by comma" "$prism" bench attention --lengths "1K,$n"
done
expect 2 "give a number from 0 to 1" "$prism" needle -m "$model" --haystack noise -o x.json --depth +0.5
expect 0 '"chunk":	1024' "$prism" run -m "$model" -p "It was" --chunk 1K --max-tokens-in 1k -n 1 -o min_tokens=8K --json
expect 2 "--chunk 3: give at least a block, 128 tokens" "$prism" run -m "$model" -p hello --chunk 3
expect 2 "--chunk 3: give at least a block, 64 tokens" "$prism" eval ppl -m "$model" --chunk 3 \
    --methods prism:block_size=64
expect 2 "prism, meanpool" "$prism" run -m "$model" -p hello --method moments --top-p 0.9
expect 2 "moments" "$prism" attend --in "$golden" -o moments_error=0.1
expect 2 "moments does not go by top_p" "$prism" eval ppl -m "$model" --methods dense,moments:top_p=0.9
expect 2 "prism, meanpool" "$prism" bench attention --methods dense,moments --top-p 0.9
expect 2 "--bogus" "$prism" attend --bogus
expect 2 "go together" "$prism" attend --in "$golden" --high-dims 64
expect 2 "cannot be written" "$prism" run -m "$model" -p hello --plan nowhere/plan.safetensors
expect 2 ".gguf" "$prism" convert -m . -o model.safetensors
expect 2 ".svg, .png or .pdf" "$prism" eval ppl -m "$model" --plot plot.jpg

# A picture: no script of the working directory is run; what draws it is looked for before the work.
mkdir tools bin
echo 'open("ran", "w")' >tools/plot_eval.py
cp "$prism" elsewhere
expect 1 "plot_eval.py is not beside the program" ./elsewhere eval ppl -m "$model" --ctx 128 --max-tokens 128 \
    --by-position --plot plot.svg
[ ! -e ran ] || { echo "FAILED: a script of the working directory was run"; failed=1; }
printf '#!/bin/sh\nexit 4\n' >bin/python3 && chmod +x bin/python3 # as where matplotlib is missing
expect 1 "lacks matplotlib" env PATH="$dir/bin:$PATH" "$prism" eval ppl -m nowhere.gguf --plot plot.svg

# Input: 3.
: >empty
printf '\377\376 no text' >binary
head -c 100000 "$model" >short.gguf
printf '\377\377\377\377\377\377\377\177{}' >huge.safetensors
expect 3 "cannot be read" "$prism" run -m nowhere.gguf -p hello
expect 3 "truncated" "$prism" run -m short.gguf -p hello
expect 3 "the prompt is empty" "$prism" run -m "$model" -f empty
expect 3 "the prompt is empty" "$prism" run -m "$model" -p ""
expect 3 "is not JSON" "$prism" run -m "$model" --ruler-json binary
expect 3 "truncated" "$prism" attend --in huge.safetensors
expect 3 "no tensor 'v'" "$prism" attend --in "$golden"
expect 0 "'binary' is not UTF-8: byte 0" "$prism" eval ppl -m "$model" --text binary --ctx 64 --methods dense
expect 3 "is not UTF-8" "$prism" needle -m "$model" --text binary -o needle.json

# A short prompt, answered; a prompt from stdin; the compared method's columns; JSON.
expect 0 "answers agree" "$prism" run -m "$model" -p "It was the best of times, it was the" -n 4 --compare dense
expect 0 '"answers_agree"' "$prism" run -m "$model" -p "It was the best of times" -n 4 --compare meanpool --json
expect 0 '"top_p":	0.95,' "$prism" run -m "$model" -p "It was the best of times" -n 1 --json
expect 0 '"moments_error":	0.07,' "$prism" run -m "$model" -p "It was the best of times" -n 1 --json --method moments \
    -o moments_error=0.07
grep -q '"version"' out || { echo "FAILED: JSON without a version"; failed=1; }
# The library's default method is every command's; a method that is refused is an error, never another method.
expect 0 '"method":	"prism"' "$prism" run -m "$model" -p "It was the best of times" -n 1 --json
expect 0 '"method":	"prism"' "$prism" eval ppl -m "$model" --ctx 128 --max-tokens 128 --json
expect 3 "needs an H100" "$prism" run -m "$model" -p hello --method moments -o precision=fp8
echo "It was the best of times" | expect 0 "prompt tokens" "$prism" run -m "$model" -f - -n 1

# Results: links are followed, pipes written in place, a full disk is an error and leaves nothing.
expect 0 "" "$prism" run -m "$model" -p "It was the best of times" -n 1 --plan plan.safetensors
head -c 200 plan.safetensors | grep -q '"method":"prism"' || { echo "FAILED: a plan without its method"; failed=1; }
ln -s plan.safetensors link
expect 0 "" "$prism" run -m "$model" -p "It was" -n 1 --plan link
[ -L link ] || { echo "FAILED: a link was replaced"; failed=1; }
mkfifo pipe
cat pipe >from_pipe &
expect 0 "" "$prism" run -m "$model" -p "It was" -n 1 --plan pipe
wait
[ -p pipe ] && [ -s from_pipe ] || { echo "FAILED: a pipe was replaced or not written"; failed=1; }
# "-" is stdout, which then holds the file and nothing else.
"$prism" needle -m "$model" --haystack noise --tokens 256 -o - >stdout.json || failed=1
"$prism" needle -m "$model" --haystack noise --tokens 256 -o file.json || failed=1
cmp -s stdout.json file.json || { echo "FAILED: -o - is not the file"; failed=1; }
[ ! -e - ] || { echo "FAILED: a file called - was made"; failed=1; }
python3 - >qkv.safetensors <<'END'
import json, struct, sys
size = 2 * 300 * 16 * 4
header = json.dumps({name: {"dtype": "F32", "shape": [2, 300, 16], "data_offsets": [i * size, (i + 1) * size]}
                     for i, name in enumerate("qkv")}).encode()
sys.stdout.buffer.write(struct.pack("<Q", len(header)) + header + bytes(3 * size))
END
expect 0 "2 heads, 300 queries" "$prism" attend --in qkv.safetensors --out named
for name in - /dev/stdout; do
    "$prism" attend --in qkv.safetensors --out $name 2>summary | cmp -s - named ||
        { echo "FAILED: attend --out $name is not the file"; failed=1; }
    grep -q "2 heads, 300 queries" summary || { echo "FAILED: the summary with --out $name is lost"; failed=1; }
done
expect 2 "the answer goes to standard output" "$prism" run -m "$model" -p hello --plan -
expect 2 "both write to standard output" "$prism" attend --in "$golden" --out - --json
expect 2 "name a file" "$prism" bench attention --csv -
expect 2 "name a file" "$prism" eval ppl -m "$model" --results -
# What a model computes in is chosen by an option; results of one choice are not continued by another.
expect 2 "--kv-type 'q8_0': auto, f16, bf16 or f32" "$prism" run -m "$model" -p hello --kv-type q8_0
expect 0 '"method":	"prism"' "$prism" run -m "$model" -p "It was the best of times" -n 1 --kv-type f32 --json
ppl() { "$prism" eval ppl -m "$model" --ctx 128 --max-tokens 128 --methods dense --results types.jsonl "$@"; }
expect 0 "dense" ppl --kv-type f16
expect 3 'its kv_type is "f16", here it is "f32"' ppl --kv-type f32
if "$prism" info | grep -q "products .*bfloat16"; then
    PRISM_PRODUCTS=f32
    export PRISM_PRODUCTS
    expect 3 'its products is "bf16", here it is "f32"' ppl --kv-type f16
    expect 0 "KV cache      f16, attention in f32" "$prism" info
    unset PRISM_PRODUCTS
fi
if [ -c /dev/full ]; then
    "$prism" info >/dev/full 2>out
    [ $? = 1 ] || { echo "FAILED: results lost on a full disk are no success"; failed=1; }
fi
(
    ulimit -f 1
    "$prism" needle -m "$model" --text "$2/eval/data/nostromo.txt" --tokens 4000 -o limited.json >/dev/null 2>&1
    [ $? = 1 ]
) || { echo "FAILED: a file size limit"; failed=1; }
ls limited.json* >/dev/null 2>&1 && { echo "FAILED: a partial file was left"; failed=1; }
# Names from a file do not command the terminal; in JSON they are JSON.
LC_ALL=C sed 's/qwen3/\x1b[31m/' "$model" >colour.gguf
LC_ALL=C sed 's/qwen3/q\x7f\xff\xc2\x9b/' "$model" >bytes.gguf
expect 3 'architecture "\x1B[31m" is not supported' "$prism" run -m colour.gguf -p hello
expect 3 'architecture "q\x7F\xFF\xC2\x9B" is not supported' "$prism" run -m bytes.gguf -p hello
ln -s "$model" "$(printf 'm\177\377.gguf')"
expect 0 'm\u007f\ufffd.gguf' "$prism" run -m "$(printf 'm\177\377.gguf')" -p "It was" -n 1 --json
# A model that becomes shorter while it is in use: a sentence, once, and the code of unreadable input.
cp "$model" shrinks.gguf
: >shrinks
timeout 60 "$prism" run -m shrinks.gguf --ruler-json "$2/examples/needle-16k.json" --chunk 1024 >shrinks 2>&1 &
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    grep -q prefill shrinks && break
    sleep 0.5
done
truncate -s 10000 shrinks.gguf
wait $!
[ $? = 3 ] && [ "$(grep -c 'shrinks.gguf.*changed while it was in use' shrinks)" = 1 ] || {
    echo "FAILED: a model that becomes shorter while it is in use:"
    cat shrinks
    failed=1
}
# A GPU: what is wrong with the request, and, where there is none, that there is none.
expect 2 "cpu, cuda or cuda:N" "$prism" run -m "$model" -p hello --device tpu
expect 2 "a whole number" "$prism" eval ppl -m "$model" --device cuda:one
expect 2 "attend works on the CPU" "$prism" attend --in "$golden" --device cuda
if "$prism" info | grep -q "GPU .*none; "; then
    expect 1 "--device cuda: " "$prism" run -m "$model" -p hello --device cuda
    expect 1 "--device cuda: " "$prism" bench attention --lengths 1K --device cuda
fi
exit $failed
