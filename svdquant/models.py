"""The two models whose Nunchaku checkpoints are known, and what is quantized in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from ..lora.mapping.architecture import Architecture, Module
from ..lora.mapping.supported_models import qwen_image, z_image
from .errors import Refused
from .layers import CheckpointLayer, Kind

Layers = Mapping[str, CheckpointLayer]

_BLOCK = re.compile(r"(transformer_blocks|layers|noise_refiner|context_refiner)\.\d+\.(.+)")


@dataclass(frozen=True)
class QuantizedFamily:
    """A model, as Nunchaku stores it.

    Attributes:
        title: for messages.
        model_class: diffusers class in the metadata, with or without ``Nunchaku`` before it.
        marker: a tensor that every checkpoint of this model has, and none of another.
        depths: group of blocks by its key in the diffusers configuration.
        measure: returns the architecture with the sizes of the given layers.
    """

    title: str
    model_class: str
    marker: str
    depths: tuple[tuple[str, str], ...]
    measure: Callable[[Layers], Architecture]

    def kind(self, name: str, skip_refiners: bool) -> Kind:
        """Return how the layer called `name` must be stored."""
        match = _BLOCK.fullmatch(name)
        if match is None:
            return "dense"
        group, leaf = match.groups()
        if "norm" in leaf or "adaLN" in leaf or (skip_refiners and "refiner" in group):
            return "dense"
        return "awq" if leaf in ("img_mod.1", "txt_mod.1") else "svdq"

    def after_gelu(self, name: str) -> bool:
        """Return whether the input of this layer comes out of a GELU (a SwiGLU is none)."""
        return name.endswith(("img_mlp.net.2", "txt_mlp.net.2"))


def find_family(names: Container[str]) -> QuantizedFamily | None:
    """Return the model that a checkpoint with these tensors is of; None if it is neither."""
    return next((family for family in (QWEN_IMAGE, Z_IMAGE) if family.marker in names), None)


def _measure_qwen_image(layers: Layers) -> Architecture:
    hidden, latent = _sides(layers, "img_in")
    _, text = _sides(layers, "txt_in")
    head = _size(layers, "transformer_blocks.0.attn.norm_q")
    depth = _depth(layers, "transformer_blocks")
    return qwen_image(depth, hidden, head, text, latent)


def _measure_z_image(layers: Layers) -> Architecture:
    hidden, latent = _sides(layers, "all_x_embedder.2-1")
    _, text = _sides(layers, "cap_embedder.1")
    _, ffn = _sides(layers, "layers.0.feed_forward.net.2")
    head = _size(layers, "layers.0.attention.norm_q")
    depths = [_depth(layers, group) for group in ("layers", "noise_refiner", "context_refiner")]
    if depths[1] != depths[2]:
        raise Refused(f"{depths[1]} blocks in noise_refiner and {depths[2]} in context_refiner")
    found = z_image(depths[0], depths[1], hidden, ffn, head, text, latent)
    # ComfyUI's time embedding is min(hidden, 1024) wide, which only small models fall below.
    wide = min(hidden, 1024)
    time = {
        path: Module(path, "linear", shape, True)
        for path, shape in (("t_embedder.mlp.0", (wide, 256)), ("t_embedder.mlp.2", (256, wide)))
    }
    return replace(found, modules={**found.modules, **time})


def _sides(layers: Layers, name: str) -> tuple[int, int]:
    if name not in layers or len(layers[name].shape) != 2:
        raise Refused(f"there is no linear layer {name}")
    return cast("tuple[int, int]", layers[name].shape)


def _size(layers: Layers, name: str) -> int:
    if name not in layers or len(layers[name].shape) != 1:
        raise Refused(f"there is no norm {name}")
    return layers[name].shape[0]


def _depth(layers: Iterable[str], group: str) -> int:
    """Return the number of blocks in a group, after checking that none is missing between."""
    start = f"{group}."
    numbers = {name.split(".")[1] for name in layers if name.startswith(start)}
    if numbers != {str(i) for i in range(len(numbers))}:
        raise Refused(f"incomplete: the blocks in {group} are not numbered from 0 without gaps")
    return len(numbers)


QWEN_IMAGE = QuantizedFamily(
    "Qwen-Image",
    "QwenImageTransformer2DModel",
    "transformer_blocks.0.attn.add_qkv_proj.qweight",
    (("num_layers", "transformer_blocks"),),
    _measure_qwen_image,
)
Z_IMAGE = QuantizedFamily(
    "Z-Image",
    "ZImageTransformer2DModel",
    "layers.0.attention.to_qkv.qweight",
    (
        ("n_layers", "layers"),
        ("n_refiner_layers", "noise_refiner"),
        ("n_refiner_layers", "context_refiner"),
    ),
    _measure_z_image,
)
