"""attention() and plan() for torch tensors."""

from __future__ import annotations

import torch

from . import calls, torch_ops
from .config import parse_config
from .engine import PlanHandle, borrow, give_back
from .layout import N_LENGTH
from .plans import Plan
from .torch_ops import Workspace, array_of, device_rows, pool_key, prepared_call

_op = torch.ops.prism_attn


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: str,
    layout: str,
    kv_layout: str,
    scale: float,
    q_start: int,
    lengths: torch.Tensor | None,
    page_table: torch.Tensor | None,
    max_q: int,
    max_kv: int,
    out: torch.Tensor | None,
    lse: torch.Tensor | None,
    layer: int,
) -> torch.Tensor:
    """Through the operator; traceable."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise RuntimeError("prism_attn has no backward: call it under torch.no_grad()")
    if out is None:
        out = torch.zeros_like(q) if lengths is not None else torch.empty_like(q)
    _op.attention(
        q, k, v, out, lse, config, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv, layer
    )
    return out


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


def plan(q, k, config, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv) -> Plan:
    """A plan of its own memory."""
    options, key = parse_config(config), pool_key(q)
    engine = borrow(key)
    try:
        prepared = prepared_call(engine, q, k, None, None, None, layout, kv_layout, lengths, page_table, max_q, max_kv)
        handle = PlanHandle(engine.context, prepared.dims, options.block_size)
        _bind(prepared, q, k, None, None, None, q_start, scale, lengths, page_table, engine, options, handle, True)
        return Plan(handle, options)
    finally:
        give_back(key, engine)


def attend(q, k, v, plan, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv, out, lse):
    """Attention over a plan made before."""
    key = pool_key(q)
    if out is None:
        out = torch.zeros_like(q) if lengths is not None else torch.empty_like(q)
    engine = borrow(key)
    try:
        prepared = prepared_call(engine, q, k, v, out, lse, layout, kv_layout, lengths, page_table, max_q, max_kv)
        _bind(
            prepared, q, k, v, out, lse, q_start, scale, lengths, page_table, engine, plan.config, plan.handle, False
        )  # fmt: skip
        return out
    finally:
        give_back(key, engine)


def _bind(prepared, q, k, v, out, lse, q_start, scale, lengths, page_table, engine, options, handle, build) -> None:
    rows, _owner = (None, None) if lengths is None else device_rows(lengths, prepared, q.device)
    table = torch_ops.table_on(page_table, q.device)
    addresses = [0 if x is None else x.data_ptr() for x in (q, k, v, out, lse)]
    calls.bind(prepared, *addresses, q_start, scale, rows, table.data_ptr() if table is not None else 0)
    (calls.build if build else calls.attend)(engine, prepared, options, Workspace(engine, q.device), handle)


def plan_from_mask(mask, q, k, config, layout, kv_layout, q_start) -> Plan:
    """A plan of your own: bool or uint8 [n_seq, n_head, n_qblk, n_kblk]."""
    options, key = parse_config(config), pool_key(q)
    engine = borrow(key)
    try:
        prepared = prepared_call(engine, q, k, None, None, None, layout, kv_layout)
        prepared.call.q_start = q_start
        handle = PlanHandle(engine.context, prepared.dims, options.block_size)
        torch_ops.fill_from_mask(engine, prepared, options, handle, torch.as_tensor(mask))
        return Plan(handle, options)
    finally:
        give_back(key, engine)


__all__ = ["N_LENGTH", "array_of", "attend", "attention", "empty_lse", "make_lengths", "plan", "plan_from_mask"]
