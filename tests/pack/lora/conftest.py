"""Fixtures of the LoRA tests."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def comfy_lora(comfyui: ModuleType) -> ModuleType:
    """ComfyUI's own LoRA code, as the oracle."""
    return import_module("comfy.lora")
