"""The names of tensors that trainers write, in every format that the key mapping knows.

The input describes a file by names, types and shapes (see `sketch.py`), so that changes of it reach
the mapping and the checks of shapes instead of the parser.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from ...lora.file import LoraFile
from ...lora.mapping import IGNORED, MAPPED, UNMATCHED, map_keys
from .. import scratch
from ..mutations import json_of
from ..sketch import file_of
from .safetensors_file import TINY, use

_STEMS = (
    "transformer.transformer_blocks.0.attn.to_q",
    "transformer_blocks.1.attn.to_qkv",
    "diffusion_model.transformer_blocks.0.img_mod.1",
    "lora_unet_transformer_blocks_0_attn_to_out_0",
    "layers.0.attention.to_k",
    "diffusion_model.layers.0.attention.qkv",
    "lycoris_layers_1_feed_forward_w1",
    "layers.0.feed_forward.net.0.proj",
    "noise_refiner.0.attention.out",
    "base_model.model.transformer_blocks.0.attn.to_v",
)
_TINY_SIDES = {"to_qkv": 96, "qkv": 96, "img_mod.1": 192, "w1": 48, "proj": 96}
_ROLES = (
    "lora_A.weight", "lora_B.weight", "lora_down.weight", "lora_up.weight", "lora.down.weight",
    "lora.up.weight", "lora_linear_layer.down.weight", "lora_A.default.weight", "lora_A.bias",
    "lora_B.default.weight", "lora_mid.weight", "lora_B.bias", "lora_magnitude_vector.weight",
    "_lora.down.weight", "_lora.up.weight", "alpha", "lora_alpha", "dora_scale", "magnitude",
    "diff", "diff_b", "w_norm", "b_norm", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b",
    "hada_t1", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
    "oft_blocks", "a1.weight", "on_input", "weight", "bias", "set_weight",
)  # fmt: skip
_LABELS = (
    "F32", "BF16", "F16", "F8_E4M3", "F64", "I64", "U16", "ss_base_model_version", "qwen-image-2.1",
    "lora_adapter_metadata", '{"transformer.alpha_pattern": {"to_q": 2}}', "networkType", "lokr",
    '{"lora_alpha": 16, "use_rslora": true}', "ss_tag_frequency", "img_mlp.gate_x.alpha", "flux",
)  # fmt: skip
_WORDS = (*_STEMS, *_ROLES, *(f"{_STEMS[0]}.{role}" for role in _ROLES), *_LABELS)


def target(data: bytes) -> None:
    """Map the names, and load the file that they would make."""
    try:
        description = json.loads(data)
    except (ValueError, RecursionError):
        return
    content = file_of(description)
    if content is None:
        return
    _map(list(description["tensors"]))
    with scratch.file(content, "x.safetensors") as path:
        if use(path) is not None:
            with LoraFile(path) as file:
                assert sorted(file.header.tensors) == sorted(description["tensors"])


def _map(names: list[str]) -> None:
    """Each name has one fate, whatever the order of names."""
    found = map_keys(names, TINY)
    assert set(found.entries) == set(names)
    assert {entry.status for entry in found.entries.values()} <= {MAPPED, IGNORED, UNMATCHED}
    unexplained = [e for e in found.entries.values() if (e.reason is None) != (e.status == MAPPED)]
    assert not unexplained
    used = [key for group in found.groups for key in group.roles.values()]
    assert len(used) == len(set(used))
    assert set(used) == {key for key, entry in found.entries.items() if entry.status == MAPPED}
    # What is remembered by the set of names is found in another order, too.
    assert map_keys(reversed(names), TINY) == found


def _families(out: int, inp: int) -> dict[str, dict[str, list[int]]]:
    down, up = [2, inp], [out, 2]
    hada = {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": up, "hada_w2_b": down}
    return {
        "peft": {"lora_A.weight": down, "lora_B.weight": up, "lora_B.bias": [out]},
        "kohya": {"lora_down.weight": down, "lora_up.weight": up, "alpha": []},
        "diffusers": {"lora.down.weight": [*down, 1, 1], "lora.up.weight": up},
        "slots": {"lora_A.default.weight": down, "lora_B.default.weight": up},
        "locon": {"lora_down.weight": down, "lora_up.weight": up, "lora_mid.weight": [2, 2]},
        "dora": {"lora_A.weight": down, "lora_B.weight": up, "lora_magnitude_vector": [out]},
        "dora of ComfyUI": {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": [out, 1]},
        "loha": {**hada, "alpha": []},
        "lokr": {"lokr_w1": [4, 4], "lokr_w2_a": [out // 4, 2], "lokr_w2_b": [2, inp // 4]},
        "whole lokr": {"lokr_w1": [4, 4], "lokr_w2": [out // 4, inp // 4], "alpha": []},
        "full": {"diff": [out, inp], "diff_b": [out]},
        "refused": {"oft_blocks": [2, 2], "alpha": [], "weight": [out, inp]},
    }


def seeds() -> Sequence[bytes]:
    """Each format on one module or another, and one file with several."""
    found: list[Any] = []
    for number, name in enumerate(_families(32, 32)):
        stem = _STEMS[number % len(_STEMS)]
        out = next((n for end, n in _TINY_SIDES.items() if stem.endswith(end)), 32)
        shapes = _families(out, 32)[name]
        tensors = {f"{stem}.{role}": ["BF16", shape] for role, shape in shapes.items()}
        found.append({"metadata": {}, "tensors": tensors})
    several = {key: value for one in found[:2] for key, value in one["tensors"].items()}
    metadata = {"lora_adapter_metadata": _LABELS[9]}
    found.append({"metadata": metadata, "tensors": {**several, "lora_te_x.alpha": ["F32", []]}})
    return [json.dumps(one).encode() for one in found]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change names, types and shapes."""
    return json_of(data, chance, _WORDS)
