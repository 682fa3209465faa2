"""The models that claims are measured on, and LoRA files for them.

Small ones are sampled by ComfyUI, as a user's are. A wide one is a block at full width on a card,
and small in a dry run; it lies on the device, and its network is called directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...wrappers.lora.apply import apply_loras
from ...wrappers.lora.branch_set import KEY, install, remove
from ..bench.files import KINDS
from ..bench.models import one_block
from ..doubles import svdquant_models, tiny_models
from .card import Card

BLOCK = "transformer_blocks.0"
LINEARS = tuple(f"{BLOCK}.{name}" for name in KINDS[0].modules)
QUERY = f"{BLOCK}.attn.to_q"


def svdquant(card: Card) -> Any:
    """A small Qwen-Image with 4-bit weights, which ComfyUI loads to the device."""
    from ...wrappers.svdquant.svdquant_model import SvdquantPatcher

    with without_dynamic_vram():  # which such models never have
        made = svdquant_models.kitchen("qwen_image", torch.bfloat16)
    return SvdquantPatcher(made.model, load_device=card.device, offload_device=tiny_models.CPU)


def wide(card: Card, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A patcher of a wide model that is on the device already."""
    with without_dynamic_vram():
        if not card.dry:
            return one_block(card.kind, dtype)
        return tiny_models.qwen_image("bf16" if dtype == torch.bfloat16 else "fp32")


@contextmanager
def without_dynamic_vram() -> Iterator[None]:
    """Models made inside have weights at once, and patchers that load all of them."""
    import comfy.memory_management as memory
    import comfy.model_patcher as patchers

    with (
        patch.object(memory, "aimdo_enabled", False),
        patch.object(patchers, "CoreModelPatcher", patchers.ModelPatcher),
    ):
        yield


def text_width(model: Any) -> int:
    """Channels of the text that a model takes."""
    return model.model.diffusion_model.txt_in.in_features


def shape(model: Any, path: str) -> tuple[int, int]:
    """``(out, in)`` of a linear layer."""
    module = model.model.diffusion_model.get_submodule(path)
    return module.out_features, module.in_features


def apply(model: Any, *loras: tuple[Path, float], mode: Any = "auto") -> Any:
    """The model with a stack, as the nodes make it."""
    return apply_loras(model, loras, mode)[0]


def holder(patched: Any) -> Any:
    """The patcher that has the factors of a stack."""
    (found,) = patched.get_additional_models_with_key(KEY)
    return found


@contextmanager
def installed(patched: Any, device: torch.device) -> Iterator[Any]:
    """The network with the branches of a stack, whose factors are on the device."""
    patched.attachments[KEY].store.to(device)
    install(patched)
    try:
        yield patched.model.diffusion_model
    finally:
        remove(patched)


def unload() -> None:
    """Unload every model, as ComfyUI's button does."""
    import comfy.model_management as management

    management.unload_all_models()
    management.soft_empty_cache()


def lora_file(
    card: Card,
    model: Any,
    name: str,
    paths: Sequence[str] = LINEARS,
    rank: int = 16,
    *,
    seed: int = 1,
    dora: bool = False,
) -> tuple[Path, Mapping[str, Tensor]]:
    """A file of float32 factors for layers of a model, and its tensors by name.

    With `dora` each layer has a magnitude, too.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for path in paths:
        out, inp = shape(model, path)
        stem = f"diffusion_model.{path}"
        down = torch.randn(rank, inp, generator=generator) / inp**0.5
        up = torch.randn(out, rank, generator=generator) / rank**0.5
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        if dora:
            tensors[f"{stem}.dora_scale"] = torch.rand(out, 1, generator=generator) + 0.5
    target = card.folder / f"{name}.safetensors"
    save_file(tensors, target)
    return target, tensors


def change_of(tensors: Mapping[str, Tensor], path: str, device: torch.device) -> Tensor:
    """What a plain LoRA adds to a weight at strength 1, float64 ``[out, in]``."""
    stem = f"diffusion_model.{path}"
    up, down = (tensors[f"{stem}.lora_{side}.weight"].to(device).double() for side in "BA")
    return up @ down


@contextmanager
def adding(model: Any, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with changes of its weights in float64, added to what layers return by hooks."""

    def hook_for(change: Tensor) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            added = inputs[0].double() @ change.to(inputs[0].device).T
            return (output.double() + added).to(output.dtype)

        return hook

    network = model.model.diffusion_model
    hooks = [
        network.get_submodule(path).register_forward_hook(hook_for(change))
        for path, change in changes.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over that of what is wanted, in float64."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())
