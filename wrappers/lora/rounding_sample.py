"""Which rows of which weights are looked at to tell what rounding does to a merged change.

The choice depends on nothing but the names and sizes of the modules: the same stack on the same
model is measured at the same places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the unit interval evenly
_BLOCK = re.compile(r"\.\d+")


@dataclass(frozen=True)
class Limits:
    """How much is looked at.

    Attributes:
        modules: the most modules.
        rows: the most rows of a module.
        numbers: the most numbers of weights that are read; one module is read in any case.
    """

    modules: int = 12
    rows: int = 32
    numbers: int = 2**25


@dataclass(frozen=True)
class Candidate:
    """A module whose weight ``[rows, columns]`` is changed in some ranges of rows, in order.

    Without `by_rows` only all of it can be looked at, or costs no less.
    """

    rows: int
    columns: int
    changed: tuple[tuple[int, int], ...]
    by_rows: bool = True
    reads_rows: bool = True

    def taken(self, limits: Limits) -> int:
        """Return how many rows are looked at."""
        return min(self.rows, limits.rows) if self.by_rows else self.rows

    def extent(self, limits: Limits) -> int:
        """Return for how many rows those that are looked at stand."""
        if self.taken(limits) == self.rows:
            return self.rows
        return sum(stop - start for start, stop in self.changed)

    def cost(self, limits: Limits) -> int:
        """Return how many numbers are read."""
        return (self.taken(limits) if self.reads_rows else self.rows) * self.columns


@dataclass(frozen=True)
class SampledRows:
    """Rows ``start:stop`` of a weight, each of which counts for `weight` of them."""

    module: str
    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class WeightSample:
    """What was looked at: how many rows of each module, out of how many modules."""

    rows: tuple[int, ...]
    of: int
    complete: bool

    def __str__(self) -> str:
        number = len(self.rows)
        modules = "1 module" if number == 1 else f"{number} modules"
        if self.complete:
            return f"in all of {modules}"
        if len(set(self.rows)) == 1:
            each = " each" if number > 1 else ""
            return f"in a sample of {modules}, {self.rows[0]} rows{each}"
        return f"in a sample of {modules}, {sum(self.rows)} rows in all"


def choose(
    candidates: Mapping[str, Candidate], limits: Limits
) -> tuple[tuple[SampledRows, ...], WeightSample]:
    """Choose places among modules, spread over the depth of the model and the kinds of layers."""
    groups = _groups(candidates, limits)
    chosen: dict[str, str] = {}  # module -> its group
    numbers = 0
    for module, group in _by_turns(groups):
        cost = candidates[module].cost(limits)
        if len(chosen) == limits.modules:
            break
        if not chosen or numbers + cost <= limits.numbers:
            chosen[module] = group
            numbers += cost
    places = []
    for index, (module, group) in enumerate(chosen.items()):
        inside = [other for other, of in chosen.items() if of == group]
        seen = sum(candidates[other].taken(limits) for other in inside)
        total = sum(candidates[other].extent(limits) for other in groups[group])
        start, stop = _rows(candidates[module], index, limits)
        places.append(SampledRows(module, start, stop, total / seen))
    rows = tuple(place.stop - place.start for place in places)
    complete = len(places) == len(candidates) and all(
        place.stop - place.start == candidates[place.module].rows for place in places
    )
    return tuple(places), WeightSample(rows, len(candidates), complete)


def _groups(candidates: Mapping[str, Candidate], limits: Limits) -> dict[str, list[str]]:
    """The modules by the name that they have in common in all blocks, the greatest groups first,
    each in an order whose beginning is spread over the depth."""
    found: dict[str, list[str]] = {}
    for module in candidates:
        found.setdefault(_BLOCK.sub(".*", module, count=1), []).append(module)

    def size(group: str) -> int:
        members = (candidates[module] for module in found[group])
        return sum(member.extent(limits) * member.columns for member in members)

    ordered = sorted(found, key=lambda group: (-size(group), group))
    shifts = ((index + 0.5) / len(ordered) for index in range(len(ordered)))
    return {g: _spread(found[g], shift) for g, shift in zip(ordered, shifts, strict=True)}


def _spread(modules: list[str], shift: float) -> list[str]:
    number = len(modules)
    cells = (int((turn * _GOLDEN + shift) % 1 * number) for turn in range(3 * number))
    return [modules[cell] for cell in dict.fromkeys([*cells, *range(number)])]


def _by_turns(groups: Mapping[str, list[str]]) -> Iterable[tuple[str, str]]:
    """One module of each group, then a second of each, and so on, with its group."""
    for turn in range(max(map(len, groups.values()), default=0)):
        for group, modules in groups.items():
            if turn < len(modules):
                yield modules[turn], group


def _rows(candidate: Candidate, index: int, limits: Limits) -> tuple[int, int]:
    taken = candidate.taken(limits)
    if taken == candidate.rows:
        return 0, taken
    room = max(candidate.extent(limits) - taken, 0)
    ahead = int((index + 1) * _GOLDEN % 1 * (room + 1))
    for first, last in candidate.changed:
        if ahead < last - first:
            start = min(first + ahead, candidate.rows - taken)
            return start, start + taken
        ahead -= last - first
    return 0, taken
