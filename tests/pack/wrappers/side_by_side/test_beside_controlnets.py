"""ControlNets beside our stack: as conditions, and as patches of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import small_controls
from support.applying import relative_error
from support.side_by_side import conditions, same_as_plain, same_in_both_orders, sample
from support.small_controls import controlled

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.mark.parametrize("kind", ["fp32", "fp8 quantized"])
@pytest.mark.parametrize("name", ["instantx", "fun"])
def test_a_controlnet_of_conditions(name: str, kind: str, tmp_path: Path) -> None:
    """That of InstantX has a network of its own; that of Fun calls layers of the model, too."""
    both = controlled(conditions(), conditions(3), getattr(small_controls, name)())
    found = same_as_plain(tmp_path, lambda model: sample(model, *both), kind=kind)
    assert relative_error(sample(found.model), found.base) > 1e-3, "the ControlNet must matter"


def test_a_controlnet_for_some_of_the_steps(tmp_path: Path) -> None:
    both = controlled(conditions(), conditions(3), small_controls.instantx(), end=0.4)
    found = same_as_plain(tmp_path, lambda model: sample(model, *both, steps=4))
    assert relative_error(sample(found.model, steps=4), found.base) > 1e-3


@pytest.mark.parametrize(("kind", "extra"), [("fp32", 4), ("fp8 quantized", 0)])
def test_a_model_patch_for_qwen_image(kind: str, extra: int, tmp_path: Path) -> None:
    from comfy_extras.nodes_model_patch import QwenImageDiffsynthControlnet

    control, encoder = small_controls.diffsynth(extra), small_controls.Encoder(three_d=True)
    picture, node = small_controls.picture(), QwenImageDiffsynthControlnet()
    mask = torch.ones(1, 64, 64) if extra else None

    def patch(model: Any) -> Any:
        return node.diffsynth_controlnet(model, control, encoder, picture, 0.8, mask=mask)[0]

    found = same_in_both_orders(tmp_path, patch, kind=kind)
    assert relative_error(sample(found.model), found.base) > 1e-3, "the ControlNet must matter"


@pytest.mark.parametrize("kind", ["fp32", "fp8 quantized"])
def test_a_model_patch_for_z_image(kind: str, tmp_path: Path) -> None:
    from comfy_extras.nodes_model_patch import ZImageFunControlnet

    control, encoder = small_controls.z_image_fun(), small_controls.Encoder(three_d=False)
    picture, node = small_controls.picture(), ZImageFunControlnet()

    def patch(model: Any) -> Any:
        return node.diffsynth_controlnet(model, control, encoder, picture, 0.8)[0]

    found = same_in_both_orders(tmp_path, patch, family="z_image", kind=kind)
    assert relative_error(sample(found.model), found.base) > 1e-3, "the ControlNet must matter"
