#!/bin/sh
# Builds the Python wheel, installs it into a clean virtual environment and runs its tests there.
# usage: tools/test-python.sh FOLDER PRISM_COMMAND [pytest arguments]
# The programs lm_logits and token_ids of the same build must stand beside the command.
# FOLDER keeps the environment (venv/), made anew when what it needs changes.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1"
folder=$(cd "$1" && pwd)
PRISM_COMMAND=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
export PRISM_COMMAND
shift 2
source=integrations/python
needs=$source/requirements-test.txt
python=${PYTHON:-python3}

if ! cmp -s "$needs" "$folder/installed.txt"; then
    rm -rf "$folder/venv" "$folder/installed.txt"
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check -r "$needs"
    cp "$needs" "$folder/installed.txt"
fi
bin=$folder/venv/bin
checked="$source examples bench/peers tests/bench tests/lm/test_reference.py
    tests/lm/test_tokenizers.py tests/lm/mixed_text.py"
# shellcheck disable=SC2086
"$bin/ruff" check --quiet --config $source/pyproject.toml $checked
# shellcheck disable=SC2086
"$bin/ruff" format --check --quiet --config $source/pyproject.toml $checked

rm -rf "$folder/wheel"
# The environment has the build's own tools, pinned: nothing is fetched here. The CUDA part takes minutes and a GPU.
PATH=$bin:$PATH "$bin/pip" wheel -qq --disable-pip-version-check --no-deps --no-build-isolation \
    -C cmake.define.PRISM_CUDA=OFF -w "$folder/wheel" "./$source"
case "$(ls "$folder/wheel")" in
    prism_attn-*-py3-none-linux_*.whl) ;;
    *) echo "not a platform wheel for every Python 3: $(ls "$folder/wheel")" >&2; exit 1 ;;
esac
"$bin/pip" install -qq --disable-pip-version-check --no-deps --force-reinstall "$folder"/wheel/*.whl
unset PRISM_ATTN_LIBRARY PYTHONPATH # the installed wheel, nothing else
# Two OpenMP runtimes (the compiler's and torch's) must not spin against each other or against other work.
HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive "$bin/pytest" -q "$source/tests" tests/bench/test_peers.py \
    tests/lm/test_reference.py tests/lm/test_tokenizers.py "$@"
