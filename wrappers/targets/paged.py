"""Factors in a form that ComfyUI's memory management handles like the weights of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.ops import cast_bias_weight, uncast_bias_weight
from torch import Tensor


class Paged(torch.nn.Module):
    """One or two tensors that are loaded, paged, pinned and dropped together.

    They are called `weight` and `bias`, and the module has what ComfyUI's own layers have
    (``comfy_cast_weights`` and so on), so that each of its ways to run a model that does not fit
    is open to them: left in host memory and cast at each call, or, with dynamic VRAM, faulted in
    and evicted layer by layer.

    What was handed in stays where it is: a move to a device makes a copy, and a move back drops it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.comfy_cast_weights = False
        self.weight_function: list[Any] = []
        self.bias_function: list[Any] = []
        self._home = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        for name in ("weight", "bias"):
            self.register_parameter(name, None)
        self._place(lambda tensor: tensor)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._place(fn)
        return self

    def _place(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Take copies that `fn` makes of the tensors, all or none; none where it moves nothing."""
        taken: dict[str, torch.nn.Parameter] = {}
        for name, home in self._home.items():
            device = fn(home.new_empty(0)).device
            placed = home if device == home.device else fn(home)
            taken[name] = torch.nn.Parameter(placed, requires_grad=False)
        self._parameters.update(taken)

    def fetch(self, x: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Return both tensors where `x` is and in its dtype, and what `release` wants."""
        weight: Any = self.weight
        if weight.device == x.device and weight.dtype == x.dtype:
            bias: Any = self.bias
            return weight, bias, None
        return cast_bias_weight(self, x, offloadable=True)

    def fetch_as_is(self, device: torch.device) -> tuple[Tensor, Tensor, Any]:
        """As `fetch`, in the dtype that the first tensor has."""
        weight: Any = self.weight
        if weight.device == device:
            bias: Any = self.bias
            return weight, bias, None
        dtype = weight.dtype
        return cast_bias_weight(
            self, None, dtype=dtype, device=device, bias_dtype=dtype, offloadable=True
        )

    def release(self, weight: Tensor, bias: Tensor | None, held: Any) -> None:
        """Say that what was fetched is not used any more."""
        if held is not None:
            uncast_bias_weight(self, weight, bias, held)


class Reserve(torch.nn.Module):
    """Room for what is allocated later, so that ComfyUI does not give it away meanwhile.

    Args:
        nbytes: how many bytes.
        device: where the model runs.

    Attributes:
        device: as given.
        on_leave: called when ComfyUI wants the room for something else, whether or not it was
            taken; set by who takes it.
    """

    def __init__(self, nbytes: int, device: torch.device) -> None:
        super().__init__()
        self.on_leave: Callable[[], None] | None = None
        self._nbytes = nbytes
        self.device = device
        self._home = torch.empty(0).device
        self.room = torch.nn.Parameter(self._empty(self._home), requires_grad=False)

    def _empty(self, device: torch.device) -> Tensor:
        # In host memory nothing is ever written there, so it takes none.
        return torch.empty(self._nbytes, dtype=torch.uint8, device=device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, dtype=torch.uint8, device=self._home)).device
        leaves = device == self._home and self.device.type != self._home.type
        if leaves and self.on_leave is not None:
            self.on_leave()
        if leaves or device != self.room.device:
            self.room = torch.nn.Parameter(self._empty(device), requires_grad=False)
        return self

    def give(self) -> None:
        """Free the room on a device, for what it was kept for."""
        if self.room.device != self._home:
            self.room = torch.nn.Parameter(self.room.new_empty(0), requires_grad=False)
