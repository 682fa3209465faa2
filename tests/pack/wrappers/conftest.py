"""Fixtures of the tests with running models."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from support.dynamic import ROOM, as_asked, skip_without_it
from vivace.devkit.doubles.dynamic_vram.dynamic_vram import DynamicVram, dynamic_vram


@pytest.fixture(autouse=True)
def _as_comfyui_runs_nodes(request: pytest.FixtureRequest) -> Iterator[None]:
    """ComfyUI loads models and executes nodes in inference mode."""
    with torch.inference_mode():
        if "comfyui" not in request.fixturenames or "dynamic_card" in request.fixturenames:
            yield
            return
        request.getfixturevalue("comfyui")
        if request.node.get_closest_marker("own_loading"):
            yield
            return
        with as_asked():
            yield


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture(autouse=True)
def said(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What is said of layers that nobody called: nothing, where a test does not ask for it."""
    logger, handler = logging.getLogger("vivace.wrappers.lora.uncalled"), _Messages()
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)
    assert "said" in request.function.__code__.co_varnames or not handler.texts


@pytest.fixture(params=ROOM)
def dynamic_card(request: pytest.FixtureRequest, comfyui: ModuleType) -> Iterator[DynamicVram]:
    """A card with dynamic VRAM, with room for a small model and with less."""
    skip_without_it()
    with torch.inference_mode(), dynamic_vram(ROOM[request.param]) as running:
        yield running
