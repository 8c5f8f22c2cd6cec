"""attention() and plan() for arrays of other libraries (NumPy, CuPy, ...), through DLPack."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np

from . import calls, counting
from ._abi import CPU, CUDA, check, lib
from .calls import Rows
from .config import parse_config
from .dlpack import Borrowed
from .engine import Engine, PlanHandle, PoolKey, borrow, give_back
from .layout import KV_ROW, N_KV, N_LENGTH, N_Q, Q_ROW, Q_START, Array, Prepared, prepare, row_step
from .plans import Plan

_LEGACY_STREAM = 1  # CUDA's default stream, as DLPack numbers it


def namespace(q: object) -> ModuleType:
    """The library of an array, as the array API standard has it, or the package its type is from (CuPy before 14)."""
    if hasattr(q, "__array_namespace__"):
        return q.__array_namespace__()
    package = sys.modules[type(q).__module__.partition(".")[0]]
    if not all(hasattr(package, name) for name in ("empty", "empty_like", "asarray", "int32", "float32")):
        raise TypeError(f"{package.__name__} cannot make arrays the way NumPy does: pass torch tensors or NumPy arrays")
    return package


def empty_like(q: object) -> object:
    """An array of q's library."""
    return namespace(q).empty_like(q)


def empty_lse(q: object, layout: str) -> object:
    """float32, the queries' shape without dimensions."""
    xp, axis = namespace(q), layout.index("d")
    return xp.empty(tuple(n for i, n in enumerate(q.shape) if i != axis), dtype=xp.float32)


def make_lengths(
    q: object, q_row: object, n_q: object, kv_row: object, n_kv: object, q_start: object, n_seq: int
) -> np.ndarray:
    """int32 [5, n_seq] on the host, from numbers, lists and arrays."""

    def row(x: object) -> np.ndarray:
        return np.broadcast_to(np.asarray(x, np.int32), (n_seq,))

    start = row(n_kv) - row(n_q) if q_start is None else row(q_start)
    return np.ascontiguousarray(np.stack([row(q_row), row(n_q), row(kv_row), row(n_kv), start]))


class _Operands:
    """The arrays of one call, borrowed, and the engine that serves them."""

    def __init__(self, q, k, v, out, lse, page_table, stream: int | None) -> None:
        # A GPU's producers are made to finish before the stream that will read them.
        dl_stream = None if q.__dlpack_device__()[0] == 1 else stream or _LEGACY_STREAM
        self._borrowed = [None if x is None else Borrowed(x, dl_stream) for x in (q, k, v, out, lse)]
        self.arrays: list[Array | None] = [None if x is None else x.floats() for x in self._borrowed]
        device = self.arrays[0].device
        if any(x is not None and x.device != device for x in self.arrays):
            raise ValueError("the arrays lie on different devices")
        self._page_table = None if page_table is None else Borrowed(page_table, dl_stream)
        self.page_shape = self._page_table.shape if self._page_table else (0, 0)
        self.on_gpu = device[0] == CUDA
        self.key: PoolKey = (*device, 0, stream or 0, False) if self.on_gpu else (CPU, 0, 0, 0, False)
        self._source, self._keep = q, []

    def addresses(self) -> list[int]:
        return [0 if x is None else x.address for x in self.arrays]

    def page_table(self) -> int:
        return self._page_table.int32s() if self._page_table else 0

    def int32s(self, values: np.ndarray) -> int:
        """Address of a copy where the library reads it."""
        kept = namespace(self._source).asarray(values) if self.on_gpu else values
        self._keep.append(kept)
        return Borrowed(kept, _LEGACY_STREAM if self.on_gpu else None).int32s()

    def workspace(self, engine: Engine):
        """Callable for `calls`: the engine's memory, or an array of the caller's library on a GPU."""
        if not self.on_gpu:
            return engine.host_workspace

        def take(n_byte: int) -> int:
            xp = namespace(self._source)
            self._keep.append(xp.empty(n_byte // 4 + 1, dtype=xp.int32))
            return Borrowed(self._keep[-1], _LEGACY_STREAM).int32s()

        return take

    def prepared(self, layout, kv_layout, lengths, max_q, max_kv) -> Prepared:
        if lengths is not None:
            n_seq = lengths.size // N_LENGTH
        elif self._page_table:
            n_seq = self.page_shape[0]
        else:
            n_seq = self.arrays[0].shape[layout.index("b")] if "b" in layout else 1
        return prepare(*self.arrays, layout, kv_layout, n_seq, self.page_shape[1], max_q, max_kv)

    def rows(self, lengths: np.ndarray | None, prepared: Prepared) -> Rows | None:
        if lengths is None:
            return None
        slot = np.arange(prepared.dims[0], dtype=np.int32)
        tensors = (prepared.q, prepared.k, prepared.v, prepared.o, prepared.lse)
        first = (Q_ROW, KV_ROW, KV_ROW, Q_ROW, Q_ROW)
        starts = [lengths[row] + slot * row_step(x, prepared.dims[0]) for row, x in zip(first, tensors, strict=True)]
        rows = [lengths[N_Q], lengths[N_KV], lengths[Q_START], *starts]
        return Rows(*(self.int32s(np.ascontiguousarray(x, np.int32)) for x in rows))


def _run(operands: _Operands, layout, kv_layout, scale, q_start, lengths, max_q, max_kv, work):
    """Borrows an engine, fills in the call, and has `work(engine, prepared, workspace)` do the rest."""
    engine = borrow(operands.key)
    try:
        prepared = operands.prepared(layout, kv_layout, lengths, max_q, max_kv)
        rows = operands.rows(lengths, prepared)
        calls.bind(prepared, *operands.addresses(), q_start, scale, rows, operands.page_table())
        return work(engine, prepared, operands.workspace(engine))
    finally:
        give_back(operands.key, engine)


def attention(
    q, k, v, config, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv, out, lse, layer, stream
) -> object:
    """Exact attention over the planned blocks. On a GPU the statistics wait for the stream."""
    out = empty_like(q) if out is None else out
    operands = _Operands(q, k, v, out, lse, page_table, stream)
    options = parse_config(config)

    def work(engine: Engine, prepared: Prepared, workspace) -> None:
        calls.attention(engine, prepared, options, workspace, True)
        s = engine.stats
        n_query = prepared.dims[0] * prepared.dims[2]
        path = counting.path_name(s.path, options.note)
        counting.record(layer, path, n_query, s.n_selected, s.n_causal, s.select_seconds, s.attend_seconds)

    _run(operands, layout, kv_layout, scale, q_start, lengths, max_q, max_kv, work)
    return out


def plan(q, k, config, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv, stream) -> Plan:
    """A plan of its own memory."""
    operands, options = _Operands(q, k, None, None, None, page_table, stream), parse_config(config)

    def work(engine: Engine, prepared: Prepared, workspace) -> Plan:
        handle = PlanHandle(engine.context, prepared.dims, options.block_size)
        calls.build(engine, prepared, options, workspace, handle)
        return Plan(handle, options)

    return _run(operands, layout, kv_layout, scale, q_start, lengths, max_q, max_kv, work)


def attend(
    q, k, v, plan, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv, out, lse, stream
) -> object:
    """Attention over a plan made before."""
    out = empty_like(q) if out is None else out
    operands = _Operands(q, k, v, out, lse, page_table, stream)

    def work(engine: Engine, prepared: Prepared, workspace) -> None:
        calls.attend(engine, prepared, plan.config, workspace, plan.handle)

    _run(operands, layout, kv_layout, scale, q_start, lengths, max_q, max_kv, work)
    return out


def plan_from_mask(mask, q, k, config, layout, kv_layout, q_start) -> Plan:
    """A plan of your own: bool or uint8 [n_seq, n_head, n_qblk, n_kblk]."""
    operands, options = _Operands(q, k, None, None, None, None, None), parse_config(config)
    host = np.ascontiguousarray(mask, np.uint8)

    def work(engine: Engine, prepared: Prepared, workspace) -> Plan:
        handle, ctx = PlanHandle(engine.context, prepared.dims, options.block_size), engine.context.handle
        call = calls.byref(prepared.call)
        status = lib.prism_plan_from_mask(ctx, call, options.block_size, host.ctypes.data, host.nbytes, handle.handle)
        check(status, ctx)
        return Plan(handle, options)

    return _run(operands, layout, kv_layout, 0.0, q_start, None, 0, 0, work)
