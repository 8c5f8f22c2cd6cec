#!/bin/sh
# prism run from outside: what goes to stdout and what to stderr, chats, how an answer ends.
# Usage: command_run.sh PRISM SOURCE_DIR
prism=$1
model=$2/models/prism-testbed-32m-q8_0.gguf
text="It was the best of times, it was the"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

fail() {
    echo "FAILED: $1"
    failed=1
}
run() { # exit code, arguments: stdout goes to out, stderr to err
    want=$1
    shift
    "$prism" run -m "$model" "$@" >out 2>err
    got=$?
    [ $got = "$want" ] || fail "run $*: exit $got, wanted $want: $(tail -n 1 err)"
}
says() { grep -qF -- "$1" err || fail "stderr lacks '$1': $(head -c 300 err)"; }
silent() { [ -s err ] && fail "stderr is not empty: $(head -c 300 err)"; }

# The answer, and a line feed, are all of stdout: with a table, with a second method, without anything else.
run 0 -p "$text" -n 6 -q
silent
cp out answer
[ "$(wc -l <answer)" = 1 ] || fail "the answer is not one line"
run 0 -p "$text" -n 6
cmp -s out answer || fail "stdout is not the answer alone"
says "answer tokens"
run 0 -p "$text" -n 6 --compare dense
cmp -s out answer || fail "stdout is not the answer alone, with --compare"
says "[dense]"
says "answers agree"
run 0 -p "$text" -n 0
[ -s out ] && fail "stdout is not empty without an answer"
run 0 -p "$text" -n 2 --json -q
silent
grep -q '"interrupted"' out || fail "no JSON"

# A file and a question: the text, an empty line, the question.
printf 'It was the best of times.\n\n' >book
printf 'It was the best of times.\n\nWho?' >joined
run 0 -f book -p "Who?" -n 6 -q
cp out answer
run 0 -f joined -n 6 -q
cmp -s out answer || fail "-f with -p is another prompt"
run 2 -p hello --ruler-json book
says "give the prompt by"

# Chats: the form by its name; a model without a template has none of its own.
run 3 --chat -p hello
says "choose one by --chat-template: chatml"
run 3 --system "Be brief." -p hello
run 2 --chat-template gemma -p hello
says "no chat template is called 'gemma'"
run 0 --chat-template chatml --system "Be brief." -p "Who?" -n 6 -q
cp out answer
printf '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n' >chat
run 0 -f chat -n 6 -q
cmp -s out answer || fail "--chat-template chatml does not write the turns"

# The model's own template, in a directory and in the GGUF file that it becomes; so are all ends of an answer.
cp -r "$2/tests/lm/data/llama3" hf
chmod -R u+w hf
cat >hf/tokenizer_config.json <<'END'
{"chat_template": [{"name": "tool_use", "template": "[INST]"},
                   {"name": "default", "template": "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}"}]}
END
echo '{"eos_token_id": [257, 258]}' >hf/generation_config.json
"$prism" convert -m hf -o hf.gguf --type f32 || fail "convert"
for m in hf hf.gguf; do
    run 0 -m $m -p "Who?" -n 1
    says "the model has a chat template (chatml)"
    run 0 -m $m -p "Who?" -n 1 --chat --json
    grep -qF '"chat":	"chatml"' out || fail "$m: its chat template is not used"
    grep prompt_tokens out >tokens.$m
done
cmp -s tokens.hf tokens.hf.gguf || fail "directory and GGUF file write another chat"
grep -qa "tokenizer.ggml.eot_token_id" hf.gguf || fail "the second end token is lost"

# Bytes that are no text.
printf 'It was the best of times\377' >latin
run 0 -f latin -n 1
says "'latin' is not UTF-8: byte 24 belongs to no character"
run 0 -f latin -n 1 -q
silent

# Bars of block characters, or of ASCII where the locale has no others.
LC_ALL=C run 0 -p "$text" -n 1
says "0 ################################ 1.000"
LC_ALL=C.UTF-8 run 0 -p "$text" -n 1
says "0 ████████████████████████████████ 1.000"

if [ -c /dev/full ]; then
    "$prism" run -m "$model" -p "$text" -n 100000 >/dev/full 2>err
    [ $? = 1 ] || fail "an answer that went nowhere is no success"
    says "writing to standard output failed"
fi
exit $failed
