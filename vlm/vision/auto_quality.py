"""The preset `auto`: as many pixels as the detail of an image is worth.

The sum of squared differences between neighbouring pixels does not change when a picture whose
detail is coarser than its pixels is scaled (the Dirichlet integral is invariant in the plane); it
falls when scaling blurs detail away. So it is measured at the size of each preset and compared with
what `ultra` keeps, and the smallest preset that keeps enough is taken. Blurred or flat pictures
come out at `fast`, drawings with clean edges at `balanced`, photographs sharp to the pixel at
`high`, small print and grain at `ultra`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from .pixels import to_rgb
from .quality import QUALITIES, grid_of

REFERENCE = "ultra"
# Figures come from a copy of at most twice as many pixels as `ultra` has.
WORKING_PIXELS = 2 * QUALITIES[REFERENCE].max_pixels
KEEP = 0.65
# Mean squared difference of neighbouring pixels (brightness 0..1) below which there is nothing to
# see but gradients and compression noise: half a step of 8 bits.
FLAT = (0.5 / 255) ** 2


@dataclass(frozen=True)
class DetailChoice:
    """The preset that `auto` took, and the figures behind it.

    Attributes:
        quality: name of the preset.
        kept: per preset, the share of the gradient energy of `ultra` that its size keeps.
        energy: mean squared difference of neighbouring pixels at the size of `ultra`.
    """

    quality: str
    kept: dict[str, float]
    energy: float


def choose_quality(image: torch.Tensor, patch: int, merge: int) -> DetailChoice:
    """Choose the smallest preset that keeps 65 % of the gradient energy that `ultra` keeps.

    Args:
        image: `[H, W, C]`, as for `pixels.to_rgb`.
        patch, merge: sizes of the vision tower, as for `quality.grid_of`.

    Raises:
        ValueError: the image is empty, too long for its width, or holds NaN.
    """
    height, width = image.shape[0], image.shape[1]
    sizes = {}
    for name in QUALITIES:
        grid = grid_of(height, width, name, patch, merge)
        sizes[name] = (grid.height, grid.width)
    brightness = _brightness(image)
    energies = {size: _energy_at(brightness, size) for size in set(sizes.values())}
    total = energies[sizes[REFERENCE]]
    kept = {name: energies[size] / total if total else 1.0 for name, size in sizes.items()}
    energy = total / math.prod(sizes[REFERENCE])
    if energy < FLAT:
        return DetailChoice(next(iter(QUALITIES)), kept, energy)
    return DetailChoice(next(name for name in kept if kept[name] >= KEEP), kept, energy)


def _brightness(image: torch.Tensor) -> torch.Tensor:
    """Return `[1, 1, h, w]`, scaled down if the image is much larger than any preset."""
    height, width = image.shape[0], image.shape[1]
    shrink = min(1.0, math.sqrt(WORKING_PIXELS / (height * width)))
    rgb = to_rgb(image, (math.ceil(height * shrink), math.ceil(width * shrink)))
    weights = rgb.new_tensor([0.299, 0.587, 0.114])
    return torch.einsum("chw,c->hw", rgb, weights)[None, None]


def _energy_at(brightness: torch.Tensor, size: tuple[int, int]) -> float:
    # The same filter for every size: they are compared.
    scaled = F.interpolate(brightness, size, mode="bilinear", antialias=True, align_corners=False)
    return _gradient_energy(scaled)


def _gradient_energy(brightness: torch.Tensor) -> float:
    rows = brightness.diff(dim=-2).square().sum()
    columns = brightness.diff(dim=-1).square().sum()
    return float(rows + columns)
