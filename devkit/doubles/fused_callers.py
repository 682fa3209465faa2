"""Stand-ins for code that computes linear layers from their weights, and calls none of them.

ComfyUI above 0.30 has such functions for MLPs. Before they do, they ask a layer for the same
attributes as these; one that asks for nothing is what another pack may have. What is computed is
plain: the weight, read back, times the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...wrappers.targets.layered_class import GUARD


class Fused:
    """The stand-ins, and how often they have computed a layer themselves.

    Args:
        asks: whether layers are asked first.
    """

    def __init__(self, asks: bool = True) -> None:
        self.asks = asks
        self.computed = 0

    def product(self, layer: Any, x: Tensor) -> Tensor:
        """A linear layer computed from its weight."""
        if not torch.compiler.is_compiling():  # for which each number is another program
            self.computed += 1
        weight = layer.weight
        whole = weight.dequantize() if hasattr(weight, "_layout_cls") else weight
        bias = layer.bias
        return functional.linear(x, whole.to(x), None if bias is None else bias.to(x))

    def after_activation(self, layer: Any, x: Tensor) -> Tensor:
        """`layer(silu(x))`, as `comfy.ops.linear_input_act`: a layer without the attribute is not
        kept off.
        """
        active = functional.silu(x)
        if self.asks and getattr(layer, GUARD, False):
            return layer(active)
        return self.product(layer, active)

    def projection(self, layer: Any, x: Tensor) -> Tensor | None:
        """A projection, as Z-Image's of Q, K and V; None if the layer is to be called."""
        return self.product(layer, x) if self._takes(layer) else None

    def gated_mlp(self, mlp: Any, x: Tensor) -> Tensor | None:
        """Z-Image's MLP, all three layers at once; None if they are to be called."""
        if not all(self._takes(layer) for layer in (mlp.w1, mlp.w2, mlp.w3)):
            return None
        gate = functional.silu(self.product(mlp.w1, x))
        return self.product(mlp.w2, gate * self.product(mlp.w3, x))

    def _takes(self, layer: Any) -> bool:
        if not self.asks:
            return True
        quantized = hasattr(layer.weight, "_layout_cls")
        return quantized and not getattr(layer, GUARD) and not len(layer.weight_function)


def block_mlp(fused: Fused, block: Any, x: Tensor) -> Tensor:
    """The MLP of a block of Z-Image: fused where that can be, else called."""
    mlp = block.feed_forward
    whole = fused.gated_mlp(mlp, x)
    return mlp.w2(functional.silu(mlp.w1(x)) * mlp.w3(x)) if whole is None else whole


@contextmanager
def fused_mlps(network: torch.nn.Module, asks: bool = True) -> Iterator[Fused]:
    """Have the MLPs of a Z-Image computed by the stand-ins, as long as the context lasts."""
    fused = Fused(asks)
    blocks: list[Any] = [module for module in network.modules() if hasattr(module, "feed_forward")]
    for block in blocks:
        block.feed_forward.forward = partial(block_mlp, fused, block)
    try:
        yield fused
    finally:
        for block in blocks:
            del block.feed_forward.forward
