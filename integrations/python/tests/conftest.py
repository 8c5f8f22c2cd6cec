"""What the tests share: random tensors, the truth in double precision, the C command."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

# Tests of a serving engine run where it is installed: `make test-vllm`.
collect_ignore = [] if find_spec("vllm") else ["engine"]
ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "models" / "prism-testbed-32m-q8_0.gguf"

# Rounding of the result's type, relative to its norm: half a unit in the last place of each element, twice for P.
ROUNDING = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}


def random_qkv(n_seq=1, n_head=4, n_kv_head=2, n_q=300, n_kv=300, d=64, dtype=torch.float32, seed=0):
    """q [b, h, n_q, d], k and v [b, h_kv, n_kv, d]."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((n_seq, n_head, n_q, d), (n_seq, n_kv_head, n_kv, d), (n_seq, n_kv_head, n_kv, d))
    return tuple(torch.randn(shape, generator=g).to(dtype) for shape in shapes)


def truth(q, k, v, mask=None):
    """Causal attention in double precision; queries are the last of the keys. mask: bool [b, 1 or h, n_q, n_kv]."""
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    n_q, n_kv = q.shape[2], k.shape[2]
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    seen = torch.ones(n_q, n_kv, dtype=torch.bool).tril(n_kv - n_q)
    logits = logits.masked_fill(~(seen if mask is None else seen & mask), -torch.inf)
    return logits.softmax(-1) @ v


def error(a, b) -> float:
    """Relative, by norm."""
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.fixture(scope="session")
def command() -> Path:
    """The `prism` command of a build; PRISM_COMMAND names another."""
    path = Path(os.environ.get("PRISM_COMMAND", ROOT / "build" / "prism"))
    assert path.exists(), f"{path}: run make first, or set PRISM_COMMAND"
    return path


@pytest.fixture(autouse=True)
def _fresh_counts():
    import prism_attn

    prism_attn.reset_stats()
