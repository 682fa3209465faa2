"""Adapters that peft makes and saves: the change is what peft merges."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.oracle.compare import check
from support.oracle.peft_cases import DOTS, METHODS, Method
from support.oracle.peft_models import FORMS, adapted, changes, randomize, save
from support.oracle.storage import PLAIN
from support.oracle.tiny import NAMES, tiny

# How adapters are saved. Every method comes in two of them, by turns, and every kind in all.
SAVED = tuple(zip(("float32", "bfloat16", "e4m3", "float16"), FORMS, strict=True))
EACH = len(SAVED) // 2
KINDS = tuple(dict.fromkeys(method.name.split()[0] for method in METHODS))


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_method(kind: str, model: str, tmp_path: Path) -> None:
    for number, method in enumerate(METHODS):
        if method.name.split()[0] == kind:
            _compare(method, model, tmp_path / str(number), number)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("method", DOTS, ids=lambda method: method.name)
def test_dots_match_any_character(method: Method, model: str, tmp_path: Path) -> None:
    _compare(method, model, tmp_path, DOTS.index(method))


def _compare(method: Method, name: str, folder: Path, number: int) -> None:
    model = tiny(name)
    config = method.build(model)
    if config is None:
        return
    adapter = adapted(model, config)
    for seed, (dtype, form) in enumerate(SAVED[number % EACH :: EACH]):
        randomize(adapter, PLAIN[dtype], seed)
        path = save(adapter, folder / dtype, PLAIN[dtype], form)
        try:
            check(path, model, changes(adapter, model))
        except Exception as error:
            raise AssertionError(f"{method.name}, {dtype}, {form}: {error}") from error
