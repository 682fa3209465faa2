"""The names of tensors that trainers write, in every format that the key mapping knows.

The input describes a file by names, types and shapes (see `sketch.py`), so that changes of it reach
the mapping and the checks of shapes instead of the parser.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from ....lora.files.open_file import LoraFile
from ....lora.mapping.key_map import (
    IGNORED,
    MAPPED,
    REFUSED,
    UNMATCHED,
    Group,
    KeyMap,
    map_keys,
)
from ....lora.mapping.suffixes import ROLES, split_suffix
from .. import scratch
from ..lora_words import AROUND, INSIDE, TAILS
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
_LABELS = (
    "F32", "BF16", "F16", "F8_E4M3", "F8_E5M2", "F64", "I64", "I8", "U16", "ss_base_model_version",
    "modelspec.architecture", "model_type", "ss_network_module", "ss_network_dim", "lora_alpha",
    "lora_rank", "ss_network_alpha", "lora_adapter_metadata", "networkType", "lokr", "8",
    "ss_tag_frequency", "qwen-image-2.1", "Qwen-Image-Edit/lora", "zimage:turbo", "flux", "wan2.1",
    "networks.lora_flux", '{"transformer.alpha_pattern": {"to_q": 2}}', '{"use_bdlora": true}',
    '{"lora_alpha": 16, "use_rslora": true}', '{"peft_type": "LOKR", "r": 2}', '{"r": 2}',
    '{"peft_type": "ADALORA", "init_r": 12, "lora_alpha": 8}', '{"peft_type": "VERA"}',
    '{"r": 2, "lora_alpha": 1, "rank_pattern": {"to_q": 0}}',
    '{"base_model_name_or_path": "black-forest-labs/FLUX.1-dev"}', "x_pad_token",
    "x_pad_token.diff", "single_transformer_blocks.0.proj_out.alpha",
    "distilled_guidance_layer.alpha", "transformer_blocks.0.norm1.linear.alpha",
    "img_mlp.gate_x.alpha", "txt_norm.w_norm", "time_text_embed.addition_t_embedding.diff",
)  # fmt: skip
_ROLES = tuple(dict.fromkeys((*ROLES, *TAILS)))
_WORDS = (
    *_STEMS,
    *_ROLES,
    *AROUND,
    *INSIDE,
    *_LABELS,
    *(f"{_STEMS[0]}.{role}" for role in _ROLES),
    *(f"{around}{_STEMS[1]}.alpha" for around in AROUND),
)


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
    statuses = {MAPPED, REFUSED, IGNORED, UNMATCHED}
    for name, entry in found.entries.items():
        assert entry.key == name
        assert entry.status in statuses
        assert (entry.reason is None) == (entry.status == MAPPED)
        assert (entry.module is None) == (entry.status in (IGNORED, UNMATCHED))
    _grouped(found)
    # What is remembered by the set of names is found in another order, too.
    assert map_keys(reversed(names), TINY) == found


def _grouped(found: KeyMap) -> None:
    """Every name of a module is in a group of it: one without a slot in all of its spelling."""
    holders: dict[str, list[Group]] = {}
    for group in found.groups:
        assert len(group.keys) == len(set(group.keys))
        for key in group.keys:
            holders.setdefault(key, []).append(group)
    assert holders.keys() == {key for key, one in found.entries.items() if one.module is not None}
    for key, groups in holders.items():
        entry = found.entries[key]
        assert len({group.stem for group in groups}) == 1
        unknown = {key in group.unknown for group in groups}
        assert unknown == {entry.status == REFUSED}
        for group in groups:
            assert (entry.module, entry.part) == (group.target.module, group.target.part)
        suffix = split_suffix(key)
        if suffix is not None and suffix.slot is not None and entry.status == MAPPED:
            assert len(groups) == 1


def _families(out: int, inp: int) -> dict[str, dict[str, list[int]]]:
    down, up = [2, inp], [out, 2]
    kohya = {"lora_down.weight": down, "lora_up.weight": up}
    half = {"lora_down": down, "lora_up": [out // 2, 2]}
    hada = {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": up, "hada_w2_b": down}
    return {
        "peft": {"lora_A.weight": down, "lora_B.weight": up, "lora_B.bias": [out]},
        "kohya": {**kohya, "alpha": []},
        "diffusers": {"lora.down.weight": [*down, 1, 1], "lora.up.weight": up},
        "slots": {"lora_A.default.weight": down, "lora_B.default.weight": up},
        "locon": {**kohya, "lora_mid.weight": [2, 2]},
        "dora": {"lora_A.weight": down, "lora_B.weight": up, "lora_magnitude_vector": [out]},
        "dora of ComfyUI": {**kohya, "dora_scale": [out, 1]},
        "loha": {**hada, "alpha": []},
        "lokr": {"lokr_w1": [4, 4], "lokr_w2_a": [out // 4, 2], "lokr_w2_b": [2, inp // 4]},
        "whole lokr": {"lokr_w1": [4, 4], "lokr_w2": [out // 4, inp // 4], "alpha": []},
        "full": {"diff": [out, inp], "diff_b": [out]},
        "glora": {"a1.weight": [inp, 2], "a2.weight": down, "b1.weight": up, "b2.weight": down},
        "ia3": {"weight": [out], "on_input": []},
        "ia3 of peft": {"ia3_l": [1, inp]},
        "oft": {"oft_blocks": [out // 4, 4, 4], "rescale": [out, 1]},
        "numbered": {f"{side}.{i}.weight": shape for i in range(2) for side, shape in half.items()},
        "scaled": {**kohya, "lora_down.scale_weight": [], "lora_up.weight_scale": [out, 1]},
        "own scale": {**kohya, "lora_scaling": []},
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
