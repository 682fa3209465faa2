"""How the changes of one LoRA file go onto one model: which way, how many, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...lora.loader import Entry, Lora
from ...lora.mapping.key_map import UNMATCHED
from .rounding import NotMeasured, Rounding, percent

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

SHOWN = 5
"""How many names a line or an error lists."""


@dataclass
class Placement:
    """How the changes of one file go onto one model."""

    lora: Lora
    strength: float
    milliseconds: float
    """What loading took: reading the file, or finding it in the cache."""
    merged: list[Entry] = field(default_factory=list)
    branched: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    ranks: int = 0
    """How many of `branched` become ranks of the model's own low-rank branches."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Modules that this model cannot take, with the reason."""
    kept: float | None = None
    """How much of what is merged is left after rounding; None where that was not measured."""

    @property
    def count(self) -> int:
        """Number of modules that are changed."""
        return len({entry.module for entry in self.merged} | self.branched.keys())

    @property
    def problems(self) -> list[str]:
        """Tensors and modules that cannot be applied."""
        file = self.lora.report
        return [*file.names(UNMATCHED), *(fault.module for fault in file.faults), *self.skipped]

    def line(self) -> str:
        """What happens to the model, in one line."""
        merged = len({entry.module for entry in self.merged} - self.branched.keys())
        text = f"strength {self.strength:g}: {merged} modules merged"
        text += f", {len(self.branched) - self.ranks} as a runtime branch"
        text += f", {self.ranks} as ranks of 4-bit layers" if self.ranks else ""
        if self.kept is not None:
            text += f"; rounding leaves {percent(self.kept)} of the merged change"
        if self.skipped:
            first = list(self.skipped.items())[:SHOWN]
            more = len(self.skipped) - len(first)
            text += f", {len(self.skipped)} not in this model or refused: "
            text += "; ".join(f"{module} ({reason})" for module, reason in first)
            text += f" and {more} more" if more else ""
        return text


@dataclass
class Placed:
    """A stack of LoRAs on a model.

    Attributes:
        model: a clone with them; the one that came in if there are none.
        files: how each went onto it.
        notes: what people should know of the model.
        rounding: what rounding does to all that was merged on request; None if nothing was.
    """

    model: ModelPatcher
    files: Sequence[Placement] = ()
    notes: Sequence[str] = ()
    rounding: Rounding | NotMeasured | None = None
