"""A method and its options, as one string: what operators carry, what caches are keyed by."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from . import _abi
from ._abi import lib
from .rope import Bands, Rope


def methods() -> list[str]:
    """Names that `method=` takes."""
    return [lib.prism_method_name(i).decode() for i in range(lib.prism_method_count())]


def default_method() -> str:
    """What the library uses unless a method is named."""
    options = _abi.Options()
    lib.prism_options_init(ctypes.byref(options))
    return lib.prism_method_name(options.method).decode()


def method_text(method: str) -> str:
    """One sentence about a method, the library's."""
    return lib.prism_method_text(methods().index(method)).decode()


def has_bands(method: str) -> bool:
    """Whether a method scores in two bands of dimensions, and so needs a rotation."""
    return bool(lib.prism_method_uses(methods().index(method), b"bands"))


class Option(NamedTuple):
    """An option of the library: its name, a sentence, default and range; names: of its values, where they have any."""

    name: str
    text: str
    value: float
    min: float
    max: float
    names: list[str]

    def range(self) -> str:
        """For a sentence."""
        return f"one of {', '.join(self.names)}" if self.names else f"{self.min:g} to {self.max:g}"


def options() -> list[Option]:
    """Everything that a call takes by name beside the method."""
    found, info = [], _abi.sized(_abi.OptionInfo)
    while lib.prism_option_at(len(found), ctypes.byref(info)) == 0:
        names = [info.names[i].decode() for i in range(info.n_name)]
        found.append(Option(info.name.decode(), info.text.decode(), info.value, info.min, info.max, names))
    return found


@dataclass(frozen=True)
class Config:
    """Options ready for a call. `options` borrows `_bands`; both live as long as this object, and neither changes."""

    text: str
    method: str
    options: _abi.Options
    block_size: int
    note: str  # why the plan is what it is, for statistics: "sinks"
    _bands: _abi.Bands | None


def make_config(
    method: str | None = None,
    rope: Rope | float | None = None,
    bands: Bands | None = None,
    d_head: int = 0,
    note: str = "",
    **options,
) -> str:
    """The string of a method, its options by the library's names ("top_p", "min_tokens", ...), and the bands.

    rope: a Rope, or the base of a full half-split rotation of d_head dimensions; bands follow from it. Methods without
    bands ignore both. note: added to the path that stats() shows.
    """
    if bands is None and rope is not None:
        bands = _bands_of(rope, d_head, int(options.get("block_size", 128)))
    return _join(method or default_method(), tuple(sorted(options.items())), bands, note)


@lru_cache(maxsize=256)
def _bands_of(rope: Rope | float, d_head: int, block_size: int) -> Bands:
    return (rope if isinstance(rope, Rope) else Rope.half_split(d_head, rope)).bands(block_size)


@lru_cache(maxsize=256)
def _join(method: str, options: tuple[tuple[str, object], ...], bands: Bands | None, note: str) -> str:
    fields = [("method", method), *((k, int(v) if isinstance(v, bool) else v) for k, v in options)]
    if bands is not None:
        fields.append(("bands", bands.text))
    if note:
        fields.append(("note", note))
    text = ";".join(f"{name}={value}" for name, value in fields)
    parse_config(text)  # a mistake shows where it was made
    return text


@lru_cache(maxsize=256)
def parse_config(text: str) -> Config:
    """The options of a string; ValueError if the library does not know a name or a value."""
    options, bands, note = _abi.Options(), None, ""
    lib.prism_options_init(ctypes.byref(options))
    for name, value in (field.split("=", 1) for field in text.split(";")):
        if name == "bands":
            bands = Bands.parse(value).to_c()
            options.bands = ctypes.pointer(bands)
        elif name == "note":
            note = value
        else:
            _set(options, name, value)
    return Config(text, lib.prism_method_name(options.method).decode(), options, options.block_size, note, bands)


def _set(into: _abi.Options, name: str, value: str) -> None:
    if lib.prism_options_set(ctypes.byref(into), name.encode(), value.encode()) == 0:
        return
    if name == "method":
        raise ValueError(f"unknown method {value!r}; there are {', '.join(methods())}")
    known = {option.name: option for option in options()}
    if name not in known:
        raise ValueError(f"option {name}={value}: unknown name; there are {', '.join(known)}")
    raise ValueError(f"option {name}={value}: {known[name].text}; {known[name].range()}")
