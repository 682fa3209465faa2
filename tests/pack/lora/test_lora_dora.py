"""DoRA equals its definition, whole, fused and cut."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from support.lora_samples import (
    DTYPES,
    FAMILIES,
    PLACES,
    TINY,
    close,
    load,
    lora,
    named,
    random,
    write,
)
from vivace.lora.compose import Composer
from vivace.lora.factors.dora import Dora
from vivace.lora.mapping.architecture import Target
from vivace.lora.mapping.module_names import find, spellings
from vivace.lora.stack import LoraSet


def target_of(stem: str) -> Target:
    owners = find(stem, spellings(TINY))
    assert owners is not None
    return owners[0].target


def dora_reference(weight: torch.Tensor, change: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Row by row or column by column, from the definition."""
    merged = weight.double() + change.double()
    result = merged.clone()
    if m.shape == (weight.shape[0], 1):
        for row in range(weight.shape[0]):
            result[row] = (
                merged[row] / math.sqrt(float(merged[row] @ merged[row])) * float(m[row, 0])
            )
    else:
        for column in range(weight.shape[1]):
            size = math.sqrt(float(merged[:, column] @ merged[:, column]))
            result[:, column] = merged[:, column] / size * float(m[0, column])
    return result - weight.double()


DORA_NAMES = {
    "dora_scale": (-1, 1),
    "dora_scale 1-D": (-1,),
    "dora_scale columns": (1, -1),
    "magnitude": (-1,),
    "lora_magnitude_vector": (-1,),
    "lora_magnitude_vector.weight": (-1,),
}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("place", ["qwen modulation", "z-image to_k", "z-image qkv", "z-image w1"])
@pytest.mark.parametrize("name", DORA_NAMES)
@pytest.mark.parametrize("family", ["lora", "loha", "lokr whole, low"])
def test_dora(family: str, name: str, place: str, dtype: str, tmp_path: Path) -> None:
    stem, architecture = PLACES[place]
    target = target_of(stem)
    out, inp = target.shape
    sample = FAMILIES[family](out, inp, DTYPES[dtype])
    columns = name.endswith("columns")
    magnitude = (random(inp if columns else out, seed=5).abs() + 0.5).to(DTYPES[dtype])
    tensors = named(stem, sample)
    tensors[f"{stem}.{name.split()[0]}"] = magnitude.reshape(DORA_NAMES[name])
    found = load(write(tmp_path / "a.safetensors", tensors))
    full = architecture.target(target.module)
    weight = random(*full.shape, seed=8)
    rows = slice(*architecture.rows(target.module, target.part))
    m = magnitude.reshape((1, -1) if columns else (-1, 1))
    expected = torch.zeros(full.shape, dtype=torch.float64)
    expected[rows] = dora_reference(weight[rows], sample.change, m) * 0.6
    composer = Composer(architecture, weights=lambda _: weight)
    branch = composer.compose(LoraSet([(found, 0.6)]))[target.module]
    x = random(4, inp, seed=6)
    assert close(branch.matrix(weight), expected)
    applied = branch.apply(x, lambda v: v @ weight.T)
    assert close(applied, x.double() @ expected.T, 2e-6)


def test_dora_on_a_fusion_is_cut_by_rows(tmp_path: Path) -> None:
    stem = "layers.0.feed_forward.net.0.proj"
    sample = lora(96, 32, torch.float32)
    magnitude = random(96, 1, seed=5).abs() + 0.5
    tensors = {**named(stem, sample), f"{stem}.dora_scale": magnitude}
    found = load(write(tmp_path / "a.safetensors", tensors))
    weight = random(96, 32, seed=8)
    expected = dora_reference(weight, sample.change, magnitude)
    for module, rows in (("w3", slice(0, 48)), ("w1", slice(48, 96))):
        (entry,) = found.deltas[f"layers.0.feed_forward.{module}"]
        assert isinstance(entry.delta, Dora)
        resolved = entry.delta.resolve(weight[rows])
        assert close(resolved.matrix(weight[rows]), expected[rows])


def test_dora_asks_for_the_weight_once(tmp_path: Path) -> None:
    stem, architecture = PLACES["qwen to_q"]
    tensors = named(stem, lora(32, 32, torch.float32))
    tensors[f"{stem}.magnitude"] = torch.ones(32)
    found = load(write(tmp_path / "a.safetensors", tensors))
    asked: list[str] = []

    def weights(target: str) -> torch.Tensor:
        asked.append(target)
        return random(32, 32, seed=1)

    composer = Composer(architecture, weights=weights)
    for strength in (1.0, 0.5, -2.0):
        composer.compose(LoraSet([(found, strength)]))
    assert asked == ["transformer_blocks.0.attn.to_q"]
    with pytest.raises(ValueError, match="base weights"):
        Composer(architecture).compose(LoraSet([(found, 1.0)]))
    branch = composer.branches["transformer_blocks.0.attn.to_q"]
    with pytest.raises(ValueError, match="base weight"):
        branch.apply(torch.ones(1, 32))
    with pytest.raises(ValueError, match="base weight"):
        branch.matrix()
