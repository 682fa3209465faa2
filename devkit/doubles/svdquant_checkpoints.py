"""Checkpoints as Nunchaku publishes them, made from the weights of ComfyUI's own models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...lora.files.header import ITEM_SIZES, Header, parse_header
from ...lora.mapping.architecture import Architecture
from .nunchaku_double import (
    AWQW4A16Linear,
    SVDQW4A4Linear,
    awq_weight,
    effective_bias,
    effective_weight,
)
from .nunchaku_quantize import quantize_linear, quantize_modulation

# Layers of a block as stored, and the ComfyUI modules whose rows they hold, in order.
QWEN_BLOCK = {
    "attn.to_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn.add_qkv_proj": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attn.to_out.0": ("attn.to_out.0",),
    "attn.to_add_out": ("attn.to_add_out",),
    "img_mlp.net.0.proj": ("img_mlp.net.0.proj",),
    "img_mlp.net.2": ("img_mlp.net.2",),
    "txt_mlp.net.0.proj": ("txt_mlp.net.0.proj",),
    "txt_mlp.net.2": ("txt_mlp.net.2",),
}
Z_BLOCK = {
    "attention.to_qkv": ("attention.qkv",),
    "attention.to_out.0": ("attention.out",),
    "feed_forward.net.0.proj": ("feed_forward.w3", "feed_forward.w1"),
    "feed_forward.net.2": ("feed_forward.w2",),
}
AFTER_GELU = ("img_mlp.net.2", "txt_mlp.net.2")
MODULATIONS = ("img_mod.1", "txt_mod.1")
Z_RENAMED = {
    "attention.q_norm": "attention.norm_q",
    "attention.k_norm": "attention.norm_k",
    "final_layer": "all_final_layer.2-1",
    "x_embedder": "all_x_embedder.2-1",
}
SAFETENSORS_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.int8: "I8",
    torch.int32: "I32",
}


@dataclass
class Built:
    """A checkpoint, and the dense weights (ComfyUI's names) that it stands for.

    Weights on the meta device give a checkpoint of shapes only, without dense weights.
    """

    metadata: dict[str, str]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, SVDQW4A4Linear | AWQW4A16Linear] = field(default_factory=dict)

    def header(self) -> Header:
        """The header of the file that these tensors would make."""
        entries: dict[str, Any] = {"__metadata__": self.metadata}
        end = 0
        for name, tensor in self.tensors.items():
            dtype = SAFETENSORS_NAMES[tensor.dtype]
            begin, end = end, end + prod(tensor.shape) * ITEM_SIZES[dtype]
            shape = list(tensor.shape)
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(entries).encode()
        return parse_header(text, 8 + len(text) + end)


def stock_weights(
    architecture: Architecture, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, Tensor]:
    """Random weights of a model, named as in ComfyUI."""
    generator = torch.Generator().manual_seed(11)
    weights: dict[str, Tensor] = {}
    for module in architecture.modules.values():
        if module.optional:
            continue
        shape = list(module.shape)
        if module.path.startswith("t_embedder"):  # narrower in small models
            shape = [min(side, architecture.hidden) if side > 256 else side for side in shape]
        sizes = {"weight": shape, "bias": shape[:1]} if module.bias else {"weight": shape}
        for parameter, size in sizes.items():
            name = module.parameter_name(parameter)
            if device == "meta":
                weights[name] = torch.empty(size, dtype=dtype, device="meta")
            else:
                noise = torch.randn(size, generator=generator)
                weights[name] = (noise / shape[-1] ** 0.5).to(dtype)
    return weights


def build(
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    rank: int = 32,
    *,
    skip_refiners: bool = False,
) -> Built:
    """Quantize a model. Layers compute in the dtype of the weights."""
    qwen = architecture.name == "qwen_image"
    built = Built(_metadata(architecture, rank, skip_refiners))
    rest = dict(weights)
    for group, count in architecture.depths.items():
        for block in (f"{group}.{i}" for i in range(count)):
            plain = skip_refiners and "refiner" in group
            for stored, members in (QWEN_BLOCK if qwen else Z_BLOCK).items():
                paths = [f"{block}.{member}" for member in members]
                if plain:
                    _store_plain(built, rest, f"{block}.{stored}", paths)
                else:
                    _store_svdq(built, rest, f"{block}.{stored}", paths, rank)
            for stored in MODULATIONS if qwen else ():
                _store_modulation(built, rest, f"{block}.{stored}")
    for name, tensor in rest.items():
        built.tensors[name if qwen else _diffusers_name(name)] = tensor
        if not tensor.is_meta:
            built.dense[name] = tensor
    return built


def _metadata(architecture: Architecture, rank: int, skip_refiners: bool) -> dict[str, str]:
    if architecture.name == "qwen_image":
        name = "QwenImageTransformer2DModel"
        sizes = {"num_layers": architecture.depths["transformer_blocks"]}
    else:
        name = "ZImageTransformer2DModel"
        depths = architecture.depths
        sizes = {"n_layers": depths["layers"], "n_refiner_layers": depths["noise_refiner"]}
    quantization = {
        "method": "svdquant",
        "weight": {"dtype": "int4", "scale_dtype": None, "group_size": 64},
        "activation": {"dtype": "int4", "scale_dtype": None, "group_size": 64},
        "rank": rank,
        **({"skip_refiners": True} if skip_refiners else {}),
    }
    return {
        "model_class": f"Nunchaku{name}",
        "config": json.dumps({"_class_name": name, **sizes}),
        "quantization_config": json.dumps(quantization),
    }


def _taken(rest: dict[str, Tensor], paths: list[str]) -> tuple[list[Tensor], Tensor | None]:
    weights = [rest.pop(f"{path}.weight") for path in paths]
    biases = [rest.pop(f"{path}.bias") for path in paths if f"{path}.bias" in rest]
    return weights, torch.cat(biases) if biases else None


def _store_svdq(
    built: Built, rest: dict[str, Tensor], stored: str, paths: list[str], rank: int
) -> None:
    weights, bias = _taken(rest, paths)
    weight = torch.cat(weights)
    unsigned = stored.endswith(AFTER_GELU)
    if weight.is_meta:
        n, k = weight.shape
        options: Any = {"torch_dtype": weight.dtype, "device": "meta"}
        layer = SVDQW4A4Linear(k, n, rank, bias is not None, **options)
    else:
        layer = quantize_linear(
            weight, bias, rank, act_unsigned=unsigned, dtype=weight.dtype, seed=len(built.layers)
        )
        heights = [len(one) for one in weights]
        _store_dense(built, paths, effective_weight(layer), effective_bias(layer), heights)
    _store_layer(built, stored, layer)


def _store_modulation(built: Built, rest: dict[str, Tensor], stored: str) -> None:
    (weight,), bias = _taken(rest, [stored])
    assert bias is not None
    if weight.is_meta:
        n, k = weight.shape
        layer = AWQW4A16Linear(k, n, torch_dtype=weight.dtype, device="meta")
    else:
        layer = quantize_modulation(weight, bias, dtype=weight.dtype)
        rows = awq_weight(layer)
        planar = rows.view(-1, 6, rows.shape[1]).transpose(0, 1).reshape(rows.shape)
        _store_dense(built, [stored], planar, bias, [len(planar)])
    _store_layer(built, stored, layer)


def _store_layer(built: Built, stored: str, layer: SVDQW4A4Linear | AWQW4A16Linear) -> None:
    built.layers[stored] = layer
    for name, tensor in layer.state_dict().items():
        built.tensors[f"{stored}.{name}"] = tensor


def _store_dense(
    built: Built, paths: list[str], weight: Tensor, bias: Tensor | None, heights: list[int]
) -> None:
    for path, part in zip(paths, weight.split(heights), strict=True):
        built.dense[f"{path}.weight"] = part
    if bias is not None:
        for path, part in zip(paths, bias.split(heights), strict=True):
            built.dense[f"{path}.bias"] = part


def _store_plain(built: Built, rest: dict[str, Tensor], stored: str, paths: list[str]) -> None:
    weights, _ = _taken(rest, paths)
    if not weights[0].is_meta:
        for path, weight in zip(paths, weights, strict=True):
            built.dense[f"{path}.weight"] = weight
    if stored.endswith("to_qkv"):
        for letter, part in zip("qkv", weights[0].chunk(3), strict=True):
            built.tensors[f"{stored.removesuffix('qkv')}{letter}.weight"] = part.contiguous()
    else:
        built.tensors[f"{stored}.weight"] = torch.cat(weights)


def _diffusers_name(name: str) -> str:
    for comfyui, diffusers in Z_RENAMED.items():
        if name.startswith(f"{comfyui}.") or f".{comfyui}." in name:
            return name.replace(comfyui, diffusers)
    return name
