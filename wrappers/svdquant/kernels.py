"""Which kernels compute a layer in 4 bits, where comfy-kitchen's own choice fails or is slow.

comfy-kitchen asks its registry for a backend, with two exceptions that matter here. The product of
SVDQuant layers goes past the registry to the CUDA kernels on any CUDA card, also on one that they
were not made for (they ask for compute capability 8.0 and 16-bit inputs). And ComfyUI takes the
CUDA backend out of the registry where torch is built for CUDA before 13, though the kernels of AWQ
layers work there: without them each call makes the dense weight anew.
"""

from __future__ import annotations

import functools
import sys
from enum import Enum
from typing import Any

import comfy_kitchen
import torch
from torch import Tensor
from torch.nn import functional

from .kitchen_weight import AWQ_LAYOUT

_SVDQ, _AWQ = "quantize_svdquant_w4a4", "gemv_awq_w4a16"
_CUDA = "comfy_kitchen.backends.cuda"


class Kernels(Enum):
    """Where the products of 4-bit layers come from; the value says it to people."""

    CHOSEN = "the backend that comfy-kitchen chooses"
    DIRECT = "comfy-kitchen's CUDA kernels"
    EAGER = (
        "comfy-kitchen's operations of plain PyTorch, since its CUDA kernels want compute"
        " capability 8.0 (RTX 30) or newer and 16-bit inputs: right, but many times slower"
    )


def product(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """Return ``x Wᵀ + bias`` for a weight in one of the two layouts; `x` is ``[..., in]``."""
    if x.device.type == "cpu":
        return functional.linear(x, weight, bias)
    return product_with(kernels_for(x.device, x.dtype), x, weight, bias)


def product_with(kernels: Kernels, x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """As `product`, with given kernels."""
    if kernels is Kernels.EAGER:
        with comfy_kitchen.use_backend("eager"):
            return functional.linear(x, weight, bias)
    if kernels is Kernels.DIRECT and weight._layout_cls == AWQ_LAYOUT:
        params = weight._params
        return sys.modules[_CUDA].gemv_awq_w4a16(
            x, weight._qdata, params.scale, params.zeros, bias=bias, group_size=params.group_size
        )
    return functional.linear(x, weight, bias)


@torch.compiler.assume_constant_result
@functools.cache
def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels:
    """Return what computes inputs of a dtype on a device, by comfy-kitchen's own requirements."""
    registry = comfy_kitchen.registry
    wants = registry.get_constraints("cuda", _SVDQ)
    if device.type != "cuda" or wants is None:  # other than NVIDIA's, or without the extension
        return Kernels.CHOSEN
    least, dtypes = wants.min_compute_capability or (0, 0), wants.params["x"].dtypes
    if torch.cuda.get_device_capability(device) < least or (dtypes and dtype not in dtypes):
        return Kernels.EAGER
    disabled = not registry.is_available("cuda")
    return Kernels.DIRECT if disabled and registry.get_constraints("cuda", _AWQ) else Kernels.CHOSEN


def forget_workspaces() -> None:
    """Drop what comfy-kitchen keeps for each rank that a layer has had, when ranks change.

    36 to 143 MB for a rank of Qwen-Image; what is still needed is made again at the next call.
    """
    kept = getattr(sys.modules.get(_CUDA), "_SVDQUANT_WORKSPACE_CACHE", None)
    if kept:
        kept.clear()
