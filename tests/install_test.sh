#!/bin/sh
# Installs the library to a new prefix and builds a small program against it in four ways: by pkg-config and by
# find_package(), each shared and static. Runs all four.
# Usage: install_test.sh BUILD_DIR
set -e
build=$1
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >"$prefix/install.log"
libdir=$(dirname "$(find "$prefix" -name libprismattn.a)")

cat >"$prefix/program.c" <<'C'
#include <prism_attn/prism.h>
#include <stdio.h>

int main(void)
{
    prism_ctx *ctx;
    prism_info info = {.struct_size = sizeof info};
    if (prism_create(NULL, &ctx) || prism_get_info(ctx, &info))
        return 1;
    printf("libprismattn %s, %s\n", prism_version(), info.isa_name);
    prism_destroy(ctx);
    return 0;
}
C

export PKG_CONFIG_PATH="$libdir/pkgconfig"
cc=${CC:-cc}
$cc "$prefix/program.c" $(pkg-config --cflags prismattn) -L"$libdir" $(pkg-config --libs prismattn) \
    -o "$prefix/by_pkgconfig"
LD_LIBRARY_PATH="$libdir" "$prefix/by_pkgconfig"
$cc "$prefix/program.c" $(pkg-config --cflags prismattn) "$libdir/libprismattn.a" \
    $(pkg-config --static --libs-only-l --libs-only-other prismattn | sed 's/-lprismattn//') -fopenmp \
    -o "$prefix/by_pkgconfig_static"
"$prefix/by_pkgconfig_static"

mkdir "$prefix/project"
cat >"$prefix/project/CMakeLists.txt" <<'C'
cmake_minimum_required(VERSION 3.18)
project(user LANGUAGES C)
find_package(prism_attn REQUIRED)
foreach(kind shared static)
    add_executable(by_${kind} ../program.c)
    target_link_libraries(by_${kind} PRIVATE prism_attn::${kind})
endforeach()
C
cmake -S "$prefix/project" -B "$prefix/project/build" -DCMAKE_PREFIX_PATH="$prefix" >"$prefix/cmake.log" ||
    { cat "$prefix/cmake.log"; exit 1; }
cmake --build "$prefix/project/build" >"$prefix/build.log" || { cat "$prefix/build.log"; exit 1; }
"$prefix/project/build/by_shared"
"$prefix/project/build/by_static"

make -s -C "$(dirname "$0")/.." uninstall BUILD="$build" >/dev/null
left=$(find "$prefix/lib" "$prefix/include" "$prefix/bin" "$prefix/share" ! -type d 2>/dev/null || true)
[ -z "$left" ] || { echo "make uninstall left $left"; exit 1; }
