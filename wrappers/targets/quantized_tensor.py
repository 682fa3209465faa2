"""Layers whose weight is a tensor of a class that can give its values back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .weight_kind import WeightKind


class QuantizedTensor(WeightKind):
    """Weights in one of comfy-kitchen's layouts (fp8, INT8, nvfp4 and others), as ComfyUI has."""

    def recognises(self, module: Any) -> bool:
        weight = getattr(module, "weight", None)
        return hasattr(weight, "dequantize") and type(getattr(weight, "data", None)) is not Tensor

    def weight(self, module: Any, stored: Any) -> Tensor:
        return stored.dequantize().float()
