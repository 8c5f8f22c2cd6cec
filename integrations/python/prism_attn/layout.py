"""From arrays in memory to the call struct of the C library.

Axes are named by letters: b sequence, n token, h head, d dimension, p page. "bhnd" is [batch, heads, tokens, dims];
"nhd" with lengths holds ragged sequences behind each other; keys and values "pnhd" are [pages, page_size, kv_heads,
dims] and need a page table.
"""

from __future__ import annotations

import math
from ctypes import byref
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import _abi
from ._abi import lib


class Array(NamedTuple):
    """Memory of a tensor: address, prism_dtype, sizes and strides in elements, (prism_device, ordinal)."""

    address: int
    dtype: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    device: tuple[int, int]


class Where(NamedTuple):
    """How the arrays of a call lie and what its rows see: all arguments of the operators but tensors and options.

    lengths: None, or the lengths array below. stream: of arrays that are not torch's.
    """

    layout: str
    kv_layout: str
    scale: float = 0.0
    q_start: int = -1
    lengths: Any = None
    page_table: Any = None
    max_q: int = 0
    max_kv: int = 0
    stream: int | None = None


@dataclass
class Prepared:
    """A call struct with everything but addresses and lengths. `tensors` are its q, k, v, o and lse, shared memory."""

    call: _abi.Call
    tensors: tuple[_abi.Tensor, ...]
    dims: tuple[int, int, int, int]  # n_seq, n_head, n_q, n_kv: upper bounds
    workspace_bytes: dict[str, int]  # by configuration


# Order of the rows of a lengths array, int32 [5][n_seq]: where a sequence's queries and keys start (tokens from the
# start of its slot, or of the ragged array), how many there are, and the position of its first query.
Q_ROW, N_Q, KV_ROW, N_KV, Q_START = range(5)
N_LENGTH = 5

LAYOUTS = ("bhnd", "bnhd", "nhd", "hnd")
PAGED_LAYOUTS = ("pnhd", "phnd")


def default_layout(n_axis: int) -> str:
    """What 4 and 3 axes mean where the caller does not say."""
    if n_axis not in (3, 4):
        raise ValueError(f"{n_axis} axes: attention takes 4 (bhnd, bnhd) or 3 (nhd, hnd)")
    return "bhnd" if n_axis == 4 else "nhd"


def tensor(x: Array, layout: str) -> _abi.Tensor:
    """The view of one array, without page table and row starts."""
    if len(layout) != len(x.shape):
        raise ValueError(f"layout {layout} for an array of {len(x.shape)} axes")
    stride = dict(zip(layout, x.strides, strict=True))
    size = dict(zip(layout, x.shape, strict=True))
    out = _abi.Tensor(
        dtype=x.dtype,
        stride_seq=stride.get("b", 0),
        stride_token=stride["n"],
        stride_head=stride["h"],
        stride_dim=stride.get("d", 1),
        n_element=1 + sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)),
    )
    if "p" in layout:
        out.stride_page, out.page_size, out.n_page = stride["p"], size["n"], size["p"]
    return out


def count_sequences(q_shape: tuple[int, ...], where: Where) -> int:
    """Sequences of a call."""
    if where.lengths is not None:
        return math.prod(where.lengths.shape) // N_LENGTH
    if where.page_table is not None:
        return where.page_table.shape[0]
    return q_shape[where.layout.index("b")] if "b" in where.layout else 1


def prepare(arrays: list[Array | None], where: Where, n_seq: int) -> Prepared:
    """The call of these shapes. arrays: q, k, v, o, lse, of which v, o and lse may be None.

    The checks here compare shapes with each other, which the library cannot see. All other checks are the library's.
    """
    q, k, v, o, lse = arrays
    layout, kv_layout = where.layout, where.kv_layout
    n_page_of_seq = 0 if where.page_table is None else where.page_table.shape[1]
    sizes, kv_sizes = dict(zip(layout, q.shape, strict=True)), dict(zip(kv_layout, k.shape, strict=True))
    if sizes["d"] != kv_sizes["d"]:
        raise ValueError(f"queries of {sizes['d']} dimensions, keys of {kv_sizes['d']}")
    if v is not None and v.shape != k.shape:
        raise ValueError(f"keys of shape {tuple(k.shape)}, values of {tuple(v.shape)}")
    if o is not None and o.shape != q.shape:
        raise ValueError(f"queries of shape {tuple(q.shape)}, output of {tuple(o.shape)}")
    if sizes.get("b", n_seq) != n_seq or kv_sizes.get("b", n_seq) != n_seq:
        raise ValueError(f"{sizes.get('b')} sequences of queries, {kv_sizes.get('b')} of keys, {n_seq} of lengths")
    call = _abi.Call()
    lib.prism_call_init(byref(call))
    call.n_seq, call.n_head, call.n_kv_head, call.d_head = n_seq, sizes["h"], kv_sizes["h"], sizes["d"]
    call.n_q = where.max_q or sizes["n"]
    call.n_kv = where.max_kv or kv_sizes["n"] * (n_page_of_seq or 1)
    call.q, call.k = tensor(q, layout), tensor(k, kv_layout)
    if v is not None:
        call.v = tensor(v, kv_layout)
    if o is not None:
        call.o = tensor(o, layout)
    if lse is not None:
        if lse.shape != tuple(sizes[axis] for axis in layout if axis != "d"):
            raise ValueError(f"lse of shape {tuple(lse.shape)} for queries of {tuple(q.shape)}")
        call.lse = tensor(lse, layout.replace("d", ""))
    for x in (call.k, call.v):
        x.stride_table = n_page_of_seq
    dims = (n_seq, call.n_head, call.n_q, max(call.n_kv, call.n_q))
    return Prepared(call, (call.q, call.k, call.v, call.o, call.lse), dims, {})


def row_step(x: _abi.Tensor, n_seq: int) -> int:
    """Tokens from one sequence's slot to the next, for row starts within a batch."""
    if n_seq == 1 or x.stride_seq == 0:
        return 0
    if x.stride_token == 0 or x.stride_seq % x.stride_token:
        raise ValueError("a padded batch needs strides of sequences that are multiples of those of tokens")
    return x.stride_seq // x.stride_token
