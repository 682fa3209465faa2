"""Tensor names: every spelling finds its module, and no name is ever lost."""

from __future__ import annotations

import pytest
from support.lora_samples import key_cases
from vivace.lora.mapping import key_map as mapping
from vivace.lora.mapping.key_map import IGNORED, MAPPED, REFUSED, UNMATCHED, KeyEntry, map_keys
from vivace.lora.mapping.suffixes import split_suffix
from vivace.lora.mapping.supported_models import standard

STANDARD = standard()
CASES = key_cases()


def entry(key: str, *others: str) -> KeyEntry:
    return map_keys([key, *others], STANDARD).entries[key]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_collected_case(case: dict) -> None:
    expect = case["expect"]
    if case["id"] == "q-138":  # collected when Qwen-Image-2.1 was not supported
        expect = {"module": "transformer_blocks.12.img_mlp.gate_up", "part": None, "role": "up"}
    found = entry(case["key"])
    assert (found.module, found.part, found.role) == (
        expect["module"],
        expect["part"],
        expect["role"],
    )
    assert (found.status == MAPPED) == (found.reason is None)
    if expect["module"] is None:
        assert found.status != MAPPED


@pytest.mark.parametrize("family", ["qwen_image", "z_image"])
def test_collected_cases_in_one_file(family: str) -> None:
    cases = [case for case in CASES if case["family"] == family and case["id"] != "q-138"]
    found = map_keys([case["key"] for case in cases], STANDARD)
    assert found.architecture is not None
    assert found.architecture.name == family
    for case in cases:
        one = found.entries[case["key"]]
        expect = case["expect"]
        assert (one.module, one.part, one.role) == tuple(
            expect[k] for k in ("module", "part", "role")
        )


DOTTED = [
    "",
    "transformer.",
    "diffusion_model.",
    "base_model.model.",
    "transformer.base_model.model.",
    "base_model.model.transformer.",
    "base_model.model.transformer.diffusion_model.",
    "pipe.dit.",
    "model.diffusion_model.",
    "transformer.diffusion_model.",
    "_inner_dit.",
    "unet.",
]
FLAT = ["lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_", "lora_unet__inner_dit_"]
NAMES = {
    "transformer_blocks.59.attn.to_out.0": ("transformer_blocks.59.attn.to_out.0", None),
    "transformer_blocks.7.img_mlp.net.0.proj": ("transformer_blocks.7.img_mlp.net.0.proj", None),
    "transformer_blocks.0.attn.to_qkv": ("transformer_blocks.0.attn.to_qkv", None),
    "time_text_embed.timestep_embedder.linear_1": (
        "time_text_embed.timestep_embedder.linear_1",
        None,
    ),
    "norm_out.linear": ("norm_out.linear", None),
    "layers.29.attention.to_v": ("layers.29.attention.qkv", "v"),
    "layers.1.attention.qkv": ("layers.1.attention.qkv", None),
    "layers.1.attention.to_qkv": ("layers.1.attention.qkv", None),
    "layers.2.attention.to_out.0": ("layers.2.attention.out", None),
    "layers.2.attention.out": ("layers.2.attention.out", None),
    "context_refiner.1.attention.norm_k": ("context_refiner.1.attention.k_norm", None),
    "noise_refiner.0.feed_forward.net.2": ("noise_refiner.0.feed_forward.w2", None),
    "layers.0.feed_forward.net.0.proj": ("layers.0.feed_forward.w13", None),
    "all_final_layer.2-1.adaLN_modulation.1": ("final_layer.adaLN_modulation.1", None),
    "all_x_embedder.2-1": ("x_embedder", None),
    "t_embedder.mlp.2": ("t_embedder.mlp.2", None),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix(name: str) -> None:
    for prefix in DOTTED:
        found = entry(f"{prefix}{name}.lora_A.weight")
        assert (found.module, found.part, found.role) == (*NAMES[name], "down"), prefix
    for prefix in FLAT:
        found = entry(f"{prefix}{name.replace('.', '_')}.lora_up.weight")
        assert (found.module, found.part, found.role) == (*NAMES[name], "up"), prefix


SUFFIXES = {
    "lora_A.weight": "down",
    "lora_A.style.weight": "down",
    "lora_A.default": "down",
    "lora.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_up": "up",
    "lora_alpha": "alpha",
    "alpha.default": "alpha",
    "lora_magnitude_vector.default.weight": "dora_scale",
    "magnitude": "dora_scale",
    "w_norm": "diff",
    "b_norm": "diff_b",
    "lora_B.bias": "other",
    "lora_B.default.bias": "other",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_applied(suffix: str) -> None:
    found = entry(f"layers.0.attention.to_q.{suffix}")
    assert (found.module, found.part, found.role) == (
        "layers.0.attention.qkv",
        "q",
        SUFFIXES[suffix],
    )
    assert found.status == MAPPED


def test_old_diffusers_suffix() -> None:
    found = entry("transformer_blocks.0.attn.to_q_lora.down.weight")
    assert (found.module, found.role) == ("transformer_blocks.0.attn.to_q", "down")


@pytest.mark.parametrize(
    "key",
    [
        "transformer_blocks.60.attn.to_q.lora_A.weight",
        "lora_unet_layers_30_attention_to_q.lora_down.weight",
        "layers.0.attention.q.lora_A.weight",
        "lora_A.weight",
        "weight",
        "",
        ".",
        "..lora_A.weight",
        "transformer.transformer.lora_A.weight",
        "lora_unet_.alpha",
    ],
)
def test_unknown_names_are_unmatched_with_a_reason(key: str) -> None:
    found = entry(key)
    assert (found.module, found.role, found.status) == (None, "other", UNMATCHED)
    assert found.reason


@pytest.mark.parametrize(
    "stem", ["lora_te1_text_model_x", "text_encoder.a.b", "transformer.text_encoders.q"]
)
def test_text_encoders_are_ignored_quietly(stem: str) -> None:
    found = map_keys([f"{stem}.lora_A.weight"], STANDARD)
    assert found.entries[f"{stem}.lora_A.weight"].status == IGNORED
    assert found.modules == 0


def test_minority_architecture_is_unmatched() -> None:
    keys = ["layers.0.attention.out.lora_A.weight", "layers.1.attention.out.lora_A.weight"]
    stray = "transformer_blocks.0.attn.to_q.lora_A.weight"
    found = map_keys([*keys, stray], STANDARD)
    assert found.architecture is not None
    assert found.architecture.name == "z_image"
    assert found.entries[stray].status == UNMATCHED


def test_mapping_is_memoized_by_the_set_of_names() -> None:
    keys = [f"layers.{i}.attention.to_q.lora_A.weight" for i in range(7)]
    first = map_keys(keys, STANDARD)
    assert map_keys(reversed(keys), STANDARD) is first


def test_result_does_not_depend_on_the_order_of_names() -> None:
    keys = [case["key"] for case in CASES if case["family"] == "z_image"]
    keys += [key.replace("diffusion_model.", "transformer.") for key in keys]
    one = map_keys(keys, STANDARD)
    mapping.map_key_set.cache_clear()
    two = map_keys(sorted(keys, reverse=True), STANDARD)
    assert one is not two
    assert one.entries == two.entries


def test_suffix_must_follow_a_dot() -> None:
    assert split_suffix("alpha") is None
    assert split_suffix("x.alpha") == ("x.alpha", "x", "alpha", None)


@pytest.mark.parametrize("tail", ["unheard_of", "scale", "lora_A.weight.odd.scale", "a.b.c.weight"])
def test_a_tensor_of_unknown_role_keeps_its_module(tail: str) -> None:
    key = f"transformer.transformer_blocks.0.attn.to_q.{tail}"
    found = map_keys([key], STANDARD)
    entry = found.entries[key]
    assert (entry.module, entry.status) == ("transformer_blocks.0.attn.to_q", REFUSED)
    (group,) = found.groups
    assert group.unknown == (key,)


WRAPPED = [
    "module.transformer_blocks.0._orig_mod.attn.to_q.lora_A.weight",
    "module.module._orig_mod.transformer_blocks.0.attn.to_q.lora_A.weight",
    "_fsdp_wrapped_module.transformer_blocks.0._checkpoint_wrapped_module.attn.to_q.lora_A.weight",
    "transformer_blocks.0.attn.to_q.lora_A.default._fsdp_wrapped_module.weight",
    "transformer_blocks.0.attn.to_q.base_layer.lora_A.weight",
    "default.transformer_blocks.0.attn.to_q.lora_A.weight",
    "diffusion_model.transformer.transformer_blocks.0.attn.to_q.lora_A.default_0.weight",
    "diffusion_model.inner.dit.transformer_blocks.0.attn.to_q.lora_A.weight",
    "lora.transformer_blocks.0.attn.to_q.lora_A.weight",
    "lycoris.transformer_blocks.0.attn.to_q.lora_A.weight",
    "lora_transformer_blocks_0_attn_to_q.lora_down.weight",
    "lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight",
    "lora_unet__orig_mod_transformer_blocks_0_attn_to_q.lora_down.weight",
    "lora_unet_transformer_blocks_0__orig_mod_attn_to_q.lora_down.weight",
    "lora_unet._inner_dit.transformer_blocks.0.attn.to_q.lora_down.weight",
    "transformer_blocks.0.attn.processor.to_q_lora.down.weight",
]


@pytest.mark.parametrize("key", WRAPPED)
def test_wrappers_of_training_are_stripped_wherever_they_stand(key: str) -> None:
    found = entry(key)
    assert (found.module, found.role) == ("transformer_blocks.0.attn.to_q", "down")


@pytest.mark.parametrize(
    ("stem", "module", "part"),
    [
        ("layers.0.attention.wo", "layers.0.attention.out", None),
        ("layers.0.attention.out.0", "layers.0.attention.out", None),
        ("siglip_refiner.1.attention.to_v", "siglip_refiner.1.attention.qkv", "v"),
        ("siglip_refiner.0.feed_forward.w2", "siglip_refiner.0.feed_forward.w2", None),
        ("siglip_embedder.1", "siglip_embedder.1", None),
        ("t_embedder.linear1", "t_embedder.mlp.0", None),
        ("all_final_layer.2-1.adaLN_modulation.0", "final_layer.adaLN_modulation.1", None),
        ("lora_unet_all_x_embedder_2-1", "x_embedder", None),
        ("transformer_blocks.0.attn.to_added_qkv", "transformer_blocks.0.attn.add_qkv_proj", None),
        ("transformer_blocks.0.img_mlp.gate_up", "transformer_blocks.0.img_mlp.gate_up", None),
        ("transformer_blocks.0.attn.processor.to_out", "transformer_blocks.0.attn.to_out.0", None),
    ],
)
def test_every_trainer_s_name_of_a_module(stem: str, module: str, part: str | None) -> None:
    found = entry(f"{stem}.lora_A.weight")
    assert (found.module, found.part) == (module, part)
