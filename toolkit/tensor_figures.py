"""Statistics of tensors of any size and type, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

CHUNK = 2**22


@dataclass(frozen=True)
class TensorFigures:
    """What was measured over all elements; of complex ones, their magnitudes."""

    count: int
    nan: int
    """Elements that are not a number."""
    infinite: int
    minimum: float
    maximum: float
    mean: float
    deviation: float
    """The standard deviation of the population. Like the three before, of finite elements only,
    and NaN if there are none."""


def measure(tensor: torch.Tensor) -> TensorFigures | None:
    """Statistics of a tensor; None if its values are not at hand (sparse, or on no device)."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return None
    # An expanded dimension repeats the same elements, which changes none of the averages.
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())
    unique = tensor.detach()[once]
    nan = infinite = finite = 0
    total = squares = 0.0
    lowest, highest = math.inf, -math.inf
    # The average is subtracted before squaring, as far as it is known from the first elements.
    shift: float | None = None
    for part in unique.reshape(-1).split(CHUNK):
        values = (part.abs() if part.is_complex() else part).cpu().double()
        nan += int(values.isnan().sum())
        infinite += int(values.isinf().sum())
        values = values[values.isfinite()]
        if not values.numel():
            continue
        shift = float(values.mean()) if shift is None else shift
        finite += values.numel()
        total += float((values - shift).sum())
        squares += float((values - shift).square().sum())
        lowest = min(lowest, float(values.min()))
        highest = max(highest, float(values.max()))
    times = tensor.numel() // unique.numel() if unique.numel() else 0
    if shift is None:
        unknown = (math.nan, math.nan, math.nan, math.nan)
        return TensorFigures(tensor.numel(), nan * times, infinite * times, *unknown)
    mean = total / finite
    deviation = math.sqrt(max(squares / finite - mean * mean, 0.0))
    return TensorFigures(
        tensor.numel(), nan * times, infinite * times, lowest, highest, shift + mean, deviation
    )
