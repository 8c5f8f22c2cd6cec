"""Counts every call: sparse or dense, why, its density and time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

MAX_PENDING = 1024
PATHS = ("sparse", "dense", "dense: short", "dense: plan overflow")  # by prism_path


@dataclass
class Row:
    """Calls of one layer that went the same way.

    path: "sparse", "dense" (asked for), "dense: short" (below min_tokens), "dense: <reason>". n_selected, n_causal:
    blocks listed and blocks of full attention. Seconds are wall time on the CPU and 0 on a GPU unless timing is on.
    """

    layer: int
    path: str
    calls: int = 0
    queries: int = 0
    n_selected: int = 0
    n_causal: int = 0
    select_seconds: float = 0.0
    attend_seconds: float = 0.0

    @property
    def density(self) -> float:
        """Part of the causal blocks that was computed; 1 where no plan was made."""
        return self.n_selected / self.n_causal if self.n_causal else 1.0


@dataclass
class Stats:
    """A snapshot: `.rows` by layer and path."""

    rows: list[Row] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Over all calls that made a plan."""
        causal = sum(row.n_causal for row in self.rows)
        return sum(row.n_selected for row in self.rows) / causal if causal else 1.0

    def calls(self, path: str | None = None) -> int:
        """Calls whose path starts with `path`; all without it."""
        return sum(row.calls for row in self.rows if path is None or row.path.startswith(path))

    def reasons(self) -> dict[str, int]:
        """Calls by path."""
        out: dict[str, int] = {}
        for row in self.rows:
            out[row.path] = out.get(row.path, 0) + row.calls
        return out

    def to_dict(self) -> dict:
        """For JSON."""
        return {
            "density": self.density,
            "calls": self.reasons(),
            "rows": [asdict(row) | {"density": row.density} for row in self.rows],
        }

    def __str__(self) -> str:
        lines = [
            f"{'layer':>5}  {'calls':>6}  {'queries':>9}  {'density':>7}  {'select, s':>9}  {'attend, s':>9}  path"
        ]
        for r in self.rows:
            lines.append(
                f"{r.layer if r.layer >= 0 else '-':>5}  {r.calls:>6}  {r.queries:>9}  {r.density:>7.3f}  "
                f"{r.select_seconds:>9.3f}  {r.attend_seconds:>9.3f}  {r.path}"
            )
        return "\n".join(lines)


def path_name(path: int, note: str) -> str:
    """Of a prism_path."""
    return f"{PATHS[path]}: {note}" if note else PATHS[path]


_lock = threading.Lock()
_rows: dict[tuple[int, str], Row] = {}
_pending: list[Callable[[], None]] = []  # calls on a GPU that were not waited for yet


def record(layer: int, path: str, **amounts: float) -> None:
    """Adds one call. amounts: what it adds to fields of its Row, by their names."""
    with _lock:
        row = _rows.setdefault((layer, path), Row(layer, path))
        for name, amount in {"calls": 1, **amounts}.items():
            setattr(row, name, getattr(row, name) + amount)


def record_later(finish: Callable[[], None]) -> None:
    """Adds a call on a GPU: `finish` waits for its numbers and records it.

    Fewer than MAX_PENDING calls wait. Where one more would be too many the oldest is finished, which the GPU has long
    done: the host does not wait for the newest.
    """
    _pending.append(finish)
    if len(_pending) >= MAX_PENDING:
        _pending.pop(0)()


def _settle() -> None:
    while _pending:
        _pending.pop(0)()


def stats() -> Stats:
    """Everything since the last reset_stats(). Waits for GPU calls whose counts are not here yet."""
    _settle()
    with _lock:
        return Stats([Row(**asdict(row)) for _, row in sorted(_rows.items())])


def reset_stats() -> None:
    """Starts counting anew."""
    _settle()
    with _lock:
        _rows.clear()
