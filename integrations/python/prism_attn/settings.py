"""A method and its options, before the rotation that gives the bands is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import default_method, make_config
from .rope import Rope

_BAND_SIZES = ("n_high", "n_low")


@dataclass(frozen=True)
class Settings:
    """A method and its options, for the layers they were enabled for.

    n_high, n_low: sizes of the two bands in dimensions; None: chosen from the frequencies (64 and 96 of 128, as in the
    paper, for the bases of today's models).
    """

    method: str
    options: tuple[tuple[str, object], ...] = ()
    n_high: int | None = None
    n_low: int | None = None
    text: str = field(init=False, repr=False, compare=False)  # all of it: what compiled graphs compare

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", repr(self))

    @classmethod
    def of(cls, method: str | None = None, **options: object) -> Settings:
        """Raises ValueError for options that the library does not know."""
        own = {name: options.pop(name) for name in _BAND_SIZES if name in options}
        make_config(method, **options)
        return cls(method or default_method(), tuple(sorted(options.items())), **own)

    def config(self, rope: Rope | None) -> str:
        """The configuration for layers with this rotation."""
        options = dict(self.options)
        if rope is None:
            return make_config(self.method, **options)
        block_size = int(options.get("block_size", 128))
        return make_config(self.method, bands=rope.bands(block_size, self.n_high, self.n_low), **options)
