"""What is refused, in which words, and what the report says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import (
    QWEN_MODULES,
    Z_MODULES,
    D,
    apply,
    lora_file,
    random,
    reference,
    relative_error,
    untouched,
)
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")


def test_refusals_name_file_and_remedy(tmp_path: Path) -> None:
    qwen, _ = lora_file(tmp_path / "qwen.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    z, _ = lora_file(tmp_path / "z.safetensors", Z_MODULES)
    with pytest.raises(ValueError, match=r"z\.safetensors"):
        apply(model, (qwen, 1.0), (z, 1.0))
    deep, _ = lora_file(
        tmp_path / "deep.safetensors", {"transformer_blocks.40.img_mod.1": (6 * D, D)}
    )
    with pytest.raises(ValueError, match=r"deep\.safetensors"):
        apply(model, (deep, 1.0))
    assert model.patches == {}
    assert untouched(model)


def test_strict_names_what_cannot_be_applied(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)

    tensors = load_file(path)
    tensors["diffusion_model.transformer_blocks.0.attn.nothing.lora_A.weight"] = random(
        4, D, seed=1
    )
    odd = tmp_path / "odd.safetensors"
    save_file(tensors, odd)
    model = tiny.qwen_image()
    with pytest.raises(ValueError, match=r"odd\.safetensors: 1 tensors.*attn\.nothing"):
        apply(model, (odd, 1.0), strict=True)
    lenient = tiny.sample(apply(model, (odd, 1.0)))
    assert relative_error(lenient, reference(tiny.qwen_image, "fp32", [(deltas, 1.0)])) < 2e-5
    apply(model, (path, 1.0), strict=True)


def test_a_model_of_another_kind_is_refused() -> None:
    class Other:
        model = type("SDXL", (), {"diffusion_model": torch.nn.Linear(1, 1)})()

    with pytest.raises(ValueError, match=r"SDXL.*is no Qwen-Image, Qwen-Image-2.1 or Z-Image"):
        apply(Other(), (Path("any.safetensors"), 1.0))


def test_the_report_says_what_was_applied(tmp_path: Path) -> None:
    from vivace.wrappers.lora.apply import apply_loras

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    _, report = apply_loras(tiny.qwen_image("fp8 quantized"), [(path, 0.5)])
    assert "| a.safetensors | qwen_image LoRA rank 4 | 5 of 5 |" in report
    assert "strength 0.5: 0 modules merged, 5 as a runtime branch" in report
