"""The changes of one or several LoRAs, by the modules (or parts of modules) of an output style."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import Unusable
from ..factors.delta import Delta, Dense, LowRank
from ..factors.dora import Dora
from ..factors.fusion import PlacedFactors, fuse
from ..factors.relative import Relative
from ..loader import Entry, Lora
from ..mapping.architecture import Architecture
from .name_styles import parts


@dataclass(frozen=True, eq=False)
class UnitPiece:
    """A change of rows ``start:stop`` of a unit."""

    delta: Delta | Dora | Relative
    start: int
    stop: int


@dataclass(eq=False)
class Unit:
    """Everything that changes one module or part; `shape` is that of its weight."""

    module: str
    part: str | None
    shape: tuple[int, ...]
    weight: list[UnitPiece] = field(default_factory=list)
    bias: list[UnitPiece] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For messages."""
        return self.module if self.part is None else f"{self.module}[{self.part}]"


def gather(loras: Iterable[tuple[Lora, float]], model: Architecture, style: str) -> list[Unit]:
    """The units of LoRAs of one model, each LoRA times its strength, in the model's order.

    Raises:
        Unusable: a change cannot be cut into the parts that the style has.
    """
    units: dict[tuple[str, str | None], Unit] = {}
    rows = list(loras)
    for module in model.modules:
        for part in parts(style, model, module):
            for lora, strength in rows:
                for entry in lora.deltas.get(module, ()):
                    _add(units, model, entry, part, strength)
    return list(units.values())


def _add(
    units: dict[tuple[str, str | None], Unit],
    model: Architecture,
    entry: Entry,
    part: str | None,
    strength: float,
) -> None:
    first, last = model.rows(entry.module, part)
    start, stop = max(first, entry.start), min(last, entry.stop)
    if start >= stop:
        return
    target = model.target(entry.module, part)
    unit = units.setdefault(
        (entry.module, part), Unit(entry.module, part, (last - first, *target.shape[1:]))
    )
    delta = entry.delta
    if (start, stop) != (entry.start, entry.stop):
        try:
            delta = delta.rows(start - entry.start, stop - entry.start)
        except ValueError as error:
            raise Unusable(f"{unit.name}: {error}") from None
    piece = UnitPiece(delta.scaled(strength), start - first, stop - first)
    (unit.bias if entry.parameter == "bias" else unit.weight).append(piece)


def whole(unit: Unit) -> Delta | Dora | Relative | None:
    """The change of the weight as one exact delta; None if it has no small form.

    Raises:
        Unusable: it has none because it depends on the base weight.
    """
    pieces = unit.weight
    if len(pieces) == 1 and pieces[0].stop - pieces[0].start == unit.shape[0]:
        return pieces[0].delta
    deltas = _without_dora(unit)
    if len(unit.shape) != 2 or any(isinstance(delta, Dense) for delta in deltas):
        return Dense(dense(unit, torch.float32))
    low = [delta.low_rank() for delta in deltas]
    placed = [
        PlacedFactors(factors, piece.start, piece.stop)
        for factors, piece in zip(low, pieces, strict=True)
        if factors is not None
    ]
    return fuse(placed, unit.shape[0]) if len(placed) == len(low) else None


def dense(unit: Unit, dtype: torch.dtype) -> Tensor:
    """The change of the weight multiplied out.

    Raises:
        Unusable: it depends on the base weight.
    """
    return _sum(unit.weight, _without_dora(unit), unit.shape, dtype)


def bias(unit: Unit) -> Tensor | None:
    """The change of the bias ``[out]``: in its own type if nothing was computed, else float32."""
    deltas = [piece.delta for piece in unit.bias if isinstance(piece.delta, Dense)]
    if len(deltas) < len(unit.bias):
        raise Unusable(f"{unit.name}: IA3 of a bias is known only with that bias")
    if not deltas:
        return None
    if len(deltas) == 1 and deltas[0].scale == 1.0 and deltas[0].shape == unit.shape[:1]:
        return deltas[0].diff
    return _sum(unit.bias, deltas, unit.shape[:1], torch.float32)


def _sum(
    pieces: list[UnitPiece], deltas: Iterable[Delta], shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    total: Tensor | None = None
    for piece, delta in zip(pieces, deltas, strict=True):
        change = delta.matrix(dtype)
        if total is None:
            total = torch.zeros(shape, dtype=dtype, device=change.device)
        total[piece.start : piece.stop] += change
    assert total is not None  # noqa: S101 - a unit is made for a piece
    return total


def _without_dora(unit: Unit) -> list[Delta]:
    deltas = [piece.delta for piece in unit.weight]
    plain = [delta for delta in deltas if isinstance(delta, Delta)]
    if len(plain) < len(deltas):
        raise Unusable(
            f"{unit.name}: what depends on the base weight (DoRA, OFT, GLoRA, IA3) can be added and"
            " resized only with it"
        )
    return plain


def as_low_rank(delta: Delta | Dora | Relative) -> LowRank | None:
    """The delta as two factors if that is exact and small."""
    return delta.low_rank() if isinstance(delta, Delta) else None
