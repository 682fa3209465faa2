"""Stacks with dynamic VRAM: right with room and without, and nobody else's VRAM is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import (
    QWEN_MODULES,
    D,
    apply,
    lora_file,
    reference,
    relative_error,
    special_file,
    untouched,
)
from support.dynamic import skip_without_it
from vivace.devkit.doubles import tiny_models as tiny
from vivace.devkit.doubles.dynamic_vram.dynamic_vram import DynamicVram, dynamic_vram, unload_all
from vivace.devkit.doubles.dynamic_vram.second_device import DEVICE

pytestmark = pytest.mark.usefixtures("comfyui")

QKV = {f"transformer_blocks.0.attn.{name}": (D, D) for name in ("to_q", "to_k", "to_v")}


def holder_of(patched: Any) -> Any:
    (holder,) = patched.get_nested_additional_models()
    return holder


@pytest.mark.parametrize("kind", ["fp32", "fp8 cast"])
def test_a_stack_is_exact_with_room_and_without(
    dynamic_card: DynamicVram, kind: str, tmp_path: Path
) -> None:
    one, first = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV, seed=1)
    two, second = lora_file(tmp_path / "b.safetensors", QKV, rank=7, seed=2)
    model = tiny.qwen_image(kind)
    base = tiny.sample(model)
    wanted = reference(tiny.qwen_image, kind, [(first, 0.7), (second, -0.4)])
    patched = apply(model, (one, 0.7), (two, -0.4))
    assert relative_error(tiny.sample(patched), wanted) < 2e-5
    assert torch.equal(tiny.sample(model), base)
    assert untouched(model)


def test_a_weight_that_becomes_fp8_on_the_card_counts_as_fp8(
    dynamic_card: DynamicVram, tmp_path: Path
) -> None:
    """The layer holds the file's own 16 or 32 bits; DoRA's norms are of what it computes with."""
    from vivace.wrappers.targets.known_kinds import kind_of

    model = tiny.qwen_image("fp8 cast")
    layer = model.model.diffusion_model.get_submodule("transformer_blocks.0.attn.to_q")
    assert layer.weight.dtype == torch.float32
    assert kind_of(layer).rounds
    assert not kind_of(
        tiny.qwen_image().model.diffusion_model.transformer_blocks[0].attn.to_q
    ).rounds
    path, parameter, wanted = special_file(tmp_path, "dora", model)
    weight = tiny.weight_of(model, parameter)
    assert weight.dtype == torch.float8_e4m3fn
    module = parameter.removesuffix(".weight")
    change = {module: wanted - weight.double()}
    got = tiny.sample(apply(model, (path, 0.7)))
    assert relative_error(got, reference(tiny.qwen_image, "fp8 cast", [(change, 1.0)])) < 2e-5


def test_a_changed_strength_pages_nothing_in(tmp_path: Path) -> None:
    skip_without_it()
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV)
    with dynamic_vram() as card:
        model = tiny.qwen_image()
        first = apply(model, (path, 1.0))
        tiny.sample(first)
        second = apply(model, (path, 0.3))
        before = card.card.counts["paged in"]
        tiny.sample(second)
        assert card.card.counts["paged in"] == before
        assert holder_of(first).model is holder_of(second).model
        del model, first, second


def test_factors_end_nobody_s_dynamic_regime(tmp_path: Path) -> None:
    """Another dynamic model that is not needed now keeps what the card has room for."""
    skip_without_it()
    from comfy import model_management
    from comfy.model_patcher import ModelPatcherDynamic

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV)
    with dynamic_vram() as card:
        other, model = tiny.z_image(), tiny.qwen_image()
        tiny.sample(other)
        (there,) = [space for space in card.card.models if space.resident]
        resident = there.resident
        patched = apply(model, (path, 1.0))
        assert isinstance(holder_of(patched), ModelPatcherDynamic)
        tiny.sample(patched)
        assert there.resident == resident > 0
        assert other in [each.model for each in model_management.current_loaded_models]
        del other, model, patched, there


def test_what_was_unloaded_comes_back_exact(dynamic_card: DynamicVram, tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV)
    patched = apply(tiny.qwen_image(), (path, 0.7))
    wanted = tiny.sample(patched)
    unload_all()
    assert not any(space.resident for space in dynamic_card.card.models)
    assert torch.equal(tiny.sample(patched), wanted)


def test_pages_of_factors_go_in_the_middle_of_a_run(tmp_path: Path) -> None:
    skip_without_it()
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV)
    with dynamic_vram() as card:
        patched = apply(tiny.qwen_image(), (path, 0.7))
        wanted = tiny.sample(patched)
        block = patched.model.diffusion_model.transformer_blocks[1]
        evicted: list[int] = []

        def take(*_: Any) -> None:
            before = card.card.counts["evicted"]
            card.card.free_pages(200)
            evicted.append(card.card.counts["evicted"] - before)

        hook = block.register_forward_pre_hook(take)
        got = tiny.sample(patched)
        hook.remove()
        assert evicted[0] > 5
        assert torch.equal(got, wanted)
        del patched, block


def test_norms_of_dora_are_worked_out_on_the_card_once(
    dynamic_card: DynamicVram, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vivace.wrappers.lora import running_model
    from vivace.wrappers.lora.running_model import RunningModel

    monkeypatch.setattr(running_model, "compute_place", lambda: DEVICE)  # which is no CUDA's
    asked: list[tuple[str, torch.device | None]] = []
    original = RunningModel.base_weight

    def base_weight(self: RunningModel, path: str, device: torch.device | None = None) -> Any:
        asked.append((path, device))
        weight = original(self, path, device)
        assert weight.device == DEVICE
        return weight

    monkeypatch.setattr(RunningModel, "base_weight", base_weight)
    model = tiny.qwen_image()
    path, parameter, _ = special_file(tmp_path, "dora", model)
    patched = apply(model, (path, 0.7))
    assert asked == [(parameter.removesuffix(".weight"), DEVICE)]
    tiny.sample(patched)
    tiny.sample(apply(model, (path, 0.3)))
    assert len(asked) == 1, "a changed strength reads no weights"
