"""LoRA stacks on running models do what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import (
    FUSED_ROWS,
    MAKERS,
    QWEN_MODULES,
    apply,
    lora_file,
    random,
    reference,
    relative_error,
    special_file,
    untouched,
)
from support.dynamic import ROOMY
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.mark.parametrize("mode", ["merge", "branch"])
@pytest.mark.parametrize("family", MAKERS)
def test_dense_models_equal_a_model_changed_by_hand(family: str, mode: str, tmp_path: Path) -> None:
    maker, modules = MAKERS[family]
    first, deltas = lora_file(tmp_path / "a.safetensors", modules)
    second, more = lora_file(tmp_path / "b.safetensors", modules, rank=3, alpha=None, seed=2)
    model = maker("fp32")
    base = tiny.sample(model)
    patched = apply(model, (first, 0.8), (second, -0.5), mode=mode)
    got = tiny.sample(patched)
    wanted = reference(maker, "fp32", [(deltas, 0.8), (more, -0.5)])
    assert relative_error(base, wanted) > 0.01
    assert relative_error(got, wanted) < 2e-5
    assert torch.equal(tiny.sample(model), base)
    assert untouched(model)


def assert_layers_exact(patched: Any, deltas: dict[str, torch.Tensor]) -> None:
    """Each layer with its branch is the layer and the product with its change, for one input."""
    from vivace.wrappers.lora.branch_set import install, remove

    network = patched.model.diffusion_model
    for path, delta in deltas.items():
        name, rows = FUSED_ROWS.get(path, (path, slice(None)))
        layer = network.get_submodule(name)
        x = random(1, 5, delta.shape[1], seed=6)
        wanted = layer(x).double()
        wanted[..., rows] += x.double() @ delta.T
        install(patched)
        try:
            got = layer(x)
        finally:
            remove(patched)
        assert relative_error(got[..., rows], wanted[..., rows]) < 2e-6


@pytest.mark.parametrize("kind", ["fp8 cast", "fp8 quantized"])
@pytest.mark.parametrize("family", MAKERS)
def test_auto_is_exact_on_quantized_models(
    family: str, kind: str, tmp_path: Path, said: list[str]
) -> None:
    maker, modules = MAKERS[family]
    path, deltas = lora_file(tmp_path / "a.safetensors", modules)
    model = maker(kind)
    base = tiny.sample(model)
    weights = {n: p.clone() for n, p in model.model.diffusion_model.named_parameters()}
    got = tiny.sample(apply(model, (path, 1.0)))
    wanted = reference(maker, kind, [(deltas, 1.0)])
    effect = relative_error(base, wanted)
    assert effect > 0.01
    # Layers that round their input make more of the last bit of a sum than it is.
    assert relative_error(got, wanted) < (2e-5 if kind == "fp8 cast" else effect / 5)
    assert not said
    assert_layers_exact(apply(model, (path, 1.0)), deltas)
    merged = tiny.sample(apply(model, (path, 1.0), mode="merge"))
    if ROOMY:  # else weights are merged whenever they are used, and are not rounded
        assert relative_error(merged, wanted) > 1e-4, "merging into fp8 rounds"
    assert torch.equal(tiny.sample(model), base)
    for name, parameter in model.model.diffusion_model.named_parameters():
        before = weights[name]
        if hasattr(before, "dequantize"):
            before, parameter = before.dequantize(), parameter.dequantize()
        assert torch.equal(before.float(), parameter.float()), name


def test_bf16_is_within_rounding(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    wanted = reference(tiny.qwen_image, "bf16", [(deltas, 1.0)])
    for mode in ("merge", "branch"):
        got = tiny.sample(apply(tiny.qwen_image("bf16"), (path, 1.0), mode=mode))
        assert relative_error(got, wanted) < 2e-2


@pytest.mark.parametrize("mode", ["merge", "branch"])
@pytest.mark.parametrize("kind", ["dora", "lokr", "loha", "diff", "bias", "norm", "lokr qkv"])
def test_other_formats_change_the_weight_as_they_say(kind: str, mode: str, tmp_path: Path) -> None:
    model = tiny.z_image() if kind == "lokr qkv" else tiny.qwen_image()
    path, parameter, wanted = special_file(tmp_path, kind, model)
    base = tiny.weight_of(model, parameter)
    patched = apply(model, (path, 0.7), mode="merge")
    error = relative_error(tiny.weight_of(patched, parameter), wanted)
    assert error < 1e-6
    assert relative_error(base, wanted) > 1e-3
    latent = tiny.sample(patched)
    assert relative_error(tiny.sample(apply(model, (path, 0.7), mode=mode)), latent) < 2e-5


def test_dora_beside_a_weight_of_8_bits_is_exact(tmp_path: Path) -> None:
    kind = "fp8 cast"
    model = tiny.qwen_image(kind)
    path, parameter, wanted = special_file(tmp_path, "dora", model)
    change = wanted - tiny.weight_of(model, parameter).double()
    deltas = {parameter.removesuffix(".weight"): change}
    got = tiny.sample(apply(model, (path, 0.7)))
    assert relative_error(tiny.sample(model), got) > 1e-3
    assert relative_error(got, reference(tiny.qwen_image, kind, [(deltas, 1.0)])) < 2e-5
