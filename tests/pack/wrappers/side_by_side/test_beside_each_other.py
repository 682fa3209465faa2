"""Runs that go on at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from support.applying import MAKERS, apply, lora_file, untouched
from support.side_by_side import sample

pytestmark = pytest.mark.usefixtures("comfyui")


def stacked(folder: Path, family: str) -> tuple[Any, Any]:
    """A model, and it with a stack."""
    maker, modules = MAKERS[family]
    path, _ = lora_file(folder / f"{family}.safetensors", modules)
    model = maker("fp32")
    return model, apply(model, (path, 1.0))


def test_another_model_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """A node that samples from within a step of another node's run."""
    model, outer = stacked(tmp_path, "qwen_image")
    other, inner = stacked(tmp_path, "z_image")
    bases = sample(model), sample(other)
    wanted = sample(outer), sample(inner)
    found: list[torch.Tensor] = []
    got = sample(outer, callback=lambda *_: found.append(sample(inner)))
    assert torch.equal(got, wanted[0])
    assert len(found) == 3
    assert all(torch.equal(latent, wanted[1]) for latent in found)
    assert torch.equal(sample(model), bases[0])
    assert torch.equal(sample(other), bases[1])
    assert untouched(model)


@pytest.mark.parametrize("inner", ["base", "same"])
def test_a_model_in_the_middle_of_its_own_run(inner: str, tmp_path: Path) -> None:
    """ComfyUI ends the outer run with an error, with a stack as without, and nothing stays."""
    model, patched = stacked(tmp_path, "qwen_image")
    base, wanted = sample(model), sample(patched)
    for outer in (model, patched):
        inside = outer if inner == "same" else model
        found: list[torch.Tensor] = []

        def within(*_: Any, inside: Any = inside, found: list[torch.Tensor] = found) -> None:
            found.append(sample(inside))

        with pytest.raises(AttributeError, match="prepare_state"):
            sample(outer, callback=within)
        assert torch.equal(found[0], base if inside is model else wanted)
        assert torch.equal(sample(model), base)
        assert torch.equal(sample(patched), wanted)
        assert untouched(model)


def test_two_models_in_two_threads(tmp_path: Path) -> None:
    """Step by step at once, each with its own stack."""
    pairs = [stacked(tmp_path, family) for family in ("qwen_image", "z_image")]
    wanted = [sample(patched) for _, patched in pairs]
    bases = [sample(model) for model, _ in pairs]
    together = Barrier(2)

    def run(patched: Any) -> torch.Tensor:
        with torch.inference_mode():
            return sample(patched, callback=lambda *_: together.wait(timeout=60))

    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(run, [patched for _, patched in pairs]))
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)
    for (model, _), base in zip(pairs, bases, strict=True):
        assert torch.equal(sample(model), base)
        assert untouched(model)
