"""One call of the C library: addresses into the prepared struct, workspace, plan, status."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from typing import NamedTuple

from . import _abi
from ._abi import check, lib
from .config import Config
from .engine import Engine, PlanHandle
from .layout import Prepared

Workspace = Callable[[int], int]  # bytes -> address, aligned to 64


class Rows(NamedTuple):
    """Addresses of int32 [n_seq] arrays: lengths, and where each tensor's sequences start (0: by stride)."""

    n_q: int
    n_kv: int
    q_start: int
    q: int
    k: int
    v: int
    o: int
    lse: int


def bind(
    prepared: Prepared,
    q: int,
    k: int,
    v: int,
    o: int,
    lse: int,
    q_start: int,
    scale: float,
    rows: Rows | None,
    page_table: int,
) -> None:
    """Puts this call's addresses and scalars in."""
    call = prepared.call
    prepared.q.data, prepared.k.data, prepared.v.data, prepared.o.data = q, k, v, o
    prepared.lse.data = lse
    call.q_start, call.scale = q_start, scale
    if rows is not None:
        call.n_q_of, call.n_kv_of, call.q_start_of = rows.n_q, rows.n_kv, rows.q_start
        prepared.q.row_start, prepared.o.row_start, prepared.lse.row_start = rows.q, rows.o, rows.lse
        prepared.k.row_start, prepared.v.row_start = rows.k, rows.v
    if page_table:
        prepared.k.page_table = prepared.v.page_table = page_table


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
    address = workspace(n_byte)
    status = lib.prism_attention(
        handle, byref(config.options), byref(prepared.call), plan.handle, address, n_byte, stats
    )
    if status:
        check(status, handle)
    return plan


def build(engine: Engine, prepared: Prepared, config: Config, workspace: Workspace, plan: PlanHandle) -> None:
    """prism_plan_build()."""
    handle, n_byte = engine.context.handle, workspace_bytes(engine, prepared, config)
    check(
        lib.prism_plan_build(
            handle, byref(config.options), byref(prepared.call), plan.handle, workspace(n_byte), n_byte
        ),
        handle,
    )


def attend(engine: Engine, prepared: Prepared, config: Config, workspace: Workspace, plan: PlanHandle) -> None:
    """prism_attend() over a plan."""
    handle, n_byte = engine.context.handle, workspace_bytes(engine, prepared, config)
    check(lib.prism_attend(handle, byref(prepared.call), plan.handle, workspace(n_byte), n_byte), handle)


def read(plan: PlanHandle) -> _abi.PlanView:
    """prism_plan_read(); its pointers live until the plan is built again."""
    view = _abi.PlanView()
    view.struct_size = _abi.ctypes.sizeof(view)
    check(lib.prism_plan_read(plan.handle, byref(view)), plan.context.handle)
    return view
