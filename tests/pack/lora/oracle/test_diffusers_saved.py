"""Files that diffusers saves, with the configuration in the header; DoRA, biases and LoKr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.oracle.compare import check, write
from support.oracle.diffusers_models import bare, changes, factors, fused, mixin
from support.oracle.libraries import library
from support.oracle.peft_models import randomize
from support.oracle.storage import PLAIN
from support.oracle.tiny import NAMES, Tiny, tiny
from torch import Tensor, nn

# By the name of each, what is not the default. ``{a}`` is the attention of the model.
_CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 6},
    "rslora": {"r": 8, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {r".*\.1\..*": 3, "to_q": 2},
        "alpha_pattern": {"^{a}": 1, "{a}.to_[kv]": 3, "to_out.0": 2.5},
    },
    "rslora patterns": {
        "r": 5,
        "lora_alpha": 7,
        "use_rslora": True,
        "rank_pattern": {"to_k": 9},
        "alpha_pattern": {"to_k|to_v": 2},
    },
    "DoRA": {"r": 4, "lora_alpha": 6, "use_dora": True},
    "DoRA patterns": {"r": 4, "lora_alpha": 6, "use_dora": True, "rank_pattern": {"to_q": 2}},
    "lora_bias": {"r": 4, "lora_alpha": 6, "lora_bias": True},
}
_SAVED = [
    (model, name, writer, dtype)
    for model in NAMES
    for name in _CONFIGS
    for writer in ("pipeline", "model")
    for dtype in ("float32", "bfloat16", "e4m3")
    if not ("bias" in name and model != "qwen_image")
]


def _adapted(model: Tiny, name: str) -> Any:
    attention = "attention" if model.architecture.name == "z_image" else "attn"
    given = {
        field: {p.replace("{a}", attention): n for p, n in value.items()}
        if isinstance(value, dict)
        else value
        for field, value in _CONFIGS[name].items()
    }
    paths = [path for path in model.linears if f".{attention}.to_" in path]
    transformer = bare(model)
    transformer.add_adapter(library("peft").LoraConfig(target_modules=paths, **given))
    return transformer.double()


def _saved(model: Tiny, transformer: Any, writer: str, folder: Path, dtype: str) -> Path:
    """Save with diffusers, then round the tensors to the type of the file."""
    if writer == "model":
        transformer.save_lora_adapter(folder, "default")
    else:
        stated = library("diffusers.training_utils")._collate_lora_metadata
        mixin(model).save_lora_weights(
            folder,
            transformer_lora_layers=library("peft").get_peft_model_state_dict(transformer),
            **stated({"transformer": transformer}),
        )
    path = folder / "pytorch_lora_weights.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).to(PLAIN[dtype]) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    return write(path, tensors, metadata)


@pytest.mark.parametrize("model", NAMES)
def test_saved(model: str, tmp_path: Path) -> None:
    for seed, (owner, name, writer, dtype) in enumerate(_SAVED):
        if owner != model:
            continue
        transformer = _adapted(tiny(model), name)
        randomize(transformer, PLAIN[dtype], seed)
        path = _saved(tiny(model), transformer, writer, tmp_path / str(seed), dtype)
        transformer.fuse_lora()
        try:
            check(path, tiny(model), fused(tiny(model), transformer))
        except Exception as error:
            raise AssertionError(f"{name} {writer} {dtype}: {error}") from error


# Read without metadata


_BESIDE = {
    "DoRA": ("lora_magnitude_vector", lambda layer: layer.weight.shape[0]),
    "bias": ("lora_B.bias", lambda layer: 0 if layer.bias is None else layer.weight.shape[0]),
}


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("kind", _BESIDE)
@pytest.mark.parametrize("model", NAMES)
def test_vector_beside_the_factors(model: str, kind: str, dtype: str, tmp_path: Path) -> None:
    known = tiny(model)
    suffix, rows = _BESIDE[kind]
    paths = [path for path in known.linears if rows(known.module.get_submodule(path))]
    if not paths:
        return
    tensors: dict[str, Tensor] = {}
    for path, (down, up) in factors(known, paths[::2], PLAIN[dtype], 5).items():
        tensors[f"transformer.{path}.lora_A.weight"] = down
        tensors[f"transformer.{path}.lora_B.weight"] = up
        vector = torch.randn(len(up)).abs() + 0.5
        tensors[f"transformer.{path}.{suffix}"] = vector.to(PLAIN[dtype])
    check(write(tmp_path / "a.safetensors", tensors), known, changes(known, tensors))


# LoKr of Z-Image, the only model for which diffusers reads it


def _lokr(layer: nn.Module, kind: str, generator: torch.Generator) -> Mapping[str, Tensor]:
    weight: Any = layer.weight
    (rows, columns), factor, rank = weight.shape, 4, 1
    shapes = {
        "lokr_w1": (factor, factor),
        "lokr_w2": (rows // factor, columns // factor),
    }
    found: dict[str, tuple[int, ...]] = {}
    for name, (height, width) in shapes.items():
        if kind == "both low" or (kind == "one low" and name == "lokr_w2"):
            found |= {f"{name}_a": (height, rank), f"{name}_b": (rank, width)}
        else:
            found[name] = height, width
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in found.items()}


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("kind", ["whole", "one low", "both low"])
def test_lokr(kind: str, dtype: str, tmp_path: Path) -> None:
    known = tiny("z_image")
    generator = torch.Generator().manual_seed(4)
    tensors: dict[str, Tensor] = {}
    for path in [path for path in known.linears if ".attention." in path]:
        drawn = _lokr(known.module.get_submodule(path), kind, generator)
        for name, value in {**drawn, "alpha": torch.tensor(3.0)}.items():
            tensors[f"diffusion_model.{path}.{name}"] = value.to(PLAIN[dtype])
    check(write(tmp_path / "a.safetensors", tensors), known, changes(known, tensors))


CASES = len(_SAVED) + (2 * len(NAMES) - 1 + 3) * len(PLAIN)
