"""Nodes that patch how a model is sampled, before our stack and behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import MAKERS
from support.side_by_side import Patch, same_as_plain, same_in_both_orders, sample

pytestmark = pytest.mark.usefixtures("comfyui")


def node(name: str, *arguments: Any) -> Patch:
    """A node of ComfyUI that takes a model first and returns one."""
    import comfy_extras.nodes_cfg as cfg
    import comfy_extras.nodes_easycache as caches
    import comfy_extras.nodes_model_advanced as advanced
    import comfy_extras.nodes_model_downscale as downscale

    known: dict[str, Any] = {
        "ModelSamplingAuraFlow": lambda: advanced.ModelSamplingAuraFlow().patch_aura,
        "ModelSamplingSD3": lambda: advanced.ModelSamplingSD3().patch,
        "ModelSamplingFlux": lambda: advanced.ModelSamplingFlux().patch,
        "RescaleCFG": lambda: advanced.RescaleCFG().patch,
        "CFGZeroStar": lambda: cfg.CFGZeroStar.execute,
        "CFGNorm": lambda: cfg.CFGNorm.execute,
        "EasyCache": lambda: caches.EasyCacheNode.execute,
        "LazyCache": lambda: caches.LazyCacheNode.execute,
        "PatchModelAddDownscale": lambda: downscale.PatchModelAddDownscale.execute,
    }
    execute = known[name]()
    return lambda model: execute(model, *arguments)[0]


NODES: dict[str, tuple[Any, ...]] = {
    "ModelSamplingAuraFlow": (3.1,),
    "ModelSamplingSD3": (5.0,),
    "ModelSamplingFlux": (1.15, 0.5, 64, 64),
    "RescaleCFG": (0.7,),
    "CFGZeroStar": (),
    "CFGNorm": (1.0,),
}


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("name", NODES)
def test_a_node_that_changes_sampling(name: str, family: str, tmp_path: Path) -> None:
    same_in_both_orders(tmp_path, node(name, *NODES[name]), family=family)


@pytest.mark.parametrize("kind", ["fp32", "fp8 quantized"])
@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_a_cache_that_leaves_out_steps(name: str, kind: str, tmp_path: Path) -> None:
    """The same steps are left out, for each of the two prompts."""
    counts: list[int] = []

    def run(model: Any) -> torch.Tensor:
        calls: list[int] = []
        block = model.model.diffusion_model.transformer_blocks[0]
        hook = block.register_forward_pre_hook(lambda *_: calls.append(1))
        try:
            return sample(model, steps=8)
        finally:
            hook.remove()
            counts.append(len(calls))

    same_in_both_orders(tmp_path, node(name, 1.0, 0.0, 1.0, False), run, kind=kind)
    *cached, without = counts
    assert len(set(cached)) == 1
    assert 1 < cached[0] < without


@pytest.mark.parametrize("family", MAKERS)
def test_downscale_of_unets_does_nothing_here(family: str, tmp_path: Path) -> None:
    """Its patches are called by UNets only; with it a run is the one without."""
    patch = node("PatchModelAddDownscale", 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    found = same_as_plain(tmp_path, lambda model: sample(patch(model)), family=family)
    assert torch.equal(sample(found.model), found.base)
    assert torch.equal(sample(found.stack(found.model)), found.got)
