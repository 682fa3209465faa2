"""The preset `auto`."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from vivace.vlm.vision.auto_quality import KEEP, choose_quality

SIDE = 1024


def noise(cells: int) -> torch.Tensor:
    """Return smooth noise `[SIDE, SIDE, 3]` with detail of SIDE / cells pixels."""
    coarse = torch.rand(1, 3, cells, cells, generator=torch.Generator().manual_seed(1))
    fine = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False)
    return fine[0].movedim(0, -1).clamp(0, 1).contiguous()


def rings(width: int) -> torch.Tensor:
    """Return black and white rings: clean edges in all directions, smoothed over a pixel."""
    line = torch.arange(SIDE)
    radius = (line[:, None] ** 2 + line[None] ** 2).sqrt()
    distance = (radius * math.pi / width).sin() * width / math.pi
    return (distance + 0.5).clamp(0, 1)[..., None].expand(SIDE, SIDE, 3)


def photograph() -> torch.Tensor:
    """Return noise with the spectrum of photographs: amplitude falls with frequency."""
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    frequency = torch.fft.fftfreq(SIDE)
    radius = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt()
    radius[0, 0] = torch.inf
    picture = torch.fft.ifft2(torch.fft.fft2(noise) / radius).real
    return (picture / picture.std() * 0.2 + 0.5).clamp(0, 1)[..., None].expand(SIDE, SIDE, 3)


def squares(cell: int) -> torch.Tensor:
    """Return a board of squares."""
    line = torch.arange(SIDE) // cell % 2
    board = (line[:, None] ^ line[None]).float()
    return board[..., None].expand(SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("image", "quality"),
    [
        (torch.full((SIDE, SIDE, 3), 0.3), "fast"),
        (torch.linspace(0, 1, SIDE).expand(SIDE, SIDE)[..., None], "fast"),
        (noise(32), "fast"),
        (rings(100), "balanced"),
        (photograph(), "high"),
        (noise(SIDE), "ultra"),
        (squares(2), "ultra"),
    ],
    ids=["flat", "gradient", "blurred", "clean edges", "photograph", "grain", "small print"],
)
def test_detail_decides(image: torch.Tensor, quality: str) -> None:
    choice = choose_quality(image, 14, 2)
    assert choice.quality == quality
    assert choice == choose_quality(image, 14, 2)


def test_the_figures_explain_the_choice() -> None:
    choice = choose_quality(rings(100), 14, 2)
    assert choice.kept["fast"] < KEEP <= choice.kept["balanced"]
    assert choice.kept["ultra"] == 1


def test_a_small_image_needs_no_large_budget() -> None:
    choice = choose_quality(noise(SIDE)[:400, :400], 14, 2)
    assert choice.quality == "fast"
    assert set(choice.kept.values()) == {1.0}


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        choose_quality(torch.full((64, 64, 3), float("nan")), 14, 2)
