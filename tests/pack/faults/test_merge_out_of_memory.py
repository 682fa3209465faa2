"""No memory at any place where ComfyUI merges LoRAs into the weights of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.applying import QWEN_MODULES, apply, lora_file, untouched
from support.faults import allocations, each_point, out_of_memory
from support.snapshots import differences, snapshot
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui", "inference")


@pytest.mark.parametrize(
    ("kind", "lasting"), [("fp32", False), ("fp8 quantized", False), ("fp8 quantized", True)]
)
def test_merging_fails_whole(kind: str, lasting: bool, tmp_path: Path) -> None:
    from comfy.model_management import load_models_gpu

    one, _ = lora_file(tmp_path / "one.safetensors", QWEN_MODULES)
    two, _ = lora_file(tmp_path / "two.safetensors", QWEN_MODULES, rank=20, seed=3)
    model = tiny.qwen_image(kind)
    plain = tiny.sample(model)
    base = snapshot(model.model.diffusion_model)
    patched = apply(model, (one, 1.0), (two, 0.5), mode="merge")
    wanted = tiny.sample(patched)

    def after(error: BaseException | None) -> None:
        assert isinstance(error, torch.OutOfMemoryError)
        load_models_gpu([model])
        assert untouched(model)
        assert differences(model.model.diffusion_model, base) == []

    points = each_point(
        allocations,
        out_of_memory,
        lambda: load_models_gpu([patched]),
        after,
        before=lambda: load_models_gpu([model]),
        lasting=lasting,
    )
    assert len(points) >= 3 * len(QWEN_MODULES)
    assert torch.equal(tiny.sample(patched), wanted)
    assert torch.equal(tiny.sample(model), plain)
