"""Does our graph of a vision tower compute what the tower's own forward computes?"""

from __future__ import annotations

from typing import Any

import torch

from .vision_tower import UnsupportedTowerError, VisionTower

# Largest difference in relation to the largest feature; sums in another order, rounded on the way.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF_TOLERANCE = 0.1


@torch.no_grad()
def stock_features(
    tower: torch.nn.Module, pixel_values: torch.Tensor, grid_thw: torch.Tensor
) -> torch.Tensor:
    """Call a tower of transformers itself; return `[1 + deepstack layers, tokens, dim]`.

    Args:
        pixel_values: `[patches of all images, patch values]`.
        grid_thw: `[images, 3]` int64.
    """
    output: Any = tower(pixel_values, grid_thw=grid_thw)
    if hasattr(output, "pooler_output"):  # transformers 5
        levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    elif isinstance(output, tuple):  # transformers 4, with deepstack
        levels = [output[0], *output[1]]
    else:
        levels = [output]
    return torch.stack(levels)


def check_tower(module: torch.nn.Module) -> float:
    """Compare both on a small clip of noise, once per loaded model; return the relative error.

    Raises:
        UnsupportedTowerError: they differ by more than rounding explains. The tower then is of a
            construction not known here, although its parts have the right names.
    """
    tower = VisionTower(module, "off")
    geometry = tower.geometry
    # Two frames, and sides of which no window side is a multiple.
    grid = (2, 3 * geometry.merge_size, (geometry.window + 1) * geometry.merge_size)
    values = 3 * geometry.temporal_patch_size * geometry.patch_size**2
    noise = torch.randn(
        grid[0] * grid[1] * grid[2], values, generator=torch.Generator().manual_seed(0)
    )
    pixels = noise.to(tower.device, tower.dtype)
    expected = stock_features(module, pixels, torch.tensor([grid], device=tower.device))
    found = tower.encode(pixels, grid)[:, 0]
    if found.shape != expected.shape:
        raise _unknown(module, f"features {tuple(found.shape)} and {tuple(expected.shape)}")
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= TOLERANCE.get(tower.dtype, HALF_TOLERANCE):
        raise _unknown(module, f"features differ by {error:.1e}")
    return error


def _unknown(module: torch.nn.Module, difference: str) -> UnsupportedTowerError:
    name = type(module).__name__
    return UnsupportedTowerError(f"{name} is of an unknown construction ({difference})")
