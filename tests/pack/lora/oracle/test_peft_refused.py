"""Methods of peft that are not computed: each is refused, and the reason calls it by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.oracle.compare import check_refused
from support.oracle.peft_refused import METHODS, TOLD, save
from support.oracle.tiny import NAMES

CASES = (2 * len(METHODS) + len(TOLD)) * len(NAMES)


@pytest.mark.parametrize("model", NAMES)
def test_named(model: str, tmp_path: Path) -> None:
    for name, method in METHODS.items():
        path = save(model, method.config, method.arguments, tmp_path / name)
        check_refused(path, method.beside.format(name.upper()))
        path.with_name("adapter_config.json").unlink()
        check_refused(path, method.alone.format(name))


@pytest.mark.parametrize("model", NAMES)
def test_told(model: str, tmp_path: Path) -> None:
    for name, (arguments, words) in TOLD.items():
        check_refused(save(model, "LoraConfig", {"r": 4, **arguments}, tmp_path / name), words)
