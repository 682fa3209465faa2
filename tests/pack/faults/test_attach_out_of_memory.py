"""No memory at any place where LoRAs are composed and put on a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, Z_MODULES, apply, lora_file, untouched
from support.faults import allocations, each_kind, each_point, out_of_memory
from support.snapshots import Snapshot, differences, forward_would_see, snapshot
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui", "inference")

MODELS: dict[str, tuple[Callable[[], Any], dict[str, tuple[int, int]]]] = {
    "dense": (tiny.qwen_image, QWEN_MODULES),
    "fp8": (lambda: tiny.qwen_image("fp8 quantized"), QWEN_MODULES),
    "kitchen qwen": (lambda: small.kitchen("qwen_image"), QWEN_MODULES),
    "kitchen z": (lambda: small.kitchen("z_image"), Z_MODULES),
    "nunchaku qwen": (lambda: small.nunchaku("qwen_image"), QWEN_MODULES),
    "nunchaku offload": (lambda: small.nunchaku("qwen_image", offload=True), QWEN_MODULES),
    "nunchaku z": (lambda: small.nunchaku("z_image"), Z_MODULES),
}


BESIDE = ("dense", "fp8")  # whose layers stay as they are


def attach(patched: Any) -> None:
    """What ComfyUI does before sampling: it loads the model, and calls what is to be called."""
    from vivace.wrappers.lora.branch_set import install

    install(patched)


def detach(patched: Any) -> None:
    """What it does afterwards, whatever has happened."""
    from vivace.wrappers.lora.branch_set import remove

    remove(patched)


def attached(patched: Any) -> Snapshot:
    """What attaching makes of the network."""
    attach(patched)
    found = snapshot(patched.model.diffusion_model)
    detach(patched)
    return found


@pytest.mark.parametrize(
    ("kind", "lasting"), [*((kind, False) for kind in MODELS), ("kitchen qwen", True)]
)
def test_attaching_fails_whole(kind: str, lasting: bool, tmp_path: Path) -> None:
    maker, modules = MODELS[kind]
    one, _ = lora_file(tmp_path / "one.safetensors", modules)
    two, _ = lora_file(tmp_path / "two.safetensors", modules, rank=20, seed=3)
    model = maker()
    base = snapshot(model.model.diffusion_model)
    patched = apply(model, (one, 1.0), (two, 0.5), mode="branch")
    wanted = attached(patched)

    def after(error: BaseException | None) -> None:
        assert isinstance(error, torch.OutOfMemoryError)
        detach(patched)
        assert untouched(model)
        assert differences(forward_would_see(model), base) == []
        attach(patched)
        assert differences(forward_would_see(patched), wanted) == []
        detach(patched)

    points = each_point(
        allocations,
        out_of_memory,
        lambda: attach(patched),
        after,
        before=lambda: forward_would_see(model),
        lasting=lasting,
        chosen=each_kind if kind == "nunchaku offload" else lambda names: range(len(names)),
    )
    detach(patched)
    assert differences(forward_would_see(model), base) == []
    assert len(points) >= (0 if kind in BESIDE else 20)


def test_another_stack_fails_whole(tmp_path: Path) -> None:
    """The other stack has other ranks for some layers, other strengths for some, and none."""
    some = dict(list(QWEN_MODULES.items())[:3])
    one, _ = lora_file(tmp_path / "one.safetensors", some)
    two, _ = lora_file(tmp_path / "two.safetensors", dict(list(some.items())[:2]), 20, seed=3)
    three, _ = lora_file(tmp_path / "three.safetensors", dict(list(some.items())[:1]), 9, seed=5)
    model = small.kitchen("qwen_image")
    base = snapshot(model.model.diffusion_model)
    first = apply(model, (one, 1.0), (two, 0.5), mode="branch")
    second = apply(model, (one, 0.3), (three, 1.0), mode="branch")
    results = {id(stack): attached(stack) for stack in (first, second)}

    def after(error: BaseException | None) -> None:
        assert isinstance(error, torch.OutOfMemoryError)
        for stack in (first, second, first):
            attach(stack)
            assert differences(forward_would_see(stack), results[id(stack)]) == []
            detach(stack)
        assert differences(forward_would_see(model), base) == []

    points = each_point(
        allocations, out_of_memory, lambda: attach(second), after, before=lambda: attach(first)
    )
    assert len(points) >= 10
