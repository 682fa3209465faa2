"""Pixel budgets: how large an image is shown to the model, and how many tokens that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

MAX_ASPECT_RATIO = 200  # beyond it the models' own processors refuse, too
MIN_SIDE = 2


class PixelBudget(NamedTuple):
    """The smallest and the largest number of pixels an image is resized to."""

    min_pixels: int
    max_pixels: int


QUALITIES: Mapping[str, PixelBudget] = MappingProxyType(
    {
        "fast": PixelBudget(128 * 28 * 28, 256 * 28 * 28),
        "balanced": PixelBudget(256 * 28 * 28, 512 * 28 * 28),
        "high": PixelBudget(256 * 28 * 28, 768 * 28 * 28),
        "ultra": PixelBudget(256 * 28 * 28, 1024 * 28 * 28),
    }
)


class ImageGrid(NamedTuple):
    """The size an image is resized to, and what becomes of it.

    Attributes:
        height, width: pixels, multiples of patch * merge.
        grid_thw: temporal patches, patch rows and patch columns.
        tokens: tokens the language model sees.
    """

    height: int
    width: int
    grid_thw: tuple[int, int, int]
    tokens: int


def budget_of(quality: str) -> PixelBudget:
    """Return the budget of a preset.

    Raises:
        ValueError: there is no such preset.
    """
    try:
        return QUALITIES[quality]
    except KeyError:
        raise ValueError(f"image quality {quality!r} is none of {', '.join(QUALITIES)}") from None


def grid_of(
    height: int,
    width: int,
    quality: str,
    patch: int,
    merge: int,
    *,
    temporal_patches: int = 1,
    enlarge: bool = False,
) -> ImageGrid:
    """Fit an image of `height` x `width` pixels into the budget of a preset.

    Both sides are rounded to multiples of patch * merge, keeping the aspect ratio as closely as
    that allows. The largest number of pixels is never exceeded; the smallest is only sought if
    `enlarge` is set. The budget holds for each frame of a video.

    Raises:
        ValueError: unknown preset, or an image no model can look at: empty, one pixel high or
            wide, or more than 200 times as long as it is short.
    """
    budget = budget_of(quality)
    check_size(height, width)
    factor = patch * merge
    rows, columns = round(height / factor), round(width / factor)
    pixels = rows * columns * factor * factor
    if pixels > budget.max_pixels:
        shrink = math.sqrt(height * width / budget.max_pixels)
        rows = math.floor(height / shrink / factor)
        columns = math.floor(width / shrink / factor)
    elif enlarge and pixels < budget.min_pixels:
        grow = math.sqrt(budget.min_pixels / (height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    rows, columns = _within(max(rows, 1), max(columns, 1), budget.max_pixels // factor**2)
    return ImageGrid(
        rows * factor,
        columns * factor,
        (temporal_patches, rows * merge, columns * merge),
        temporal_patches * rows * columns,
    )


def check_size(height: int, width: int) -> None:
    """Refuse sizes that cannot be shown to a model.

    Raises:
        ValueError: the image is empty, one pixel high or wide, or too long for its width.
    """
    size = f"{width}x{height} pixels"
    if height < 1 or width < 1:
        raise ValueError(f"The image is empty ({size}). Connect an image with pixels")
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"The image is a line ({size}). Crop or pad it to a usable shape")
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"The image ({size}) is more than {MAX_ASPECT_RATIO} times as long as it is short. "
            "Crop it or pad it"
        )


def _within(rows: int, columns: int, tokens: int) -> tuple[int, int]:
    """Shorten the longer side of a strip that rounding up took over the budget."""
    if rows <= columns:
        return rows, min(columns, max(tokens // rows, 1))
    return min(rows, max(tokens // columns, 1)), columns
