"""One LoRA in every spelling, precision and form of alpha: the change is the one peft makes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from support.oracle.compare import check, write
from support.oracle.drawn import Drawn, draw
from support.oracle.spellings import (
    DOTTED,
    FACTORS,
    FLAT,
    RENAMES,
    SCALES,
    WRAPPED,
    Names,
    Rename,
    Scale,
    renamed,
    stem,
    wrapped,
)
from support.oracle.storage import PLAIN, Precision, precisions
from support.oracle.tiny import NAMES, tiny
from torch import Tensor

RANK, ALPHA = 4, 6.0
SHARES = 4  # files into which the modules of a model are divided


class Case(NamedTuple):
    """A file to write. `share` tells which of the model's linear layers it has."""

    model: str
    share: int
    prefix: str = "transformer."
    rename: Rename = ()
    names: Names = FACTORS[0]
    scale: Scale = SCALES[0]
    precision: Precision = Precision(PLAIN["float32"])
    wrapper: str | None = None

    def paths(self) -> list[str]:
        """The modules of the file, by diffusers' path."""
        return tiny(self.model).linears[self.share :: SHARES]


def _prefixes() -> list[Case]:
    """Every prefix before every module; what else there is takes turns."""
    found = []
    plain = [Precision(dtype) for dtype in PLAIN.values()]
    for model in NAMES:
        for i, prefix in enumerate((*DOTTED, *FLAT)):
            for share in range(SHARES):
                turn = i * SHARES + share
                renames = RENAMES[model]
                found.append(
                    Case(
                        model,
                        share,
                        prefix,
                        renames[turn // SHARES % len(renames)],
                        FACTORS[turn % len(FACTORS)],
                        SCALES[turn % len(SCALES)],
                        plain[turn % len(plain)],
                    )
                )
    return found


def _precisions() -> list[Case]:
    """Every precision under every name that a scale may follow."""
    names = [item for item in FACTORS if item.scaled]
    return [
        Case(model, i % SHARES, names=name, precision=precision, scale=SCALES[i % len(SCALES)])
        for model in NAMES
        for name in names
        for i, precision in enumerate(precisions())
    ]


def _factors() -> list[Case]:
    """Every pair of suffixes with every form of alpha."""
    return [
        Case(model, (i + j) % SHARES, prefix, names=names, scale=scale)
        for model in NAMES
        for i, names in enumerate(FACTORS)
        for j, scale in enumerate(SCALES)
        for prefix in ("diffusion_model." if (i + j) % 2 else "lora_unet_",)
    ]


def _renamed() -> list[Case]:
    """Every other name of the modules, dotted and flat."""
    return [
        Case(model, share, prefix, rename, FACTORS[share], SCALES[share])
        for model in NAMES
        for rename in RENAMES[model]
        for prefix in ("", "diffusion_model.", "lora_unet_", "lycoris_")
        for share in range(SHARES)
    ]


def _wrapped() -> list[Case]:
    return [
        Case(model, share, names=FACTORS[share], scale=SCALES[share % 2], wrapper=wrapper)
        for model in NAMES
        for wrapper in WRAPPED
        for share in range(SHARES)
    ]


CORPUS = {
    "prefixes": _prefixes(),
    "precisions": _precisions(),
    "factors": _factors(),
    "renamed": _renamed(),
    "wrapped": _wrapped(),
}
CASES = sum(map(len, CORPUS.values()))


def _tensors(case: Case, drawn: Drawn) -> dict[str, Tensor]:
    found = {}
    for path, factors in drawn.factors.items():
        for name, factor in ((case.names.down, factors.down), (case.names.up, factors.up)):
            found[_key(case, path, name)] = factor.tensor
            if factor.scale is not None:
                base = name.removesuffix(".weight")
                found[_key(case, path, f"{base}.{case.precision.scale}")] = factor.scale
        found |= case.scale.tensors(_key(case, path, "")[:-1], ALPHA, RANK)
    return found


def _key(case: Case, path: str, suffix: str) -> str:
    if case.wrapper is not None:
        return wrapped(path, case.wrapper, suffix)
    return f"{stem(renamed(path, case.rename), case.prefix)}.{suffix}"


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("corpus", CORPUS)
def test_spelling(corpus: str, model: str, tmp_path: Path) -> None:
    for number, case in enumerate(CORPUS[corpus]):
        if case.model != model:
            continue
        alpha = ALPHA if case.scale.stated else float(RANK)
        drawn = draw(model, case.paths(), case.precision, number, RANK, alpha)
        path = tmp_path / f"{number}.safetensors"
        write(path, _tensors(case, drawn), case.scale.metadata(alpha, RANK))
        try:
            check(path, tiny(model), drawn.changes)
        except Exception as error:
            raise AssertionError(f"{case}: {error}") from error
        path.unlink()
