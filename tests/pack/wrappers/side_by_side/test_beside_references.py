"""Reference images of Qwen-Image-Edit beside our stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, D, random, relative_error
from support.side_by_side import conditions, same_as_plain, sample

pytestmark = pytest.mark.usefixtures("comfyui")

MODULES = {**QWEN_MODULES, "transformer_blocks.0.img_mod.1": (6 * D, D)}
"""With the modulation of the picture, which some methods compute for two times at once."""


def edited(number: int, method: str | None, seed: int = 2) -> list[Any]:
    """Conditions with reference latents of different sizes."""
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod

    found: Any = conditions(seed)
    for index in range(number):
        latent = random(1, 16, 1, 8 - 2 * index, 8, seed=50 + index)
        found = ReferenceLatent.execute(found, {"samples": latent})[0]  # pyright: ignore
    if method is not None:
        found = FluxKontextMultiReferenceLatentMethod.execute(found, method)[0]  # pyright: ignore
    return found


@pytest.mark.parametrize("kind", ["fp32", "fp8 quantized"])
@pytest.mark.parametrize("method", [None, "index_timestep_zero", "offset"])
def test_several_pictures(kind: str, method: str | None, tmp_path: Path) -> None:
    """As edit models of 2509 (the default method) and of 2511 take them."""

    def run(model: Any) -> torch.Tensor:
        return sample(model, edited(3, method), edited(3, method, seed=5))

    found = same_as_plain(tmp_path, run, kind=kind, modules=MODULES)
    assert relative_error(sample(found.model), found.base) > 1e-3, "the pictures must matter"


def test_a_picture_for_one_of_two_prompts(tmp_path: Path) -> None:
    same_as_plain(tmp_path, lambda model: sample(model, edited(1, None)), modules=MODULES)
