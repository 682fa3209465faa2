"""What the demo proves: each check is independent of the pack and of ComfyUI's LoRA code."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..doubles.demo_models import BLOCK, DemoLora, lora_state_dict

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    latent: torch.Tensor
    weights: dict[str, torch.Tensor]
    seconds: float
    matched: str
    """LoRA modules matched of those in the files, as the node reports them."""
    image: bytes | None


@dataclass(frozen=True)
class Check:
    """One claim and whether it held."""

    claim: str
    held: bool
    figures: str = ""


def equal(claim: str, one: Result, other: Result) -> Check:
    """Both runs have bit-equal latents and weights."""
    import torch

    same = torch.equal(one.latent, other.latent) and all(
        torch.equal(value, other.weights[name]) for name, value in one.weights.items()
    )
    return Check(claim, same)


def different(claim: str, one: Result, other: Result) -> Check:
    """The latents differ by more than rounding."""
    change = float((one.latent - other.latent).norm() / one.latent.norm())
    return Check(claim, change > 1e-3, f"relative change of the latent {change:.3f}")


def close(claim: str, one: Result, other: Result) -> Check:
    """The latents differ by no more than rounding."""
    error = float((one.latent - other.latent).norm() / one.latent.norm())
    return Check(claim, error < 1e-4, f"relative difference of the latents {error:.1e}")


def weights_are_exact(
    claim: str, base: Result, patched: Result, loras: list[tuple[DemoLora, float]]
) -> Check:
    """Every saved weight is `W + sum(strength * alpha / rank * up @ down)`, up to rounding.

    The delta is computed here in float64 from the factors that were put into the files. An error is
    measured in roundings of the weight's dtype, of the magnitudes of all terms that were added up.
    """
    import torch

    worst, effects = 0.0, []
    for name, before in base.weights.items():
        after = patched.weights[name]
        delta = torch.zeros(before.shape, dtype=torch.float64)
        magnitude = before.double().abs()
        for lora, strength in loras:
            part, terms = _delta(lora, name, before)
            delta += strength * part
            magnitude += abs(strength) * terms
        error = (after.double() - before.double() - delta).abs()
        rounding = torch.finfo(after.dtype).eps * magnitude + 1e-9
        worst = max(worst, float((error / rounding).max()))
        effects.append(float(delta.norm() / before.double().norm()))
    held = worst <= 4.0 and max(effects) > 0.1
    changed = sum(effect > 0 for effect in effects)
    return Check(
        claim,
        held,
        f"{changed} of {len(effects)} saved weights changed, by up to {max(effects):.2f} of their"
        f" norm; worst error {worst:.2f} roundings",
    )


def _delta(lora: DemoLora, parameter: str, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`alpha / rank * up @ down` for the rows of `like`, and the same of the absolute values."""
    import torch

    module = parameter.removesuffix(".weight").removeprefix(f"{BLOCK}.")
    if module not in lora.modules:
        nothing = torch.zeros(like.shape, dtype=torch.float64)
        return nothing, nothing
    factors, stem = _factors(lora), lora.stem(module)
    scale = 1.0 if lora.alpha is None else lora.alpha / lora.rank
    up, down = factors[f"{stem}.{lora.up}"], factors[f"{stem}.{lora.down}"]
    up, down = up[: like.shape[0]].double(), down.double()
    return scale * (up @ down), scale * (up.abs() @ down.abs())


@functools.cache
def _factors(lora: DemoLora) -> dict[str, torch.Tensor]:
    return lora_state_dict(lora)
