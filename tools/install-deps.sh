#!/bin/sh
# Installs the Debian or Ubuntu packages that a build needs and that are missing. Asks for root only if some are.
# usage: tools/install-deps.sh [build|test|llamacpp|pip]
set -eu
what=${1:-build}

missing=""
need_command() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need_library() { pkg-config --exists "$1" 2>/dev/null || missing="$missing $2"; }
need_header() { echo "#include <$1>" | cc -E - >/dev/null 2>&1 || missing="$missing $2"; }
need_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' || missing="$missing $1"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "These packages are missing and there is no sudo here. As root: apt-get install$missing" >&2
        exit 1
    fi
}

install_missing() {
    [ -n "$missing" ] || return 0
    echo "Installing the packages that are missing:$missing"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "There is no apt-get here: install the equivalents of these Debian packages:$missing" >&2
        exit 1
    fi
    # An old package list names files that are gone: refresh it first.
    as_root apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    missing=""
}

need_command cc gcc
need_command cmake cmake
need_command make make
need_command pkg-config pkg-config
need_header stdio.h libc6-dev
need_library openblas libopenblas-dev
[ "$(uname -m)" = x86_64 ] && need_header oneapi/dnnl/dnnl.h libdnnl-dev # else products are OpenBLAS's
need_library libpcre2-8 libpcre2-dev
need_library libutf8proc libutf8proc-dev
need_library libcjson libcjson-dev
if [ "$what" = test ]; then
    need_command g++ g++ # the public headers must compile as C++ too
    need_library cmocka libcmocka-dev
    need_command clang clang
    need_command python3 python3 # writes the fuzzers' seeds
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv" # where the Python package is tested
    if [ "$(uname -m)" = x86_64 ]; then # other machines, emulated: old ones, and AArch64
        need_command qemu-x86_64 qemu-user
        need_command aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
        need_package libc6-dev-arm64-cross
    fi
fi
if [ "$what" = pip ]; then # to download a package
    need_command python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || python3 -c 'import pip' 2>/dev/null || missing="$missing python3-venv"
fi
if [ "$what" = llamacpp ]; then
    need_command g++ g++
    need_package python3-venv
fi
install_missing

# The fuzzers' and sanitizers' runtimes are packaged by clang's version.
if [ "$what" = test ]; then
    version=$(clang --version | sed -n 's/.*clang version \([0-9]*\).*/\1/p' | head -n 1)
    need_package "libclang-rt-$version-dev"
    need_package "libomp-$version-dev"
    install_missing
fi
