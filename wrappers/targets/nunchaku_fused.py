"""Nunchaku's fused operations undone, for changes that their factors cannot express.

A fused operation computes several modules at once and calls none of them, so nothing can stand
beside one of them. But the classes that use these operations derive from ComfyUI's own, whose
`forward` computes the same from the same children, one after the other.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...lora.factors.branch import Branch
from ...svdquant.convert import convert_svdq
from .branch_layer import BranchLayer

# What fused operations compute: both linears of a GELU MLP of Qwen-Image, and the projection to Q,
# K and V with norms and rotation of Z-Image.
_FUSED = re.compile(r"(.*_mlp)\.net\.(?:0\.proj|2)|(.*attention)\.qkv")
STOCK = "comfy.ldm."  # where ComfyUI's own classes of layers are


def fused_parent(path: str) -> str | None:
    """The module that computes a layer of Nunchaku's without calling it; None for other layers."""
    match = _FUSED.fullmatch(path)
    return None if match is None else match[1] or match[2]


def stock_class(module: Any) -> Any:
    """ComfyUI's class that a module's class derives from; None if there is none."""
    return next((cls for cls in type(module).__mro__ if cls.__module__.startswith(STOCK)), None)


class Unfused:
    """Computes a module as ComfyUI's own class does, by calling its children.

    The call comes before the module's hooks, with which Nunchaku packs the angles of the rotation
    for its kernel, so they are as ComfyUI's class takes them.
    """

    def product(self, module: Any, *args: Any, **kwargs: Any) -> Tensor:
        # Nunchaku's attention leaves this attribute out; its kernel always has the norms.
        module.__dict__.setdefault("qk_norm", True)
        return stock_class(module).forward(module, *args, **kwargs)

    def __call__(self, x: Tensor, y: Tensor, module: Any) -> Tensor:
        return y


class UnsignedLayer(BranchLayer):
    """The second linear of an unfused MLP, and its branch if it has one.

    The layer's kernel reads activations that only the fused operation can write (unsigned, shifted
    by the least value of GELU), so the product is one with the weight read back. It is read back
    at each call, since all of them together would take the memory that quantizing has saved.
    """

    def __init__(self, branch: Branch | None = None) -> None:
        self._has_branch = branch is not None
        super().__init__(branch or Branch("", ()))

    def product(self, module: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = _natural(module)
        bias = layer.dense_bias()
        return functional.linear(
            x, layer.dense().to(x.dtype), None if bias is None else bias.to(x.dtype)
        )

    def bias(self, module: Any) -> Tensor | None:
        return _natural(module).dense_bias()

    def __call__(self, x: Tensor, y: Tensor, module: Any) -> Tensor:
        return super().__call__(x, y, module) if self._has_branch else y


def _natural(module: Any) -> Any:
    tensors = {name: tensor.detach() for name, tensor in module.named_parameters()}
    return convert_svdq(tensors, act_unsigned=True)
