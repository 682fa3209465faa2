"""Files as diffusers' pipelines read them: the change is what they fuse into the transformer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from support.oracle.compare import check, write
from support.oracle.diffusers_models import changes, factors
from support.oracle.storage import PLAIN
from support.oracle.tiny import NAMES, Tiny, tiny
from torch import Tensor

Tensors = dict[str, Tensor]
_SHARES = 3
_ALPHA = 6.0


class Spelling(NamedTuple):
    """A spelling that diffusers reads.

    Attributes:
        name: of a tensor; ``{}`` is the module, ``{:flat}`` the module with underscores.
        alpha: whether diffusers reads alpha beside it.
        models: which it reads it for.
        paths: which modules it knows under that spelling; all unless given.
    """

    down: str
    up: str
    alpha: str | None = None
    models: tuple[str, ...] = NAMES
    paths: Callable[[str], bool] = lambda path: True
    flat: bool = False


def _in_blocks_of_qwen(path: str) -> bool:
    """What the reader of flat names knows of Qwen-Image-2.1: what Qwen-Image has, too."""
    return not path.startswith(("txt_in.", "modulation")) and "gate_layer" not in path


def _attention(path: str) -> bool:
    return path.endswith((".to_q", ".to_k", ".to_v"))


def _no_siglip(path: str) -> bool:
    return "siglip" not in path


SPELLINGS = (
    Spelling("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight"),
    Spelling("transformer.{}.lora.down.weight", "transformer.{}.lora.up.weight"),
    Spelling("transformer.{}_lora.down.weight", "transformer.{}_lora.up.weight", paths=_attention),
    Spelling("diffusion_model.{}.lora_A.weight", "diffusion_model.{}.lora_B.weight"),
    Spelling("diffusion_model.{}.lora_down.weight", "diffusion_model.{}.lora_up.weight"),
    Spelling(
        "diffusion_model.{}.lora_A.weight",
        "diffusion_model.{}.lora_B.weight",
        "diffusion_model.{}.alpha",
    ),
    Spelling(
        "diffusion_model.{}.lora_down.weight",
        "diffusion_model.{}.lora_up.weight",
        "diffusion_model.{}.alpha",
    ),
    Spelling("{}.lora_A.weight", "{}.lora_B.weight", "{}.alpha"),
    Spelling("{}.lora_down.weight", "{}.lora_up.weight", "{}.alpha"),
    Spelling("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
    Spelling("{}.lora_down.default.weight", "{}.lora_up.default.weight", "{}.alpha"),
    Spelling("default.{}.lora_A.weight", "default.{}.lora_B.weight", "default.{}.alpha"),
    Spelling(
        "diffusion_model.{}.lora_A.default.weight", "diffusion_model.{}.lora_B.default.weight"
    ),
    Spelling(
        "lora_unet_{}.lora_down.weight",
        "lora_unet_{}.lora_up.weight",
        "lora_unet_{}.alpha",
        ("qwen_image", "qwen_image_21"),
        _in_blocks_of_qwen,
        flat=True,
    ),
    Spelling(
        "lora_unet_{}.lora_down.weight",
        "lora_unet_{}.lora_up.weight",
        "lora_unet_{}.alpha",
        ("z_image",),
        _no_siglip,
        flat=True,
    ),
    Spelling(
        "lora_unet_{}.lora_down.weight",
        "lora_unet_{}.lora_up.weight",
        models=("z_image",),
        paths=_no_siglip,
        flat=True,
    ),
)
_TURNS = [
    (model, spelling, dtype, share)
    for model in NAMES
    for spelling in SPELLINGS
    if model in spelling.models
    for dtype in PLAIN
    for share in range(_SHARES)
]
# The types take turns over the shares, so that every module comes in two of them.
SPELLED = [case for i, case in enumerate(_TURNS) if i % _SHARES == i // _SHARES % _SHARES]


def _spelled(model: Tiny, spelling: Spelling, dtype: str, share: int, seed: int) -> Tensors:
    found: Tensors = {}
    paths = [path for path in model.linears if spelling.paths(path)][share::_SHARES]
    for number, (path, (down, up)) in enumerate(
        factors(model, paths, PLAIN[dtype], seed, rank=1 + seed % 4).items()
    ):
        name = path.replace(".", "_") if spelling.flat else path
        found[spelling.down.format(name)] = down
        found[spelling.up.format(name)] = up
        if spelling.alpha is not None and number % 4:  # without alpha, the scale is 1
            alpha = torch.tensor(_ALPHA + number % 3, dtype=down.dtype)
            found[spelling.alpha.format(name)] = alpha if number % 2 else alpha[None]
    return found


@pytest.mark.parametrize("model", NAMES)
def test_spelling(model: str, tmp_path: Path) -> None:
    for seed, (name, spelling, dtype, share) in enumerate(SPELLED):
        if name == model:
            tensors = _spelled(tiny(model), spelling, dtype, share, seed)
            _compare(tiny(model), tensors, tmp_path / "a.safetensors", f"{spelling} {dtype}")


def _compare(model: Tiny, tensors: Tensors, path: Path, what: str) -> None:
    try:
        check(write(path, tensors), model, changes(model, tensors))
    except Exception as error:
        raise AssertionError(f"{what}: {error}") from error


# Modules of unequal ranks


@pytest.mark.parametrize("model", NAMES)
def test_unequal_ranks(model: str, tmp_path: Path) -> None:
    known = tiny(model)
    for seed in range(5):
        tensors: Tensors = {}
        for number, path in enumerate(known.linears[seed::4]):
            drawn = factors(known, [path], torch.float32, seed + number, 1 + (seed + number) % 5)
            down, up = drawn[path]
            tensors[f"transformer.{path}.lora_A.weight"] = down
            tensors[f"transformer.{path}.lora_B.weight"] = up
        _compare(known, tensors, tmp_path / "a.safetensors", f"{seed}")


# Fused projections of Z-Image


@pytest.mark.parametrize("also_split", [False, True])
@pytest.mark.parametrize("dtype", PLAIN)
def test_fused_projections(dtype: str, also_split: bool, tmp_path: Path) -> None:
    """One trainer writes fused and split projections, which say the same."""
    known = tiny("z_image")
    blocks = [path for path in known.fused if path.endswith(".qkv") and _no_siglip(path)]
    tensors: Tensors = {}
    for number, path in enumerate(blocks):
        down, up = factors(known, [path], PLAIN[dtype], number)[path]
        flat = path.replace(".", "_")
        fused = f"lora_unet_{flat}"
        pieces = dict(zip([fused], [up], strict=True))
        if also_split:
            thirds = zip("qkv", up.chunk(3), strict=True)
            pieces |= {f"{fused.removesuffix('qkv')}to_{part}": third for part, third in thirds}
        for name, piece in pieces.items():
            tensors[f"{name}.lora_down.weight"] = down.clone()
            tensors[f"{name}.lora_up.weight"] = piece.clone()
            if number % 2:
                tensors[f"{name}.alpha"] = torch.tensor(_ALPHA)
    _compare(known, tensors, tmp_path / "a.safetensors", dtype)


@pytest.mark.parametrize("dtype", PLAIN)
def test_output_projection_without_number(dtype: str, tmp_path: Path) -> None:
    known = tiny("z_image")
    paths = [path for path in known.linears if path.endswith("to_out.0") and _no_siglip(path)]
    tensors: Tensors = {}
    for path, (down, up) in factors(known, paths, PLAIN[dtype], 3).items():
        name = f"lora_unet_{path.replace('.', '_')}".replace("to_out_0", "out")
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.alpha"] = torch.tensor(_ALPHA)
    _compare(known, tensors, tmp_path / "a.safetensors", dtype)


CASES = len(SPELLED) + 5 * len(NAMES) + 3 * len(PLAIN)
