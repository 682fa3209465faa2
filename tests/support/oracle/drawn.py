"""Random LoRA factors for a model, as a file stores them, with the change that peft makes of them.

An adapter of peft is built once for each configuration and gets new values for every file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from support.oracle.libraries import library
from support.oracle.peft_models import adapted, layers, merged
from support.oracle.storage import Precision, Stored, rounded, store
from support.oracle.tiny import tiny
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """Of one module: both factors, and what a DoRA or a bias has beside them."""

    down: Stored
    up: Stored
    magnitude: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """Factors by path, and the changes that they make."""

    factors: Mapping[str, Factors] = field(repr=False)
    changes: Mapping[tuple[str, str], Tensor] = field(repr=False)


@lru_cache(maxsize=32)
def _adapter(name: str, rank: int, alpha: float, kind: str) -> tuple[Any, dict[str, Any]]:
    model = tiny(name)
    config = library("peft").LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=_targets(name, kind),
        use_dora=kind == "dora",
        lora_bias=kind == "bias",
    )
    adapter = adapted(model, config)
    return adapter, dict(layers(adapter))


def _targets(name: str, kind: str) -> list[str]:
    model = tiny(name)
    if kind != "bias":
        return [*model.linears, *model.fused]
    return with_bias(name)


def with_bias(name: str) -> list[str]:
    """Return the paths of linear layers, single and fused, that have a bias."""
    model = tiny(name)
    paths = [*model.linears, *model.fused]
    return [path for path in paths if model.module.get_submodule(path).bias is not None]


def draw(
    name: str,
    paths: Sequence[str],
    precision: Precision,
    seed: int,
    rank: int = 4,
    alpha: float = 4.0,
    kind: str = "lora",
) -> Drawn:
    """Draw factors for these modules; `kind` is ``lora``, ``dora`` or ``bias`` (of the second
    factor)."""
    generator = torch.Generator().manual_seed(seed)
    _, found = _adapter(name, rank, alpha, kind)
    factors, changes = {}, {}
    for path in paths:
        layer = found[path]
        factors[path] = _fill(layer, precision, generator)
        base = tiny(name).module.get_submodule(path)
        changes.update({(path, which): d for which, d in merged(layer, base).items() if d.any()})
    return Drawn(factors, changes)


def _fill(layer: Any, precision: Precision, generator: torch.Generator) -> Factors:
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    drawn = []
    for linear in (a, b):
        value = torch.randn(linear.weight.shape, generator=generator, dtype=torch.float64) * 0.3
        drawn.append(store(value, precision))
        linear.weight.data.copy_(drawn[-1].value)
    plain = precision.dtype if precision.scale is None else torch.float32
    magnitude = bias = None
    if "default" in layer.lora_magnitude_vector:
        weight = layer.lora_magnitude_vector["default"].weight
        value = torch.randn(weight.shape, generator=generator, dtype=torch.float64).abs() + 0.5
        weight.data.copy_(rounded(value, plain))
        magnitude = weight.data.to(plain)
    if b.bias is not None:
        value = torch.randn(b.bias.shape, generator=generator, dtype=torch.float64)
        b.bias.data.copy_(rounded(value, plain))
        bias = b.bias.data.to(plain)
    return Factors(drawn[0], drawn[1], magnitude, bias)
