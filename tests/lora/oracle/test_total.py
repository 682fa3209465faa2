"""How many files the other tests of this folder write."""

from __future__ import annotations

from oracle import (
    test_diffusers,
    test_diffusers_saved,
    test_documented,
    test_lycoris,
    test_lycoris_special,
    test_modules,
    test_peft,
    test_peft_refused,
    test_peft_special,
    test_spelled,
)
from oracle.peft_cases import METHODS
from oracle.tiny import NAMES, tiny


def test_thousands_of_files() -> None:
    """Each is counted once. Methods of peft for layers that a model does not have make no file."""
    built = [method.build(tiny(name)) for method in METHODS for name in NAMES]
    counts = {
        "spelled": test_spelled.CASES,
        "modules": sum(len(test_modules.cases(name)) for name in NAMES),
        "peft": sum(config is not None for config in built) * len(test_peft.SAVED),
        "peft refused": test_peft_refused.CASES,
        "peft special": test_peft_special.CASES,
        "diffusers": test_diffusers.CASES,
        "diffusers saved": test_diffusers_saved.CASES,
        "lycoris": test_lycoris.CASES,
        "lycoris special": test_lycoris_special.CASES,
        "documented": test_documented.CASES,
    }
    assert sum(counts.values()) >= 5000, counts
