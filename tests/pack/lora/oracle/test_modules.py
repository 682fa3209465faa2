"""Every linear layer of the models in a file of its own: LoRA, DoRA and LoRA with a bias."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest
from support.oracle.compare import check, write
from support.oracle.drawn import Factors, draw, with_bias
from support.oracle.spellings import RENAMES, Rename, renamed, stem
from support.oracle.storage import PLAIN, Precision
from support.oracle.tiny import NAMES, tiny
from torch import Tensor

RANK, ALPHA = 3, 4.5
_DTYPES = tuple(PLAIN.values())
_MAGNITUDES = (
    ("lora_magnitude_vector", (-1,)),
    ("lora_magnitude_vector.weight", (-1,)),
    ("lora_magnitude_vector.default", (-1,)),
    ("lora_magnitude_vector.default.weight", (-1,)),
    ("magnitude", (-1,)),
    ("dora_scale", (-1, 1)),
    ("dora_scale", (-1,)),
)
_PREFIXES = ("transformer.", "diffusion_model.", "base_model.model.", "", "lora_unet_", "lycoris_")


class Case(NamedTuple):
    """A file with one module; `turn` decides what takes turns."""

    model: str
    path: str
    kind: str
    rename: Rename
    turn: int


@lru_cache(maxsize=3)
def cases(model: str) -> tuple[Case, ...]:
    """Every module, single and fused, under every name that it has."""
    return tuple(_cases(model))


def _cases(model: str) -> Iterator[Case]:
    turn = 0
    known = tiny(model)
    for path in (*known.linears, *known.fused):
        kinds = ("lora", "dora", "bias") if path in with_bias(model) else ("lora", "dora")
        seen: set[str] = set()
        for rename in RENAMES[model]:
            if (name := renamed(path, rename)) in seen:
                continue
            seen.add(name)
            for kind in kinds:
                yield Case(model, path, kind, rename, turn)
                turn += 1


def _tensors(case: Case, factors: Factors) -> dict[str, Tensor]:
    prefix = _PREFIXES[case.turn % len(_PREFIXES)]
    name = stem(renamed(case.path, case.rename), prefix)
    down, up = ("lora_down", "lora_up") if prefix.endswith("_") else ("lora_A", "lora_B")
    found = {f"{name}.{down}.weight": factors.down.tensor, f"{name}.{up}.weight": factors.up.tensor}
    if factors.magnitude is not None:
        suffix, shape = _MAGNITUDES[case.turn % len(_MAGNITUDES)]
        found[f"{name}.{suffix}"] = factors.magnitude.reshape(shape)
    if factors.bias is not None:
        found[f"{name}.{up}.bias"] = factors.bias
    found[f"{name}.alpha"] = factors.down.tensor.new_tensor(ALPHA, dtype=_DTYPES[case.turn % 3])
    return found


@pytest.mark.parametrize("model", NAMES)
def test_module(model: str, tmp_path: Path) -> None:
    for case in cases(model):
        precision = Precision(_DTYPES[case.turn % len(_DTYPES)])
        drawn = draw(model, [case.path], precision, case.turn, RANK, ALPHA, case.kind)
        tensors = _tensors(case, drawn.factors[case.path])
        path = write(tmp_path / "a.safetensors", tensors)
        try:
            check(path, tiny(model), drawn.changes)
        except Exception as error:
            raise AssertionError(f"{case}, {list(tensors)}: {error}") from error
