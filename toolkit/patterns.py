"""Patterns of two colours: how much of the second one each pixel has."""

from __future__ import annotations

from typing import Literal

import torch

from .color import RGBA

Direction = Literal["right", "down", "diagonal", "outward"]


def gradient(width: int, height: int, direction: Direction) -> torch.Tensor:
    """A weight that grows evenly from 0 to 1, `[1, height, width, 1]`.

    `right` and `down` grow along one axis, `diagonal` from the upper left corner to the lower
    right one, `outward` from the middle to the corners. A side of one pixel does not grow.
    """
    x = torch.linspace(0.0, 1.0, width).expand(height, width)
    y = torch.linspace(0.0, 1.0, height).unsqueeze(1).expand(height, width)
    if direction == "right":
        weight = x
    elif direction == "down":
        weight = y
    elif direction == "diagonal":
        weight = (x + y) / max((width > 1) + (height > 1), 1)
    else:
        across, down = (torch.linspace(-(n - 1) / 2, (n - 1) / 2, n) for n in (width, height))
        distance = torch.hypot(across.expand(height, width), down.unsqueeze(1))
        weight = distance / distance.max().clamp(min=1e-6)
    return weight.reshape(1, height, width, 1)


def checker(width: int, height: int, cell: int) -> torch.Tensor:
    """Squares of `cell` pixels, 0 in the upper left corner and 1 beside it.

    Returns:
        `[1, height, width, 1]`.
    """
    column = torch.arange(width) // cell
    row = (torch.arange(height) // cell).unsqueeze(1)
    return ((column + row) % 2).float().reshape(1, height, width, 1)


def noise(width: int, height: int, batch_size: int, seed: int, colored: bool) -> torch.Tensor:
    """Random weights, even over 0..1, the same for the same seed on every machine.

    Returns:
        `[batch_size, height, width, 4]` when every channel has its own (`colored`), otherwise
        `[batch_size, height, width, 1]`. The images of a batch differ.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch_size, height, width, 4 if colored else 1, generator=generator)


def blend(
    first: RGBA, second: RGBA, weight: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two colours mixed by `weight`, `[1 or batch_size, H, W, 1 or 4]`.

    Returns:
        The image, `[batch_size, H, W, 3]`, and the mask, `[batch_size, H, W]`, which is 1 where
        the mixture is transparent; both float32 in 0..1.
    """
    # Not a sum of two products, which rounding can take a little beyond 1.
    mixed = torch.lerp(torch.tensor(first), torch.tensor(second), weight).clamp_(0.0, 1.0)
    mixed = mixed.expand(batch_size, *mixed.shape[1:])
    return mixed[..., :3].contiguous(), (1.0 - mixed[..., 3]).contiguous()
