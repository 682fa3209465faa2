"""Where ComfyUI supports a format, its result and ours are the same."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.lora_samples import (
    FAMILIES,
    QWEN,
    Z_IMAGE,
    close,
    load,
    lora,
    named,
    random,
    total,
    write,
)
from vivace.lora.compose import Composer
from vivace.lora.factors.dora import Dora, Norm
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.stack import LoraSet

# ComfyUI maps these spellings; a tuple adds (axis, start, length) of the slice.
PLACES = {
    "qwen": (QWEN, "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_q", None),
    "qwen wide": (
        QWEN,
        "lora_unet_transformer_blocks_1_img_mod_1",
        "transformer_blocks.1.img_mod.1",
        None,
    ),
    "z-image k": (
        Z_IMAGE,
        "diffusion_model.layers.0.attention.to_k",
        "layers.0.attention.qkv",
        (0, 32, 32),
    ),
    "z-image qkv": (
        Z_IMAGE,
        "diffusion_model.layers.0.attention.qkv",
        "layers.0.attention.qkv",
        None,
    ),
}


def merged(
    comfy_lora: ModuleType,
    tensors: dict[str, torch.Tensor],
    stem: str,
    module: str,
    rows: tuple[int, int, int] | None,
    weight: torch.Tensor,
    strength: float,
    parameter: str = "weight",
) -> torch.Tensor:
    """What ComfyUI makes of the weight, through its own loader and patch arithmetic."""
    key = f"diffusion_model.{module}.weight"
    to_load = {stem: key if rows is None else (key, rows)}
    patches = comfy_lora.load_lora(dict(tensors), to_load, log_missing=False)
    wanted = key.replace(".weight", f".{parameter}")
    found = {k if isinstance(k, str) else k[0]: v for k, v in patches.items()}
    patch = [(strength, found[wanted], 1.0, rows, None)]
    return comfy_lora.calculate_weight(patch, weight.clone(), wanted)


def ours(
    path: Path, architecture: Architecture, module: str, strength: float, weight: torch.Tensor
) -> torch.Tensor:
    composer = Composer(architecture, weights=lambda _: weight)
    branch = composer.compose(LoraSet([(load(path), strength)]))[module]
    return weight + branch.matrix(weight)


@pytest.mark.parametrize("strength", [1.0, -0.35])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weight(
    family: str,
    place: str,
    dtype: torch.dtype,
    strength: float,
    comfy_lora: ModuleType,
    tmp_path: Path,
) -> None:
    architecture, stem, module, rows = PLACES[place]
    out, inp = architecture.modules[module].shape
    sample = FAMILIES[family](out if rows is None else rows[2], inp, dtype)
    tensors = named(stem, sample)
    path = write(tmp_path / "a.safetensors", tensors)
    weight = torch.zeros(out, inp)
    theirs = merged(comfy_lora, tensors, stem, module, rows, weight, strength)
    assert theirs.any()
    assert close(ours(path, architecture, module, strength, weight), theirs)


@pytest.mark.parametrize("strength", [1.0, 0.4, -1.5])
@pytest.mark.parametrize("place", ["qwen wide", "z-image k"])
@pytest.mark.parametrize("family", ["lora", "loha", "lokr low, low"])
@pytest.mark.parametrize("axis", [0, 1])
def test_dora(
    axis: int, family: str, place: str, strength: float, comfy_lora: ModuleType, tmp_path: Path
) -> None:
    """Column magnitudes agree; row magnitudes agree with the norm that ComfyUI takes there."""
    architecture, stem, module, rows = PLACES[place]
    full = architecture.modules[module].shape
    out, inp = (full[0] if rows is None else rows[2]), full[1]
    sample = FAMILIES[family](out, inp, torch.float32)
    shape = (out, 1) if axis == 0 else (1, inp)
    tensors = {**named(stem, sample), f"{stem}.dora_scale": random(*shape, seed=4).abs() + 0.5}
    weight = random(*full, seed=5)
    theirs = merged(comfy_lora, tensors, stem, module, rows, weight, strength) - weight
    found = load(write(tmp_path / "a.safetensors", tensors))
    (entry,) = found.deltas[module]
    assert isinstance(entry.delta, Dora)
    base = weight[entry.start : entry.stop]

    def change(norm: Norm) -> torch.Tensor:
        assert isinstance(entry.delta, Dora)
        result = torch.zeros(full)
        resolved = entry.delta.scaled(strength).resolve(base, norm)
        result[entry.start : entry.stop] = resolved.matrix(base)
        return result

    assert close(change("base"), theirs, 2e-6)
    assert close(change("merged"), theirs, 1e-3) == (axis == 1)


@pytest.mark.parametrize(
    ("suffix", "module", "parameter"),
    [
        ("diff_b", "transformer_blocks.0.attn.to_q", "bias"),
        ("diff", "transformer_blocks.0.attn.norm_q", "weight"),
        ("w_norm", "transformer_blocks.0.attn.norm_q", "weight"),
    ],
)
def test_vectors(
    suffix: str, module: str, parameter: str, comfy_lora: ModuleType, tmp_path: Path
) -> None:
    shape = (32,) if parameter == "bias" else (8,)
    tensors = {f"{module}.{suffix}": random(*shape, seed=1)}
    weight = random(*shape, seed=2)
    theirs = merged(comfy_lora, tensors, module, module, None, weight, 0.7, parameter)
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert close(weight + total(found, module, shape, parameter) * 0.7, theirs)


def test_stack_of_several(comfy_lora: ModuleType, tmp_path: Path) -> None:
    architecture, stem, module, _ = PLACES["qwen"]
    weight = random(32, 32, seed=1)
    theirs, rows = weight.clone(), []
    for i, strength in enumerate((1.0, -0.5, 3.0)):
        tensors = named(stem, lora(32, 32, torch.float32, rank=2 + i, alpha=1.0 + i))
        theirs = merged(comfy_lora, tensors, stem, module, None, theirs, strength)
        rows.append((load(write(tmp_path / f"{i}.safetensors", tensors)), strength))
    branch = Composer(architecture).compose(LoraSet(rows))[module]
    assert close(weight + branch.matrix(), theirs)
