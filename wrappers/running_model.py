"""What the LoRA engine has to know of a model that ComfyUI runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..lora.architecture import Architecture, qwen_image, standard, z_image

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

DENSE_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def architecture_of(model: ModelPatcher) -> Architecture:
    """The architecture of a running model, with its own depth and widths.

    Raises:
        ValueError: the model is neither a Qwen-Image nor a Z-Image.
    """
    network: Any = model.model.diffusion_model
    if hasattr(network, "transformer_blocks") and hasattr(network, "txt_norm"):
        first = network.transformer_blocks[0]
        return _standard_if_same(
            qwen_image(
                len(network.transformer_blocks),
                network.img_in.out_features,
                first.attn.norm_q.weight.shape[0],
                network.txt_in.in_features,
                network.img_in.in_features,
            )
        )
    if hasattr(network, "layers") and hasattr(network, "context_refiner"):
        first = network.layers[0]
        return _standard_if_same(
            z_image(
                len(network.layers),
                len(network.noise_refiner),
                network.x_embedder.out_features,
                first.feed_forward.w1.out_features,
                first.attention.q_norm.weight.shape[0],
                network.cap_embedder[1].in_features,
                network.x_embedder.in_features,
            )
        )
    raise ValueError(
        f"This model ({type(model.model).__name__}) is neither a Qwen-Image nor a Z-Image; use"
        " ComfyUI's own Load LoRA for it."
    )


def known_to_files(model: Architecture) -> tuple[Architecture, ...]:
    """The architectures that LoRA files are recognised by.

    A file is mapped against the published depth, so that it is read the same whatever model it is
    put on, and once for all. Only a model of other widths, which has none published, is its own
    measure.
    """
    published = standard()
    for candidate in published:
        if candidate.name == model.name and _same_widths(candidate, model):
            return published
    return (model,)


def module_at(model: ModelPatcher, path: str) -> torch.nn.Module | None:
    """The module at a canonical path, or None if the model has none there."""
    try:
        return model.model.diffusion_model.get_submodule(path)
    except AttributeError:
        return None


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether merging into the module's weight would round it: fp8, int8, 4-bit, GGUF and others.

    Anything but a plain tensor of 16 or 32 bits counts, so that unknown kinds are left alone.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dtype not in DENSE_DTYPES:
        return True
    plain = type(weight.data) is torch.Tensor and type(weight) in (torch.Tensor, torch.nn.Parameter)
    return not plain or getattr(module, "scale_weight", None) is not None


def base_weight(model: torch.nn.Module, backup: Mapping[str, Any], path: str) -> torch.Tensor:
    """The weight `[out, in]` of a linear layer without any patches, as a plain tensor.

    Args:
        model: ComfyUI's `BaseModel`.
        backup: the unpatched weights that its patchers keep while patches are merged in.
        path: canonical path of the layer.

    Raises:
        ValueError: the layer keeps its weight in a form that cannot be read back.
    """
    module: Any = model.get_submodule(f"diffusion_model.{path}")
    saved = backup.get(f"diffusion_model.{path}.weight")
    weight = module.weight if saved is None else saved.weight
    if hasattr(weight, "dequantize") and type(weight.data) is not torch.Tensor:
        return weight.dequantize().float()
    scale = getattr(module, "scale_weight", None)
    if scale is not None:
        return weight.float() * scale.to(weight.device).float()
    if type(weight.data) is torch.Tensor and weight.dtype.is_floating_point:
        return weight.detach()
    raise ValueError(
        f"DoRA needs the weight of {path}, which a {type(weight).__name__} does not give back"
    )


def _standard_if_same(model: Architecture) -> Architecture:
    """The published object itself where nothing differs, so that memos keyed by it are shared."""
    for candidate in standard():
        if candidate.name == model.name and candidate.modules == model.modules:
            return candidate
    return model


def _same_widths(one: Architecture, other: Architecture) -> bool:
    common = one.modules.keys() & other.modules.keys()
    return all(one.modules[path] == other.modules[path] for path in common)
