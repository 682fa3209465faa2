"""Layers with a plain weight of 8-bit floats, with a scale beside it or without."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .dense import is_plain
from .weight_kind import WeightKind


class Float8(WeightKind):
    """ComfyUI's cast weights (``weight_dtype``) and its scaled ones (``scale_weight``)."""

    def recognises(self, module: Any) -> bool:
        weight = getattr(module, "weight", None)
        return is_plain(weight) and weight.dtype.is_floating_point

    def weight(self, module: Any, stored: Any) -> Tensor:
        scale = getattr(module, "scale_weight", None)
        if scale is None:
            return stored.detach()
        return stored.float() * scale.to(stored.device).float()
