"""A prompt library for the tests of the toolkit."""

from __future__ import annotations

from pathlib import Path

import pytest
from vivace.toolkit.prompt_library import PromptLibrary


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    return PromptLibrary(tmp_path / "library")
