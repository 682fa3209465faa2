"""The generated module lists are those of ComfyUI's model classes."""

from __future__ import annotations

import json

import pytest
import torch
from support.lora_samples import DATA
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.module_names import find, spellings
from vivace.lora.mapping.supported_models import qwen_image, qwen_image_21, standard, z_image

STATES = json.loads((DATA / "lora_modules.json").read_text(encoding="utf-8"))


def state_shapes(architecture: Architecture) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for module in architecture.modules.values():
        if not module.optional:
            found[module.parameter_name()] = list(module.shape)
            if module.bias:
                found[module.parameter_name("bias")] = [module.shape[0]]
    return found


@pytest.mark.parametrize("architecture", [qwen_image(), z_image()], ids=lambda a: a.name)
def test_modules_equal_those_of_comfyui(architecture: Architecture) -> None:
    assert state_shapes(architecture) == STATES[architecture.name]


def test_modules_of_qwen_image_21_equal_those_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="an oracle of the newest ComfyUI only")
    with torch.device("meta"):
        model = diffusers.QwenImage21Transformer2DModel()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert state_shapes(qwen_image_21()) == shapes


def test_siglip_modules_of_z_image_equal_those_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="an oracle of the newest ComfyUI only")
    with torch.device("meta"):
        model = diffusers.ZImageTransformer2DModel(siglip_feat_dim=1152)
    theirs = {name: tuple(t.shape) for name, t in model.state_dict().items() if "siglip" in name}
    table = spellings(standard())
    for name, shape in theirs.items():
        stem = name.removesuffix(".weight").removesuffix(".bias")
        owners = find(stem, table)
        assert owners is not None
        owner = owners[0]
        wanted = owner.target.shape if not name.endswith(".bias") else owner.target.shape[:1]
        assert shape == wanted, name
        assert owner.architecture.modules[owner.target.module].optional


def test_depth_is_a_parameter() -> None:
    one = qwen_image(depth=1)
    assert set(one.modules) < set(qwen_image().modules)
    assert not any(".1.attn" in module for module in one.modules)
    assert "noise_refiner.1.attention.qkv" not in z_image(depth=1, refiners=1).modules
    assert qwen_image() is standard()[0]


def test_layered_embedding_is_optional() -> None:
    module = qwen_image().modules["time_text_embed.addition_t_embedding"]
    assert (module.optional, module.shape) == (True, (2, 3072))


def test_row_orders() -> None:
    z = z_image()
    w13 = [(b.module, b.start, b.stop) for b in z.layout("layers.3.feed_forward.w13")]
    assert w13 == [
        ("layers.3.feed_forward.w3", 0, 10240),
        ("layers.3.feed_forward.w1", 10240, 20480),
    ]
    assert z.rows("layers.0.attention.qkv", "k") == (3840, 7680)
    assert z.target("layers.0.attention.qkv", "v").shape == (3840, 3840)
    qkv = [
        b.module.rpartition(".")[2] for b in qwen_image().layout("transformer_blocks.5.attn.to_qkv")
    ]
    assert qkv == ["to_q", "to_k", "to_v"]
    added = qwen_image().layout("transformer_blocks.5.attn.add_qkv_proj")
    assert [b.module.rpartition(".")[2] for b in added] == [
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
    ]
