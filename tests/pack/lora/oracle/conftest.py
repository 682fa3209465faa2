"""Only where the libraries are installed whose results the engine's are compared with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _oracles() -> None:
    from support.oracle.libraries import library

    for name in ("diffusers", "peft", "lycoris"):
        library(name)
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    logging.getLogger("diffusers").setLevel(logging.ERROR)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The matrices are so small that a second thread only waits for the first."""
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    """The libraries warn of every unusual configuration, and those are what is tried here."""
    warnings.simplefilter("ignore")
