"""Fixtures of the LoRA tests."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import torch
from vivace.lora.file_report import Report


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def comfy_lora(comfyui: ModuleType) -> ModuleType:
    """ComfyUI's own LoRA code, as the oracle."""
    return import_module("comfy.lora")


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Report]:
    """Write a file, and return the report on it; of what is not applied, nothing is loaded."""
    from support.other_model_reports import looked_at
    from support.other_models import Labels, Shapes, write_hollow

    numbers = count()

    def report_on(shapes: Shapes, metadata: Labels | None = None) -> Report:
        path = write_hollow(tmp_path / f"{next(numbers)}.safetensors", shapes, metadata)
        try:
            return looked_at(path)
        finally:
            path.unlink()

    return report_on
