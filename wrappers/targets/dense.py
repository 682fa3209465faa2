"""Layers with a plain weight of 16 bits or more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .used_dtype import as_used, used_dtype
from .weight_kind import WeightKind

if TYPE_CHECKING:
    from typing import TypeGuard

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class DenseLinear(WeightKind):
    """A weight that ComfyUI can merge a change into without another rounding than its own type."""

    rounds = False

    def recognises(self, module: Any) -> bool:
        weight = getattr(module, "weight", None)
        if not is_plain(weight) or getattr(module, "scale_weight", None) is not None:
            return False
        return used_dtype(module) in DTYPES

    def weight(self, module: Any, stored: Any) -> Tensor:
        return as_used(module, stored)


def is_plain(weight: Any) -> TypeGuard[Tensor]:
    """Whether a parameter is a tensor as torch makes it, not of a class of its own."""
    if not isinstance(weight, Tensor) or type(weight) not in (Tensor, torch.nn.Parameter):
        return False
    return type(weight.data) is Tensor
