"""Claims about the kernels of 4-bit layers: which ones run, what they return, how fast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...svdquant.layers import GROUP
from ...svdquant.linears import AwqLinear, SvdqLinear
from ...wrappers.svdquant.kernels import Kernels, kernels_for, product, product_with
from ...wrappers.svdquant.svdquant_ops import quantized
from ..bench.harness import Timings, spread
from . import models
from .card import Card
from .claims import Claim, Measured

_DTYPE = torch.bfloat16
_RANK = 32
_ERROR = 2e-2  # of bf16 products; an input may also fall to the next of 16 steps


def _sizes(card: Card) -> tuple[int, int]:
    """Width of Qwen-Image and rows of its modulation, small in a dry run."""
    width = 256 if card.dry else 3072
    return width, 6 * width


def _noise(card: Card, *shape: int) -> Tensor:
    return torch.randn(shape, device=card.device, dtype=_DTYPE)


def _bytes(card: Card, *shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, device=card.device, dtype=torch.int8)


def _svdq(card: Card) -> Any:
    width, _ = _sizes(card)
    layer = SvdqLinear(
        weight=_bytes(card, width, width // 2),
        scale=_noise(card, width // GROUP, width).abs() * 0.01 + 0.001,
        proj_down=_noise(card, width, _RANK) / width**0.5,
        proj_up=_noise(card, width, _RANK) / _RANK**0.5,
        smooth_factor=_noise(card, width).abs() + 0.5,
    )
    return quantized(layer)


def _awq(card: Card) -> Any:
    width, rows = _sizes(card)
    layer = AwqLinear(
        weight=_bytes(card, rows, width // 2),
        scale=_noise(card, width // GROUP, rows).abs() * 0.01 + 0.001,
        zeros=_noise(card, width // GROUP, rows) * 0.01,
    )
    return quantized(layer)


def same_as_eager(card: Card) -> Measured:
    """Products of both layouts with what is chosen here, beside plain PyTorch's."""
    width, rows = _sizes(card)
    chosen = kernels_for(card.device, _DTYPE)
    errors: dict[str, float] = {}
    for name, weight, out, count in (
        ("SVDQuant", _svdq(card), width, 256),
        ("AWQ", _awq(card), rows, 2),
    ):
        x, bias = _noise(card, count, width), _noise(card, out)
        wanted = product_with(Kernels.EAGER, x, weight, bias)
        errors[name] = models.relative_error(product(x, weight, bias), wanted)
    told = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    return Measured(
        f"{chosen.value}; relative differences: {told}",
        max(errors.values()) < _ERROR,
        {"kernels": chosen.name, "errors": errors},
    )


def modulation(card: Card) -> Measured:
    """A modulation layer with what is chosen here and with plain PyTorch, by turns."""
    width, rows = _sizes(card)
    weight, x, bias = _awq(card), _noise(card, 1, width), _noise(card, rows)
    timings, times = Timings(card.kind), 1 if card.dry else 20

    def ours() -> None:
        for _ in range(times):
            product(x, weight, bias)

    def eager() -> None:
        for _ in range(times):
            product_with(Kernels.EAGER, x, weight, bias)

    ours()
    eager()
    for _ in range(3 if card.dry else 9):
        timings.time("eager", eager, fresh=False)
        timings.time("ours", ours, fresh=False)
    ratio = spread(timings.ratios("ours", "eager"))
    took = timings.summary()["ours"]["median"] / times
    chosen = kernels_for(card.device, _DTYPE)
    slow = chosen is Kernels.EAGER  # an old card: nothing is faster there
    return Measured(
        f"{took:.3g} ms, {ratio['median']:.3g} ({ratio['min']:.3g} .. {ratio['max']:.3g}) of"
        f" plain PyTorch's, with {chosen.value}",
        slow or ratio["median"] <= 0.5,
        {"ratio": ratio, "kernels": chosen.name, "milliseconds": timings.summary()},
    )


CLAIMS = (
    Claim(
        "kernels-same", "rows 2, 9", "4-bit layers run here, and return what plain PyTorch does",
        same_as_eager, 20, True,
    ),
    Claim(
        "kernels-awq", "row 9",
        "A modulation layer takes at most half of the time that plain PyTorch takes",
        modulation, 20, False,
    ),
)  # fmt: skip
