"""The factors of a stack as a model that ComfyUI's memory management handles."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, D, apply, lora_file, relative_error
from torch.overrides import TorchFunctionMode
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

ELSEWHERE = torch.device("meta")  # a device that is not the host's
QKV = {f"transformer_blocks.0.attn.{name}": (D, D) for name in ("to_q", "to_k", "to_v")}


def branched(tmp_path: Path, model: Any) -> Any:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV, rank=16)
    return apply(model, (path, 0.7), mode="branch")


def for_other_device(patched: Any) -> Any:
    """The holder of the factors, as it would be if the model ran on another device."""
    (holder,) = patched.get_nested_additional_models()
    other = holder.clone()
    other.load_device = ELSEWHERE
    return other


def bytes_on(store: Any, device: torch.device) -> int:
    return sum(tensor.nbytes for tensor in store.parameters() if tensor.device == device)


@pytest.mark.own_loading
def test_as_much_as_fits_is_loaded_and_the_rest_is_used_from_the_host(tmp_path: Path) -> None:
    patched = branched(tmp_path, tiny.qwen_image())
    holder = for_other_device(patched)
    store, size = holder.model, holder.model_size()
    homes = [tensor.data_ptr() for tensor in store.parameters()]
    holder.model_patches_to(ELSEWHERE)
    holder.partially_load(ELSEWHERE, size // 2)
    there = bytes_on(store, ELSEWHERE)
    assert size // 8 < there <= size // 2
    assert holder.loaded_size() >= there
    holder.partially_load(ELSEWHERE, size)
    assert bytes_on(store, ELSEWHERE) == size
    freed = holder.partially_unload(holder.offload_device, size // 3)
    assert size // 3 <= freed
    assert bytes_on(store, ELSEWHERE) <= size - size // 3
    holder.detach()
    assert [tensor.data_ptr() for tensor in store.parameters()] == homes, "nothing was copied back"


def test_half_loaded_factors_give_the_same_picture(tmp_path: Path) -> None:
    """What is not where the layer runs is brought there at each call."""
    model = tiny.qwen_image()
    patched = branched(tmp_path, model)
    wanted = tiny.sample(patched)
    (holder,) = patched.get_nested_additional_models()
    for page in list(holder.model.pages)[::2]:
        page.to(torch.float64)  # as another device would: not as the input is
    assert relative_error(tiny.sample(patched), wanted) < 1e-6


class FailsSecondCopy(TorchFunctionMode):
    """No memory for the second tensor that is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[0].numel():
            self.copies += 1
            if self.copies == 2:
                raise torch.OutOfMemoryError("now")
        return func(*args, **(kwargs or {}))


def test_a_failed_move_leaves_pages_whole(tmp_path: Path) -> None:
    patched = branched(tmp_path, tiny.qwen_image())
    (holder,) = patched.get_nested_additional_models()
    page = next(page for page in holder.model.pages if page.bias is not None)
    before = page.weight, page.bias
    with FailsSecondCopy(), pytest.raises(torch.OutOfMemoryError):
        page.to(ELSEWHERE)
    assert page.weight is before[0]
    assert page.bias is before[1]


def test_ranks_have_their_room_from_loading_to_unloading(tmp_path: Path) -> None:
    """Taken with the factors, given to what is appended, and got back whenever ComfyUI unloads."""
    from vivace.wrappers.lora.branch_set import install, remove
    from vivace.wrappers.lora.running_model import RunningModel

    model = small.kitchen("qwen_image")
    before = model.model.diffusion_model.get_submodule("transformer_blocks.0.attn.to_q").weight
    base = before._params.proj_down.shape
    patched = branched(tmp_path, model)
    store = patched.get_nested_additional_models()[0].model
    reserve = store.reserve
    reserve.device = ELSEWHERE
    reserve.to(ELSEWHERE)
    assert reserve.room.device == ELSEWHERE
    assert 0 < reserve.room.nbytes <= patched.get_nested_additional_models()[0].model_size()
    install(patched)
    remove(patched)
    assert reserve.room.nbytes == 0
    ranks = RunningModel.of(model).ranks
    assert ranks.appended
    assert ranks.cut == 0
    reserve.to("cpu")
    assert ranks.cut == ranks.appended
    now = model.model.diffusion_model.get_submodule("transformer_blocks.0.attn.to_q").weight
    assert now._params.proj_down.shape == base


@pytest.mark.own_loading
def test_another_gpu_has_factors_of_its_own(tmp_path: Path) -> None:
    model = tiny.qwen_image()
    if not hasattr(model, needed := "deepclone_multigpu"):
        pytest.skip(f"this ComfyUI has no {needed}")
    model.cached_patcher_init = (tiny.qwen_image, ())
    patched = branched(tmp_path, model)
    wanted = tiny.sample(patched)
    other = patched.deepclone_multigpu(new_load_device=torch.device("cpu"))
    (first,) = patched.get_additional_models_with_key("vivace_lora")
    (second,) = other.get_additional_models_with_key("vivace_lora")
    assert other.model is not patched.model
    assert first.model is not second.model
    assert torch.equal(tiny.sample(other), wanted)
    assert torch.equal(tiny.sample(patched), wanted)


def test_comfyui_sees_no_leak_when_a_strength_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The stack of before is gone, as in a graph that runs anew, and its factors are used on."""
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES | QKV)
    model = tiny.qwen_image()
    patched = apply(model, (path, 1.0), mode="branch")
    store = patched.get_nested_additional_models()[0].model
    tiny.sample(patched)
    with caplog.at_level(logging.INFO):
        for strength in (0.3, 0.7):
            patched = apply(model, (path, strength), mode="branch").clone()
            gc.collect()
            tiny.sample(patched)
            assert patched.get_nested_additional_models()[0].model is store
    assert not [text for text in caplog.messages if "memory leak" in text]
