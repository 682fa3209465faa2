"""Only where the libraries are installed whose results the engine's are compared with."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytest

# What the tests here share is found as `oracle.*`.
sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True, scope="session")
def _oracles() -> None:
    for name in ("diffusers", "peft", "lycoris"):
        pytest.importorskip(name, reason="an oracle of the newest ComfyUI only")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    logging.getLogger("diffusers").setLevel(logging.ERROR)


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    """The libraries warn of every unusual configuration, and those are what is tried here."""
    warnings.simplefilter("ignore")
