"""The two functions most programs need: attention() and plan()."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from types import ModuleType
from typing import Any

from .config import make_config, parse_config
from .layout import LAYOUTS, PAGED_LAYOUTS, Where, default_layout
from .plans import Plan, attend_plan, build_plan, fill_plan
from .rope import Bands, Rope


def _backend(q: Any) -> ModuleType:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(q, torch.Tensor):
        from . import torch_ops

        return torch_ops
    from . import array_api

    return array_api


def _layouts(q: Any, layout: str | None, kv_layout: str | None, page_table: Any) -> tuple[str, str]:
    layout = layout or default_layout(len(q.shape))
    kv_layout = kv_layout or ("pnhd" if page_table is not None else layout)
    if layout not in LAYOUTS or kv_layout not in (PAGED_LAYOUTS if page_table is not None else LAYOUTS):
        raise ValueError(f"layouts {layout} and {kv_layout}: {LAYOUTS}, and {PAGED_LAYOUTS} with a page table")
    return layout, kv_layout


def _lengths(backend, q, k, layout, kv_layout, page_table, q_len, kv_len, q_start, cu_q, cu_kv):
    """The lengths array, or None where the shapes say everything (q_start then is a number)."""
    if cu_q is not None:
        cu_kv = cu_q if cu_kv is None else cu_kv
        n_q, n_kv = cu_q[1:] - cu_q[:-1], cu_kv[1:] - cu_kv[:-1]
        return _stack_lengths(backend, q, len(n_q), cu_q[:-1], n_q, cu_kv[:-1], n_kv, q_start)
    scalar_start = q_start is None or isinstance(q_start, int)
    if q_len is None and kv_len is None and scalar_start:
        if page_table is not None:
            raise ValueError("a page table needs kv_len: how many keys each sequence has")
        return None
    n_seq = q.shape[layout.index("b")] if "b" in layout else 1
    q_len = q.shape[layout.index("n")] if q_len is None else q_len
    kv_len = k.shape[kv_layout.index("n")] if kv_len is None else kv_len
    return _stack_lengths(backend, q, n_seq, 0, q_len, 0, kv_len, q_start)


def _stack_lengths(backend, q, n_seq, q_row, n_q, kv_row, n_kv, q_start):
    """The lengths array int32 [5, n_seq], of numbers, lists and arrays."""
    row = partial(backend.int32_row, q, n_seq)
    n_q, n_kv = row(n_q), row(n_kv)
    return backend.stack([row(q_row), n_q, row(kv_row), n_kv, n_kv - n_q if q_start is None else row(q_start)])


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    method: str | None = None,
    rope: Rope | float | None = None,
    bands: Bands | None = None,
    config: str | None = None,
    plan: Plan | None = None,
    layout: str | None = None,
    kv_layout: str | None = None,
    scale: float | None = None,
    q_start: Any = None,
    q_len: Any = None,
    kv_len: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_kv: Any = None,
    page_table: Any = None,
    max_q: int = 0,
    max_kv: int = 0,
    out: Any = None,
    return_lse: bool = False,
    layer: int = -1,
    stream: int | None = None,
    **options: Any,
) -> Any:
    """Causal attention of post-RoPE queries over the blocks of keys that `method` finds worth computing.

    q [b, n_head, n_q, d], k and v [b, n_kv_head, n_kv, d] (layout "bhnd"; also "bnhd", and without batch "nhd",
    "hnd"); float32, float16 or bfloat16; torch tensors, or anything with DLPack, on the CPU or a GPU. n_head is a
    multiple of n_kv_head. Strides are free. Returns the output, shaped and typed as q; with return_lse also the log of
    the softmax denominators, float32 [b, n_head, n_q].

    method: one of methods(); None: the library's default. rope: a Rope, or the base of a full half-split rotation;
    or bands: what a method with bands scores in. options: the library's by name (top_p=0.9, min_tokens=0, ...);
    options() lists them. config: all of these as make_config() returns them. plan: use this plan in place of a method.

    Positions: query i of a sequence stands at q_start + i and sees keys 0 ... q_start + i; by default queries are the
    last of the keys. q_len, kv_len, q_start: a number, or one for each sequence (int32), of which the first rows of
    each sequence's slot are then used; rows of out beyond q_len are zero. cu_seqlens_q, cu_seqlens_kv (int32
    [n_seq + 1]): ragged sequences behind each other, layout "nhd". page_table (int32 [n_seq, pages], with kv_len): k
    and v are pages [n_page, page_size, n_kv_head, d] ("pnhd") or "phnd". max_q, max_kv: bounds of the lengths, which
    save memory.

    scale: of the softmax, default 1 / sqrt(d). layer: what stats() files the call under. stream: CUDA stream (an
    integer) for arrays that are not torch's; torch's current stream is used for tensors.
    """
    backend = _backend(q)
    layout, kv_layout = _layouts(q, layout, kv_layout, page_table)
    lengths = _lengths(
        backend, q, k, layout, kv_layout, page_table, q_len, kv_len, q_start, cu_seqlens_q, cu_seqlens_kv
    )
    start = q_start if isinstance(q_start, int) and lengths is None else -1
    where = Where(layout, kv_layout, scale or 0.0, start, lengths, page_table, max_q, max_kv, stream)
    if plan is None and config is None:
        config = make_config(method, rope, bands, q.shape[-1], **options)
    if v is None:
        return backend.run(q, k, *[None] * 3, where, partial(build_plan, parse_config(config)))
    out = backend.empty_out(q, where) if out is None else out
    lse = backend.empty_lse(q, layout) if return_lse else None
    if plan is None:
        backend.attention(q, k, v, out, lse, config, where, layer)
    else:
        backend.run(q, k, v, out, lse, where, partial(attend_plan, plan))
    return (out, lse) if return_lse else out


def plan(q: Any, k: Any, **arguments: Any) -> Plan:
    """The plan that attention() would use: `.density`, `.mask()`, `.indptr`, `.indices`. Arguments as there."""
    return attention(q, k, None, **arguments)


_attention = inspect.signature(attention)
_no_output = [x for x in _attention.parameters.values() if x.name not in ("v", "plan", "out", "return_lse", "layer")]
plan.__signature__ = _attention.replace(parameters=_no_output, return_annotation="Plan")


def plan_from_mask(
    mask: Any,
    q: Any,
    k: Any,
    *,
    block_size: int = 128,
    layout: str | None = None,
    kv_layout: str | None = None,
    q_start: int = -1,
) -> Plan:
    """A plan of your own, for calls shaped like q and k: bool [n_seq, n_head, n_qblk, n_kblk].

    Blocks above the causal limit are refused; a row without any gets its own block.
    """
    config = parse_config(make_config("dense", block_size=block_size))
    where = Where(*_layouts(q, layout, kv_layout, None), q_start=q_start)
    host = mask.cpu() if hasattr(mask, "cpu") else mask
    return _backend(q).run(q, k, *[None] * 3, where, partial(fill_plan, config, host))
