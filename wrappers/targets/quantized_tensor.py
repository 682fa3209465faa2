"""Layers whose weight is a tensor of a class that can give its values back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..svdquant.kitchen_weight import is_kitchen
from .weight_kind import Excerpt, Peak, WeightKind


class QuantizedTensor(WeightKind):
    """Weights in one of comfy-kitchen's layouts (fp8, INT8, nvfp4 and others), as ComfyUI has."""

    def recognises(self, module: Any) -> bool:
        cls = type(getattr(getattr(module, "weight", None), "data", None))
        # Any tensor has this method; a class that gives values back has one of its own.
        return getattr(cls, "dequantize", Tensor.dequantize) is not Tensor.dequantize

    def weight(self, module: Any, stored: Any) -> Tensor:
        # In the tensor's own type, 16 bits as a rule, the values would be rounded.
        return stored.to(torch.float32).dequantize().float()

    def takes_merges(self, module: Any) -> bool:
        return not is_kitchen(module.weight)

    def reads_rows(self, stored: Any) -> bool:
        return _scale_by_row(stored) is not None

    def excerpt(self, module: Any, stored: Any, start: int, stop: int) -> Excerpt:
        whole = (start, stop) == (0, stored.shape[0])
        scale = _scale_by_row(stored)
        if scale is None:
            weight = self.weight(module, stored)
            row = int(weight.abs().amax(1).argmax())
            peak = None if whole else Peak(row, weight[row : row + 1])
            return Excerpt(weight[start:stop], peak)

        def read(first: int, last: int) -> Tensor:
            cut = replace(
                stored.params,
                scale=scale if scale.numel() == 1 else scale[first:last],
                orig_shape=(last - first, *stored.shape[1:]),
            )
            numbers = stored._qdata[first:last]
            return self.weight(module, type(stored)(numbers, stored._layout_cls, cut))

        if whole or scale.numel() > 1:
            return Excerpt(read(start, stop))
        row = _largest_row(stored._qdata)
        return Excerpt(read(start, stop), Peak(row, read(row, row + 1)))


def _scale_by_row(stored: Any) -> Tensor | None:
    """The scale of a weight whose numbers lie row by row, as fp8 and INT8 do: one for all or one
    for each row. None for other layouts, of which no part can be read alone."""
    scale, rows = stored.params.scale, stored.shape[0]
    if tuple(stored._qdata.shape) != tuple(stored.shape):
        return None
    return scale if scale.numel() == 1 or tuple(scale.shape) == (rows, 1) else None


def _largest_row(numbers: Tensor) -> int:
    """The row with the largest magnitude, of integers or of 8-bit floats."""
    if numbers.dtype.is_floating_point:
        # Without the sign, the bits of a greater float are a greater integer.
        return int((numbers.view(torch.uint8) & 0x7F).amax(1).argmax())
    most, least = numbers.amax(1).short(), numbers.amin(1).short()
    return int(torch.maximum(most, -least).argmax())
