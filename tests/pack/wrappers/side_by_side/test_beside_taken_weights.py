"""Nodes that take the weights of a model: saving, merging, subtracting, extracting a LoRA.

A branch is in no weight, so without more they would get the model without our stack.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import (
    MAKERS,
    D,
    apply,
    changed_by_hand,
    lora_file,
    random,
    relative_error,
    untouched,
)
from support.side_by_side import CLOSE, sample
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

TOLD = "merged into the weights that this node takes"
LOGGER = "vivace.wrappers.lora.taken_weights"


def test_a_saved_model_has_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bit-equal to what mode `merge` saves, and the file says in float32 what the LoRA says."""
    import folder_paths
    from comfy_extras.nodes_model_merging import ModelSave

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))

    def saved(model: Any, name: str) -> dict[str, torch.Tensor]:
        caplog.clear()
        ModelSave().save(model, name)
        return load_file(next(tmp_path.glob(f"{name}*.safetensors")))

    caplog.set_level(logging.WARNING, LOGGER)
    maker, modules = MAKERS["z_image"]
    path, deltas = lora_file(tmp_path / "a.safetensors", modules)
    for kind in tiny.KINDS:
        model = maker(kind)
        base = sample(model)
        stacked = apply(model, (path, 0.7))
        before = sample(stacked)
        merged = saved(apply(model, (path, 0.7), mode="merge"), f"{kind} merge")
        assert TOLD not in caplog.text
        got = saved(stacked, f"{kind} auto")
        assert caplog.text.count(TOLD) == 1
        assert got.keys() == merged.keys()
        assert all(torch.equal(got[name], merged[name]) for name in got)
        plain = saved(model, f"{kind} base")
        assert TOLD not in caplog.text
        assert not all(torch.equal(got[name], plain[name]) for name in got)
        assert torch.equal(sample(model), base)
        assert torch.equal(sample(stacked), before)
        assert untouched(model)
    wanted = changed_by_hand(maker, "fp32", [(deltas, 0.7)]).model.diffusion_model.state_dict()
    for name, tensor in saved(apply(maker("fp32"), (path, 0.7)), "again").items():
        assert relative_error(tensor, wanted[name.removeprefix("model.diffusion_model.")]) < 1e-6


def test_an_extracted_lora_is_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """*ModelSubtract* and *LoraSave* find the change, as far as half precision and a clamp let."""
    import folder_paths
    from comfy_extras.nodes_lora_extract import LoraSave
    from comfy_extras.nodes_model_merging import ModelSubtract

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    maker, modules = MAKERS["qwen_image"]
    name = "transformer_blocks.0.attn.to_q"
    path, deltas = lora_file(tmp_path / "a.safetensors", {name: modules[name]})
    model = maker("fp32")
    found = {}
    for mode in ("merge", "auto"):
        patched = apply(model, (path, 1.0), mode=mode)
        difference = ModelSubtract().merge(patched, model, 1.0)[0]
        LoraSave.execute(mode, 4, "standard", False, difference)
        found[mode] = load_file(next(tmp_path.glob(f"{mode}*.safetensors")))
    up, down = (found["auto"][f"diffusion_model.{name}.lora_{s}.weight"] for s in ("up", "down"))
    assert relative_error(up.double() @ down.double(), deltas[name]) < 0.2
    assert all(torch.equal(tensor, found["merge"][key]) for key, tensor in found["auto"].items())


@pytest.mark.parametrize("stacked", ["first", "second"])
@pytest.mark.parametrize("family", MAKERS)
def test_merged_models_have_their_share_of_the_stack(
    family: str, stacked: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second model is another one; the stack is on one of the two, or on what comes of them."""
    from comfy_extras.nodes_model_merging import ModelAdd, ModelMergeBlocks, ModelMergeSimple

    caplog.set_level(logging.WARNING, LOGGER)
    maker, modules = MAKERS[family]
    path, deltas = lora_file(tmp_path / "a.safetensors", modules)
    block = "layers.1." if family == "z_image" else "transformer_blocks.0."
    nodes: dict[str, Any] = {
        "simple": lambda a, b: ModelMergeSimple().merge(a, b, 0.25)[0],
        "blocks": lambda a, b: ModelMergeBlocks().merge(a, b, rest=0.25, **{block: 0.75})[0],
        "add": lambda a, b: ModelAdd().merge(a, b)[0],
    }
    plain, changed = (changed_by_hand(maker, "fp32", c) for c in ([], [(deltas, 1.0)]))
    model, other = maker("fp32"), maker("fp32")
    base = sample(model)
    stack = apply(model, (path, 1.0))
    before = sample(stack)
    for node in nodes.values():
        caplog.clear()
        pair = (stack, other) if stacked == "first" else (other, stack)
        wanted = node(*((changed, plain) if stacked == "first" else (plain, changed)))
        got = sample(node(*pair))
        assert caplog.text.count(TOLD) == 1
        assert relative_error(got, sample(wanted)) < CLOSE
    assert torch.equal(sample(model), base)
    assert torch.equal(sample(stack), before)
    assert untouched(model)


def test_a_stack_on_a_merged_model(tmp_path: Path) -> None:
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    other = changed_by_hand(tiny.qwen_image, "fp32", [])
    for parameter in other.model.diffusion_model.parameters():
        parameter.data *= 1.1

    def run(model: Any) -> torch.Tensor:
        return sample(model)

    path, deltas = lora_file(tmp_path / "a.safetensors", MAKERS["qwen_image"][1])
    model, plain = (changed_by_hand(tiny.qwen_image, "fp32", []) for _ in range(2))
    merged = ModelMergeSimple().merge(model, other, 0.5)[0]
    got = run(apply(merged, (path, 1.0)))
    halved = ModelMergeSimple().merge(plain, other, 0.5)[0]
    halved.add_patches(
        {f"diffusion_model.{name}.weight": ("diff", (d.float(),)) for name, d in deltas.items()}
    )
    assert relative_error(got, run(halved)) < CLOSE
    assert relative_error(got, run(merged)) > 1e-3


def test_what_a_weight_cannot_hold_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bias for a layer that has none."""
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    caplog.set_level(logging.WARNING, LOGGER)
    tensors = {
        "diffusion_model.layers.0.attention.to_out.0.diff_b": torch.ones(D),
        "diffusion_model.layers.1.attention.to_out.0.diff": random(D, D, seed=3),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    stack = apply(tiny.z_image(), (tmp_path / "a.safetensors", 1.0))
    ModelMergeSimple().merge(tiny.z_image(), stack, 0.5)
    assert "left out: layers.0.attention.out." in caplog.text
