"""Making and judging IMAGE tensors: `[B, H, W, C]`, float32, 0..1; masks are `[B, H, W]`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .color import RGBA


def blank_image(
    width: int, height: int, batch_size: int, color: RGBA
) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of one colour and its mask.

    Returns:
        The image, `[batch_size, height, width, 3]`, and the mask, `[batch_size, height, width]`,
        which is 1 where the colour is transparent, as ComfyUI's image loader has it.
    """
    image = torch.tensor(color[:3]).expand(batch_size, height, width, 3).contiguous()
    mask = torch.full((batch_size, height, width), 1.0 - color[3])
    return image, mask


@dataclass(frozen=True)
class EmptyRule:
    """When an image counts as empty; a limit of None switches that criterion off."""

    uniform_within: float | None
    """Largest difference between two pixels, in any channel."""
    black_below: float | None
    """Brightest channel of the brightest pixel."""
    white_above: float | None
    """Darkest channel of the darkest pixel."""
    transparent_above: float | None
    """Smallest mask value (1 is transparent)."""


def emptiness(
    image: torch.Tensor | None, mask: torch.Tensor | None, rule: EmptyRule
) -> list[tuple[bool, str]]:
    """For each image of the batch whether it is empty, and the measured figures that say so.

    Args:
        image: `[B, H, W, C]` or `[H, W, C]` with C of 1, 3 or 4 (the fourth channel is opacity),
            or None. Values that are not numbers count as 0, as where ComfyUI shows and saves them.
        mask: `[B, H, W]` or `[H, W]`, 1 where transparent, or None.

    No image at all, or one without pixels, gives one empty entry.

    Raises:
        ValueError: the shape is not that of an image.
    """
    if image is None:
        return [(True, "no image")]
    if image.ndim == 3:
        image = image.unsqueeze(0)
    if image.ndim != 4:
        raise ValueError(
            f"image: a tensor of shape {list(image.shape)} is no image. Connect an IMAGE, which is"
            " [batch, height, width, channels]."
        )
    if image.numel() == 0:
        return [(True, f"no pixels: shape {tuple(image.shape)}")]
    if mask is not None and mask.ndim == 2:
        mask = mask.unsqueeze(0)
    return [_judge(image[i], _mask_of(image, mask, i), rule) for i in range(image.shape[0])]


def _mask_of(image: torch.Tensor, mask: torch.Tensor | None, index: int) -> torch.Tensor | None:
    if mask is not None and mask.numel() > 0:
        return mask[min(index, mask.shape[0] - 1)]
    return 1.0 - image[index, ..., 3] if image.shape[-1] == 4 else None


def _judge(image: torch.Tensor, mask: torch.Tensor | None, rule: EmptyRule) -> tuple[bool, str]:
    pixels = image[..., :3].reshape(-1, min(image.shape[-1], 3)).float()
    unknown = int(pixels.isnan().sum())
    if unknown:
        pixels = pixels.nan_to_num(nan=0.0)
    lowest, highest = pixels.amin(dim=0), pixels.amax(dim=0)
    spread = float((highest - lowest).max())
    darkest, brightest = float(lowest.min()), float(highest.max())
    opaque = None if mask is None else float(mask.float().nan_to_num(nan=0.0).min())
    reasons = [
        name
        for name, met in (
            ("uniform", rule.uniform_within is not None and spread <= rule.uniform_within),
            ("black", rule.black_below is not None and brightest <= rule.black_below),
            ("white", rule.white_above is not None and darkest >= rule.white_above),
            (
                "transparent",
                rule.transparent_above is not None
                and opaque is not None
                and opaque >= rule.transparent_above,
            ),
        )
        if met
    ]
    figures = f"darkest {darkest:.4f}, brightest {brightest:.4f}, spread {spread:.4f}"
    if opaque is not None:
        figures += f", least transparent {opaque:.4f}"
    if unknown:
        figures += f", {unknown} values are not numbers"
    return bool(reasons), f"{' + '.join(reasons) or 'not empty'}: {figures}"
