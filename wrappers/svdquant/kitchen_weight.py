"""Parameters with weights in comfy-kitchen's layouts."""

from __future__ import annotations

from typing import Any

import torch

SVDQ_LAYOUT = "TensorCoreSVDQuantW4A4Layout"
AWQ_LAYOUT = "TensorCoreAWQW4A16Layout"


def is_kitchen(weight: Any) -> bool:
    """Whether a weight is in one of the two layouts."""
    return getattr(weight, "_layout_cls", None) in (SVDQ_LAYOUT, AWQ_LAYOUT)


def as_parameter(weight: Any) -> torch.nn.Parameter:
    """Make a parameter of a quantized tensor that shares its memory.

    `torch.nn.Parameter` alone copies scales and factors, because it detaches and comfy-kitchen
    copies them then. Q, K and V, which share some, would not any more.
    """
    parameter: Any = torch.nn.Parameter(weight, requires_grad=False)
    parameter._params = weight._params
    return parameter
