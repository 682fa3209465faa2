"""Which supported model a running one is, with its own depth and widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...lora.mapping.architecture import Architecture
from ...lora.mapping.supported_models import qwen_image, qwen_image_21, standard, z_image

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def architecture_of(model: ModelPatcher) -> Architecture:
    """The architecture of a running model, with its own depth and widths.

    Raises:
        ValueError: the model is none that is supported.
    """
    network: Any = model.model.diffusion_model
    for recognize in (_qwen_image, _qwen_image_21, _z_image):
        found = recognize(network)
        if found is not None:
            return _standard_if_same(found)
    raise ValueError(
        f"This model ({type(model.model).__name__}) is no Qwen-Image, Qwen-Image-2.1 or Z-Image;"
        " use ComfyUI's own Load LoRA for it."
    )


def known_to_files(model: Architecture) -> tuple[Architecture, ...]:
    """The architectures that LoRA files are recognised by.

    A file is mapped against the published depth, so that it is read the same whatever model it is
    put on, and once for all; but into the layers that this model has, where checkpoints differ in
    what they fuse. Only a model of other widths, which has none published, is its own measure.
    """
    for candidate in _published():
        if candidate.name == model.name and _same_layers(candidate, model):
            return tuple(candidate if c.name == model.name else c for c in standard())
    return (model,)


def _qwen_image(network: Any) -> Architecture | None:
    if not (hasattr(network, "transformer_blocks") and hasattr(network, "txt_norm")):
        return None
    return qwen_image(
        len(network.transformer_blocks),
        network.img_in.out_features,
        network.transformer_blocks[0].attn.norm_q.weight.shape[0],
        network.txt_in.in_features,
        network.img_in.in_features,
    )


def _qwen_image_21(network: Any) -> Architecture | None:
    if not (hasattr(network, "transformer_blocks") and hasattr(network, "modulation")):
        return None
    first = network.transformer_blocks[0]
    if not (hasattr(network.txt_in, "text_norm") and hasattr(first.img_mlp, "out")):
        return None
    return qwen_image_21(
        len(network.transformer_blocks),
        network.img_in.out_features,
        first.img_mlp.out.in_features,
        first.attn.norm_q.weight.shape[0],
        network.txt_in.in_layer.in_features,
        network.img_in.in_features,
        hasattr(first.img_mlp, "gate_up"),
    )


def _z_image(network: Any) -> Architecture | None:
    if not (hasattr(network, "layers") and hasattr(network, "context_refiner")):
        return None
    first = network.layers[0]
    siglip = getattr(network, "siglip_embedder", None)  # of Omni and Edit alone
    known = {} if siglip is None else {"siglip": siglip[1].in_features}
    return z_image(
        len(network.layers),
        len(network.noise_refiner),
        network.x_embedder.out_features,
        first.feed_forward.w2.in_features,
        first.attention.q_norm.weight.shape[0],
        network.cap_embedder[1].in_features,
        network.x_embedder.in_features,
        **known,
    )


def _published() -> tuple[Architecture, ...]:
    return (*standard(), qwen_image_21(fused_mlp=True))


def _standard_if_same(model: Architecture) -> Architecture:
    """The published object itself where nothing differs, so that memos keyed by it are shared."""
    for candidate in _published():
        if candidate.name == model.name and candidate.modules == model.modules:
            return candidate
    return model


def _same_layers(one: Architecture, other: Architecture) -> bool:
    """Whether two models fuse the same layers, and what both have is of the same size."""
    common = one.modules.keys() & other.modules.keys()
    same = all(one.modules[path] == other.modules[path] for path in common)
    return same and bool(one.parts) == bool(other.parts)
