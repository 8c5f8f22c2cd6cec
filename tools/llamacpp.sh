#!/bin/sh
# Prints the folder with llama.cpp's programs: $LLAMACPP where that is set, else build/llamacpp/bin, built once from the
# source distribution of llama-cpp-python, which carries llama.cpp (75 MB from PyPI; 20 minutes on two cores).
# usage: tools/llamacpp.sh
set -eu
version=0.3.35
programs="llama-completion llama-perplexity llama-bench llama-server llama-quantize test-backend-ops"

if [ -n "${LLAMACPP:-}" ]; then
    [ -x "$LLAMACPP/llama-perplexity" ] || { echo "no llama-perplexity in LLAMACPP=$LLAMACPP" >&2; exit 1; }
    cd "$LLAMACPP" && pwd
    exit
fi

cd "$(dirname "$0")/.."
dir=$PWD/build/llamacpp
if [ ! -e "$dir/bin/.complete" ]; then
    tools/install-deps.sh llamacpp >&2
    mkdir -p "$dir"
    cd "$dir"
    if [ ! -d llama_cpp_python-$version/vendor ]; then
        echo "Getting llama.cpp with llama-cpp-python $version from PyPI" >&2
        python3 -m venv venv
        venv/bin/pip -q download --no-deps --no-binary llama-cpp-python llama-cpp-python==$version >&2
        tar xzf llama_cpp_python-$version.tar.gz
    fi
    echo "Building llama.cpp: this takes a while" >&2
    cmake -S llama_cpp_python-$version/vendor/llama.cpp -B . -DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >cmake.log
    # shellcheck disable=SC2086
    cmake --build . -j "${JOBS:-$(nproc)}" --target $programs >build.log 2>&1 ||
        { echo "see $dir/build.log" >&2; exit 1; }
    touch bin/.complete
fi
echo "$dir/bin"
