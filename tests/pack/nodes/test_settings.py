"""The cache size from the editor's settings and the environment."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def settings(comfyui: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    monkeypatch.delenv("VIVACE_LORA_CACHE_MB", raising=False)
    (tmp_path / "default").mkdir()
    return tmp_path / "default" / "comfy.settings.json"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(512, 512 * 2**20), (0, 0), (-1, None), ("512", None), (True, None), (None, None)],
)
def test_setting(settings: Path, value: Any, expected: int | None) -> None:
    from vivace.nodes.settings import CACHE_SETTING, lora_cache_bytes

    settings.write_text(json.dumps({CACHE_SETTING: value}))
    assert lora_cache_bytes() == expected


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_no_usable_settings_file(settings: Path, content: str | None) -> None:
    from vivace.nodes.settings import lora_cache_bytes

    if content is not None:
        settings.write_text(content)
    assert lora_cache_bytes() is None


def test_the_environment_goes_first(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace.nodes.settings import CACHE_SETTING, lora_cache_bytes

    settings.write_text(json.dumps({CACHE_SETTING: 512}))
    monkeypatch.setenv("VIVACE_LORA_CACHE_MB", "7")
    assert lora_cache_bytes() is None
