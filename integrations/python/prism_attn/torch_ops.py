"""torch tensors: the operators torch.ops.prism_attn.attention, .plan_mask and .attend, with fake implementations, and
what attention() and plan() need of tensors.

Plain C underneath, so one build serves every torch version. torch.compile and CUDA graphs see opaque operators that
write into `out`. Nothing here has a backward.

Arguments they share: q [b, h, n, d] in the order that `layout` names, k and v likewise in `kv_layout`; config from
`make_config`; scale 0 for 1 / sqrt(d); q_start the position of query 0, -1 for "the last queries"; lengths int32
[5, n_seq] (see `layout.Q_ROW`) on any device; page_table int32 [n_seq, pages]; max_q and max_kv bound the lengths
(0: what the tensors hold).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from .extras import missing

try:
    import torch
except ModuleNotFoundError as error:
    raise missing(error, "torch") from error

from . import calls, counting
from ._abi import BF16, CPU, CUDA, F16, F32, check, lib
from .config import Config, parse_config
from .engine import Engine, PoolKey, borrow, give_back
from .layout import N_LENGTH, Array, Prepared, Where, count_sequences, prepare

DTYPES = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}

_SHARED = "str config, str layout, str kv_layout"
_WHERE = "SymInt q_start, Tensor? lengths, Tensor? page_table, SymInt max_q, SymInt max_kv"
N_WHERE = 8  # the operators take the first 8 fields of Where
_library = torch.library.Library("prism_attn", "DEF")
_library.define(
    f"attention(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!)? lse, {_SHARED}, float scale, {_WHERE}, "
    "int layer) -> ()"
)
_library.define(f"plan_mask(Tensor q, Tensor k, {_SHARED}, float scale, SymInt q_start) -> Tensor")
_library.define(
    f"attend(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!)? lse, Tensor mask, {_SHARED}, float scale, "
    "SymInt q_start) -> ()"
)

gpu_timing = False  # CUDA events around every call: see `set_gpu_timing`


def set_gpu_timing(on: bool) -> None:
    """Times GPU calls too (two events a call)."""
    global gpu_timing
    gpu_timing = on


def array_of(x: torch.Tensor) -> Array:
    """Where a tensor lies."""
    if x.dtype not in DTYPES:
        raise TypeError(f"{x.dtype}: float32, float16 and bfloat16 are supported")
    device = (CUDA, x.device.index) if x.is_cuda else (CPU, 0)
    return Array(x.data_ptr(), DTYPES[x.dtype], tuple(x.shape), x.stride(), device)


def pool_key(x: torch.Tensor) -> PoolKey:
    """Key of the engines that serve this tensor."""
    if not x.is_cuda:
        return (CPU, 0, torch.get_num_threads(), 0, False)
    stream = torch.cuda.current_stream(x.device).cuda_stream
    return (CUDA, x.device.index, 0, stream, torch.cuda.is_current_stream_capturing())


class Workspace:
    """Memory for one call: the engine's own on the host, from torch's allocator (which knows streams) on a GPU."""

    def __init__(self, engine: Engine, device: torch.device) -> None:
        self._engine, self.device, self._memory = engine, device, None

    def __call__(self, n_byte: int) -> int:
        if not self._engine.on_gpu:
            return self._engine.host_workspace(n_byte)
        self._memory = torch.empty(n_byte, dtype=torch.uint8, device=self.device)
        return self._memory.data_ptr()


def _prepared_call(engine: Engine, tensors: tuple[torch.Tensor | None, ...], where: Where) -> Prepared:
    """The engine's call struct for tensors of these shapes."""
    q, k, v, out, lse = tensors
    table = where.page_table
    if table is not None and (table.dtype != torch.int32 or table.dim() != 2):
        raise TypeError("page_table is int32 [n_seq, pages]")
    if where.lengths is not None and (where.lengths.dtype != torch.int32 or where.lengths.numel() % N_LENGTH):
        raise TypeError("lengths is int32 [5, n_seq]")
    n_seq = count_sequences(q.shape, where)
    key = (
        where.layout, where.kv_layout, n_seq, 0 if table is None else table.shape[1], where.max_q, where.max_kv,
        where.lengths is None, q.dtype, q.shape, q.stride(), k.dtype, k.shape, k.stride(),
        None if v is None else (v.dtype, v.shape, v.stride()),
        None if out is None else (out.dtype, out.shape, out.stride()),
        None if lse is None else (lse.dtype, lse.stride()),
    )  # fmt: skip

    def make() -> Prepared:
        if lse is not None and lse.dtype != torch.float32:
            raise TypeError("lse is float32")
        return prepare([None if x is None else array_of(x) for x in tensors], where, n_seq)

    return engine.prepared(key, make)


def _device_rows(lengths: torch.Tensor, prepared: Prepared, device: torch.device) -> tuple[list, torch.Tensor]:
    """Length arrays where the library reads them, and the tensor that owns them.

    One forward pass hands the same lengths to every layer: a `_prism_rows` dict on the tensor, where its maker put one,
    keeps the result.
    """
    steps = calls.row_steps(prepared)
    kept = getattr(lengths, "_prism_rows", None)
    if kept is not None and (steps, device) in kept:
        return kept[steps, device]
    x = lengths.reshape(N_LENGTH, -1)
    slot = torch.arange(x.shape[1], dtype=torch.int32, device=x.device)
    table = torch.stack(calls.row_arrays(x, slot, steps)).to(device, torch.int32)
    result = [row.data_ptr() for row in table], table
    if kept is not None:
        kept[steps, device] = result
    return result


def run(q, k, v, out, lse, where: Where, work: Callable) -> object:
    """Borrows an engine, fills in the call, and has work(engine, prepared, workspace) do the rest."""
    key, tensors = pool_key(q), (q, k, v, out, lse)
    engine = borrow(key)
    try:
        prepared = _prepared_call(engine, tensors, where)
        rows, _owner = (None, None) if where.lengths is None else _device_rows(where.lengths, prepared, q.device)
        table = None if where.page_table is None else where.page_table.to(q.device).contiguous()
        addresses = [0 if x is None else x.data_ptr() for x in (*tensors, table)]
        calls.bind(prepared, addresses[:5], where, rows, addresses[5])
        return work(engine, prepared, Workspace(engine, q.device))
    finally:
        give_back(key, engine)


def _attention(q, k, v, out, lse, config, *where_and_layer) -> None:
    where, layer, options = Where(*where_and_layer[:N_WHERE]), where_and_layer[N_WHERE], parse_config(config)
    n_query = q.shape[where.layout.index("n")] * (q.shape[where.layout.index("b")] if "b" in where.layout else 1)

    def work(engine: Engine, prepared: Prepared, workspace: Workspace) -> None:
        call = _on_gpu if engine.on_gpu else calls.counted_attention
        call(engine, prepared, options, workspace, layer, n_query)

    run(q, k, v, out, lse, where, work)


def _on_gpu(
    engine: Engine, prepared: Prepared, options: Config, workspace: Workspace, layer: int, n_query: int
) -> None:
    """Starts the work. stats() reads its numbers later. Captured calls are not counted."""
    timed = gpu_timing and not engine.captured
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if timed else []
    for event in events[:1]:
        event.record()
    plan = calls.attention(engine, prepared, options, workspace, False)
    for event in events[1:]:
        event.record()
    if engine.captured:
        return
    device = workspace.device
    counts, address = _counts_of(device)
    check(lib.prism_cuda_plan_counts(engine.context.handle, plan.handle, address), engine.context.handle)
    counted = torch.cuda.current_stream(device).record_event()

    def finish() -> None:
        counted.synchronize()
        n_selected, n_causal, overflowed, _ = counts.tolist()
        seconds = events[0].elapsed_time(events[1]) / 1e3 if events else 0.0
        name = _gpu_path(n_selected, n_causal, overflowed, options)
        counting.record(layer, name, queries=n_query, n_selected=n_selected, n_causal=n_causal, attend_seconds=seconds)

    counting.record_later(finish)


_rings: dict[torch.device, tuple[list[torch.Tensor], itertools.count]] = {}


def _counts_of(device: torch.device) -> tuple[torch.Tensor, int]:
    """Four int64 that the GPU writes and the host reads, with their address.

    Pinned memory, which no pool of a CUDA graph owns; the next of a ring as long as the list of calls that wait.
    """
    if device not in _rings:
        memory = torch.zeros(counting.MAX_PENDING, 4, dtype=torch.int64, pin_memory=True)
        _rings[device] = list(memory.unbind()), itertools.count()
    ring, count = _rings[device]
    counts = ring[next(count) % counting.MAX_PENDING]
    return counts, counts.data_ptr()


def _gpu_path(n_selected: int, n_causal: int, overflowed: int, options: Config) -> str:
    if overflowed:
        return counting.PATHS[3]
    if n_selected < n_causal:
        return counting.path_name(0, options.note)
    if options.method == "dense":
        return counting.path_name(1, options.note)
    return "dense: short, or every block chosen"


def _plan_mask(q, k, config, layout, kv_layout, scale, q_start) -> torch.Tensor:
    options = parse_config(config)

    def work(engine: Engine, prepared: Prepared, workspace: Workspace) -> torch.Tensor:
        plan = engine.plan(prepared.dims, options.block_size)
        calls.build(engine, prepared, options, workspace, plan)
        calls.read(plan)
        mask = calls.mask(plan, _mask_shape(q, k, config, layout, kv_layout, q_start))
        return torch.from_numpy(mask).to(q.device)

    return run(q, k, None, None, None, Where(layout, kv_layout, scale, q_start), work)


def _mask_shape(q, k, config, layout, kv_layout, q_start) -> tuple:
    n_q, n_kv = q.shape[layout.index("n")], k.shape[kv_layout.index("n")]
    block, start = parse_config(config).block_size, q_start if q_start >= 0 else n_kv - n_q
    n_kblk = (start + n_q + block - 1) // block
    n_seq = count_sequences(q.shape, Where(layout, kv_layout))
    return n_seq, q.shape[layout.index("h")], n_kblk - start // block, n_kblk


def _attend(q, k, v, out, lse, mask, config, *where) -> None:
    options = parse_config(config)

    def work(engine: Engine, prepared: Prepared, workspace: Workspace) -> None:
        plan = engine.plan(prepared.dims, options.block_size)
        calls.fill(engine, prepared, options, mask.cpu().numpy(), plan)
        calls.attend(engine, prepared, options, workspace, plan)

    run(q, k, v, out, lse, Where(*where), work)


def _fake_plan_mask(q, k, config, layout, kv_layout, scale, q_start) -> torch.Tensor:
    return q.new_empty(_mask_shape(q, k, config, layout, kv_layout, q_start), dtype=torch.bool)


for _key in ("CPU", "CUDA"):
    _library.impl("attention", _attention, _key)
    _library.impl("plan_mask", _plan_mask, _key)
    _library.impl("attend", _attend, _key)
torch.library.register_fake("prism_attn::attention", lambda *_: None, lib=_library)
torch.library.register_fake("prism_attn::plan_mask", _fake_plan_mask, lib=_library)
torch.library.register_fake("prism_attn::attend", lambda *_: None, lib=_library)


# ------------------------------------------------------------------------- what attention() and plan() ask for ----


def empty_out(q: torch.Tensor, where: Where) -> torch.Tensor:
    """An output for q; rows that no sequence has stay zero."""
    return torch.empty_like(q) if where.lengths is None else torch.zeros_like(q)


def attention(q, k, v, out, lse, config: str, where: Where, layer: int) -> None:
    """Through the operator; traceable."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise RuntimeError("prism_attn has no backward: call it under torch.no_grad()")
    torch.ops.prism_attn.attention(q, k, v, out, lse, config, *where[:N_WHERE], layer)


def empty_lse(q: torch.Tensor, layout: str) -> torch.Tensor:
    """float32, the queries' shape without dimensions."""
    axis = layout.index("d")
    return torch.empty([n for i, n in enumerate(q.shape) if i != axis], dtype=torch.float32, device=q.device)


def int32s(q: torch.Tensor, x: object) -> torch.Tensor:
    """int32 on the device of q, from a number, a list or a tensor."""
    if isinstance(x, int):  # filled on the device: nothing is copied, so a CUDA graph can hold it
        return torch.full((), x, dtype=torch.int32, device=q.device)
    return torch.as_tensor(x, dtype=torch.int32, device=q.device)


broadcast_to = torch.broadcast_to
stack = torch.stack
