"""What the modules of packed layouts share: views of neighbours, and checks of shapes."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor


def pairs(tensor: Tensor) -> Tensor:
    """View pairs of neighbours, which all layouts keep together, as one element each: faster."""
    wide = {1: torch.int16, 2: torch.int32, 4: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(wide)


def fours(data: Tensor) -> Tensor:
    """View four neighbouring bytes as one element."""
    return data.contiguous().view(torch.int32)


def sides(tensor: Tensor, what: str, rows: int, columns: int) -> tuple[int, int]:
    """Return the sides of a matrix that must be multiples of `rows` and `columns`."""
    if tensor.dim() != 2 or 0 in tensor.shape:
        refuse(what, tensor)
    n, k = tensor.shape
    if n % rows or k % columns:
        raise ValueError(
            f"{what} of shape {[n, k]}: the sides must be multiples of {rows} and {columns}"
        )
    return n, k


def refuse(what: str, tensor: Tensor) -> NoReturn:
    """Raise a ValueError which says that `what` cannot have the shape of `tensor`."""
    raise ValueError(f"{what} cannot have the shape {list(tensor.shape)}")
