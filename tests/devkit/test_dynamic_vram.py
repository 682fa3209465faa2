"""The double of dynamic VRAM: right where ComfyUI is right, and an error for each wrong use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from support.applying import relative_error
from support.dynamic import skip_without_it
from vivace.devkit.doubles import tiny_models as tiny
from vivace.devkit.doubles.dynamic_vram.dynamic_vram import MB, PAGE, DynamicVram, dynamic_vram
from vivace.devkit.doubles.dynamic_vram.reserved_memory import WrongUseError
from vivace.devkit.doubles.dynamic_vram.second_device import DEVICE

MAKERS = {"qwen_image": tiny.qwen_image, "z_image": tiny.z_image}


@pytest.fixture(autouse=True)
def _inference(comfyui: ModuleType) -> Iterator[None]:
    skip_without_it()
    with torch.inference_mode():
        yield


@pytest.fixture
def card(comfyui: ModuleType) -> Iterator[DynamicVram]:
    """A card of 8 pages."""
    with dynamic_vram(8 * PAGE) as running:
        yield running


@pytest.mark.parametrize("kind", ["fp32", "fp8 cast"])
@pytest.mark.parametrize("family", MAKERS)
def test_samples_as_on_the_cpu(comfyui: ModuleType, family: str, kind: str) -> None:
    from comfy.model_patcher import ModelPatcherDynamic

    model, exact = MAKERS[family](kind), MAKERS[family]("fp32")
    for path, module in model.model.named_modules():
        if type(module).__name__ == "RMSNorm":  # dynamic VRAM does not cast what is small
            module.weight = exact.model.get_submodule(path).weight
    wanted = tiny.sample(model)
    counts = {}
    for room in (64 * MB, 6 * MB):
        with dynamic_vram(room) as running:
            model = MAKERS[family](kind)
            assert type(model) is ModelPatcherDynamic
            first, second = tiny.sample(model), tiny.sample(model)
            running.check()
            counts[room] = dict(running.card.counts)
            assert running.card.used <= room
            del model
        assert relative_error(first, wanted) < 2e-6
        assert torch.equal(first, second)
    ample, short = counts.values()
    assert "no room" not in ample
    assert short["no room"] > 0
    assert ample["faults"] == short["faults"]


def test_pages_go_in_the_middle_of_a_run(comfyui: ModuleType) -> None:
    wanted = tiny.sample(tiny.qwen_image())
    seen = []

    def take(*_: Any) -> None:
        before = running.card.counts["evicted"]
        hungry = torch.empty(56 * MB, dtype=torch.uint8, device=DEVICE)
        seen.append((running.card.counts["evicted"] - before, hungry.nbytes))

    with dynamic_vram(64 * MB) as running:
        model = tiny.qwen_image()
        model.model.diffusion_model.transformer_blocks[1].register_forward_pre_hook(take)
        got = tiny.sample(model)
        model.model.diffusion_model.transformer_blocks[1]._forward_pre_hooks.clear()
        del model
    assert seen[0][0] > 5
    assert relative_error(got, wanted) < 2e-6


def test_a_kept_copy_needs_its_signature(comfyui: ModuleType) -> None:
    import comfy_aimdo.model_vbar

    def careless(new: Any, kept: Any) -> bool:
        return new is not None and kept is not None

    with dynamic_vram(64 * MB) as running:
        model = tiny.qwen_image()
        tiny.sample(model)
        running.card.free_pages(200)
        with (
            patch.object(comfy_aimdo.model_vbar, "vbar_signature_compare", careless),
            pytest.raises(WrongUseError, match="nobody has written"),
        ):
            tiny.sample(model)
        for memory in running.card.models:  # the run was broken off
            memory.pins = [0] * len(memory.pins)
        del model


def _weight(pages: int = 1) -> tuple[Any, Any]:
    import comfy_aimdo.model_vbar as vbar

    space = vbar.ModelVBAR(pages * PAGE, 0)
    return space, space.alloc(pages * PAGE)


def _tensor(weight: Any) -> torch.Tensor:
    import comfy_aimdo.torch

    return comfy_aimdo.torch.aimdo_to_tensor(weight, DEVICE).view(torch.float32)


def test_a_weight_is_used_between_fault_and_unpin_only(card: DynamicVram) -> None:
    import comfy_aimdo.model_vbar as vbar

    space, weight = _weight()
    with pytest.raises(WrongUseError, match="not faulted in"):
        _tensor(weight).sum()
    vbar.vbar_fault(weight)
    with pytest.raises(WrongUseError, match="nobody has written"):
        _tensor(weight).sum()
    _tensor(weight).fill_(2.0)
    assert _tensor(weight).sum() == 2.0 * PAGE / 4
    with pytest.raises(WrongUseError, match="pinned while nothing runs"):
        card.check()
    vbar.vbar_unpin(weight)
    with pytest.raises(WrongUseError, match="after vbar_unpin"):
        _tensor(weight).sum()
    view = _tensor(weight)
    del space, weight
    with pytest.raises(WrongUseError, match="no memory"):
        view.sum()


def test_the_model_that_is_not_used_goes_first(card: DynamicVram) -> None:
    """8 pages for two models of 5 layers, a page each; one page more than asked is kept free."""
    import comfy_aimdo.model_vbar as vbar

    spaces = [vbar.ModelVBAR(5 * PAGE, 0) for _ in range(2)]
    old, new = spaces
    layers = {space: [space.alloc(PAGE) for _ in range(5)] for space in spaces}

    def run(space: Any) -> list[bool]:
        """Whether each layer found room."""
        found = [vbar.vbar_fault(layer) is not None for layer in layers[space]]
        for layer, has in zip(layers[space], found, strict=True):
            if has:
                vbar.vbar_unpin(layer)
        return found

    assert run(old) == run(new) == [True] * 5
    assert [space.loaded_size() // PAGE for space in spaces] == [2, 5]
    assert old.get_residency() == [1, 1, 0, 0, 0]
    assert run(old) == [True, True, False, False, False]  # until it is wanted more than the other
    old.prioritize()
    assert run(old) == [True] * 5
    assert [space.loaded_size() // PAGE for space in spaces] == [5, 2]


def test_a_signature_changes_with_each_new_page(card: DynamicVram) -> None:
    import comfy_aimdo.model_vbar as vbar

    space, weight = _weight(3)
    kept = vbar.vbar_fault(weight)
    vbar.vbar_unpin(weight)
    assert vbar.vbar_signature_compare(vbar.vbar_fault(weight), kept)
    vbar.vbar_unpin(weight)
    assert space.free_memory(1) == PAGE
    space.prioritize()
    assert not vbar.vbar_signature_compare(vbar.vbar_fault(weight), kept)
    vbar.vbar_unpin(weight)


def test_pinned_host_memory_is_counted(card: DynamicVram) -> None:
    from comfy_aimdo.host_buffer import HostBuffer

    buffer = HostBuffer(0, 0, 4096)
    buffer.extend(1024, register=True)
    with pytest.raises(WrongUseError, match="1024 bytes of host memory"):
        card.check()
    buffer.extend(1024, register=False)
    with pytest.raises(WrongUseError, match="still registered"):
        buffer.truncate(0, do_unregister=False)
    with pytest.raises(RuntimeError, match="truncate failed"):
        buffer.truncate(1024, do_unregister=True)
    buffer.truncate(1024, do_unregister=False)
    buffer.truncate(0, do_unregister=True)
    card.check()


MIXED: list[Callable[[torch.Tensor, torch.Tensor], Any]] = [
    torch.add, torch.mm, torch.nn.functional.linear, lambda a, b: torch.cat([a, b])
]  # fmt: skip


@pytest.mark.parametrize("operation", MIXED)
def test_host_and_card_do_not_mix(
    card: DynamicVram, operation: Callable[[torch.Tensor, torch.Tensor], Any]
) -> None:
    one = torch.randn(3, 3)
    assert torch.equal(operation(one.to(DEVICE), one.to(DEVICE)).cpu(), operation(one, one))
    with pytest.raises(RuntimeError, match="on the same device"):
        operation(one.to(DEVICE), one)
