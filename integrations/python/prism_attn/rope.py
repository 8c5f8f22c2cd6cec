"""Rotary frequencies of a head, and the two bands of dimensions that method prism scores in."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from . import _abi
from ._abi import check, lib


class NoRotation(Exception):
    """The layer does not turn its queries and keys, or not in a way that can be read; the text says which."""


@dataclass(frozen=True)
class Rope:
    """How a head's dimensions turn: for each rotated pair its two dimensions and its frequency.

    d_head: dimensions of a head. pairs: (dimension, dimension), in the order of the model's frequency index.
    frequencies: radians per token, after any scaling. Dimensions in no pair do not turn.
    """

    d_head: int
    pairs: tuple[tuple[int, int], ...]
    frequencies: tuple[float, ...]

    @classmethod
    def half_split(cls, d_head: int, base: float = 1e4, n_dim: int | None = None, first_dim: int = 0) -> Rope:
        """Pairs (j, j + n_dim / 2) with frequency base^(-2j / n_dim): Llama, Qwen, Mistral in transformers."""
        return cls._ladder(d_head, base, n_dim or d_head, first_dim, lambda j, n: (j, j + n // 2))

    @classmethod
    def interleaved(cls, d_head: int, base: float = 1e4, n_dim: int | None = None, first_dim: int = 0) -> Rope:
        """Pairs (2j, 2j + 1): GLM, GPT-J."""
        return cls._ladder(d_head, base, n_dim or d_head, first_dim, lambda j, n: (2 * j, 2 * j + 1))

    @classmethod
    def _ladder(cls, d_head, base, n_dim, first_dim, pair) -> Rope:
        if not (isinstance(base, (int, float)) and 0 < base < math.inf):
            raise ValueError(f"rope={base!r}: the base of the rotation is a number above 0 (1e4, 1e6, ...), or a Rope")
        pairs = tuple(tuple(first_dim + x for x in pair(j, n_dim)) for j in range(n_dim // 2))
        return cls(d_head, pairs, tuple(float(base) ** (-2 * j / n_dim) for j in range(n_dim // 2)))

    def bands(self, block_size: int = 128, n_high: int | None = None, n_low: int | None = None) -> Bands:
        """The bands of this rotation: sizes chosen from block_size, or given (the paper has 64 and 96 of 128)."""
        rope, bands = _abi.Rope(), _abi.Bands()
        check(lib.prism_rope_init(ctypes.byref(rope), self.d_head))
        if len(self.pairs) != len(self.frequencies) or len(self.pairs) > self.d_head // 2:
            raise ValueError(f"{len(self.pairs)} pairs, {len(self.frequencies)} frequencies, {self.d_head} dimensions")
        rope.n_pair = len(self.pairs)
        for j, (pair, frequency) in enumerate(zip(self.pairs, self.frequencies, strict=True)):
            rope.dim[j][0], rope.dim[j][1], rope.frequency[j] = *pair, frequency
        if (n_high is None) != (n_low is None):
            raise ValueError("n_high and n_low go together")
        if n_high is None:
            check(lib.prism_bands_auto(ctypes.byref(bands), ctypes.byref(rope), block_size))
        else:
            check(lib.prism_bands_split(ctypes.byref(bands), ctypes.byref(rope), n_high, n_low))
        return Bands(self.d_head, tuple(bands.high[: bands.n_high]), tuple(bands.low[: bands.n_low]))


@dataclass(frozen=True)
class Bands:
    """Two lists of a head's dimensions, ascending; they may overlap."""

    d_head: int
    high: tuple[int, ...]
    low: tuple[int, ...]
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.d_head}/{_ranges(self.high)}/{_ranges(self.low)}")

    @classmethod
    def parse(cls, text: str) -> Bands:
        """The inverse of `.text`: "128/0-31,64-95/16-63,80-127"."""
        d_head, high, low = text.split("/")
        return cls(int(d_head), _numbers(high), _numbers(low))

    def to_c(self) -> _abi.Bands:
        """The C struct; it owns its memory."""
        bands = _abi.Bands(d_head=self.d_head, n_high=len(self.high), n_low=len(self.low))
        bands.high[: len(self.high)] = self.high
        bands.low[: len(self.low)] = self.low
        return bands


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for x in numbers:
        if parts and parts[-1][1] == x - 1:
            parts[-1][1] = x
        else:
            parts.append([x, x])
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in parts)


def _numbers(text: str) -> tuple[int, ...]:
    def span(part: str) -> Iterable[int]:
        a, _, b = part.partition("-")
        return range(int(a), int(b or a) + 1)

    return tuple(x for part in text.split(",") if part for x in span(part))
