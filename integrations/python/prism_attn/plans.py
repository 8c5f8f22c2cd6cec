"""The plan as Python sees it: compressed rows, density, mask."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from . import calls
from .config import Config
from .counting import PATHS
from .engine import Engine, PlanHandle
from .layout import Prepared


class Plan:
    """Which key blocks each query block reads: a row for each (sequence, head, query block).

    Made by plan() and plan_from_mask(); `attention(..., plan=plan)` uses it. Arrays are NumPy's, on the host; on
    a GPU reading them waits for the stream. Several threads may read a plan.
    """

    def __init__(self, handle: PlanHandle, config: Config) -> None:
        self.handle, self.config = handle, config

    @cached_property
    def _view(self):
        return calls.read(self.handle)

    def _row_ptr(self) -> np.ndarray:
        view = self._view
        return np.ctypeslib.as_array(view.row_ptr, (view.n_row + 1,))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n_seq, n_head, n_qblk, n_kblk): the shape of `mask()`; blocks of the longest sequence."""
        view = self._view
        return view.n_seq, view.n_head, view.n_qblk, view.n_kblk

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self._view.block_size

    @property
    def density(self) -> float:
        """Selected part of the blocks that full attention would read."""
        return self._view.density

    @property
    def path(self) -> str:
        """One of "sparse", "dense", "dense: short", "dense: plan overflow"."""
        return PATHS[self._view.path]

    @property
    def indptr(self) -> np.ndarray:
        """int64 [n_row + 1]: row r lists indices[indptr[r]] ... indices[indptr[r + 1] - 1]."""
        return self._row_ptr().copy()

    @property
    def indices(self) -> np.ndarray:
        """int32 [indptr[-1]]: key blocks, ascending in a row."""
        view, row_ptr = self._view, self._row_ptr()
        n = int(row_ptr[-1])
        if view.index:
            return np.ctypeslib.as_array(view.index, (n,)).copy() if n else np.empty(0, np.int32)
        start = np.repeat(row_ptr[:-1], np.diff(row_ptr))  # the full plan: 0, 1, 2, ... in every row
        return (np.arange(n, dtype=np.int64) - start).astype(np.int32)

    @property
    def keys(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Single keys beside the blocks, as (indptr, positions); None if no row lists any."""
        view = self._view
        if not view.key_ptr:
            return None
        ptr = np.ctypeslib.as_array(view.key_ptr, (view.n_row + 1,)).copy()
        n = int(ptr[-1])
        return ptr, np.ctypeslib.as_array(view.key_index, (n,)).copy() if n else np.empty(0, np.int32)

    def mask(self) -> np.ndarray:
        """bool [n_seq, n_head, n_qblk, n_kblk]: whole blocks; single keys do not show."""
        return calls.mask(self.handle, self.shape)

    def __repr__(self) -> str:
        return f"Plan{self.shape} of {self.block_size}, {self.path}, density {self.density:.3f}"


# What a backend's run() does with a call, once the arguments before `engine` are bound.


def build_plan(config: Config, engine: Engine, prepared: Prepared, workspace: calls.Workspace) -> Plan:
    """A plan of its own memory, built for a call."""
    handle = PlanHandle(engine.context, prepared.dims, config.block_size)
    calls.build(engine, prepared, config, workspace, handle)
    return Plan(handle, config)


def fill_plan(config: Config, mask: np.ndarray, engine: Engine, prepared: Prepared, _: calls.Workspace) -> Plan:
    """A plan of its own memory, filled from a mask."""
    handle = PlanHandle(engine.context, prepared.dims, config.block_size)
    calls.fill(engine, prepared, config, mask, handle)
    return Plan(handle, config)


def attend_plan(plan: Plan, engine: Engine, prepared: Prepared, workspace: calls.Workspace) -> None:
    """Attention over a plan made before."""
    calls.attend(engine, prepared, plan.config, workspace, plan.handle)
