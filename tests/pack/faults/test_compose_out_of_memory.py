"""No memory at any place where LoRAs are read and composed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, apply, lora_file
from support.faults import allocations, each_point, out_of_memory
from support.snapshots import differences, snapshot
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui", "inference")


def test_composing_fails_whole(tmp_path: Path) -> None:
    """The composer and the cache are as before; the next try composes what a fresh one does."""
    from vivace.lora.loader import CACHE
    from vivace.wrappers.lora.running_model import RunningModel

    one, _ = lora_file(tmp_path / "one.safetensors", QWEN_MODULES)
    two, _ = lora_file(tmp_path / "two.safetensors", QWEN_MODULES, rank=20, seed=3)
    model = tiny.qwen_image()
    base = snapshot(model.model.diffusion_model)

    def branches() -> dict[str, tuple[Any, ...]]:
        found = RunningModel.of(model).composer.branches
        return {path: (branch.A, branch.B, branch.s) for path, branch in found.items()}

    def compose() -> None:
        apply(model, (one, 1.0), (two, 0.5), mode="branch")

    compose()
    wanted = branches()
    start: dict[str, tuple[Any, ...]] = {}

    def before() -> None:
        apply(model, (one, 0.3), mode="branch")
        CACHE.clear()
        start.update(branches())

    def after(error: BaseException | None) -> None:
        assert isinstance(error, torch.OutOfMemoryError)
        now = branches()
        assert now.keys() == start.keys()
        assert all(a is b for path in now for a, b in zip(now[path], start[path], strict=True))
        assert CACHE.nbytes == sum(lora.nbytes for _, lora in CACHE.by_use())
        assert differences(model.model.diffusion_model, base) == []
        compose()
        for path, tensors in branches().items():
            assert all(torch.equal(a, b) for a, b in zip(tensors, wanted[path], strict=True))

    points = each_point(allocations, out_of_memory, compose, after, before=before)
    assert len(points) >= 2 * len(QWEN_MODULES)
