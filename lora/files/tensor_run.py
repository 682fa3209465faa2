"""How tensors of a file lie in memory: in runs, and in each by dtype.

A run is one allocation. In it tensors of one dtype lie one behind the other, so that a single
operation sees many of them, and a piece of them is small enough to be looked at while it is still
in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from .header import TensorInfo

ALIGNMENT = 64  # bytes; what torch's own CPU allocations have
# Tensors are staged together up to this many bytes: large enough for full bandwidth, small enough
# that the staging copy on the way to another device does not matter.
RUN_BYTES = 32 * 2**20
PIECE_BYTES = 2 * 2**20  # of the order of a core's own cache

Spans = Mapping[str, tuple[int, int]]


class OneDtype(NamedTuple):
    """Tensors of one dtype at bytes ``start:stop`` of a run, with gaps that are to be zero."""

    dtype: str
    names: tuple[str, ...]
    start: int
    stop: int


class TensorRun(NamedTuple):
    """Tensors that share an allocation of `size` bytes; `names` are in file order."""

    names: tuple[str, ...]
    spans: Spans
    pieces: tuple[OneDtype, ...]
    size: int


def runs(infos: Mapping[str, TensorInfo]) -> Iterator[TensorRun]:
    """Yield tensors in file order, in runs of at most `RUN_BYTES` (or of one larger tensor)."""
    names: list[str] = []
    size = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end)):
        if names and size + info.end - info.begin > RUN_BYTES:
            yield _laid_out(names, infos)
            names, size = [], 0
        names.append(name)
        size += info.end - info.begin
    if names:
        yield _laid_out(names, infos)


def _laid_out(names: list[str], infos: Mapping[str, TensorInfo]) -> TensorRun:
    by_dtype: dict[str, list[str]] = {}
    for name in names:
        by_dtype.setdefault(infos[name].dtype, []).append(name)
    spans: dict[str, tuple[int, int]] = {}
    pieces: list[OneDtype] = []
    start = 0
    for dtype, members in by_dtype.items():
        for group in _pieces(members, infos):
            first = start
            for name in group:
                stop = start + infos[name].end - infos[name].begin
                spans[name] = (start, stop)
                start = -(-stop // ALIGNMENT) * ALIGNMENT
            pieces.append(OneDtype(dtype, tuple(group), first, start))
    return TensorRun(tuple(names), spans, tuple(pieces), start)


def _pieces(names: Iterable[str], infos: Mapping[str, TensorInfo]) -> Iterator[list[str]]:
    """Yield names in groups of `PIECE_BYTES` and a little more, or what is left."""
    group: list[str] = []
    size = 0
    for name in names:
        group.append(name)
        size += infos[name].end - infos[name].begin
        if size >= PIECE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
