"""Modules of LyCORIS: the change is that of the weight which they train with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from support.oracle.compare import check, check_refused, write
from support.oracle.lycoris_modules import ALGORITHMS, Algorithm, make
from support.oracle.spellings import DOTTED, FLAT, RENAMES, renamed, stem
from support.oracle.storage import PLAIN
from support.oracle.tiny import NAMES, tiny
from torch import Tensor

SHARES = 4
# LyCORIS' own and kohya's first, which are most files; then those of everybody else in turn.
_PREFIXES = ("lycoris_", "lora_unet_", "diffusion_model.", *DOTTED, *FLAT)


class Case(NamedTuple):
    """A file with one algorithm on a share of the layers, or on the fused ones."""

    algorithm: Algorithm
    model: str
    dtype: str
    fused: bool
    number: int

    @property
    def prefix(self) -> str:
        own = _PREFIXES[:2]
        turn = self.number // 2
        return own[turn % 2] if self.number % 2 else _PREFIXES[turn % len(_PREFIXES)]

    def paths(self) -> list[str]:
        """The layers in the file."""
        model = tiny(self.model)
        return model.fused if self.fused else model.linears[self.number % SHARES :: SHARES]


def _corpus() -> tuple[Case, ...]:
    single = [(a, m, d, False) for a in ALGORITHMS for m in NAMES for d in PLAIN]
    fused = [(a, m, d, True) for a in ALGORITHMS for m in NAMES for d in ("float32", "bfloat16")]
    return tuple(Case(*case, number) for number, case in enumerate((*single, *fused)))


CORPUS = _corpus()
CASES = len(CORPUS)
KINDS = tuple(dict.fromkeys(case.algorithm.module for case in CORPUS))


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_algorithm(kind: str, model: str, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for case in CORPUS:
        if case.algorithm.module == kind and case.model == model:
            try:
                outcomes[compare(case, tmp_path / "a.safetensors")] += 1
            except Exception as error:
                raise AssertionError(f"{case}, {case.prefix}: {error}") from error
    assert outcomes["applied"] > outcomes["refused"]


def compare(case: Case, path: Path) -> str:
    """Write and check one file; return what became of it."""
    model = tiny(case.model)
    renames = RENAMES[case.model]
    tensors: dict[str, Tensor] = {}
    changes: dict[tuple[str, str], Tensor] = {}
    refused: dict[str, str] = {}
    for i, layer in enumerate(case.paths()):
        made = make(case.algorithm, model, layer, PLAIN[case.dtype], 100 * case.number + i)
        if made is None:
            continue
        name = stem(renamed(layer, renames[case.number % len(renames)]), case.prefix)
        tensors.update({f"{name}.{suffix}": value for suffix, value in made.tensors.items()})
        if case.algorithm.refused_if_cut and _is_cut(case.model, layer):
            refused[layer] = case.algorithm.refused_if_cut
        else:
            changes.update({(layer, which): change for which, change in made.changes.items()})
    write(path, tensors)
    if changes:
        check(path, model, changes, refused)
        return "applied"
    for words in set(refused.values()):
        check_refused(path, words)
    return "refused"


def _is_cut(model: str, path: str) -> bool:
    """Whether the engine has a fused layer in parts."""
    places = tiny(model).places[path]
    return len({place.module for place in places}) > 1
