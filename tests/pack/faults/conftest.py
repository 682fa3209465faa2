"""Fixtures of the tests with faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def inference() -> Iterator[None]:
    """ComfyUI loads models and executes nodes in inference mode."""
    with torch.inference_mode():
        yield
