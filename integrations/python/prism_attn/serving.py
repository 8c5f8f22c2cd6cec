"""What serving engines share: one ragged paged call, what of a batch may be sparse, settings, statistics.

An engine hands over a batch of requests: queries of all requests behind each other (cu_seqlens_q), the keys each
request has by now (kv_len), a page table, and K and V as strided pages. Long prefills go to the library in one call;
consecutive other requests go to the engine's own kernel. prism_attn.stats() counts both, with the reason.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from multiprocessing.util import Finalize
from typing import NamedTuple

import torch

from . import counting, torch_ops
from ._abi import MAX_D_HEAD
from .config import has_bands, parse_config
from .engine import borrow, give_back
from .rope import NoRotation, Rope
from .settings import Settings

MIN_QUERIES = 64  # fewer queries of a request: reading its keys once costs more than choosing saves
OFF = "off"  # PRISM_METHOD=off: the engine stays as it is


# ---------------------------------------------------------------------------------------------- settings ----


def is_off() -> bool:
    """Whether the environment switches the plug-in off."""
    return os.environ.get("PRISM_METHOD") == OFF


def read_settings(arguments: Mapping[str, object] | None = None) -> Settings:
    """From the engine's arguments ({"method": "prism", "top_p": 0.9}), else from PRISM_METHOD and PRISM_OPTIONS
    ("top_p=0.9,min_tokens=4096"). ValueError for what the library does not know."""
    if arguments is None:
        text = os.environ.get("PRISM_OPTIONS", "")
        arguments = dict(_pair(item) for item in text.split(",") if item)
        arguments = {"method": os.environ.get("PRISM_METHOD") or None} | arguments
    return Settings.of(**arguments)


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise ValueError(f"PRISM_OPTIONS: {item!r} is not name=value; write for example top_p=0.9,min_tokens=4096")
    return name, value


def min_tokens_of(settings: Settings, device: torch.device) -> int:
    """Requests with fewer keys are dense: the option, or the library's own number for this device."""
    wanted = parse_config(settings.config(None)).options.min_tokens
    if wanted >= 0:
        return wanted
    key = torch_ops.pool_key(torch.empty(0, device=device))
    engine = borrow(key)
    try:
        return engine.context.info().min_tokens
    finally:
        give_back(key, engine)


# ---------------------------------------------------------------------------------------------- rotation ----


def rope_of(rotary: object, d_head: int) -> Rope:
    """The rotation of an engine's rotary module, from its own table of cosines and sines: the angles at position 1.

    rotary has rotary_dim, is_neox_style (pairs j, j + n) and cos_sin_cache [position, cosines then sines], as vLLM's
    and SGLang's have, after any scaling. A factor on both (YaRN) does not change an angle.
    """
    if rotary is None:
        raise NoRotation("no rotary positions")
    table, n = getattr(rotary, "cos_sin_cache", None), getattr(rotary, "rotary_dim", 0) // 2
    if table is None or table.dim() != 2 or table.shape[1] != 2 * n or not hasattr(rotary, "is_neox_style"):
        raise NoRotation(f"{type(rotary).__name__} has no table of cosines and sines")
    cos, sin = table[1].double().cpu().chunk(2)
    angles = torch.atan2(sin, cos).tolist()
    pairs = [(j, j + n) if rotary.is_neox_style else (2 * j, 2 * j + 1) for j in range(n)]
    turning = [(pair, angle) for pair, angle in zip(pairs, angles, strict=True) if angle > 0]
    if not turning:
        raise NoRotation("no dimension turns")
    return Rope(d_head, *map(tuple, zip(*turning, strict=True)))


def layer_config(settings: Settings, find_rotary: Callable[[], object], d_head: int) -> tuple[str, str]:
    """(configuration, ""), or ("", why this layer cannot be sparse)."""
    if d_head > MAX_D_HEAD:
        return "", f"head of {d_head} dimensions"
    if not has_bands(settings.method):
        return settings.config(None), ""
    try:
        return settings.config(rope_of(find_rotary(), d_head)), ""
    except NoRotation as why:
        return "", str(why)


# ------------------------------------------------------------------------------------------------- batch ----


class Run(NamedTuple):
    """Consecutive requests that go the same way: requests first ... last - 1, their tokens, and how."""

    first: int
    last: int
    token_first: int
    token_last: int
    why: str  # why the engine's own kernel computes them; "" for the library

    @property
    def tokens(self) -> slice:
        return slice(self.token_first, self.token_last)

    @property
    def requests(self) -> slice:
        return slice(self.first, self.last)


def _why_dense(n_q: int, n_kv: int, min_tokens: int) -> str:
    if n_q < MIN_QUERIES:
        return "one query" if n_q == 1 else f"fewer than {MIN_QUERIES} queries"
    return "short" if n_kv < min_tokens else ""


def split(starts: Sequence[int], n_kv: Sequence[int], min_tokens: int) -> list[Run]:
    """The runs of a batch, in its order. starts: of the requests' queries, and the end; n_kv: each request's keys."""
    n_q = [b - a for a, b in pairwise(starts)]
    why = [_why_dense(*lengths, min_tokens) for lengths in zip(n_q, n_kv, strict=True)]
    runs = []
    for reason, group in groupby(range(len(why)), lambda i: why[i]):
        rows = list(group)
        first, last = rows[0], rows[-1] + 1
        runs.append(Run(first, last, starts[first], starts[last], reason))
    return runs


def joined(runs: Sequence[Run]) -> list[Run]:
    """The engine's own runs, neighbours made one."""
    out: list[Run] = []
    for run in runs:
        if run.why and out and out[-1].last == run.first:
            out[-1] = out[-1]._replace(last=run.last, token_last=run.token_last)
        elif run.why:
            out.append(run)
    return out


class Prefill(NamedTuple):
    """The library's requests of one batch: what its call needs beside the tensors, the same in every layer.

    tokens: from the first such request's queries to the last one's; lengths count from there.
    """

    tokens: slice
    lengths: torch.Tensor
    page_table: torch.Tensor
    max_q: int
    max_kv: int

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        starts: Sequence[int],
        n_kv: Sequence[int],
        cu_seqlens_q: torch.Tensor,
        kv_len: torch.Tensor,
        page_table: torch.Tensor,
    ) -> Prefill | None:
        """None if no run is the library's. The last three lie on the device and are not read by the host."""
        runs = [run for run in runs if not run.why]
        if not runs:
            return None
        rows = [row for run in runs for row in range(run.first, run.last)]

        def pick(x: torch.Tensor) -> torch.Tensor:
            parts = [x[run.requests] for run in runs]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        tokens = slice(runs[0].token_first, runs[-1].token_last)
        first, last, keys = pick(cu_seqlens_q), pick(cu_seqlens_q[1:]), pick(kv_len)
        n_q = last - first
        lengths = torch.stack([first - tokens.start, n_q, torch.zeros_like(n_q), keys, keys - n_q]).to(torch.int32)
        lengths._prism_rows = {}  # every layer uses the same
        longest = [max(values) for values in ([starts[i + 1] - starts[i] for i in rows], [n_kv[i] for i in rows])]
        return cls(tokens, lengths, pick(page_table), *longest)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    prefill: Prefill,
    config: str,
    kv_layout: str,
    scale: float,
    layer: int,
) -> None:
    """Attention of the library's requests: q, out [token, head, d] of the whole batch, k and v pages ("pnhd" or
    "phnd") of any strides. Other requests' rows of out are left alone."""
    where = (scale, -1, prefill.lengths, prefill.page_table, prefill.max_q, prefill.max_kv)
    q, out = q[prefill.tokens], out[prefill.tokens]
    torch.ops.prism_attn.attention(q, k, v, out, None, config, "nhd", kv_layout, *where, layer)


# -------------------------------------------------------------------------------------------- statistics ----


def count_runs(runs: Sequence[Run]) -> None:
    """Counts the requests that the engine's own kernel computes, once for all layers."""
    for run in runs:
        if run.why:
            counting.record(-1, f"dense: {run.why}", queries=run.token_last - run.token_first)


def count_layer(layer: int, why: str, n_query: int) -> None:
    """Counts a layer whose prefills the engine computes."""
    counting.record(layer, f"dense: {why}", queries=n_query)


def summary(stats: counting.Stats) -> str:
    """One line."""
    other = ", ".join(f"{n} {path.removeprefix('dense: ')}" for path, n in stats.reasons().items() if path[0] == "d")
    sparse = f"{stats.calls('sparse')} sparse calls, density {stats.density:.3f}"
    return f"prism-attn: {sparse}" + (f"; dense: {other}" if other else "")


class Report:
    """Says what was computed: a line in the log at the end of the process, and lines of JSON in the file PRISM_STATS,
    one with the first batch, one every `seconds` while there is work, and one at the end. An engine that kills its
    workers leaves them no end."""

    def __init__(self, log: logging.Logger, seconds: float = 10) -> None:
        self._log, self._seconds, self._written = log, seconds, -math.inf
        self._file = os.environ.get("PRISM_STATS")
        # At the end of a multiprocessing child, too, where atexit's functions are not called.
        Finalize(None, self._end, exitpriority=100)

    def tick(self) -> None:
        """To be called with every batch. Reading the counts of a GPU waits for it: only where a file is wanted."""
        if self._file and time.monotonic() - self._written >= self._seconds:
            self._written = time.monotonic()
            self._write(counting.stats())

    def _write(self, stats: counting.Stats) -> None:
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps({"pid": os.getpid(), **stats.to_dict()}) + "\n")

    def _end(self) -> None:
        stats = counting.stats()
        if not stats.rows:
            return
        self._log.info(summary(stats))
        if self._file:
            self._write(stats)
