"""The three models, built by diffusers' own classes, so small that thousands of files are quick.

Where ComfyUI has another module tree than diffusers, `places` says which rows of which of its
parameters a module of diffusers is. It is written down here once more, and not taken from the
engine, which it is compared with.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from support.oracle.libraries import library
from torch import Tensor, nn
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.supported_models import qwen_image, qwen_image_21, z_image

QWEN = qwen_image(depth=2, hidden=32, head=8, text=24, latent=16)
QWEN_21 = qwen_image_21(depth=2, hidden=48, ffn=144, head=16, text=20, latent=12)
QWEN_21_FUSED = qwen_image_21(2, 48, 144, 16, 20, 12, fused_mlp=True)
Z_IMAGE = z_image(depth=2, refiners=1, hidden=24, ffn=64, head=8, text=20, latent=16, siglip=12)
ARCHITECTURES = (QWEN, QWEN_21, Z_IMAGE)
NAMES = tuple(architecture.name for architecture in ARCHITECTURES)


class Place(NamedTuple):
    """Rows of a parameter of ComfyUI's model."""

    module: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Tiny:
    """A small model.

    Attributes:
        architecture: the engine's description of it.
        module: diffusers' model in float64, beside whose projections the fused ones stand that
            other programs have instead. Never change it; `fresh` is a copy.
        places: of every module of it.
        weights: of ComfyUI's model, biases included, by state_dict name, with the same values.
    """

    architecture: Architecture
    module: nn.Module
    places: Mapping[str, tuple[Place, ...]]
    weights: Mapping[str, Tensor]

    def fresh(self) -> nn.Module:
        """Return a copy of the model."""
        return copy.deepcopy(self.module)

    @property
    def linears(self) -> list[str]:
        """Paths of the linear layers that the published model has."""
        return [path for path in self._all_linears() if not is_fused(path)]

    @property
    def fused(self) -> list[str]:
        """Paths of the fused linear layers of other programs."""
        return [path for path in self._all_linears() if is_fused(path)]

    def _all_linears(self) -> list[str]:
        modules = self.module.named_modules()
        return [path for path, module in modules if isinstance(module, nn.Linear)]


_FUSED = ("to_qkv", "to_added_qkv", "gate_up", "attention.qkv", "feed_forward.net.0.proj")
_RENAMED = (
    (r"all_x_embedder\.2-1", "x_embedder"),
    (r"all_final_layer\.2-1\.", "final_layer."),
    (r"attention\.to_out\.0", "attention.out"),
    (r"attention\.norm_([qk])", r"attention.\1_norm"),
)


def is_fused(path: str) -> bool:
    """Whether a path is that of a fused projection."""
    return path.endswith(_FUSED)


def with_one_layer(known: Tiny) -> Tiny:
    """Return Qwen-Image-2.1 as ComfyUI repacks it: the input of each MLP is one layer."""
    height = known.architecture.fusions["transformer_blocks.0.img_mlp.gate_up"][0].stop
    starts = {"img_mlp.gate_layer": 0, "img_mlp.proj": height}

    def moved(place: Place) -> Place:
        head, _, name = place.module.rpartition(".img_mlp.")
        start = starts.get(f"img_mlp.{name}")
        if start is None:
            return place
        return Place(f"{head}.img_mlp.gate_up", start + place.start, start + place.stop)

    places = {path: tuple(map(moved, found)) for path, found in known.places.items()}
    weights = {
        name: value
        for name, value in known.weights.items()
        if not name.endswith((".gate_layer.weight", ".img_mlp.proj.weight"))
    }
    for block in range(known.architecture.depths["transformer_blocks"]):
        mlp = f"transformer_blocks.{block}.img_mlp"
        parts = [known.weights[f"{mlp}.{part}.weight"] for part in ("gate_layer", "proj")]
        weights[f"{mlp}.gate_up.weight"] = torch.cat(parts)
    return Tiny(QWEN_21_FUSED, known.module, places, weights)


@lru_cache(maxsize=3)
def tiny(name: str) -> Tiny:
    """Return the small model of an architecture, with random weights."""
    torch.manual_seed(7)
    architecture = next(item for item in ARCHITECTURES if item.name == name)
    module: Any = _BUILDERS[name]().double().requires_grad_(False)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.3)
    places = {path: _places(name, path, part) for path, part in module.named_modules()}
    places.update({path: (Place(path, 0, 1),) for path in _TOKENS if hasattr(module, path)})
    weights = _canonical(architecture, module, places)
    _fuse(name, module)
    fused = {path: _members(path, places) for path, _ in module.named_modules() if is_fused(path)}
    return Tiny(architecture, module, {**places, **fused}, weights)


_TOKENS = ("x_pad_token", "cap_pad_token", "siglip_pad_token")


def _qwen() -> nn.Module:
    return library("diffusers").QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=24,
        axes_dims_rope=(2, 2, 4),
    )


def _qwen_21() -> nn.Module:
    return library("diffusers").QwenImage21Transformer2DModel(
        in_channels=12,
        out_channels=12,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        context_in_dim=20,
        axes_dims_rope=(4, 6, 6),
    )


def _z_image() -> nn.Module:
    model = library("diffusers").ZImageTransformer2DModel(
        in_channels=4,
        dim=24,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=3,
        n_kv_heads=3,
        cap_feat_dim=20,
        siglip_feat_dim=12,
        axes_dims=[2, 2, 4],
        axes_lens=[16, 16, 16],
    )
    # The embedding of the time has 256 values, but diffusers' class makes it no wider than `dim`.
    model.t_embedder.mlp[2] = nn.Linear(1024, 256)
    model.all_final_layer["2-1"].adaLN_modulation[1] = nn.Linear(256, 24)
    for block in (*model.layers, *model.noise_refiner):
        block.adaLN_modulation[0] = nn.Linear(256, 96)
    return model


_BUILDERS = {"qwen_image": _qwen, "qwen_image_21": _qwen_21, "z_image": _z_image}


def _places(name: str, path: str, module: nn.Module) -> tuple[Place, ...]:
    weight = getattr(module, "weight", None)
    rows = len(weight) if isinstance(weight, Tensor) else 0
    if name != "z_image":
        return (Place(path, 0, rows),)
    third = re.search(r"\.attention\.to_([qkv])$", path)
    if third is not None:
        start = "qkv".index(third[1]) * rows
        return (Place(f"{path[: third.start()]}.attention.qkv", start, start + rows),)
    for pattern, other in _RENAMED:
        path = re.sub(pattern, other, path)
    return (Place(path, 0, rows),)


def _canonical(
    architecture: Architecture, module: nn.Module, places: Mapping[str, tuple[Place, ...]]
) -> dict[str, Tensor]:
    """Weights and biases under ComfyUI's names; each module of the architecture has to be there."""
    weights: dict[str, Tensor] = {}
    for found in architecture.modules.values():
        if not found.path.endswith("addition_t_embedding"):  # of the Layered variant alone
            weights[found.parameter_name()] = torch.zeros(found.shape, dtype=torch.float64)
            if found.bias:
                bias = torch.zeros(found.shape[0], dtype=torch.float64)
                weights[found.parameter_name("bias")] = bias
    for name, value in module.named_parameters():
        path, _, parameter = name.rpartition(".")
        (place,) = places[name if name in _TOKENS else path]
        full = architecture.modules[place.module].parameter_name(parameter or "weight")
        weights[full][place.start : place.stop] = value
    return weights


def _fuse(name: str, model: Any) -> None:
    """Put fused projections beside those that they are made of."""
    if name == "z_image":
        blocks = (*model.layers, *model.noise_refiner, *model.context_refiner)
        for block in (*blocks, *model.siglip_refiner):
            attention, mlp = block.attention, block.feed_forward
            attention.qkv = _stacked(attention.to_q, attention.to_k, attention.to_v)
            mlp.net = nn.ModuleList([nn.Module()])
            mlp.net[0].proj = _stacked(mlp.w3, mlp.w1)
        return
    for block in model.transformer_blocks:
        block.attn.fuse_projections()  # diffusers' own: to_qkv, to_added_qkv
        if name == "qwen_image_21":
            block.img_mlp.gate_up = _stacked(block.img_mlp.gate_layer, block.img_mlp.proj)


def _stacked(*members: nn.Linear) -> nn.Linear:
    weight = torch.cat([member.weight for member in members])
    whole = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    whole.weight.data.copy_(weight)
    return whole.requires_grad_(False)


_MEMBERS = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "qkv": ("to_q", "to_k", "to_v"),
    "gate_up": ("gate_layer", "proj"),
    "net.0.proj": ("w3", "w1"),
}


def _members(path: str, places: Mapping[str, tuple[Place, ...]]) -> tuple[Place, ...]:
    for end, members in _MEMBERS.items():
        if path.endswith(f".{end}"):
            head = path[: -len(end)]
            return tuple(place for member in members for place in places[head + member])
    raise AssertionError(path)
