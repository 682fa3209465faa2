"""The libraries whose results the engine's are compared with, where they are installed."""

from __future__ import annotations

from typing import Any

import pytest


def library(name: str) -> Any:
    """Import a module of one of them, or skip the test."""
    return pytest.importorskip(name, reason="an oracle of the newest ComfyUI only")
