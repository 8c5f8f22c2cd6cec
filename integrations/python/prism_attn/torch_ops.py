"""The operators: torch.ops.prism_attn.attention, .plan_mask, .attend, with fake implementations.

Plain C underneath, so one build serves every torch version. torch.compile and CUDA graphs see opaque operators that
write into `out`. Nothing here has a backward.

Arguments they share: q [b, h, n, d] in the order that `layout` names, k and v likewise in `kv_layout`; config from
`make_config`; scale 0 for 1 / sqrt(d); q_start the position of query 0, -1 for "the last queries"; lengths int32
[5, n_seq] (see `layout.Q_ROW`) on any device; page_table int32 [n_seq, pages]; max_q and max_kv bound the lengths
(0: what the tensors hold).
"""

from __future__ import annotations

import itertools
from ctypes import byref

import torch

from . import calls, counting
from ._abi import BF16, CPU, CUDA, F16, F32, check, lib
from .calls import Rows
from .config import Config, parse_config
from .engine import Engine, PlanHandle, PoolKey, borrow, give_back
from .layout import KV_ROW, N_KV, N_LENGTH, N_Q, Q_ROW, Q_START, Array, Prepared, prepare, row_step

DTYPES = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}

_SHARED = "str config, str layout, str kv_layout"
_WHERE = "SymInt q_start, Tensor? lengths, Tensor? page_table, SymInt max_q, SymInt max_kv"
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
    """Whose engine serves this tensor."""
    if not x.is_cuda:
        return (CPU, 0, torch.get_num_threads(), 0, False)
    stream = torch.cuda.current_stream(x.device).cuda_stream
    return (CUDA, x.device.index, 0, stream, torch.cuda.is_current_stream_capturing())


class Workspace:
    """Memory for one call: the engine's own on the host, from torch's allocator (which knows streams) on a GPU."""

    def __init__(self, engine: Engine, device: torch.device) -> None:
        self._engine, self._device, self._memory = engine, device, None

    def __call__(self, n_byte: int) -> int:
        if not self._engine.on_gpu:
            return self._engine.host_workspace(n_byte)
        self._memory = torch.empty(n_byte, dtype=torch.uint8, device=self._device)
        return self._memory.data_ptr()


def prepared_call(
    engine: Engine,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    out: torch.Tensor | None,
    lse: torch.Tensor | None,
    layout: str,
    kv_layout: str,
    lengths: torch.Tensor | None = None,
    page_table: torch.Tensor | None = None,
    max_q: int = 0,
    max_kv: int = 0,
) -> Prepared:
    """The engine's call struct for tensors of these shapes."""
    n_seq = _n_seq(q, layout, lengths, page_table)
    n_page = page_table.shape[1] if page_table is not None else 0
    key = (
        layout, kv_layout, n_seq, n_page, max_q, max_kv, lengths is None,
        q.dtype, q.shape, q.stride(), k.dtype, k.shape, k.stride(),
        None if v is None else (v.dtype, v.shape, v.stride()),
        None if out is None else (out.dtype, out.shape, out.stride()),
        None if lse is None else (lse.dtype, lse.stride()),
    )  # fmt: skip

    def make() -> Prepared:
        arrays = [None if x is None else array_of(x) for x in (q, k, v, out, lse)]
        if lse is not None and lse.dtype != torch.float32:
            raise TypeError("lse is float32")
        return prepare(*arrays, layout, kv_layout, n_seq, n_page, max_q, max_kv)

    return engine.prepared(key, make)


def _n_seq(q: torch.Tensor, layout: str, lengths: torch.Tensor | None, page_table: torch.Tensor | None) -> int:
    if page_table is not None and (page_table.dtype != torch.int32 or page_table.dim() != 2):
        raise TypeError("page_table is int32 [n_seq, pages]")
    if lengths is not None:
        if lengths.dtype != torch.int32 or lengths.numel() % N_LENGTH:
            raise TypeError("lengths is int32 [5, n_seq]")
        return lengths.numel() // N_LENGTH
    if page_table is not None:
        return page_table.shape[0]
    return q.shape[layout.index("b")] if "b" in layout else 1


def device_rows(lengths: torch.Tensor, prepared: Prepared, device: torch.device) -> tuple[Rows, torch.Tensor]:
    """Length arrays where the library reads them, and the tensor that owns them.

    One forward pass hands the same lengths to every layer: a `_prism_rows` dict on the tensor, where its maker put one,
    keeps the result.
    """
    steps = tuple(row_step(x, prepared.dims[0]) for x in (prepared.q, prepared.k, prepared.v, prepared.o, prepared.lse))
    kept = getattr(lengths, "_prism_rows", None)
    if kept is not None and (steps, device) in kept:
        return kept[steps, device]
    x = lengths.reshape(N_LENGTH, -1)
    slot = torch.arange(x.shape[1], dtype=torch.int32, device=x.device)
    first = (x[Q_ROW], x[KV_ROW], x[KV_ROW], x[Q_ROW], x[Q_ROW])
    starts = [row + slot * step for row, step in zip(first, steps, strict=True)]
    table = torch.stack([x[N_Q], x[N_KV], x[Q_START], *starts]).to(device, torch.int32)
    step = table.shape[1] * 4
    result = Rows(*(table.data_ptr() + i * step for i in range(8))), table
    if kept is not None:
        kept[steps, device] = result
    return result


def _attention(
    q, k, v, out, lse, config, layout, kv_layout, scale, q_start, lengths, page_table, max_q, max_kv, layer
) -> None:
    options = parse_config(config)
    key = pool_key(q)
    engine = borrow(key)
    try:
        prepared = prepared_call(engine, q, k, v, out, lse, layout, kv_layout, lengths, page_table, max_q, max_kv)
        rows, owner = (None, None) if lengths is None else device_rows(lengths, prepared, q.device)
        table = table_on(page_table, q.device)
        addresses = [0 if x is None else x.data_ptr() for x in (q, k, v, out, lse, table)]
        calls.bind(prepared, *addresses[:5], q_start, scale, rows, addresses[5])
        workspace = Workspace(engine, q.device)
        n_query = q.shape[layout.index("n")] * (q.shape[layout.index("b")] if "b" in layout else 1)
        if engine.on_gpu:
            _on_gpu(engine, prepared, options, workspace, key, q.device, layer, n_query)
        else:
            calls.attention(engine, prepared, options, workspace, True)
            s = engine.stats
            path = counting.path_name(s.path, options.note)
            counting.record(layer, path, n_query, s.n_selected, s.n_causal, s.select_seconds, s.attend_seconds)
        del owner
    finally:
        give_back(key, engine)


def table_on(page_table: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
    return None if page_table is None else page_table.to(device).contiguous()


def _on_gpu(
    engine: Engine,
    prepared: Prepared,
    options: Config,
    workspace: Workspace,
    key: PoolKey,
    device: torch.device,
    layer: int,
    n_query: int,
) -> None:
    """Starts the work; its numbers are read when somebody asks for them. Captured calls are counted by nobody."""
    captured = key[4]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if gpu_timing and not captured else []
    for event in events[:1]:
        event.record()
    plan = calls.attention(engine, prepared, options, workspace, False)
    for event in events[1:]:
        event.record()
    if captured:
        return
    counts, address = _counts_of(device)
    check(lib.prism_cuda_plan_counts(engine.context.handle, plan.handle, address), engine.context.handle)

    def finish() -> None:
        torch.cuda.synchronize(device)
        n_selected, n_causal, overflowed, _ = counts.tolist()
        seconds = events[0].elapsed_time(events[1]) / 1e3 if events else 0.0
        name = _gpu_path(n_selected, n_causal, overflowed, options)
        counting.record(layer, name, n_query, n_selected, n_causal, 0.0, seconds)

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
    key = pool_key(q)
    engine = borrow(key)
    try:
        prepared = prepared_call(engine, q, k, None, None, None, layout, kv_layout)
        calls.bind(prepared, q.data_ptr(), k.data_ptr(), 0, 0, 0, q_start, scale, None, 0)
        plan = engine.plan(prepared.dims, options.block_size)
        calls.build(engine, prepared, options, Workspace(engine, q.device), plan)
        mask = torch.empty(_mask_shape(q, k, config, layout, kv_layout, q_start), dtype=torch.uint8)
        check(lib.prism_plan_mask(plan.handle, mask.data_ptr(), mask.numel()), engine.context.handle)
        return mask.to(q.device).view(torch.bool)
    finally:
        give_back(key, engine)


def _mask_shape(q, k, config, layout, kv_layout, q_start) -> tuple:
    n_q, n_kv = q.shape[layout.index("n")], k.shape[kv_layout.index("n")]
    block, start = parse_config(config).block_size, q_start if q_start >= 0 else n_kv - n_q
    n_kblk = (start + n_q + block - 1) // block
    return _n_seq(q, layout, None, None), q.shape[layout.index("h")], n_kblk - start // block, n_kblk


def _attend(q, k, v, out, lse, mask, config, layout, kv_layout, scale, q_start) -> None:
    options = parse_config(config)
    key = pool_key(q)
    engine = borrow(key)
    try:
        prepared = prepared_call(engine, q, k, v, out, lse, layout, kv_layout)
        address = lse.data_ptr() if lse is not None else 0
        calls.bind(prepared, q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), address, q_start, scale, None, 0)
        plan = engine.plan(prepared.dims, options.block_size)
        fill_from_mask(engine, prepared, options, plan, mask)
        calls.attend(engine, prepared, options, Workspace(engine, q.device), plan)
    finally:
        give_back(key, engine)


def fill_from_mask(engine: Engine, prepared: Prepared, options: Config, plan: PlanHandle, mask: torch.Tensor) -> None:
    """Makes a mask, bool [n_seq, n_head, n_qblk, n_kblk], the plan of this call."""
    host = mask.to("cpu", torch.uint8).contiguous()
    handle = engine.context.handle
    check(
        lib.prism_plan_from_mask(
            handle, byref(prepared.call), options.block_size, host.data_ptr(), host.numel(), plan.handle
        ),
        handle,
    )


def _fake_plan_mask(q, k, config, layout, kv_layout, scale, q_start) -> torch.Tensor:
    return q.new_empty(_mask_shape(q, k, config, layout, kv_layout, q_start), dtype=torch.bool)


for _key in ("CPU", "CUDA"):
    _library.impl("attention", _attention, _key)
    _library.impl("plan_mask", _plan_mask, _key)
    _library.impl("attend", _attend, _key)
torch.library.register_fake("prism_attn::attention", lambda *_: None, lib=_library)
torch.library.register_fake("prism_attn::plan_mask", _fake_plan_mask, lib=_library)
torch.library.register_fake("prism_attn::attend", lambda *_: None, lib=_library)
