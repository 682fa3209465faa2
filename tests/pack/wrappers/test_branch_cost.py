"""What a branch costs: the operations of a forward with it, beside those without."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, D, apply, lora_file, random, reference, relative_error
from torch.profiler import ProfilerActivity, profile
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm"}
# What runs no kernel: views of the same memory, and operations that only call others.
FREE = {
    "aten::linear", "aten::t", "aten::transpose", "aten::as_strided", "aten::view", "aten::slice",
    "aten::reshape", "aten::flatten", "aten::_unsafe_view", "aten::matmul", "aten::expand",
    "aten::empty", "aten::_reshape_alias", "aten::resolve_conj",
}  # fmt: skip
APART = {path: shape for path, shape in QWEN_MODULES.items() if ".attn." not in path}
BLOCK = "transformer_blocks.0.attn"
QKV = {f"{BLOCK}.{name}": (D, D) for name in ("to_q", "to_k", "to_v")}
OF_TEXT = {f"{BLOCK}.{name}": (D, D) for name in ("add_q_proj", "add_k_proj", "add_v_proj")}


def forward(model: Any) -> torch.Tensor:
    """One forward of the network with the branches of a patcher, if it has any."""
    from vivace.wrappers.lora.branch_set import KEY, install, remove

    branched = KEY in model.attachments
    if branched:
        install(model)
    try:
        with torch.inference_mode():
            return model.model.diffusion_model(
                random(1, 16, 1, 8, 8, seed=1),
                torch.full((1,), 0.5),
                random(1, 6, tiny.TEXT, seed=2),
            )
    finally:
        if branched:
            remove(model)


def operations(model: Any) -> Counter[str]:
    """How often each operation with a kernel runs in one forward."""
    forward(model)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        forward(model)
    counts = Counter({event.key: event.count for event in found.key_averages()})
    return Counter({k: n for k, n in counts.items() if k.startswith("aten::") and k not in FREE})


def stack(tmp_path: Path, modules: dict[str, tuple[int, int]], files: int) -> list[Any]:
    return [
        (lora_file(tmp_path / f"{i}.safetensors", modules, rank=4 + i, seed=i)[0], 0.5 + i)
        for i in range(files)
    ]


def added(tmp_path: Path, modules: dict[str, tuple[int, int]], files: int) -> Counter[str]:
    """What a stack of LoRAs of these modules adds to the operations of a forward."""
    model = tiny.qwen_image()
    before = operations(model)
    after = operations(apply(model, *stack(tmp_path, modules, files), mode="branch"))
    after.subtract(before)
    return Counter({name: count for name, count in after.items() if count})


@pytest.mark.own_loading
@pytest.mark.parametrize("files", [1, 3])
def test_a_stack_is_two_products_a_layer_and_one_of_its_strengths(
    files: int, tmp_path: Path
) -> None:
    found = added(tmp_path, APART, files)
    assert sum(found[name] for name in PRODUCTS & found.keys()) == 2 * len(APART), found
    assert found["aten::mul_"] == len(APART)
    assert not found.keys() - PRODUCTS - {"aten::mul_"}, found


@pytest.mark.own_loading
def test_layers_with_one_input_share_the_product_down(tmp_path: Path) -> None:
    found = added(tmp_path, QKV | OF_TEXT, 2)
    assert sum(found[name] for name in PRODUCTS & found.keys()) == 2 * (1 + 3), found
    assert found["aten::mul_"] == 2
    assert not found.keys() - PRODUCTS - {"aten::mul_"}, found


def test_what_is_shared_is_exact(tmp_path: Path) -> None:
    """Also where the files of a stack have other ranks, and change some of the layers only."""
    one, first = lora_file(tmp_path / "a.safetensors", QKV | OF_TEXT, rank=5, seed=1)
    some = {f"{BLOCK}.to_k": (D, D), f"{BLOCK}.add_v_proj": (D, D)}
    two, second = lora_file(tmp_path / "b.safetensors", some, rank=3, seed=2)
    wanted = reference(tiny.qwen_image, "fp32", [(first, 0.8), (second, -0.5)])
    got = tiny.sample(apply(tiny.qwen_image(), (one, 0.8), (two, -0.5), mode="branch"))
    assert relative_error(got, wanted) < 2e-5


def test_layers_that_turn_out_to_have_other_inputs_are_right() -> None:
    """Another pack may have changed a block; it costs what it must, and nothing is mixed up."""
    from vivace.wrappers.targets.low_rank import SharedInput
    from vivace.wrappers.targets.paged import Paged

    a, scales = random(7, D, seed=1), random(7, seed=2)
    shared = SharedInput(Paged(a), scales, members=3)
    one, two = random(2, 5, D, seed=3), random(2, 5, D, seed=4)

    def right(x: torch.Tensor, start: int, stop: int) -> bool:
        wanted = (x.double() @ a[start:stop].double().T) * scales[start:stop].double()
        return relative_error(shared.inner(x, start, stop), wanted) < 1e-5

    for _ in range(2):
        assert right(one, 0, 2)
        assert right(one, 2, 6)
        assert right(one, 6, 7)
        assert right(two, 0, 2)
        assert right(one, 2, 6)
        assert right(two, 6, 7)


@pytest.mark.own_loading
def test_a_changed_strength_moves_no_factors(tmp_path: Path) -> None:
    model = tiny.qwen_image()
    (one, _), (two, _) = stack(tmp_path, QKV | APART, 2)
    first = apply(model, (one, 1.0), (two, 0.5), mode="branch")
    tiny.sample(first)
    second = apply(model, (one, 0.3), (two, 0.7), mode="branch")
    stores = [patcher.get_nested_additional_models()[0].model for patcher in (first, second)]
    assert stores[0] is stores[1]
    places = [tensor.data_ptr() for tensor in stores[0].parameters()]
    tiny.sample(second)
    assert [tensor.data_ptr() for tensor in stores[1].parameters()] == places
