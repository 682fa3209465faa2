"""How many files the other tests of this folder write."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from support.oracle.peft_cases import METHODS
from support.oracle.tiny import NAMES, tiny

COUNTED = (
    *("spelled", "peft_refused", "peft_special", "diffusers", "diffusers_saved"),
    *("lycoris", "lycoris_special", "documented"),
)


def module_of(name: str) -> Any:
    """A module of tests beside this one, as it stands."""
    path = Path(__file__).with_name(f"test_{name}.py")
    spec = importlib.util.spec_from_file_location(f"counted_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_thousands_of_files() -> None:
    """Each is counted once. Methods of peft for layers that a model does not have make no file."""
    built = [method.build(tiny(name)) for method in METHODS for name in NAMES]
    modules = module_of("modules")
    counts = {name: module_of(name).CASES for name in COUNTED}
    counts["modules"] = sum(len(modules.cases(name)) for name in NAMES)
    counts["peft"] = sum(config is not None for config in built) * module_of("peft").EACH
    assert sum(counts.values()) >= 4000, counts
