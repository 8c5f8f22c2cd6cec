"""One call of the C library: addresses into the prepared struct, workspace, plan, status."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from threading import Lock
from typing import Any

import numpy as np

from . import _abi, counting
from ._abi import check, lib
from .config import Config
from .engine import Engine, PlanHandle
from .layout import KV_ROW, N_KV, N_Q, Q_ROW, Q_START, Prepared, Where, row_step

Workspace = Callable[[int], int]  # bytes -> address, aligned to 64


def row_steps(prepared: Prepared) -> tuple[int, ...]:
    """row_step() of q, k, v, o and lse."""
    return tuple(row_step(x, prepared.dims[0]) for x in prepared.tensors)


def row_arrays(lengths: Any, slot: Any, steps: tuple[int, ...]) -> list:
    """The int32 [n_seq] arrays that bind() wants the addresses of.

    lengths: a lengths array [5, n_seq]. slot: 0, 1, ... n_seq - 1. steps: row_steps() of the call.
    """
    starts = zip((Q_ROW, KV_ROW, KV_ROW, Q_ROW, Q_ROW), steps, strict=True)
    return [*(lengths[i] for i in (N_Q, N_KV, Q_START)), *(lengths[row] + slot * step for row, step in starts)]


def bind(prepared: Prepared, addresses: list[int], where: Where, rows: list[int] | None, page_table: int) -> None:
    """Puts this call's addresses (of q, k, v, o, lse) and scalars in.

    rows: addresses of n_q, n_kv, q_start, and of where each of the five tensors' sequences start.
    """
    call, (q, k, v, o, lse) = prepared.call, prepared.tensors
    q.data, k.data, v.data, o.data, lse.data = addresses
    call.q_start, call.scale = where.q_start, where.scale
    if rows is not None:
        call.n_q_of, call.n_kv_of, call.q_start_of = rows[:3]
        q.row_start, k.row_start, v.row_start, o.row_start, lse.row_start = rows[3:]
    if page_table:
        k.page_table = v.page_table = page_table


def workspace_bytes(engine: Engine, prepared: Prepared, config: Config) -> int:
    """Bytes this call needs. Host lengths change them, so then they are asked for each time."""
    if prepared.call.n_q_of:
        return engine.workspace_bytes(prepared.call, config)
    n_byte = prepared.workspace_bytes.get(config.text)
    if n_byte is None:
        n_byte = prepared.workspace_bytes[config.text] = engine.workspace_bytes(prepared.call, config)
    return n_byte


def attention(engine: Engine, prepared: Prepared, config: Config, workspace: Workspace, want_stats: bool) -> PlanHandle:
    """prism_attention(). want_stats: into engine.stats, which on a GPU waits for the stream. Returns the plan."""
    handle, n_byte = engine.context.handle, workspace_bytes(engine, prepared, config)
    plan = engine.plan(prepared.dims, config.block_size)
    stats = byref(engine.stats) if want_stats else None
    options, call, address = byref(config.options), byref(prepared.call), workspace(n_byte)
    status = lib.prism_attention(handle, options, call, plan.handle, address, n_byte, stats)
    if status:
        check(status, handle)
    return plan


def counted_attention(
    engine: Engine, prepared: Prepared, config: Config, workspace: Workspace, layer: int, n_query: int
) -> None:
    """prism_attention(), and what it was into stats(). On a GPU this waits for the stream."""
    attention(engine, prepared, config, workspace, True)
    s = engine.stats
    path = counting.path_name(s.path, config.note)
    fields = ("n_selected", "n_causal", "select_seconds", "attend_seconds")
    counting.record(layer, path, queries=n_query, **{name: getattr(s, name) for name in fields})


def build(engine: Engine, prepared: Prepared, config: Config, workspace: Workspace, plan: PlanHandle) -> None:
    """prism_plan_build()."""
    handle, n_byte = engine.context.handle, workspace_bytes(engine, prepared, config)
    options, call = byref(config.options), byref(prepared.call)
    check(lib.prism_plan_build(handle, options, call, plan.handle, workspace(n_byte), n_byte), handle)


def fill(engine: Engine, prepared: Prepared, config: Config, mask: np.ndarray, plan: PlanHandle) -> None:
    """prism_plan_from_mask(): makes a mask, bool or uint8 [n_seq, n_head, n_qblk, n_kblk] on the host, the plan."""
    handle, host = engine.context.handle, np.ascontiguousarray(mask, np.uint8)
    call = byref(prepared.call)
    status = lib.prism_plan_from_mask(handle, call, config.block_size, host.ctypes.data, host.nbytes, plan.handle)
    check(status, handle)


def attend(engine: Engine, prepared: Prepared, config: Config, workspace: Workspace, plan: PlanHandle) -> None:
    """prism_attend() over a plan."""
    handle, n_byte = engine.context.handle, workspace_bytes(engine, prepared, config)
    check(lib.prism_attend(handle, byref(prepared.call), plan.handle, workspace(n_byte), n_byte), handle)


_fetching = Lock()


def read(plan: PlanHandle) -> _abi.PlanView:
    """prism_plan_read(), which on a GPU waits for the plan; its pointers live until the plan is built again."""
    view, context = _abi.sized(_abi.PlanView), plan.context.handle
    with _fetching:  # fetching writes into the plan
        check(lib.prism_plan_fetch(context, plan.handle), context)
    check(lib.prism_plan_read(plan.handle, byref(view)), context)
    return view


def mask(plan: PlanHandle, shape: tuple[int, int, int, int]) -> np.ndarray:
    """prism_plan_mask(), of a plan that was read."""
    out = np.empty(shape, np.uint8)
    check(lib.prism_plan_mask(plan.handle, out.ctypes.data, out.nbytes), plan.context.handle)
    return out.view(bool)
