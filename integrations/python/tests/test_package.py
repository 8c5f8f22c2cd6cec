"""What is installed, what is not, and that the difference is said."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import ninja
import pytest
from conftest import ROOT

import prism_attn
from prism_attn import _abi, engine

SOURCE = ROOT / "integrations" / "python"
EXTRAS = ("torch", "transformers", "lm-eval", "lmms-eval", "plot")

# What a user types, the package that is not there, the extra that brings it.
LACKING = [
    ("import prism_attn.torch_ops", "torch", "torch"),
    ("import prism_attn.transformers", "torch", "transformers"),
    ("import prism_attn.transformers", "transformers", "transformers"),
    ("from prism_attn.lm_eval.__main__ import main; main(['--tasks', 'x'])", "lm_eval", "lm-eval"),
    ("from prism_attn.lmms_eval import main; main(['--tasks', 'x'])", "lmms_eval", "lmms-eval"),
    ("from prism_attn.plot import main; main('m --prompt p --layer 0 --out o'.split())", "matplotlib", "plot"),
]


@pytest.mark.parametrize("code, package, extra", LACKING, ids=[f"{x[2]} without {x[1]}" for x in LACKING])
def test_a_missing_package_is_named_with_its_extra(code, package, extra):
    blocked = f"import sys; sys.modules[{package!r}] = None; {code}"
    result = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and package in last and f"'./integrations/python[{extra}]'" in last


def test_extras_exist_and_are_documented():
    project = (SOURCE / "pyproject.toml").read_text()
    for extra in EXTRAS:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
        for document in (ROOT / "README.md", ROOT / "docs" / "python.md"):
            assert f"[{extra}]" in document.read_text(), f"{document} names no [{extra}]"


@pytest.mark.skipif(_abi.has_cuda_part(), reason="the package has its CUDA part")
def test_a_package_without_cuda_says_how_to_get_it():
    with pytest.raises(prism_attn.PrismError, match=r"built without its CUDA part: install nvcc .* pip install -v"):
        engine.Context(_abi.CUDA, 0, 0)


@pytest.mark.parametrize("option", ["", "ON", "OFF"])
def test_the_build_says_what_it_builds(tmp_path, option):
    found = bool(shutil.which("nvcc"))
    if option == "ON" and not found:
        pytest.skip("nvcc is not installed")
    define = [f"-DPRISM_CUDA={option}"] if option else []
    ninja_program = f"-DCMAKE_MAKE_PROGRAM={ninja.BIN_DIR}/ninja"  # what pip builds with
    configure = ["cmake", "-G", "Ninja", ninja_program, "-S", SOURCE, "-B", tmp_path, *define]
    result = subprocess.run(configure, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    cuda = option == "ON" or (found and not option)
    said = "prism-attn: for CPU and CUDA (" if cuda else "prism-attn: for the CPU alone, without the CUDA part ("
    assert said in result.stdout + result.stderr
    targets = subprocess.run(["cmake", "--build", tmp_path, "--target", "help"], capture_output=True, text=True)
    assert targets.returncode == 0, targets.stdout
    assert ("prismattn_cuda" in targets.stdout) == cuda
