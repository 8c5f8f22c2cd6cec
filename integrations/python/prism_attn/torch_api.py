"""attention() and plan() for torch tensors."""

from __future__ import annotations

import torch

from . import torch_ops
from .layout import Where
from .torch_ops import run

_op = torch.ops.prism_attn


def empty_out(q: torch.Tensor, where: Where) -> torch.Tensor:
    """An output for q; rows that no sequence has stay zero."""
    return torch.empty_like(q) if where.lengths is None else torch.zeros_like(q)


def attention(q, k, v, out, lse, config: str, where: Where, layer: int) -> None:
    """Through the operator; traceable."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise RuntimeError("prism_attn has no backward: call it under torch.no_grad()")
    _op.attention(q, k, v, out, lse, config, *where[: torch_ops.N_WHERE], layer)


def empty_lse(q: torch.Tensor, layout: str) -> torch.Tensor:
    """float32, the queries' shape without dimensions."""
    axis = layout.index("d")
    return torch.empty([n for i, n in enumerate(q.shape) if i != axis], dtype=torch.float32, device=q.device)


def make_lengths(
    q: torch.Tensor, q_row: object, n_q: object, kv_row: object, n_kv: object, q_start: object, n_seq: int
) -> torch.Tensor:
    """int32 [5, n_seq] on the device of q, from numbers, lists and tensors."""

    def row(x: object) -> torch.Tensor:
        x = torch.as_tensor(x, dtype=torch.int32, device=q.device)
        return x.expand(n_seq) if x.dim() == 0 else x

    n_q_row, n_kv_row = row(n_q), row(n_kv)
    start = n_kv_row - n_q_row if q_start is None else row(q_start)
    return torch.stack([row(q_row), n_q_row, row(kv_row), n_kv_row, start])


__all__ = ["attention", "empty_lse", "empty_out", "make_lengths", "run"]
