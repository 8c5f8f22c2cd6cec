"""Sparse results equal the C command's: same tensors, same options, plan for plan."""

from __future__ import annotations

import subprocess

import pytest
import torch
from conftest import error, random_qkv
from safetensors.torch import load_file, save_file

import prism_attn
from prism_attn import Rope

CASES = {
    "half-split": (128, Rope.half_split(128, 1e6), ["--rope-base", "1e6"], {}),
    "another base": (128, Rope.half_split(128, 1e4), ["--rope-base", "1e4"], {}),
    "blocks of 64": (128, Rope.half_split(128, 1e6), ["--rope-base", "1e6", "--block-size", "64"], {"block_size": 64}),
    "interleaved, partial": (
        64,
        Rope.interleaved(64, 1e4, n_dim=32),
        ["--rope-base", "1e4", "--rope-layout", "interleaved", "--rope-dims", "32"],
        {},
    ),
    "meanpool": (64, None, ["--method", "meanpool"], {"method": "meanpool"}),
    "global calibration": (64, Rope.half_split(64, 1e6), ["-o", "calibration=global"], {"calibration": "global"}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_same_as_prism_attend(tmp_path, command, case, dtype):
    d, rope, arguments, options = CASES[case]
    q, k, v = random_qkv(n_q=900, n_kv=1500, d=d, dtype=dtype)
    save_file({"q": q[0], "k": k[0], "v": v[0]}, tmp_path / "in.safetensors")
    files = ["--in", tmp_path / "in.safetensors", "--out", tmp_path / "out.safetensors"]
    subprocess.run([command, "attend", *files, "--top-p", "0.4", "-o", "min_tokens=0", *arguments], check=True)
    expected = load_file(tmp_path / "out.safetensors")

    options = {"top_p": 0.4, "min_tokens": 0, "rope": rope, "return_lse": False} | options
    out = prism_attn.attention(q, k, v, **options)
    options.pop("return_lse")
    plan = prism_attn.plan(q, k, **options)
    assert 0 < plan.density < 1
    assert torch.equal(torch.from_numpy(plan.mask()[0]), expected["mask"].bool())
    assert error(out[0], expected["out"]) <= (0 if dtype == torch.float32 else 4e-3)  # the command writes float32


def test_the_same_defaults(tmp_path, command):
    """Nothing is said but the rotary frequencies: method, calibration, bands and short prompts are the library's."""
    q, k, v = random_qkv(n_q=1500, n_kv=1500, d=64, n_head=2, n_kv_head=1)
    q, k = 30 * q, 30 * k  # few blocks hold the mass
    for n in (1000, 1500):
        tensors = {"q": q[0, :, :n].contiguous(), "k": k[0, :, :n].contiguous(), "v": v[0, :, :n].contiguous()}
        save_file(tensors, tmp_path / "in.safetensors")
        files = ["--in", tmp_path / "in.safetensors", "--out", tmp_path / "out.safetensors"]
        subprocess.run([command, "attend", *files, "--rope-base", "1e5"], check=True)
        plan = prism_attn.plan(q[:, :, :n], k[:, :, :n], rope=Rope.half_split(64, 1e5))
        assert torch.equal(torch.from_numpy(plan.mask()[0]), load_file(tmp_path / "out.safetensors")["mask"].bool())
        assert (plan.density == 1) == (n == 1000)
