"""diffusers as an oracle: what its pipelines make of a file, fused into the real transformer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from support.oracle.libraries import library
from support.oracle.tiny import Tiny, is_fused
from torch import Tensor


def mixin(model: Tiny) -> Any:
    """Return the loader of a model's pipelines."""
    loaders = library("diffusers.loaders.lora_pipeline")
    if model.architecture.name == "z_image":
        return loaders.ZImageLoraLoaderMixin
    return loaders.QwenImageLoraLoaderMixin


def bare(model: Tiny) -> Any:
    """Return a copy of the transformer without the fused projections of other programs."""
    transformer: Any = model.fresh()
    for path in model.fused:
        parent, _, name = path.rpartition(".")
        if parent.endswith("feed_forward.net.0"):
            delattr(transformer.get_submodule(parent.removesuffix(".net.0")), "net")
        else:
            delattr(transformer.get_submodule(parent), name)
    for module in transformer.modules():
        if getattr(module, "fused_projections", False):
            module.fused_projections = False
    return transformer


def changes(
    model: Tiny, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Tensor]:
    """Return what fusing a file changes: fused minus base. Factors are computed in float64, so
    that what folding alpha into them rounds is not counted as a difference."""
    wide = {name: value.double() for name, value in tensors.items()}
    stated = (metadata or {}).get("lora_adapter_metadata")
    transformer = bare(model)
    loader = mixin(model)
    loader.load_lora_into_transformer(
        loader.lora_state_dict(wide),
        transformer=transformer,
        metadata=None if stated is None else json.loads(stated),
    )
    transformer.fuse_lora()
    return fused(model, transformer)


def fused(model: Tiny, transformer: Any) -> dict[tuple[str, str], Tensor]:
    """Return what is different in a transformer whose LoRA has been fused."""
    tuned = library("peft.tuners.tuners_utils").BaseTunerLayer
    found = {}
    for path, module in transformer.named_modules():
        if not isinstance(module, tuned) or is_fused(path):
            continue
        base: Any = model.module.get_submodule(path)
        layer: Any = module.get_base_layer()
        found[path, "weight"] = layer.weight.data - base.weight
        if base.bias is not None:
            found[path, "bias"] = layer.bias.data - base.bias
    return {place: change for place, change in found.items() if change.any()}


def factors(
    model: Tiny, paths: list[str], dtype: torch.dtype, seed: int, rank: int = 4
) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw the factors of some modules."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for path in paths:
        layer: Any = model.module.get_submodule(path)
        out, inputs = layer.weight.shape
        down = torch.randn(rank, inputs, generator=generator) * 0.3
        up = torch.randn(out, rank, generator=generator) * 0.3
        found[path] = down.to(dtype), up.to(dtype)
    return found
