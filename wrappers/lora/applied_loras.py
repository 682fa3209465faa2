"""Which LoRAs of ours a model or text encoder has, kept with it for other nodes to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "vivace_applied_loras"


@dataclass(frozen=True)
class AppliedLora:
    """One file on one model.

    Attributes:
        name: of the file, without its folder.
        strength: as it was set.
        modules: how many the file changes there.
    """

    name: str
    strength: float
    modules: int


def record_loras(patcher: ModelPatcher, loras: Iterable[AppliedLora]) -> None:
    """Note LoRAs on a clone that they were put on, after those that it had."""
    patcher.set_attachments(KEY, (*applied_loras(patcher), *loras))


def applied_loras(patcher: ModelPatcher) -> tuple[AppliedLora, ...]:
    """The LoRAs in the order in which they were put on."""
    return patcher.attachments.get(KEY, ())
