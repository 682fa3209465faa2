"""4-bit checkpoints, as Nunchaku publishes them and as converted by us.

The input describes a file by names, types and shapes (see `sketch.py`). Every layer of a file that
is taken for a checkpoint converts, and what it converts to can be stored and read again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from ....lora.mapping.architecture import Architecture
from ....lora.mapping.supported_models import qwen_image, z_image
from ....svdquant.errors import CheckpointError
from ....svdquant.reader import CheckpointFile
from ....svdquant.state_dict_names import MARKER, from_state_dict
from .. import scratch
from ..mutations import json_of
from ..refusals import may_refuse
from ..sketch import file_of

_LABELS = {"I8": "int8", "I32": "int32", "BF16": "bfloat16", "U8": "uint8", "F32": "float32"}
_WORDS = (
    *_LABELS, "F16", "qweight", "wscales", "wzeros", "smooth_factor", "smooth_factor_orig",
    "proj_down", "proj_up", "bias", "weight", "wtscale", "weight_scale", "weight_zeros",
    "weight_zero", MARKER,
    "quantization_config", "config", "model_class", "svdquant", "int4", "fp4_e2m1_all", "rank",
    "skip_refiners", "num_layers", "n_layers", "n_refiner_layers", "zero_cond_t", "_class_name",
    '{"format": "svdquant_w4a4"}', '{"format": "awq_w4a16", "group_size": 0}', '{"format": []}',
    '{"format": "awq_w4a16", "group_size": "64"}', '{"format": "awq_w4a16", "group_size": null}',
    "layers.1.attention.to_qkv.qweight", "noise_refiner.0.attention.to_q.weight", "x_pad_token",
)  # fmt: skip


def target(data: bytes) -> None:
    """Read the file's layers, and of a converted file make the layers that it stores."""
    try:
        content = file_of(json.loads(data))
    except (ValueError, RecursionError):
        return
    if content is None:
        return
    with scratch.file(content, "x.safetensors") as path, may_refuse(CheckpointError):
        with CheckpointFile(path) as file:
            published = not file.converted
            found: dict[str, Tensor] = {}
            for piece in file.pieces():
                assert not found.keys() & piece.keys()
                found |= piece
        _stored(found, published)


def _stored(state_dict: dict[str, Tensor], published: bool) -> None:
    layers = [name.removesuffix(f".{MARKER}") for name in state_dict if name.endswith(f".{MARKER}")]
    for path in layers:
        if published:  # by ourselves, so nothing may be wrong with it
            assert from_state_dict(state_dict, path) is not None
            continue
        with may_refuse(ValueError):
            layer = from_state_dict(state_dict, path)
            if layer is not None:
                assert layer.dense().shape == layer.shape


def _metadata(name: str, sizes: dict[str, int]) -> dict[str, str]:
    part = {"dtype": "int4", "group_size": 64}
    quantization = {"method": "svdquant", "weight": part, "rank": 16}
    return {
        "model_class": f"Nunchaku{name}",
        "config": json.dumps({"_class_name": name, **sizes}),
        "quantization_config": json.dumps(quantization),
    }


def _svdq(name: str, out: int, inp: int, bias: bool) -> dict[str, list[Any]]:
    shapes: dict[str, list[int]] = {
        "wscales": [inp // 64, out], "smooth_factor": [inp], "proj_down": [inp, 16],
        "proj_up": [out, 16], **({"bias": [out]} if bias else {}),
    }  # fmt: skip
    layer: dict[str, list[Any]] = {f"{name}.{role}": ["BF16", s] for role, s in shapes.items()}
    return {f"{name}.qweight": ["I8", [out, inp // 2]], **layer}


def _awq(name: str, out: int, inp: int) -> dict[str, list[Any]]:
    scales = {role: ["BF16", [inp // 64, out]] for role in ("wscales", "wzeros")}
    tensors = {"qweight": ["I32", [out // 4, inp // 2]], **scales, "bias": ["BF16", [out]]}
    return {f"{name}.{role}": entry for role, entry in tensors.items()}


_QWEN_LAYERS = {
    "attn.to_qkv": (384, 128), "attn.add_qkv_proj": (384, 128), "attn.to_out.0": (128, 128),
    "attn.to_add_out": (128, 128), "img_mlp.net.0.proj": (512, 128), "img_mlp.net.2": (128, 512),
    "txt_mlp.net.0.proj": (512, 128), "txt_mlp.net.2": (128, 512),
}  # fmt: skip
_Z_LAYERS = {
    "attention.to_qkv": (384, 128), "attention.to_out.0": (128, 128),
    "feed_forward.net.0.proj": (256, 128), "feed_forward.net.2": (128, 128),
}  # fmt: skip
_Z_NAMES = {
    "attention.q_norm": "attention.norm_q", "attention.k_norm": "attention.norm_k",
    "final_layer": "all_final_layer.2-1", "x_embedder": "all_x_embedder.2-1",
}  # fmt: skip


def _plain(architecture: Architecture, quantized: Sequence[str]) -> dict[str, list[Any]]:
    """The modules that stay as they are, by their names in the file."""
    found: dict[str, list[Any]] = {}
    for module in architecture.modules.values():
        path = module.path
        if module.optional or any(path.startswith(stem) for stem in quantized):
            continue
        shape = list(module.shape)
        if path.startswith("t_embedder"):  # as wide as the model, if that is narrow
            shape = [min(side, architecture.hidden) if side > 256 else side for side in shape]
        for name, size in {"weight": shape, **({"bias": shape[:1]} if module.bias else {})}.items():
            full = module.parameter_name(name)
            for ours, theirs in _Z_NAMES.items() if architecture.name == "z_image" else ():
                full = full.replace(ours, theirs)
            found[full] = ["BF16", size]
    return found


@lru_cache(maxsize=1)
def _descriptions() -> tuple[dict[str, Any], ...]:
    qwen = qwen_image(depth=1, hidden=128, head=64, text=32, latent=16)
    block = "transformer_blocks.0"
    tensors = {}
    for name, (out, inp) in _QWEN_LAYERS.items():
        tensors |= _svdq(f"{block}.{name}", out, inp, bias=True)
    for name in ("img_mod.1", "txt_mod.1"):
        tensors |= _awq(f"{block}.{name}", 768, 128)
    stems = [f"{block}.{part}" for part in ("attn.to_", "attn.add_", "img_m", "txt_m")]
    tensors |= _plain(qwen, stems)
    sizes = {"num_layers": 1}
    first = {"metadata": _metadata("QwenImageTransformer2DModel", sizes), "tensors": tensors}
    z = z_image(depth=1, refiners=1, hidden=128, ffn=128, head=64, text=32, latent=16)
    tensors = {}
    blocks = ("layers.0", "noise_refiner.0", "context_refiner.0")
    for block in blocks:
        for name, (out, inp) in _Z_LAYERS.items():
            tensors |= _svdq(f"{block}.{name}", out, inp, bias=False)
    parts = ("attention.qkv", "attention.out", "feed_forward")
    tensors |= _plain(z, [f"{block}.{part}" for block in blocks for part in parts])
    sizes = {"n_layers": 1, "n_refiner_layers": 1}
    second = {"metadata": _metadata("ZImageTransformer2DModel", sizes), "tensors": tensors}
    return first, second, _converted()


def _converted() -> dict[str, Any]:
    """Two layers as we store them."""
    markers = [
        '{"format": "svdquant_w4a4", "act_unsigned": false}',
        '{"format": "awq_w4a16", "group_size": 64}',
    ]
    weight = ["I8", [128, 64]]
    scales = ["BF16", [2, 128]]
    tensors = {
        "a.weight": weight, "a.weight_scale": scales, "a.proj_down": ["BF16", [128, 16]],
        "a.proj_up": ["BF16", [128, 16]], "a.smooth_factor": ["BF16", [128]],
        "a.bias": ["BF16", [128]], f"a.{MARKER}": ["U8", [len(markers[0])], markers[0]],
        "b.weight": weight, "b.weight_scale": scales, "b.weight_zeros": scales,
        f"b.{MARKER}": ["U8", [len(markers[1])], markers[1]], "c.weight": ["BF16", [2, 2]],
    }  # fmt: skip
    return {"metadata": {}, "tensors": tensors}


def seeds() -> Sequence[bytes]:
    """A Qwen-Image and a Z-Image of one block, and two converted layers."""
    return [json.dumps(one).encode() for one in _descriptions()]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change the description; a changed text of a tensor gets as many bytes as it has."""
    found = json_of(data, chance, _WORDS)
    if chance.random() < 0.5:
        return found
    try:
        description = json.loads(found)
        for entry in description["tensors"].values():
            if len(entry) == 3 and isinstance(entry[2], str):
                entry[1] = [len(entry[2].encode("utf-8", "replace"))]
        return json.dumps(description).encode("utf-8", "surrogatepass")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return found
