"""What is applied of a LoRA file: by the engine, and by `lora_reference` from the same tensors."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from ...lora.factors.delta import Delta
from ...lora.factors.dora import Dora
from ...lora.loader import Lora
from ...lora.mapping.architecture import Architecture
from ...lora.mapping.key_map import IGNORED, MAPPED, KeyEntry
from ...lora.mapping.module_names import bare_stem
from .lora_reference import Module, Stated, split
from .valued_files import ValuedFile

_EXACT, _SAME = 1e-5, 2e-2
# Beyond it float32 holds nothing.
LARGE = 1e30
_ORDINARY = (1e-5, 1e5)

Piece = tuple[str, str | None]
# By module and parameter, over all rows of the module.
Changes = dict[tuple[str, str], Tensor]


def pieces(architecture: Architecture, module: str, part: str | None) -> set[Piece]:
    """The smallest named pieces that a module, a part of one or a fusion covers."""
    return {(block.module, block.part) for block in architecture.target(module, part).blocks}


def split_name(name: str) -> tuple[str, str, str | None]:
    """The stem, role and slot of a tensor that the engine knows.

    Raises:
        AssertionError: the reference does not.
    """
    found = split(name)
    assert found is not None, f"{name!r} is mapped, and the reference does not know its role"
    return found


@lru_cache(maxsize=512)
def weight_of(module: str, shape: tuple[int, ...]) -> Tensor:
    """A base weight, the same for the same module."""
    generator = torch.Generator().manual_seed(crc32(module.encode()))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bias_of(module: str, known: Architecture) -> Tensor:
    """A base bias, the same for the same module, whether or not that has one."""
    return weight_of(f"{module}.bias", known.modules[module].shape[:1])


@dataclass
class _Group:
    """The tensors of a module in one spelling and slot, by role, and whether they are applied."""

    piece: Piece
    stem: str
    roles: dict[str, str]
    applied: bool


def _groups(keys: Iterable[KeyEntry]) -> Iterator[_Group]:
    """What is applied, and what repeats it."""
    found: dict[tuple[Piece, str], list[tuple[KeyEntry, str, str | None]]] = {}
    for key in keys:
        if key.module is not None and key.status in (MAPPED, IGNORED):
            stem, role, slot = split_name(key.key)
            found.setdefault(((key.module, key.part), stem), []).append((key, role, slot))
    for (piece, stem), members in found.items():
        slots = dict.fromkeys(slot for *_, slot in members)
        if len(slots) > 1:  # what has no slot belongs to each
            slots.pop(None, None)
        for slot in slots:
            own = [one for one in members if one[2] in (slot, None)]
            told = {key.status for key, _, other in own if other == slot}
            assert len(told) == 1, f"{stem} is applied in part"
            applied = told == {MAPPED}
            assert not applied or all(key.status == MAPPED for key, *_ in own), f"{stem}, partly"
            roles = {role: key.key for key, role, _ in own}
            assert len(roles) == len(own), f"{stem} has a role twice"
            yield _Group(piece, stem, roles, applied)


class Found:
    """A loaded file, and what it changes.

    Attributes:
        actual: the changes by the engine.
        ordinary: whether no number is so large or small that float32 may lose it.
    """

    def __init__(self, lora: Lora, file: ValuedFile, metadata: Mapping[str, str]) -> None:
        self.lora = lora
        self.actual = changes_of(lora)
        self._file = file
        self._metadata = metadata
        self._groups = list(_groups(lora.report.keys))
        tensors = [file.tensors[name] for group in self._groups for name in group.roles.values()]
        sizes = [tensor.double().flatten().abs() for tensor in tensors]
        all_sizes = torch.cat([*sizes, torch.tensor(_scales(lora))])
        small, large = _ORDINARY
        fits = (all_sizes == 0) | ((all_sizes > small) & (all_sizes < large))
        self.ordinary = bool(fits.all())

    def compare(self) -> None:
        """The engine applies what the formulas give, and leaves out what repeats that."""
        expected: Changes = {}
        repeated: list[Changes] = []
        for group in self._groups:
            changes = self._computed(group)
            if not group.applied:
                repeated.append(changes)
                continue
            for place, change in changes.items():
                expected[place] = expected.get(place, torch.tensor(0.0)) + change
        assert expected.keys() == self.actual.keys()
        for place, change in expected.items():
            require_close(change, self.actual[place], _EXACT, place)
        for changes in repeated:
            for place, change in changes.items():
                self._require_applied(place, change)

    def _require_applied(self, place: tuple[str, str], change: Tensor) -> None:
        """What is left out is applied all the same."""
        rows = change.flatten(1).any(1) if change.dim() > 1 else change.bool()
        applied = self.actual.get(place, torch.zeros_like(change))
        difference = (change[rows] - applied[rows]).norm()
        assert not difference.isfinite() or difference <= _SAME * change.norm(), place

    def _computed(self, group: _Group) -> Changes:
        known = self.lora.architecture
        target = known.target(*group.piece)
        rows = [(b.module, *known.rows(b.module, b.part)) for b in target.blocks]
        weights = [weight_of(m, known.modules[m].shape)[start:stop] for m, start, stop in rows]
        stated = Stated(self._metadata, self._file.config, bare_stem(group.stem))
        tensors = {role: self._file.tensors[name] for role, name in group.roles.items()}
        bias = torch.cat([bias_of(m, known)[start:stop] for m, start, stop in rows])
        own = bias if target.bias else None
        computed = Module(tensors, torch.cat(weights), own, stated)
        found: Changes = {}
        for parameter, change in computed.changes().items():
            for block, (path, start, stop) in zip(target.blocks, rows, strict=True):
                shape = known.modules[path].shape
                shape = shape[:1] if parameter == "bias" else shape
                whole = found.setdefault((path, parameter), torch.zeros(shape).double())
                whole[start:stop] += change[block.start : block.stop]
        assert not computed.unused, f"{computed.unused} of {group.stem} changes nothing"
        return found

    def connected(self, chance: random.Random) -> tuple[set[Piece], list[str]]:
        """A module that is applied, with all that shares rows with it: its pieces, its tensors."""
        known = self.lora.architecture
        covered = [pieces(known, *group.piece) for group in self._groups]
        applied = [s for s, g in zip(covered, self._groups, strict=True) if g.applied]
        found = set(chance.choice(applied))
        while more := [s for s in covered if not s.isdisjoint(found) and not s <= found]:
            found.update(*more)
        names = [
            key.key
            for key in self.lora.report.keys
            if key.module is not None and not found.isdisjoint(pieces(known, key.module, key.part))
        ]
        return found, names


def _scales(lora: Lora) -> list[float]:
    deltas = [entry.delta for entries in lora.deltas.values() for entry in entries]
    inner = [delta.inner if isinstance(delta, Dora) else delta for delta in deltas]
    return [abs(getattr(delta, "scale", 1.0)) for delta in inner]


def changes_of(lora: Lora) -> Changes:
    """What the engine adds."""
    found: Changes = {}
    for module, entries in lora.deltas.items():
        shape = lora.architecture.modules[module].shape
        weights = {"weight": weight_of(module, shape), "bias": bias_of(module, lora.architecture)}
        for entry in entries:
            size = shape[:1] if entry.parameter == "bias" else shape
            whole = found.setdefault((module, entry.parameter), torch.zeros(size).double())
            rows = slice(entry.start, entry.stop)
            whole[rows] += _matrix(entry.delta, weights[entry.parameter][rows])
    return found


def _matrix(delta: Any, weight: Tensor) -> Tensor:
    if isinstance(delta, Delta):
        return delta.matrix(torch.float64)
    change = delta.resolve(weight) if isinstance(delta, Dora) else delta
    return change.matrix(weight, torch.float64)


def require_close(expected: Tensor, actual: Tensor, tolerance: float, place: object) -> None:
    """Two changes differ by no more than that part of the largest value.

    Raises:
        AssertionError: they do.
    """
    largest = expected.abs().max()
    if largest < LARGE:
        difference = (expected - actual).abs().max()
        assert difference <= tolerance * largest + 1e-300, (place, float(difference))
