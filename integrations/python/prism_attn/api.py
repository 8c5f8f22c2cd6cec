"""The two functions most programs need: attention() and plan()."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from types import ModuleType
from typing import Any

from .config import has_bands, make_config, methods, parse_config
from .layout import LAYOUTS, PAGED_LAYOUTS, Where, default_layout
from .lengths import Side
from .lengths import lengths as make_lengths
from .plans import Plan, attend_plan, build_plan, fill_plan
from .rope import Bands, Rope


def _backend(**arrays: Any) -> ModuleType:
    """What serves these arrays, by their argument names: one module for torch, one for all others."""
    torch = sys.modules.get("torch")
    kinds = [torch is not None and isinstance(x, torch.Tensor) for x in arrays.values()]
    for (name, x), is_torch in zip(arrays.items(), kinds, strict=True):
        if not hasattr(x, "__dlpack__") or is_torch != kinds[0]:
            wanted = "a torch tensor, as q is" if kinds[0] else "a torch tensor or an array with DLPack (NumPy, CuPy)"
            raise TypeError(f"{name} is {type(x).__module__}.{type(x).__qualname__}: pass {wanted}")
    if kinds[0]:
        from . import torch_ops

        return torch_ops
    from . import array_api

    return array_api


def _layouts(q: Any, k: Any, layout: str | None, kv_layout: str | None, page_table: Any) -> tuple[str, str]:
    """The order of the axes, checked against them."""
    layout = layout or default_layout(len(q.shape))
    kv_layout = kv_layout or ("pnhd" if page_table is not None else layout)
    if page_table is not None and len(page_table.shape) != 2:
        raise ValueError(f"page_table of shape {tuple(page_table.shape)}: it is [sequences, pages of a sequence]")
    _check_layout("layout", layout, LAYOUTS, "q", q)
    _check_layout("kv_layout", kv_layout, PAGED_LAYOUTS if page_table is not None else LAYOUTS, "k", k)
    return layout, kv_layout


def _check_layout(argument: str, layout: str, known: tuple[str, ...], name: str, x: Any) -> None:
    if layout not in known:
        paged = " with a page table" if known is PAGED_LAYOUTS else ""
        raise ValueError(f"{argument}={layout!r}: one of {', '.join(known)}{paged}")
    if len(layout) != len(x.shape):
        raise ValueError(f"{name} has {len(x.shape)} axes, {argument} {layout!r} names {len(layout)}: pass {argument}")


def _make_config(method: str | None, rope: Any, bands: Bands | None, d_head: int, options: dict[str, Any]) -> str:
    config = make_config(method, rope, bands, d_head, **options)
    parsed = parse_config(config)
    if has_bands(parsed.method) and not parsed.options.bands:
        others = ", ".join(name for name in methods() if not has_bands(name))
        raise ValueError(
            f"method {parsed.method} needs rope: the base of the model's rotation (1e4, 1e6, ...) or a Rope; "
            f"or bands. Methods that need neither: {others}"
        )
    return config


def _check_alone(argument: str, **others: Any) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(f"{argument} says all of it: {', '.join(given)} beside it would be ignored; leave one out")


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
    [n_seq + 1]): ragged sequences behind each other, layout "nhd"; cu_seqlens_q alone serves both where the keys are
    ragged, too. page_table (int32 [n_seq, pages], with kv_len): k and v are pages [n_page, page_size, n_kv_head, d]
    ("pnhd") or "phnd". Queries and keys may lie in different ways: ragged queries with a page table and kv_len are one
    step of a serving engine. max_q, max_kv: bounds of the lengths, which save memory.

    scale: of the softmax, default 1 / sqrt(d). layer: what stats() files the call under. stream: CUDA stream (an
    integer) for arrays that are not torch's; torch's current stream is used for tensors.
    """
    backend = _backend(q=q, k=k, **({} if v is None else {"v": v}))
    layout, kv_layout = _layouts(q, k, layout, kv_layout, page_table)
    queries = Side("q", q.shape, layout, cu_seqlens_q, q_len)
    keys = Side("kv", k.shape, kv_layout, cu_seqlens_kv, kv_len, page_table)
    lengths = make_lengths(backend, q, queries, keys, q_start)
    start = q_start if isinstance(q_start, int) and lengths is None else -1
    where = Where(layout, kv_layout, scale or 0.0, start, lengths, page_table, max_q, max_kv, stream)
    if plan is None and config is None:
        config = _make_config(method, rope, bands, q.shape[-1], options)
    else:
        _check_alone("config" if plan is None else "plan", method=method, rope=rope, bands=bands, **options)
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
    where = Where(*_layouts(q, k, layout, kv_layout, None), q_start=q_start)
    host = mask.cpu() if hasattr(mask, "cpu") else mask
    return _backend(q=q, k=k).run(q, k, *[None] * 3, where, partial(fill_plan, config, host))
