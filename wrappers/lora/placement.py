"""How the changes of one LoRA file go onto one model: which way, how many, and what is left."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...lora.loader import Entry, Lora
from ...lora.mapping.key_map import UNMATCHED

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
        if self.skipped:
            first = list(self.skipped.items())[:SHOWN]
            more = len(self.skipped) - len(first)
            text += f", {len(self.skipped)} not in this model or refused: "
            text += "; ".join(f"{module} ({reason})" for module, reason in first)
            text += f" and {more} more" if more else ""
        return text
