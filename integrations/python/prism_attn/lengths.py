"""Where the sequences of a call lie and how long they are: from the arguments of attention() to its lengths array.

A sequence has a slot for its queries and one for its keys: a place on the batch axis, a stretch between two entries of
cu_seqlens, or a row of the page table. The two sides are independent: ragged queries may read padded or paged keys.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any, NamedTuple


class Side(NamedTuple):
    """What attention() was told about its queries, or about its keys. name: "q" or "kv", as in its arguments."""

    name: str
    shape: tuple[int, ...]
    layout: str
    cu_seqlens: Any
    length: Any
    page_table: Any = None

    def check(self) -> None:
        """Refuses arguments that contradict each other."""
        if self.cu_seqlens is not None and self.length is not None:
            raise ValueError(f"cu_seqlens_{self.name} and {self.name}_len both say how long sequences are: pass one")
        if self.cu_seqlens is not None and ("b" in self.layout or self.page_table is not None):
            where = "a page table" if self.page_table is not None else f"layout {self.layout}, which has a batch axis"
            raise ValueError(f"cu_seqlens_{self.name} is for ragged sequences (layout nhd or hnd), not for {where}")
        if self.page_table is not None and self.length is None:
            raise ValueError("a page table needs kv_len: how many keys each sequence has")

    def n_seq(self) -> int | None:
        """The number of slots; None where nothing divides the tokens, which then are one sequence's."""
        if self.page_table is not None:
            return self.page_table.shape[0]
        if self.cu_seqlens is not None:
            return len(self.cu_seqlens) - 1
        return self.shape[self.layout.index("b")] if "b" in self.layout else None

    def rows(self, backend: ModuleType, q: Any, n_seq: int) -> tuple[Any, Any]:
        """(first token of each sequence from the start of its slot or of the ragged array, number of tokens)."""
        if self.cu_seqlens is not None:
            ends = backend.int32s(q, self.cu_seqlens)
            return ends[:-1], ends[1:] - ends[:-1]
        length = self.shape[self.layout.index("n")] if self.length is None else self.length
        return _row(backend, q, n_seq, "first row", 0), _row(backend, q, n_seq, f"{self.name}_len", length)


def lengths(backend: ModuleType, q: Any, queries: Side, keys: Side, q_start: Any) -> Any:
    """The lengths array int32 [5, n_seq] (`layout.Q_ROW`); None where shapes and a number q_start say everything."""
    given = [x for side in (queries, keys) for x in (side.cu_seqlens, side.length, side.page_table)]
    if all(x is None for x in given) and (q_start is None or isinstance(q_start, int)):
        return None
    if keys.length is None and keys.n_seq() is None:  # the keys of the queries' own tokens
        keys = keys._replace(cu_seqlens=queries.cu_seqlens)
    queries.check()
    keys.check()
    n_seq = _count(queries, keys)
    row = partial(_row, backend, q, n_seq)
    (q_row, n_q), (kv_row, n_kv) = (side.rows(backend, q, n_seq) for side in (queries, keys))
    return backend.stack([q_row, n_q, kv_row, n_kv, n_kv - n_q if q_start is None else row("q_start", q_start)])


def _count(queries: Side, keys: Side) -> int:
    n_q, n_kv = queries.n_seq(), keys.n_seq()
    n_seq = max(n_q or 1, n_kv or 1)
    if (n_q or 1) != n_seq or (n_kv or 1) != n_seq:
        lacking = "q" if n_q is None else "kv" if n_kv is None else ""
        if lacking:
            other = ", or keys in pages with page_table" if lacking == "kv" else ""
            raise ValueError(f"{n_seq} sequences: pass cu_seqlens_{lacking}, which says where each starts{other}")
        raise ValueError(f"{n_q} sequences of queries, {n_kv} of keys")
    return n_seq


def _row(backend: ModuleType, q: Any, n_seq: int, name: str, x: Any) -> Any:
    """int32 [n_seq] from a number, a list or an array."""
    x = backend.int32s(q, x)
    if x.ndim and tuple(x.shape) != (n_seq,):
        raise ValueError(f"{name} of shape {tuple(x.shape)}: pass a number, or one for each of {n_seq} sequences")
    return backend.broadcast_to(x, (n_seq,))
