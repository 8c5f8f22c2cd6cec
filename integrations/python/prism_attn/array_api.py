"""attention() and plan() for arrays of other libraries (NumPy, CuPy, ...), through DLPack."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np

from . import calls
from ._abi import CPU, CUDA
from .config import parse_config
from .dlpack import Borrowed
from .engine import Engine, PoolKey, borrow, give_back
from .layout import Array, Prepared, Where, count_sequences, prepare

_LEGACY_STREAM = 1  # CUDA's default stream, as DLPack numbers it


def namespace(q: object) -> ModuleType:
    """The library of an array, as the array API standard has it, or the package its type is from (CuPy before 14)."""
    if hasattr(q, "__array_namespace__"):
        return q.__array_namespace__()
    package = sys.modules[type(q).__module__.partition(".")[0]]
    if not all(hasattr(package, name) for name in ("empty", "empty_like", "asarray", "int32", "float32")):
        raise TypeError(f"{package.__name__} cannot make arrays the way NumPy does: pass torch tensors or NumPy arrays")
    return package


def empty_out(q: object, where: Where) -> object:
    """An output for q, of q's library."""
    return namespace(q).empty_like(q)


def empty_lse(q: object, layout: str) -> object:
    """float32, the queries' shape without dimensions."""
    xp, axis = namespace(q), layout.index("d")
    return xp.empty(tuple(n for i, n in enumerate(q.shape) if i != axis), dtype=xp.float32)


def int32s(_q: object, x: object) -> np.ndarray:
    """int32 on the host, from a number, a list or an array."""
    return np.asarray(x, np.int32)


broadcast_to = np.broadcast_to
stack = np.stack


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

    def rows(self, lengths: np.ndarray | None, prepared: Prepared) -> list[int] | None:
        if lengths is None:
            return None
        slot = np.arange(prepared.dims[0], dtype=np.int32)
        rows = calls.row_arrays(lengths, slot, calls.row_steps(prepared))
        return [self.int32s(np.ascontiguousarray(x, np.int32)) for x in rows]


def run(q, k, v, out, lse, where: Where, work: Callable) -> object:
    """Borrows an engine, fills in the call, and has work(engine, prepared, workspace) do the rest."""
    operands = _Operands(q, k, v, out, lse, where.page_table, where.stream)
    engine = borrow(operands.key)
    try:
        prepared = prepare(operands.arrays, where, count_sequences(q.shape, where))
        rows = operands.rows(where.lengths, prepared)
        calls.bind(prepared, operands.addresses(), where, rows, operands.page_table())
        return work(engine, prepared, operands.workspace(engine))
    finally:
        give_back(operands.key, engine)


def attention(q, k, v, out, lse, config: str, where: Where, layer: int) -> None:
    """Exact attention over the planned blocks, into out and lse. On a GPU the statistics wait for the stream."""
    options = parse_config(config)

    def work(engine: Engine, prepared: Prepared, workspace: calls.Workspace) -> None:
        n_query = prepared.dims[0] * prepared.dims[2]
        calls.counted_attention(engine, prepared, options, workspace, layer, n_query)

    run(q, k, v, out, lse, where, work)
