"""How a file stores the factors of a LoRA: ordinary types, and 8 bits with scales beside them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PLAIN = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
_LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0, torch.int8: 127.0}


class Precision(NamedTuple):
    """A way to store a factor.

    Attributes:
        dtype: of the factor.
        scale: name of the scale's tensor, None without one.
        rows: whether every row has a scale of its own.
        shape: of the scale; -1 stands for the number of rows.
    """

    dtype: torch.dtype
    scale: str | None = None
    rows: bool = False
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return kind if self.scale is None else f"{kind} {self.scale} {list(self.shape)}"


def precisions() -> list[Precision]:
    """Return every way to store a factor."""
    found = [Precision(dtype) for dtype in PLAIN.values()]
    for dtype in _LARGEST:
        for scale in ("scale_weight", "weight_scale", "weight.scale"):
            found += [Precision(dtype, scale, shape=shape) for shape in ((), (1,))]
            found += [Precision(dtype, scale, True, shape) for shape in ((-1,), (-1, 1))]
    return found


class Stored(NamedTuple):
    """A factor as it is stored, its scale if it has one, and the value of both, in float64."""

    tensor: Tensor
    scale: Tensor | None
    value: Tensor


def store(factor: Tensor, precision: Precision) -> Stored:
    """Round a factor to what a file holds."""
    dtype = precision.dtype
    if precision.scale is None:
        tensor = factor.to(dtype)
        return Stored(tensor, None, tensor.double())
    peak = factor.abs().amax(1, keepdim=True) if precision.rows else factor.abs().max()
    scale = (peak / _LARGEST[dtype]).float()
    units = factor / scale.double()
    tensor = (units.round() if dtype is torch.int8 else units).to(dtype)
    value = tensor.double() * scale.double()
    return Stored(tensor, scale.reshape(precision.shape), value)


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a value as a plain type holds it, in float64."""
    return value.to(dtype).double()
