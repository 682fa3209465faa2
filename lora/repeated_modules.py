"""One module given several times: applied once if all say the same, else not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

import torch

from .errors import Unusable
from .factors.delta import Delta, Dense, LowRank
from .factors.fusion import singular

if TYPE_CHECKING:
    from .loader import Entry

# Two spellings of one change differ by no more than the rounding of their storage.
TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Rival:
    """What one spelling of a module changes."""

    stem: str
    entries: tuple[Entry, ...]

    @property
    def rows(self) -> int:
        """How many rows it covers."""
        return sum(entry.stop - entry.start for entry in self.entries)


def settle(rivals: Sequence[Rival]) -> tuple[list[Rival], list[tuple[Rival, str]]]:
    """Choose which spellings to apply: those of smaller pieces if they are complete.

    Returns:
        The ones to apply, and the others with the reason.

    Raises:
        Unusable: two of them say different things.
    """
    zero = [rival for rival in rivals if all(_is_zero(entry.delta) for entry in rival.entries)]
    left = [rival for rival in rivals if rival not in zero]
    if not left:
        left, zero = list(rivals[:1]), list(rivals[1:])
    for i, one in enumerate(left):
        for other in left[i + 1 :]:
            require_same(one, other)
    dropped = [(rival, "is all zero, and the module is given otherwise too") for rival in zero]
    left.sort(key=lambda rival: rival.rows)
    kept: list[Rival] = []
    while left:
        largest = left.pop()
        smaller = [rival for rival in left if _overlap(rival, largest)]
        if smaller and _complete(smaller, largest):
            dropped.append((largest, f"says the same as {smaller[0].stem}, which is applied"))
            continue
        kept.append(largest)
        for rival in smaller:
            if not _complete([largest], rival):
                raise Unusable(f"the file gives parts of it as {largest.stem} and as {rival.stem}")
            left.remove(rival)
            dropped.append((rival, f"says the same as {largest.stem}, which is applied"))
    return kept, dropped


def _overlap(one: Rival, other: Rival) -> bool:
    return any(_common(a, b) is not None for a in one.entries for b in other.entries)


def _common(a: Entry, b: Entry) -> tuple[int, int] | None:
    """The rows that both change."""
    if (a.module, a.parameter) != (b.module, b.parameter):
        return None
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    return (start, stop) if start < stop else None


def _complete(smaller: Sequence[Rival], largest: Rival) -> bool:
    """Whether the smaller ones change every row that the largest changes."""
    for entry in largest.entries:
        found = [_common(entry, piece) for rival in smaller for piece in rival.entries]
        rows = {row for span in found if span is not None for row in range(*span)}
        if len(rows) < entry.stop - entry.start:
            return False
    return True


def require_same(one: Rival, other: Rival) -> None:
    """Compare two spellings where both change the same rows.

    Raises:
        Unusable: they say different things.
    """
    for a in one.entries:
        for b in other.entries:
            span = _common(a, b)
            if span is not None and not _same(a, b, span):
                raise Unusable(
                    f"the file gives it as {one.stem} and as {other.stem}, and they differ"
                )


def _same(a: Entry, b: Entry, span: tuple[int, int]) -> bool:
    try:
        first = a.delta.rows(span[0] - a.start, span[1] - a.start)
        second = b.delta.rows(span[0] - b.start, span[1] - b.start)
    except ValueError:  # it mixes these rows with others
        return False
    if not isinstance(first, Delta) or not isinstance(second, Delta):
        return _equal(first, second)
    low = first.low_rank(), second.low_rank()
    if low[0] is not None and low[1] is not None:
        return _difference(low[0], low[1]) <= TOLERANCE * _size(low[0])
    left, right = first.matrix(torch.float64), second.matrix(torch.float64)
    return bool((left - right).norm() <= TOLERANCE * left.norm())


def _equal(one: object, other: object) -> bool:
    """Whether two changes that depend on the weight are the same value for value."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other) or not is_dataclass(one) or isinstance(one, type):
        return one == other
    return all(_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


def _difference(one: LowRank, other: LowRank) -> float:
    a = torch.cat([one.A.double(), other.A.double()])
    b = torch.cat([one.B.double() * one.scale, other.B.double() * -other.scale], dim=1)
    return _size(LowRank(a, b))


def _size(delta: LowRank) -> float:
    return float(singular(delta)[1].norm())


def _is_zero(delta: object) -> bool:
    if isinstance(delta, LowRank):
        return not bool(delta.A.any()) or not bool(delta.B.any())
    return isinstance(delta, Dense) and not bool(delta.diff.any())
