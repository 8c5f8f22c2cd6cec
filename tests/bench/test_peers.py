"""bench/peers/gpu.py without a GPU: plans, their conversion to other libraries' lists, arguments, a run on the CPU."""

from __future__ import annotations

import importlib
import json
import struct
import sys
from pathlib import Path

import pytest
import torch

import prism_attn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "peers"))
gpu = importlib.import_module("gpu")

SMALL = ["--device", "cpu", "--heads", "4", "--kv-heads", "2", "--d", "64", "--reps", "1", "--dtype", "f32"]


@pytest.mark.parametrize("density", [0.01, 0.1, 0.37, 0.9])
def test_random_mask(density):
    n = 40
    mask = gpu.random_mask(3, n, density, seed=5)
    assert mask.shape == (1, 3, n, n) and not mask.triu(1).any()
    assert mask[..., 0].all() and mask.diagonal(dim1=-2, dim2=-1).all()
    least = 2 * n - 1
    for head in mask[0]:
        wanted = density * n * (n + 1) / 2
        assert abs(int(head.sum()) - wanted) <= 1 or (wanted < least and int(head.sum()) == least)
    assert torch.equal(mask, gpu.random_mask(3, n, density, seed=5))
    assert density == 0.01 or not torch.equal(mask, gpu.random_mask(3, n, density, seed=6))


def rows_of(count, index):
    """{(b, h, row): listed blocks}"""
    shape = count.shape
    return {
        (b, h, r): index[b, h, r, : int(count[b, h, r])].tolist()
        for b in range(shape[0]) for h in range(shape[1]) for r in range(shape[2])
    }  # fmt: skip


def check_lists(mask):
    partial_count, partial_index, full_count, full_index = lists = gpu.block_lists(mask)
    assert all(x.dtype == torch.int32 for x in lists)
    partial, full = rows_of(partial_count, partial_index), rows_of(full_count, full_index)
    for key, row in full.items():
        b, h, r = key
        assert partial[key] == ([r] if mask[b, h, r, r] else [])
        assert row == [j for j in range(r) if mask[b, h, r, j]]
    after = torch.arange(mask.shape[-1]) >= full_count[..., None]
    assert not full_index[after].any()


def test_block_lists():
    mask = gpu.random_mask(2, 9, 0.4, seed=1)
    mask[0, 1, 4, 4] = False  # a plan need not keep its own block
    check_lists(mask)
    assert gpu.block_lists(mask)[0][0, 1, 4] == 0
    with pytest.raises(ValueError, match="whole prompt"):
        gpu.block_lists(mask[:, :, 3:])


def test_block_lists_of_a_prism_plan():
    """The lists of a plan that the library made are the plan's own rows."""
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(1, 1100, h, 64, generator=generator) for h in (4, 2))
    plan = prism_attn.plan(q, k, rope=1e4, layout="bnhd", top_p=0.5, min_tokens=0)
    mask = torch.from_numpy(plan.mask())
    assert 0 < plan.density < 1
    check_lists(mask)
    partial_count, partial_index, full_count, full_index = gpu.block_lists(mask)
    partial, full = rows_of(partial_count, partial_index), rows_of(full_count, full_index)
    indptr, indices = plan.indptr, plan.indices
    for i, key in enumerate(full):  # rows by sequence, head, query block: as in the plan
        assert full[key] + partial[key] == indices[indptr[i] : indptr[i + 1]].tolist()


def test_reference_follows_the_plan():
    args = gpu.parse(SMALL)
    qkv = gpu.noise(args, 300, 4, 2)
    case = gpu.make_case(args, qkv, "0.5")
    plan = prism_attn.plan_from_mask(case.mask, case.q, case.k, layout="bnhd")
    got = prism_attn.attention(*qkv, plan=plan, layout="bnhd")
    assert gpu.row_error(got, gpu.reference(case)) < 1e-5
    assert gpu.row_error(got, gpu.reference(gpu.Case(*qkv, None))) > gpu.TOLERANCE[torch.float32]


def test_check_names_a_wrong_peer():
    args = gpu.parse(SMALL)
    cases = [gpu.make_case(args, gpu.noise(args, 300, 4, 2), "1")]
    wrong = gpu.Peer("wrong", "1", lambda c: lambda: gpu.reference(c) * 1.01)
    broken = gpu.Peer("broken", "1", lambda c: lambda: 1 // 0)
    right = gpu.Peer("right", "1", lambda c: lambda: gpu.reference(c))
    good, problems = gpu.check([wrong, broken, right], cases)
    assert good == [right]
    assert "off by 1.0e-02" in problems["wrong"] and "ZeroDivisionError" in problems["broken"]


def test_missing_peer_is_named(monkeypatch):
    def missing():
        import no_such_library  # noqa: F401

    monkeypatch.setitem(gpu.MAKERS["cpu"], "none", missing)
    peers, problems = gpu.load_peers("cpu", ["prism", "none"])
    assert [p.name for p in peers] == ["prism-attn"]
    assert problems == {"none": "ModuleNotFoundError: No module named 'no_such_library'"}


def test_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = gpu.measure(runs, 2, gpu.timed_on_cpu)
    assert order == list("ababab") and [len(x) for x in seconds.values()] == [2, 2]


def test_run_on_the_cpu(capsys):
    gpu.main([*SMALL, "--lengths", "256,1K", "--densities", "1,0.5", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert not report["problems"]
    found = {(r["peer"], r["tokens"], r["case"]) for r in report["results"]}
    ours = {("prism-attn", n, case) for n in (256, 1024) for case in ("1", "0.5")}
    assert found == ours | {("PyTorch SDPA", n, "1") for n in (256, 1024)}
    for row in report["results"]:
        flop = 4 * 64 * 4 * row["tokens"] ** 2 / 2 * row["density"]
        assert row["tflops"] == pytest.approx(flop / row["seconds"] * 1e-12)
        assert row["seconds_min"] <= row["seconds"] <= row["seconds_max"]


def test_saved_tensors(tmp_path, capsys):
    """bfloat16 tensors [heads][tokens][d], and the plan that the library makes of them."""
    tensors = {x: torch.randn(h, 700, 64).to(torch.bfloat16) for x, h in (("q", 4), ("k", 2), ("v", 2))}
    header, data = {}, b""
    for name, x in tensors.items():
        raw = x.view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path = tmp_path / "qkv.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    saved = gpu.read_safetensors(path)
    assert all(torch.equal(saved[x], tensors[x]) for x in "qkv")
    gpu.main(["--device", "cpu", "--tensors", str(path), "--reps", "1"])
    out = capsys.readouterr().out
    assert "700/own" in out and "prism-attn" in out and "not timed" not in out


@pytest.mark.parametrize(
    "wrong", [["--lengths", "0"], ["--densities", "1.5"], ["--densities", "0"], ["--peers", "fa4"], ["--reps", "0"],
              ["--heads", "3"], ["--lengths", "x"]]
)  # fmt: skip
def test_misuse(wrong):
    with pytest.raises(SystemExit):
        gpu.parse([*SMALL, *wrong])
