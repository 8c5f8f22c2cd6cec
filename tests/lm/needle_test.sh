#!/bin/sh
# A needle is found, by the method named, and by sparse attention in every layer.
# usage: needle_test.sh PRISM METHOD ARGUMENT...
prism=$1 method=$2
shift 2
out=$("$prism" run --json -n 10 --method "$method" "$@") || exit 1
echo "$out"
fail() {
    echo "needle_test.sh: $1" >&2
    exit 1
}
echo "$out" | grep -Eq '"gold_correct":[[:space:]]*true' || fail "the needle was not found"
echo "$out" | grep -Eq "\"method\":[[:space:]]*\"$method\"" || fail "another method than $method"
paths=$(echo "$out" | grep -oE '"path":[[:space:]]*"[^"]*"')
[ -n "$paths" ] || fail "no layer says how it was attended"
echo "$paths" | grep -vq '"sparse"' && fail "a layer was not sparse"
exit 0
