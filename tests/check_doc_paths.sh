#!/bin/sh
# Checks that what the documents name exists: every path that begins with a folder of this tree, and every function whose
# name stands in backticks before a parenthesis.
# Usage: check_doc_paths.sh [ROOT]
root=${1:-$(dirname "$0")/..}
cd "$root" || exit 2
documents="README.md CONTRIBUTING.md models/README.md examples/README.md src/cuda/README.md $(find docs -name '*.md')"
folders='include|src|lm|cli|eval|bench|integrations|tests|tools|docs|examples|models'
examples='foo|avx512vnni|cuda/select/select_tokens' # the how-tos add these
status=0
missing=$(mktemp) || exit 2
trap 'rm -f "$missing"' EXIT

# Links are relative to their document; code in backticks is relative to the root.
for document in $documents; do
    for link in $(grep -oE '\]\([^)#: ]+[)#]' "$document" | sed 's/^](//; s/[)#]$//'); do
        if [ ! -e "$(dirname "$document")/$link" ]; then
            echo "$document: no such file: $link"
            status=1
        fi
    done
    # A pattern or a placeholder (<isa>, NAME) is not a path.
    for path in $(grep -oE "\`($folders)/[A-Za-z0-9_./-]+\`" "$document" | tr -d '`' | grep -vE "$examples"); do
        if [ ! -e "$path" ]; then
            echo "$document: no such path: $path"
            status=1
        fi
    done
    for name in $(grep -oE '`(prism|lm)_[a-z0-9_]+\(' "$document" | tr -d '`(' | grep -vE "$examples"); do
        if ! grep -rqE --include='*.[ch]' --include='*.cu' --include='*.py' "\b$name *\(" include src lm cli eval; then
            echo "$document: no such function: $name()"
            status=1
        fi
    done
    # `file`, `function`: the file has the function.
    grep -oE '`[a-z]+/[A-Za-z0-9_./]+`, `[a-z0-9_]+`' "$document" | tr -d '`,' | while read -r path name; do
        grep -qw "$name" "$path" || echo "$document: $path has no $name"
    done > "$missing"
    if [ -s "$missing" ]; then
        cat "$missing"
        status=1
    fi
done
[ "$status" -eq 0 ] && echo "every path and function that the documents name exists"
exit $status
