"""Fixtures of the tests with running models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _as_comfyui_runs_nodes() -> Iterator[None]:
    """ComfyUI loads models and executes nodes in inference mode."""
    with torch.inference_mode():
        yield
