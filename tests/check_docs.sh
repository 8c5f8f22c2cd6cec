#!/bin/sh
# Compares a generated part of a document, between <!-- NAME --> and <!-- /NAME -->, with what a program prints.
# Usage: check_docs.sh [--write] FILE NAME PROGRAM [ARGUMENTS]
write=
[ "$1" = --write ] && write=1 && shift
file=$1 name=$2
shift 2
now=$(mktemp) new=$(mktemp)
trap 'rm -f "$now" "$new"' EXIT
"$@" >"$new" || exit 1
sed -n "/^<!-- $name -->$/,/^<!-- \/$name -->$/p" "$file" | sed '1d;$d' >"$now"
if [ -n "$write" ]; then
    sed -i -e "/^<!-- $name -->$/,/^<!-- \/$name -->$/{/^<!-- /!d}" -e "/^<!-- $name -->$/r $new" "$file"
elif ! diff -u "$now" "$new"; then
    echo "$file: the part called $name is not what the library says; write it again with: tests/check_docs.sh --write $file $name $*"
    exit 1
fi
