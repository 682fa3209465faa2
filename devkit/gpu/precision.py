"""Claims about exactness: fp8 under dynamic VRAM, DoRA beside it, and a branch in 16 bits."""

from __future__ import annotations

import torch

from ...wrappers.targets.known_kinds import kind_of
from ...wrappers.targets.used_dtype import used_dtype
from ..doubles import tiny_models as tiny
from . import models
from .card import Card
from .claims import Claim, Measured

_FP8 = "fp8 cast"
_SMALL_ERROR = 1e-4  # float32 sums in another order, over two steps of a model
_STRENGTH = 0.7
_ROUNDINGS = 3  # the layer's product, the product down, and the sum; without a branch, one


def fp8_counts_as_fp8(card: Card) -> Measured:
    """A weight that `weight_dtype` makes fp8: known as rounded, and not merged into."""
    card.needs_dynamic()
    model = tiny.qwen_image(_FP8)
    layer = model.model.diffusion_model.get_submodule(models.QUERY)
    path, _ = models.lora_file(card, model, "fp8", [models.QUERY])
    patched = models.apply(model, (path, _STRENGTH))
    rounds, merged = kind_of(layer).rounds, len(patched.patches)
    stored, used = (str(d).removeprefix("torch.") for d in (layer.weight.dtype, used_dtype(layer)))
    return Measured(
        f"held as {stored}, used as {used}; counts as rounded: {rounds}; {merged} merged weights",
        rounds and merged == 0,
        {"stored": stored, "used": used, "rounds": rounds, "merged": merged},
    )


def dora_beside_fp8(card: Card) -> Measured:
    """Pictures with DoRA on fp8 weights, beside those with its float64 change in a hook."""
    model = tiny.qwen_image(_FP8)
    path, tensors = models.lora_file(card, model, "dora8", [models.QUERY], 4, dora=True)
    weight = tiny.weight_of(model, f"{models.QUERY}.weight").cpu()
    base = weight.double()
    changed = base + models.change_of(tensors, models.QUERY, tiny.CPU)
    magnitude = tensors[f"diffusion_model.{models.QUERY}.dora_scale"].double()
    changed = magnitude * changed / changed.norm(dim=1, keepdim=True)
    with models.adding(model, {models.QUERY: _STRENGTH * (changed - base)}):
        wanted = tiny.sample(model)
    without = tiny.sample(model)
    got = tiny.sample(models.apply(model, (path, _STRENGTH)))
    error, effect = (models.relative_error(x, wanted) for x in (got, without))
    return Measured(
        f"error of the latent {error:.1e}, of {effect:.1e} that the file changes it by"
        f" (weights are {str(weight.dtype).removeprefix('torch.')})",
        error < _SMALL_ERROR < effect and weight.dtype == torch.float8_e4m3fn,
        {"error": error, "effect": effect},
    )


def branch_in_bf16(card: Card) -> Measured:
    """What layers return in bf16 with a branch, beside float64, and the same without a branch."""
    model = models.wide(card)
    path, tensors = models.lora_file(card, model, "bf16", rank=32)
    patched = models.apply(model, (path, 1.0), mode="branch")
    network = model.model.diffusion_model
    layers = {name: network.get_submodule(name) for name in models.LINEARS}
    generator = torch.Generator(card.device).manual_seed(4)
    inputs = {
        name: torch.randn(
            256, layer.in_features, device=card.device, generator=generator
        ).bfloat16()
        for name, layer in layers.items()
    }
    plain = {name: layer(inputs[name]) for name, layer in layers.items()}
    with models.installed(patched, card.device):
        beside = {name: layer(inputs[name]) for name, layer in layers.items()}
    worst = {"plain": 0.0, "branch": 0.0}
    for name, layer in layers.items():
        x = inputs[name].double()
        exact = x @ layer.weight.double().T + layer.bias.double()
        worst["plain"] = max(worst["plain"], models.relative_error(plain[name], exact))
        exact += x @ models.change_of(tensors, name, card.device).T
        worst["branch"] = max(worst["branch"], models.relative_error(beside[name], exact))
    return Measured(
        f"largest relative error of a layer's output {worst['branch']:.1e},"
        f" without LoRAs {worst['plain']:.1e}",
        worst["branch"] <= _ROUNDINGS * worst["plain"],
        worst,
    )


CLAIMS = (
    Claim(
        "fp8-counts", "row 1",
        "A weight that is fp8 by weight_dtype counts as fp8, and LoRAs run beside it",
        fp8_counts_as_fp8, 20, True,
    ),
    Claim(
        "fp8-dora", "row 1", "DoRA beside fp8 weights is that of float64 arithmetic",
        dora_beside_fp8, 20, True,
    ),
    Claim(
        "branch-bf16", "figure: exactness",
        "With a branch in bf16 a layer's output is rounded three times, not once: no worse error",
        branch_in_bf16, 20, True,
    ),
)  # fmt: skip
