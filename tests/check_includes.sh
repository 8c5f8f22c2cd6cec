#!/bin/sh
# Includes go one way only:
#   include/      nothing of ours but its own headers
#   src/core/     include, core
#   src/methods/  include, core, stages.h, methods
#   src/cpu/      include, core, stages.h, cpu
#   src/api/      all of src
#   lm, cli, eval, bench, examples, integrations   include, their own headers; never src
# Usage: check_includes.sh [ROOT]
root=${1:-$(dirname "$0")/..}
cd "$root" || exit 2
status=0

# check DIRECTORY ALLOWED: every "quoted" include under DIRECTORY must match the extended regular expression.
check() {
    [ -d "$1" ] || return 0
    bad=$(find "$1" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort |
        xargs -r grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' /dev/null |
        grep -vE "include[[:space:]]*\"($2)\"")
    if [ -n "$bad" ]; then
        printf '%s may include only %s:\n%s\n' "$1" "$2" "$bad"
        status=1
    fi
}

check include 'prism_attn/[a-z_]+\.h'
check src/core 'prism_attn/[a-z_]+\.h|core/[a-z0-9_]+\.h'
check src/methods 'prism_attn/[a-z_]+\.h|core/[a-z0-9_]+\.h|stages\.h|methods/[a-z0-9_]+\.(h|def)'
check src/cpu 'prism_attn/[a-z_]+\.h|core/[a-z0-9_]+\.h|stages\.h|cpu/[a-z0-9_/]+\.h'
check src/cuda 'prism_attn/[a-z_]+\.h|core/[a-z0-9_]+\.h|stages\.h|cuda/[a-z0-9_/]+\.(h|cuh)'

# Outside src/, a header of src/ must not be reachable by any spelling.
inside=$(find src -name '*.h' | sed 's|^src/||; s|\.|\\.|g' | paste -sd'|')
for directory in lm cli eval bench examples integrations; do
    [ -d "$directory" ] || continue
    bad=$(find "$directory" -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu' | sort |
        xargs -r grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<](.*\bsrc/|($inside)[\">])" /dev/null)
    if [ -n "$bad" ]; then
        printf '%s must see include/prism_attn only:\n%s\n' "$directory" "$bad"
        status=1
    fi
done
exit $status
