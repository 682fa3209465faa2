"""Partners beside our stack on 8-bit and 4-bit weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import small_controls
from support.applying import random
from support.side_by_side import SVDQUANT, conditions, same_as_plain, sample

pytestmark = pytest.mark.usefixtures("comfyui")


def with_pictures(model: Any) -> torch.Tensor:
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod

    latent = {"samples": random(1, 16, 1, 4, 8, seed=50)}
    found: Any = ReferenceLatent.execute(conditions(), latent)[0]  # pyright: ignore
    found = FluxKontextMultiReferenceLatentMethod.execute(found, "index_timestep_zero")[0]  # pyright: ignore
    return sample(model, found, steps=1)


def with_controlnet(model: Any) -> torch.Tensor:
    both = small_controls.controlled(conditions(), conditions(3), small_controls.fun())
    return sample(model, *both, steps=1)


def with_guidance(model: Any) -> torch.Tensor:
    from comfy_extras.nodes_cfg import CFGZeroStar
    from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow

    shifted = ModelSamplingAuraFlow().patch_aura(model, 3.1)[0]
    return sample(CFGZeroStar.execute(shifted)[0], steps=2)  # pyright: ignore


def with_model_patch(model: Any) -> torch.Tensor:
    from comfy_extras.nodes_model_patch import QwenImageDiffsynthControlnet

    patched = QwenImageDiffsynthControlnet().diffsynth_controlnet(
        model, small_controls.diffsynth(), small_controls.Encoder(three_d=True),
        small_controls.picture(), 0.8,
    )  # fmt: skip
    return sample(patched[0], steps=1)


PARTNERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "reference pictures": with_pictures,
    "ControlNet": with_controlnet,
    "guidance": with_guidance,
    "model patch": with_model_patch,
}


@pytest.mark.parametrize("kind", ["int8", "int8 rotated", "fp8 cast", SVDQUANT])
@pytest.mark.parametrize("partner", PARTNERS)
def test_a_partner_on_quantized_weights(partner: str, kind: str, tmp_path: Path) -> None:
    same_as_plain(tmp_path, PARTNERS[partner], kind=kind)
