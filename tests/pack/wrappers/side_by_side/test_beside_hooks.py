"""LoRA hooks of ComfyUI, which are on for one condition only, beside our stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from support.applying import (
    MAKERS,
    QWEN_MODULES,
    apply,
    changed_by_hand,
    lora_file,
    relative_error,
    untouched,
)
from support.side_by_side import conditions, same_as_plain, sample
from vivace.devkit.doubles import tiny_models as tiny
from vivace.devkit.doubles.dynamic_vram.dynamic_vram import DynamicVram

ROUNDED = 2e-2
"""How far latents lie apart that are computed in bfloat16, whose numbers are 4e-3 apart."""


def hooks_of(folder: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What *Create Hook LoRA* makes of a file that changes the modules that our stack changes."""
    import folder_paths
    from comfy_extras.nodes_hooks import CreateHookLoraModelOnly

    _, modules = MAKERS[family]
    lora_file(folder / "hook.safetensors", modules, rank=5, seed=8)
    known = folder_paths.folder_names_and_paths
    monkeypatch.setitem(known, "loras", ([str(folder)], {".safetensors"}))
    return CreateHookLoraModelOnly().create_hook_model_only("hook.safetensors", 0.8)[0]


def hooked(hooks: Any) -> list[Any]:
    from comfy_extras.nodes_hooks import ConditioningSetProperties

    node = ConditioningSetProperties()
    return node.set_properties(conditions(), 1.0, "default", hooks=hooks)[0]


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp8 cast"])
@pytest.mark.parametrize("family", MAKERS)
def test_a_hook_on_one_of_two_prompts(
    family: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    comfyui: ModuleType,
) -> None:
    positive = hooked(hooks_of(tmp_path, family, monkeypatch))
    tolerance = ROUNDED if kind == "bf16" else 2e-5
    found = same_as_plain(
        tmp_path,
        lambda model: sample(model, positive),
        family=family,
        kind=kind,
        tolerance=tolerance,
    )
    assert relative_error(sample(found.model), found.base) > ROUNDED, "the hook must matter"


def test_a_hook_that_changes_over_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfyui: ModuleType
) -> None:
    from comfy_extras.nodes_hooks import CreateHookKeyframe, SetHookKeyframes

    hooks = hooks_of(tmp_path, "qwen_image", monkeypatch)
    first = CreateHookKeyframe().create_hook_keyframe(1.0, 0.0)[0]
    later = CreateHookKeyframe().create_hook_keyframe(0.25, 0.5, prev_hook_kf=first)[0]
    scheduled = hooked(SetHookKeyframes().set_hook_keyframes(hooks, later)[0])
    found = same_as_plain(tmp_path, lambda model: sample(model, scheduled, steps=4))
    always = sample(found.model, hooked(hooks), steps=4)
    assert relative_error(found.base, always) > 1e-3, "the schedule must matter"


def test_a_run_with_a_hook_that_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfyui: ModuleType
) -> None:
    """In its second step, as *Cancel* does it."""
    from comfy.model_management import InterruptProcessingException, interrupt_current_processing

    positive = hooked(hooks_of(tmp_path, "qwen_image", monkeypatch))
    found = same_as_plain(tmp_path, lambda model: sample(model, positive))
    patched = found.stack(found.model)

    def cancel(step: int, *_: Any) -> None:
        interrupt_current_processing(step == 1)

    with pytest.raises(InterruptProcessingException):
        sample(patched, positive, callback=cancel)
    assert torch.equal(sample(found.model, positive), found.base)
    assert torch.equal(sample(patched, positive), found.got)


def test_hooks_on_scaled_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfyui: ModuleType
) -> None:
    """ComfyUI 0.30 cannot do that; with a stack the same error ends the run, and nothing stays."""
    positive = hooked(hooks_of(tmp_path, "qwen_image", monkeypatch))
    path, _ = lora_file(tmp_path / "stack.safetensors", QWEN_MODULES)
    model = tiny.qwen_image("fp8 quantized")
    stacked = apply(model, (path, 1.0))
    wanted = sample(model), sample(stacked)
    for patched in (model, stacked):
        with pytest.raises(AttributeError, match="weight_scale"):
            sample(patched, positive)
    assert torch.equal(sample(model), wanted[0])
    assert torch.equal(sample(stacked), wanted[1])
    assert untouched(model)


@contextmanager
def not_dynamic() -> Iterator[None]:
    """Models that are loaded so are as those that ComfyUI's loaders make on request."""
    import comfy.memory_management
    import comfy.model_patcher

    with (
        patch.object(comfy.memory_management, "aimdo_enabled", False),
        patch.object(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher),
    ):
        yield


@pytest.mark.parametrize("dynamic_card", ["a third of it"], indirect=True)
def test_a_hook_under_dynamic_vram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamic_card: DynamicVram
) -> None:
    """ComfyUI goes on with a second copy of the model, which is not dynamic, and so do we."""
    loaded: list[Any] = []

    def again(disable_dynamic: bool = False) -> Any:
        assert disable_dynamic
        with not_dynamic():
            loaded.append(tiny.qwen_image())
        return loaded[-1]

    positive = hooked(hooks_of(tmp_path, "qwen_image", monkeypatch))
    path, deltas = lora_file(tmp_path / "stack.safetensors", QWEN_MODULES)
    with not_dynamic():
        plain = changed_by_hand(tiny.qwen_image, "fp32", [(deltas, 1.0)])
    wanted = sample(plain, positive)
    model = tiny.qwen_image()
    assert model.is_dynamic()
    model.cached_patcher_init = (again, ())
    base = sample(model, positive)
    patched = apply(model, (path, 1.0))
    assert relative_error(sample(patched, positive), wanted) < 2e-5
    assert len(loaded) == 2
    assert relative_error(base, wanted) > 1e-3
    assert torch.equal(sample(model, positive), base)
    unhooked = apply(model, (path, 1.0))
    assert relative_error(sample(unhooked), sample(plain)) < 2e-5
    assert untouched(model)
    assert untouched(loaded[1])
