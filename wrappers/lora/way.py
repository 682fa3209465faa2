"""The ways in which a change gets onto a module of a running model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ...lora.factors.dora import Dora
from ...lora.factors.oft_rotation import InputRotation, Rotation
from ...lora.loader import Entry


class Way(Enum):
    """How a change is applied."""

    MERGE = auto()
    """Into the weight, by ComfyUI's own patches."""
    BRANCH = auto()
    """Beside the layer, or as ranks of the layer's own low-rank branch."""


@dataclass(frozen=True)
class NotApplied:
    """A change that is not applied, and why, for people."""

    reason: str


class Need(Enum):
    """What a change has to have of the layer, beside its product."""

    NOTHING = auto()
    WEIGHT = auto()
    """The weight's values, whose norms DoRA takes."""
    EXACT_WEIGHT = auto()
    """A weight that is not rounded, which OFT and BOFT rotate."""


def need_of(entries: Iterable[Entry]) -> Need:
    """Return what the changes of one module need."""
    kinds = {type(entry.delta) for entry in entries}
    if not kinds.isdisjoint({Rotation, InputRotation}):
        return Need.EXACT_WEIGHT
    return Need.WEIGHT if Dora in kinds else Need.NOTHING
