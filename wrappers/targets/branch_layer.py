"""LoRAs as a runtime branch beside a linear layer: `y += ((x Aᵀ)·s) Bᵀ`.

The weight is not touched, so quantized weights lose nothing, and a changed strength is a changed
vector. While a model samples, the class of each linear layer that a stack changes is replaced by a
subclass whose `__call__` adds the branch. That keeps the module, its parameters, their names and
`isinstance` as they are; it covers a `forward` that other packs have replaced; and `torch.compile`
sees it, because its guards compare the types of modules.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import torch

from ...lora.factors.branch import Branch

MARK = "_vivace_branch"  # the attribute of a module where its layer is


class Layer(Protocol):
    """What stands beside a module while a model samples: how its output is computed."""

    def product(self, module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The module's output without LoRAs."""
        ...

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        """`y`, the product of `module` for `x`, with the branch added."""
        ...


class BranchLayer:
    """The branch of one linear layer, on the device where ComfyUI wants it.

    The composed factors stay in host memory, where the composer keeps them for the next change;
    what goes to the GPU is a copy, which unloading just drops.
    """

    __slots__ = ("branch", "host")

    def __init__(self, branch: Branch) -> None:
        self.host = branch
        self.branch = branch

    def move(self, device: torch.device) -> None:
        """Bring the factors to a device; to the one they came from costs nothing."""
        home = device == device_of(self.host)
        self.branch = self.host if home else moved(self.host, device)

    def product(self, module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return plain_call(module, x, *args, **kwargs)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        branch = self.branch
        a, b, s = branch.A, branch.B, branch.s
        # A factor of the bias comes with a term, that of the weight.
        if branch.terms or a is None or b is None or s is None or a.device != x.device:
            return self._add_any(x, y, module)
        inner = torch.nn.functional.linear(x, a.to(x.dtype)) * s.to(x.dtype)
        y = y + torch.nn.functional.linear(inner, b.to(x.dtype))
        return y if branch.bias is None else y + branch.bias.to(y.dtype)

    def _add_any(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        # ComfyUI may leave a part of a model in host memory when the GPU is short of it.
        branch = self.branch
        if device_of(branch) != x.device:
            branch = moved(branch, x.device)

        def linear(z: torch.Tensor) -> torch.Tensor:
            product = y if z is x else self.output(self.product(module, z))
            bias = self.bias(module)
            return product if bias is None else product - bias.to(product)

        own_bias = None if branch.bias_lift is None else self.original_bias(module)
        if own_bias is None:  # and a factor of none changes nothing
            branch = replace(branch, bias_lift=None)
        return y + branch.apply(x, linear, own_bias).to(y.dtype)

    def bias(self, module: Any) -> torch.Tensor | None:
        """The module's bias in the order of the branch's rows."""
        return module.bias

    def original_bias(self, module: Any) -> torch.Tensor | None:
        """The bias that the layer was trained with, which is what a factor multiplies."""
        return self.bias(module)

    def output(self, y: torch.Tensor) -> torch.Tensor:
        """The module's output in the order of the branch's rows."""
        return y


def device_of(branch: Branch) -> torch.device:
    """The device of a branch's tensors."""
    for tensor in (branch.A, branch.bias, branch.bias_lift):
        if tensor is not None:
            return tensor.device
    return branch.terms[0].delta.device


def moved(branch: Branch, device: torch.device) -> Branch:
    """The branch with every tensor on a device."""
    tensors = {
        name: None if tensor is None else tensor.to(device, non_blocking=True)
        for name, tensor in (
            ("A", branch.A),
            ("B", branch.B),
            ("s", branch.s),
            ("bias", branch.bias),
            ("bias_lift", branch.bias_lift),
        )
    }
    terms = tuple(replace(term, delta=term.delta.to(device)) for term in branch.terms)
    return replace(branch, terms=terms, **tensors)


def put(module: Any, layer: Layer) -> None:
    """Make a module's calls go through a layer, until `take_off`."""
    module.__class__ = _with_layer(type(module))
    module.__dict__[MARK] = layer


def take_off(module: Any) -> None:
    """Undo `put`, if it was done."""
    if module.__dict__.pop(MARK, None) is not None:
        module.__class__ = type(module).__base__


def plain_call(module: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The module's own output, without its layer."""
    bare: Any = type(module).__base__
    return bare.__call__(module, *args, **kwargs)


@lru_cache(maxsize=64)
def _with_layer(cls: type[torch.nn.Module]) -> type[torch.nn.Module]:
    def __call__(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: N807
        layer = self.__dict__[MARK]
        return layer(x, layer.product(self, x, *args, **kwargs), self)

    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})
