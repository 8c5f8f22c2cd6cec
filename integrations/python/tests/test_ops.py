"""The operators in torch: their schema, fake implementations, torch.compile."""

from __future__ import annotations

import pytest
import torch
from conftest import random_qkv

import prism_attn
from prism_attn import torch_ops


def _sparse_config() -> str:
    return prism_attn.make_config("prism", rope=1e4, d_head=64, top_p=0.4, min_tokens=0)


def test_opcheck():
    q, k, v = random_qkv(n_q=500, n_kv=500)
    config, layouts = _sparse_config(), ("bhnd", "bhnd")
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    out, lse = torch.empty_like(q), torch.empty(1, 4, 500)
    op = torch.ops.prism_attn
    where = (-1, None, None, 0, 0)
    torch.library.opcheck(
        op.attention.default, (q, k, v, out, lse, config, *layouts, 0.0, *where, 3), test_utils=checks
    )
    torch.library.opcheck(op.plan_mask.default, (q, k, config, *layouts, 0.0, -1), test_utils=checks)
    mask = op.plan_mask(q, k, config, *layouts, 0.0, -1)
    torch.library.opcheck(op.attend.default, (q, k, v, out, None, mask, config, *layouts, 0.0, -1), test_utils=checks)


def test_compiled_is_eager():
    q, k, v = random_qkv(n_q=500, n_kv=500)
    config = _sparse_config()

    def f(q, k, v):
        out = prism_attn.attention(q * 2, k, v, config=config)
        return out + 1

    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(q, k, v), f(q, k, v))


@pytest.mark.parametrize("n_q", [500, 100])
def test_plan_mask_and_attend_are_attention(n_q):
    q, k, v = random_qkv(n_q=n_q, n_kv=500)
    config, layouts = _sparse_config(), ("bhnd", "bhnd")

    def f(q, k, v):
        mask = torch.ops.prism_attn.plan_mask(q, k, config, *layouts, 0.0, -1)
        out = torch.empty_like(q)
        torch.ops.prism_attn.attend(q, k, v, out, None, mask, config, *layouts, 0.0, -1)
        return out, mask

    out, mask = torch.compile(f, fullgraph=True, backend="aot_eager")(q, k, v)
    assert torch.equal(out, prism_attn.attention(q, k, v, config=config))
    assert torch.equal(mask, torch.from_numpy(prism_attn.plan(q, k, config=config).mask()))


def test_threads_follow_torch():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch_ops.pool_key(torch.empty(1))[2] == 1
    finally:
        torch.set_num_threads(before)


def test_counts_that_wait_are_finished_one_by_one(monkeypatch):
    """A GPU's oldest call only: finishing the newest would stop the host until the GPU is idle."""
    from prism_attn import counting

    monkeypatch.setattr(counting, "MAX_PENDING", 4)
    finished = []
    for i in range(6):
        counting.record_later(lambda i=i: finished.append(i))
    assert finished == [0, 1, 2]
    counting.stats()
    assert finished == [0, 1, 2, 3, 4, 5]
