"""Layers whose weight is a number format of torch, with a scale beside it or without."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .used_dtype import as_used
from .weight_kind import WeightKind


class Float8(WeightKind):
    """ComfyUI's cast weights (``weight_dtype``) and its scaled ones (``scale_weight``), of 8-bit
    floats as a rule."""

    def recognises(self, module: Any) -> bool:
        weight = getattr(module, "weight", None)
        if weight is None or type(getattr(weight, "data", None)) is not Tensor:
            return False
        return weight.dtype.is_floating_point or getattr(module, "scale_weight", None) is not None

    def weight(self, module: Any, stored: Any) -> Tensor:
        stored = as_used(module, stored)
        scale = getattr(module, "scale_weight", None)
        if scale is None:
            return stored
        return stored.float() * scale.to(stored.device).float()
