"""Layers whose weight is a tensor of a class that can give its values back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .weight_kind import WeightKind


class QuantizedTensor(WeightKind):
    """Weights in one of comfy-kitchen's layouts (fp8, INT8, nvfp4 and others), as ComfyUI has."""

    def recognises(self, module: Any) -> bool:
        cls = type(getattr(getattr(module, "weight", None), "data", None))
        # Any tensor has this method; a class that gives values back has one of its own.
        return getattr(cls, "dequantize", Tensor.dequantize) is not Tensor.dequantize

    def weight(self, module: Any, stored: Any) -> Tensor:
        return stored.dequantize().float()
