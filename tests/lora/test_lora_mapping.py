"""Tensor names: every spelling finds its module, and no name is ever lost."""

from __future__ import annotations

import itertools

import pytest
from support.lora_samples import key_cases
from vivace.lora import mapping
from vivace.lora.architecture import standard
from vivace.lora.mapping import IGNORED, MAPPED, UNMATCHED, KeyEntry, map_keys
from vivace.lora.naming import split_suffix

STANDARD = standard()
CASES = key_cases()


def entry(key: str, *others: str) -> KeyEntry:
    return map_keys([key, *others], STANDARD).entries[key]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_collected_case(case: dict) -> None:
    expect = case["expect"]
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
    cases = [case for case in CASES if case["family"] == family]
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
    "suffix",
    [
        "oft_R.weight",
        "oft_blocks",
        "a1.weight",
        "bm",
        "on_input",
        "weight",
        "set_weight",
        "lokr_t2",
    ],
)
def test_refused_adapters_keep_their_module_and_give_a_reason(suffix: str) -> None:
    key = f"transformer_blocks.0.attn.to_q.{suffix}"
    alpha = "transformer_blocks.0.attn.to_q.alpha"
    found = map_keys([key, alpha], STANDARD)
    assert found.entries[key].module == "transformer_blocks.0.attn.to_q"
    assert (found.entries[key].status, found.entries[key].role) == (IGNORED, "other")
    assert found.entries[alpha].status == IGNORED
    assert found.groups == ()
    assert found.modules == 1


@pytest.mark.parametrize(
    "key",
    [
        "transformer_blocks.60.attn.to_q.lora_A.weight",
        "lora_unet_layers_30_attention_to_q.lora_down.weight",
        "layers.0.attention.q.lora_A.weight",
        "transformer_blocks.0.attn.to_q.unheard_of",
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


def roles(keys: list[str]) -> dict[tuple[str, str | None], dict[str, str]]:
    found = map_keys(keys, STANDARD)
    assert set(found.entries) == set(keys)
    return {(g.target.module, g.target.part): g.roles for g in found.groups}


def test_same_module_under_two_prefixes_is_applied_once() -> None:
    pair = ["x.lora_A.weight", "x.lora_B.weight"]
    keys = [
        key.replace("x", prefix + "transformer_blocks.0.attn.to_q")
        for prefix in ("", "diffusion_model.")
        for key in pair
    ]
    found = map_keys(keys, STANDARD)
    statuses = [found.entries[key].status for key in keys]
    assert sorted(statuses) == [IGNORED, IGNORED, MAPPED, MAPPED]
    ((_, used),) = roles(keys).items()
    assert len({key.rpartition(".lora_")[0] for key in used.values()}) == 1


def test_incomplete_duplicate_loses() -> None:
    whole = ["layers.0.attention.out.lora_A.weight", "layers.0.attention.out.lora_B.weight"]
    keys = ["diffusion_model.layers.0.attention.to_out.0.lora_A.weight", *whole]
    assert set(roles(keys)[("layers.0.attention.out", None)].values()) == set(whole)


def test_adapter_slots_are_not_mixed() -> None:
    stem = "layers.0.attention.out"
    keys = [f"{stem}.lora_{f}.{slot}.weight" for f in "AB" for slot in ("zeta", "default")]
    keys.append(f"{stem}.alpha")
    assert roles(keys)[(stem, None)] == {
        "down": f"{stem}.lora_A.default.weight",
        "up": f"{stem}.lora_B.default.weight",
        "alpha": f"{stem}.alpha",
    }


def test_two_suffix_spellings_of_one_role() -> None:
    stem = "layers.0.attention.out"
    keys = [f"{stem}.lora_A.weight", f"{stem}.lora_down.weight", f"{stem}.lora_B.weight"]
    found = map_keys(keys, STANDARD)
    assert sorted(found.entries[key].status for key in keys) == [IGNORED, MAPPED, MAPPED]


@pytest.mark.parametrize(
    ("fused", "split"),
    [
        ("context_refiner.0.attention.qkv", ["attention.to_q", "attention.to_k", "attention.to_v"]),
        ("context_refiner.0.feed_forward.net.0.proj", ["feed_forward.w1", "feed_forward.w3"]),
    ],
)
def test_fused_and_split_are_never_both_applied(fused: str, split: list[str]) -> None:
    pieces = [f"context_refiner.0.{name}" for name in split]
    for count in range(len(pieces) + 1):
        for chosen in itertools.combinations(pieces, count):
            keys = [f"{stem}.lora_A.weight" for stem in (fused, *chosen)]
            found = map_keys(keys, STANDARD)
            winners = set(chosen) if count == len(pieces) else {fused}
            mapped = {
                k.removesuffix(".lora_A.weight") for k in keys if found.entries[k].status == MAPPED
            }
            assert mapped == winners
            assert len(found.groups) == len(winners)
            assert all(found.entries[k].reason for k in keys if found.entries[k].status == IGNORED)


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
    before = mapping._map_key_set.cache_info().hits
    assert map_keys(reversed(keys), STANDARD) is first
    assert mapping._map_key_set.cache_info().hits == before + 1


def test_result_does_not_depend_on_the_order_of_names() -> None:
    keys = [case["key"] for case in CASES if case["family"] == "z_image"]
    keys += [key.replace("diffusion_model.", "transformer.") for key in keys]
    one = map_keys(keys, STANDARD)
    mapping._map_key_set.cache_clear()
    two = map_keys(sorted(keys, reverse=True), STANDARD)
    assert one is not two
    assert one.entries == two.entries


def test_suffix_must_follow_a_dot() -> None:
    assert split_suffix("alpha") is None
    assert split_suffix("x.alpha") == ("x", "alpha", None)
