"""Layers of which nothing is known but that they compute a product."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .weight_kind import UnreadableWeightError, WeightKind


class Opaque(WeightKind):
    """What no other kind recognises, ComfyUI-GGUF's weights among them."""

    def recognises(self, module: Any) -> bool:
        return True

    def weight(self, module: Any, stored: Any) -> Tensor:
        raise UnreadableWeightError(f"a {type(stored).__name__} does not give its weight back")

    def refusal(self, module: Any) -> str | None:
        if hasattr(module, "weight"):
            return None
        return f"a {type(module).__name__} takes no LoRA here"
