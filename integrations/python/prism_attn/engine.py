"""Contexts, plans and workspaces, kept between calls.

An Engine is one C context with what its calls reuse: filled-in call structs per shape, at most `MAX_PLAN` plans, one
workspace. A context serves one thread at a time, so an engine is borrowed from a pool for the length of a call and
given back; the pool grows to the largest number of calls at once. An engine of a GPU belongs to one stream: the
stream's order keeps its calls apart.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import OrderedDict
from collections.abc import Callable
from ctypes import byref, c_size_t, c_void_p

from . import _abi
from ._abi import CPU, CUDA, check, lib
from .config import Config
from .layout import Prepared

MAX_PLAN = 3
MAX_PREPARED = 256


class _Owned:
    """An object of the library, destroyed with this one."""

    handle: c_void_p | None = None
    destroy: Callable

    def __del__(self) -> None:
        if self.handle:
            self.destroy(self.handle)


class Context(_Owned):
    """A prism_ctx."""

    destroy = lib.prism_destroy

    def __init__(self, device: int, ordinal: int, n_thread: int) -> None:
        config = _abi.Config()
        lib.prism_config_init(byref(config))
        config.device, config.ordinal, config.n_thread = device, ordinal, n_thread
        if config.struct_size > ctypes.sizeof(config):
            raise ImportError("libprismattn's prism_config is larger than this package knows")
        self.handle = c_void_p()
        if lib.prism_create(byref(config), byref(self.handle)):
            why = f"GPU {ordinal}: {_abi.gpu_problem(ordinal)}" if device == CUDA else f"no CPU with {n_thread} threads"
            raise _abi.PrismError("PRISM_ERROR_DEVICE", why)

    def info(self) -> _abi.Info:
        """prism_get_info(); its texts live as long as this object."""
        info = _abi.sized(_abi.Info)
        check(lib.prism_get_info(self.handle, byref(info)), self.handle)
        return info


class PlanHandle(_Owned):
    """A prism_plan with room for calls up to `dims`."""

    destroy = lib.prism_plan_destroy

    def __init__(self, context: Context, dims: tuple[int, int, int, int], block_size: int) -> None:
        call = _abi.Call()
        lib.prism_call_init(byref(call))
        call.n_seq, call.n_head, call.n_q, call.n_kv = dims
        call.n_kv_head = call.d_head = 1
        self.context, self.dims, self.block_size = context, dims, block_size
        self.handle = c_void_p()
        check(lib.prism_plan_create(context.handle, byref(call), block_size, 0.0, byref(self.handle)), context.handle)

    def holds(self, dims: tuple[int, int, int, int], block_size: int) -> bool:
        """Whether any plan of a call of these sizes fits."""
        mine = self.dims
        fits = dims[0] <= mine[0] and dims[2] <= mine[2] and dims[3] <= mine[3]
        return fits and dims[0] * dims[1] <= mine[0] * mine[1] and block_size == self.block_size


class HostMemory:
    """Pages from the system: aligned, used only where written, given back with this object."""

    def __init__(self, n_byte: int) -> None:
        self._map = mmap.mmap(-1, n_byte)
        self._view = (ctypes.c_char * n_byte).from_buffer(self._map)
        self.address, self.n_byte = ctypes.addressof(self._view), n_byte


class Engine:
    """One context and its caches; see the module's text. Not for two threads at once."""

    def __init__(self, device: int, ordinal: int, n_thread: int, stream: int, captured: bool) -> None:
        self.context = Context(device, ordinal, n_thread)
        self.on_gpu, self.captured = device == CUDA, captured
        if self.on_gpu:
            check(lib.prism_cuda_set_stream(self.context.handle, stream), self.context.handle)
        self.stats = _abi.sized(_abi.Stats)
        self._prepared: OrderedDict[tuple, Prepared] = OrderedDict()
        self._plans: list[PlanHandle] = []
        self._max_plan = 1 << 30 if captured else MAX_PLAN
        self._memory: HostMemory | None = None

    def prepared(self, key: tuple, make: Callable[[], Prepared]) -> Prepared:
        """The call struct of this shape, made at its first use."""
        found = self._prepared.get(key)
        if found is None:
            found = self._prepared[key] = make()
            if len(self._prepared) > MAX_PREPARED:
                self._prepared.popitem(last=False)
        return found

    def plan(self, dims: tuple[int, int, int, int], block_size: int) -> PlanHandle:
        """A kept plan with room for `dims` (n_seq, n_head, n_q, n_kv); the least recently used one gives way."""
        for i, plan in enumerate(self._plans):
            if plan.holds(dims, block_size):
                if i != len(self._plans) - 1:
                    self._plans.append(self._plans.pop(i))
                return plan
        n_seq, n_head, n_q, n_kv = dims
        n_q = _round_up(n_q)
        plan = PlanHandle(self.context, (n_seq, n_head, n_q, max(n_q, _round_up(n_kv))), block_size)
        self._plans.append(plan)
        del self._plans[: -self._max_plan]
        return plan

    def workspace_bytes(self, call: _abi.Call, config: Config) -> int:
        """Bytes that a call needs."""
        n_byte, handle = c_size_t(), self.context.handle
        check(lib.prism_workspace_bytes(handle, byref(config.options), byref(call), byref(n_byte)), handle)
        return n_byte.value

    def host_workspace(self, n_byte: int) -> int:
        """Address of at least n_byte bytes, kept; grows by half as much again."""
        if self._memory is None or self._memory.n_byte < n_byte:
            self._memory = None
            self._memory = HostMemory(n_byte + n_byte // 2)
        return self._memory.address


def _round_up(n: int) -> int:
    """To one of eight steps an octave, so that growing lengths (chunks, conversations) rarely need a new plan."""
    step = max(1024, 1 << max(0, n.bit_length() - 4))
    return (n + step - 1) // step * step


# ------------------------------------------------------------------------------------------------- the pools ----

PoolKey = tuple[int, int, int, int, bool]
_free: dict[PoolKey, list[Engine]] = {}


def borrow(key: PoolKey) -> Engine:
    """An engine that is not in use. key: (device, ordinal, n_thread, stream, captured).

    stream is 0 on the CPU. captured: the call is being recorded in a CUDA graph, which will use the plan again and
    again; such engines keep every plan until clear().
    """
    free = _free.get(key)
    if free is None:
        free = _free.setdefault(key, [])
    try:
        return free.pop()
    except IndexError:
        return Engine(*key)


def give_back(key: PoolKey, engine: Engine) -> None:
    """After the call, whether it succeeded or not."""
    _free.setdefault(key, []).append(engine)


def clear() -> None:
    """Frees every engine that is not in use, with its plans and workspace; CUDA graphs captured before are void."""
    _free.clear()


__all__ = ["CPU", "CUDA", "Context", "Engine", "PlanHandle", "borrow", "clear", "give_back"]
