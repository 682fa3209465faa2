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
        raise UnreadableWeightError(_not_given_back(stored))

    def unreadable(self, module: Any) -> str | None:
        return _not_given_back(getattr(module, "weight", None))

    def refusal(self, module: Any) -> str | None:
        if hasattr(module, "weight"):
            return None
        return f"a {type(module).__name__} takes no LoRA here"


def _not_given_back(stored: Any) -> str:
    return f"a {type(stored).__name__} does not give its weight back"
