"""The modules that only Omni and Edit of Z-Image have, on ComfyUI's own class."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import Z_MODULES, D, apply, lora_file, random, reference, relative_error
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

SIGLIP = 24
REFINER = "siglip_refiner.0"
MODULES = {
    "siglip_embedder.1": (D, SIGLIP),
    f"{REFINER}.attention.to_q": (D, D),
    f"{REFINER}.attention.to_v": (D, D),
    f"{REFINER}.attention.to_out.0": (D, D),
    f"{REFINER}.feed_forward.w1": (512, D),
    f"{REFINER}.feed_forward.w2": (D, 512),
    f"{REFINER}.feed_forward.w3": (512, D),
}
PLACES = {
    f"{REFINER}.attention.to_q": (f"{REFINER}.attention.qkv", slice(0, D)),
    f"{REFINER}.attention.to_v": (f"{REFINER}.attention.qkv", slice(2 * D, 3 * D)),
    f"{REFINER}.attention.to_out.0": (f"{REFINER}.attention.out", slice(None)),
}
TOKENS = ("x_pad_token", "cap_pad_token")
NORMS = {
    "siglip_embedder.0.diff": random(SIGLIP, seed=31),
    f"{REFINER}.attention_norm1.diff": random(D, seed=33),
}


def omni() -> Any:
    """A small model with features of pictures."""
    return tiny.z_image(siglip_feat_dim=SIGLIP)


def sample(model: Any) -> torch.Tensor:
    """A latent made with two references, of which one has features."""
    import comfy.sample

    noise = random(1, 16, 8, 8, seed=1)
    seen = SimpleNamespace(
        image_sizes=[(3, 32, 32)], last_hidden_state=random(1, 4, SIGLIP, seed=3)
    )
    more = {
        "reference_latents": [random(1, 16, 8, 8, seed=4), random(1, 16, 4, 8, seed=5)],
        "clip_vision_outputs": [seen],
    }
    cond = [[random(1, 6, tiny.TEXT, seed=2), more]]
    return comfy.sample.sample(
        model, noise, 2, 1.0, "euler", "simple", cond, cond, torch.zeros_like(noise),
        disable_pbar=True, seed=1,
    )  # fmt: skip


def test_each_module_of_it_is_known() -> None:
    from vivace.wrappers.lora.model_architecture import architecture_of

    model = omni()
    known = architecture_of(model).modules
    theirs = {
        name: tuple(value.shape)
        for name, value in model.model.diffusion_model.state_dict().items()
        if "siglip" in name and not name.endswith(".bias")
    }
    mine = {module.parameter_name(): module.shape for module in known.values()}
    assert {name: shape for name, shape in mine.items() if "siglip" in name} == theirs
    assert len(theirs) == 3 + 11


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_its_modules_are_as_with_the_change_written_in(mode: str, tmp_path: Path) -> None:
    factors, deltas = lora_file(tmp_path / "factors.safetensors", MODULES)
    norms = {f"diffusion_model.{name}": change for name, change in NORMS.items()}
    path = tmp_path / "a.safetensors"
    save_file({**load_file(factors), **norms}, path)
    model, changed = omni(), omni()
    network = changed.model.diffusion_model
    for name, delta in deltas.items():
        place, rows = PLACES.get(name, (name, slice(None)))
        weight = network.get_submodule(place).weight.data
        weight[rows] = (weight[rows].double() + 0.8 * delta).float()
    for name, change in NORMS.items():
        network.get_submodule(name.removesuffix(".diff")).weight.data += 0.8 * change
    wanted = sample(changed)
    assert relative_error(sample(model), wanted) > 1e-3
    got = sample(apply(model, (path, 0.8), mode=mode, strict=True))
    assert relative_error(got, wanted) < 2e-5


def test_turbo_takes_the_rest_and_names_what_it_does_not_have(tmp_path: Path) -> None:
    from vivace.wrappers.lora.apply import apply_loras

    both, deltas = lora_file(tmp_path / "a.safetensors", {**Z_MODULES, **MODULES})
    patched, report = apply_loras(tiny.z_image(), [(both, 1.0)])
    rest = {name: deltas[name] for name in Z_MODULES}
    wanted = reference(tiny.z_image, "fp32", [(rest, 1.0)])
    assert relative_error(tiny.sample(patched), wanted) < 2e-5
    assert "siglip_refiner.0.feed_forward.w3 (not in this model)" in report
    with pytest.raises(ValueError, match="siglip_"):
        apply(tiny.z_image(), (both, 1.0), strict=True)


def test_a_token_is_told_and_not_lost(tmp_path: Path) -> None:
    """ComfyUI takes patches of what the network itself holds, and never makes them."""
    factors, deltas = lora_file(tmp_path / "factors.safetensors", Z_MODULES)
    tokens = {f"diffusion_model.{name}.diff": random(1, D, seed=1) for name in TOKENS}
    path = tmp_path / "a.safetensors"
    save_file({**load_file(factors), **tokens}, path)
    from vivace.wrappers.lora.apply import apply_loras

    patched, report = apply_loras(tiny.z_image(), [(path, 1.0)])
    assert all(
        f"{name} (a token, which ComfyUI's patches do not reach)" in report for name in TOKENS
    )
    wanted = reference(tiny.z_image, "fp32", [(deltas, 1.0)])
    assert relative_error(tiny.sample(patched), wanted) < 2e-5
    with pytest.raises(ValueError, match="x_pad_token"):
        apply(tiny.z_image(), (path, 1.0), strict=True)
