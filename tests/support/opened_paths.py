"""Counts which files are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def opened_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows by each path that is opened."""
    opened: list[Path] = []
    path_open = Path.open

    def counted(self: Path, *given: Any, **options: Any) -> Any:
        opened.append(self)
        return path_open(self, *given, **options)

    monkeypatch.setattr(Path, "open", counted)
    return opened
