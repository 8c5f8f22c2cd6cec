#!/bin/sh
# tools/install-deps.sh finds what a build needs by itself, where there is no dpkg to ask.
# Usage: install_deps_test.sh SOURCE_DIR
set -eu
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
IFS=:
for folder in $PATH; do
    for program in "$folder"/*; do
        case ${program##*/} in
            dpkg* | apt* | sudo) ;;
            *) [ -e "$programs/${program##*/}" ] || ln -s "$program" "$programs/" ;;
        esac
    done
done
unset IFS
PATH=$programs "$programs/sh" "$1/tools/install-deps.sh" build
