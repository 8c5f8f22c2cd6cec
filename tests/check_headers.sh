#!/bin/sh
# Every public header compiles alone: as C11, as C99 with -pedantic, as C++17 where there is a compiler for it.
# Usage: check_headers.sh CC [ROOT]
cc=${1:-cc}
root=${2:-$(dirname "$0")/..}
status=0
n=0

try() {
    if ! printf '#include "prism_attn/%s"\nint main(void) { return 0; }\n' "$header" |
        "$@" -Wall -Wextra -Werror -fsyntax-only -I"$root/include" -; then
        echo "prism_attn/$header does not compile alone with: $*"
        status=1
    fi
}

for path in "$root"/include/prism_attn/*.h; do
    header=$(basename "$path")
    n=$((n + 1))
    try "$cc" -x c -std=c11
    try "$cc" -x c -std=c99 -pedantic
    if command -v "${CXX:-c++}" >/dev/null; then
        try "${CXX:-c++}" -x c++ -std=c++17 -pedantic
    else
        echo "no C++ compiler: $header not tried as C++17"
    fi
done
[ $n -gt 0 ] || status=1
exit $status
