"""Which kernels compute 4-bit layers on cards that this machine has not."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.applying import random, relative_error
from vivace.devkit.doubles import svdquant_models as small

pytestmark = pytest.mark.usefixtures("comfyui")

CARD = torch.device("cuda", 0)
CUDA = "comfy_kitchen.backends.cuda"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A registry with what comfy-kitchen's CUDA extension registers for 4-bit layers."""
    import comfy_kitchen
    from comfy_kitchen.constraints import FunctionConstraints, ParamConstraint
    from comfy_kitchen.registry import BackendRegistry
    from vivace.wrappers.svdquant.kernels import kernels_for

    halves = ParamConstraint(dtypes=frozenset({torch.float16, torch.bfloat16}))
    made = BackendRegistry()
    made.register(
        "cuda",
        None,
        {
            "quantize_svdquant_w4a4": FunctionConstraints(
                params={"x": halves}, min_compute_capability=(8, 0)
            ),
            "gemv_awq_w4a16": FunctionConstraints(params={"x": halves}),
        },
    )
    monkeypatch.setattr(comfy_kitchen, "registry", made)
    kernels_for.cache_clear()
    yield made
    kernels_for.cache_clear()


@pytest.mark.parametrize(
    ("capability", "dtype", "cuda_13", "wanted"),
    [
        ((7, 5), torch.float16, True, "EAGER"),
        ((7, 5), torch.bfloat16, False, "EAGER"),
        ((8, 6), torch.float32, True, "EAGER"),  # --force-fp32
        ((8, 0), torch.bfloat16, True, "CHOSEN"),
        ((12, 0), torch.bfloat16, True, "CHOSEN"),
        ((8, 9), torch.float16, False, "DIRECT"),
    ],
)
def test_the_card_and_the_dtype_decide(
    capability: tuple[int, int],
    dtype: torch.dtype,
    cuda_13: bool,
    wanted: str,
    registry: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vivace.wrappers.svdquant.kernels import kernels_for

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if not cuda_13:
        registry.disable("cuda")  # as ComfyUI does
    assert kernels_for(CARD, dtype).name == wanted


def test_without_nvidia_s_extension_comfy_kitchen_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy_kitchen
    from comfy_kitchen.registry import BackendRegistry
    from vivace.wrappers.svdquant.kernels import Kernels, kernels_for

    monkeypatch.setattr(comfy_kitchen, "registry", BackendRegistry())
    kernels_for.cache_clear()
    assert kernels_for(CARD, torch.bfloat16) is Kernels.CHOSEN  # AMD's, which torch calls cuda too
    assert kernels_for(torch.device("mps"), torch.float16) is Kernels.CHOSEN
    kernels_for.cache_clear()


def layers(model: Any) -> dict[str, Any]:
    """A layer of each of the two layouts."""
    from vivace.wrappers.svdquant.svdquant_ops import kitchen_modules

    return {module.weight._layout_cls: module for module in kitchen_modules(model.model)}


def test_every_way_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy_kitchen
    from comfy_kitchen.backends import eager
    from vivace.wrappers.svdquant.kernels import Kernels, product_with
    from vivace.wrappers.svdquant.kitchen_weight import AWQ_LAYOUT

    calls: Counter[str] = Counter()

    def gemv_awq_w4a16(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls["direct"] += 1
        return eager.gemv_awq_w4a16(*args, **kwargs)

    used = comfy_kitchen.use_backend

    def use_backend(name: str) -> Any:
        calls[name] += 1
        return used(name)

    monkeypatch.setitem(sys.modules, CUDA, SimpleNamespace(gemv_awq_w4a16=gemv_awq_w4a16))
    monkeypatch.setattr(comfy_kitchen, "use_backend", use_backend)
    found = layers(small.kitchen("qwen_image"))
    assert len(found) == 2
    for layout, module in found.items():
        x = random(3, module.in_features, seed=1).to(module.weight._params.scale.dtype)
        wanted = product_with(Kernels.CHOSEN, x, module.weight, module.bias)
        for kernels in (Kernels.EAGER, Kernels.DIRECT):
            calls.clear()
            got = product_with(kernels, x, module.weight, module.bias)
            assert relative_error(got.float(), wanted.float()) < 1e-6
            direct = kernels is Kernels.DIRECT and layout == AWQ_LAYOUT
            expected = {"eager": 1} if kernels is Kernels.EAGER else {"direct": 1} if direct else {}
            assert calls == expected


def test_workspaces_go_when_ranks_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace.wrappers.targets.kitchen_svdquant import KitchenSvdquant

    kept = {("key",): (torch.empty(1),)}
    monkeypatch.setitem(sys.modules, CUDA, SimpleNamespace(_SVDQUANT_WORKSPACE_CACHE=kept))
    kind, model = KitchenSvdquant(), small.kitchen("qwen_image")
    module = next(module for module in layers(model).values() if kind.recognises(module))
    down, up = kind.factors(module)
    rank = down.shape[1]
    appended = kind.append(
        [module], down.new_ones(16, down.shape[0]), [up.new_ones(module.out_features, 16)]
    )
    assert not kept
    kept[("again",)] = (torch.empty(1),)
    kind.rescale_down(module, rank, appended.down, 0.5)
    assert kept, "a changed strength needs the same ones"
    kind.cut([module], rank)
    assert not kept
