"""Settings of the pack that the user changes in the editor's settings dialog."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import folder_paths

CACHE_SETTING = "Vivace.LoRA.CacheMB"
VLM_MEMORY_SETTING = "Vivace.QwenVL.MemoryMB"
VLM_DISK_SETTING = "Vivace.QwenVL.DiskMB"
CACHE_VARIABLE = "VIVACE_LORA_CACHE_MB"


def lora_cache_bytes() -> int | None:
    """Bytes of RAM for LoRA factors from the editor's setting; None leaves it to the engine.

    The environment variable, which the engine reads itself, goes before the setting; a negative
    setting means automatic.
    """
    if os.environ.get(CACHE_VARIABLE):
        return None
    megabytes = _number(_editor_settings(), CACHE_SETTING)
    return None if megabytes is None else int(megabytes * 2**20)


def vlm_cache_megabytes() -> tuple[int | None, int]:
    """Megabytes for image embeddings in memory (None for the default) and on disk (0 for none)."""
    values = _editor_settings()
    memory, disk = (_number(values, name) for name in (VLM_MEMORY_SETTING, VLM_DISK_SETTING))
    return None if memory is None else int(memory), int(disk or 0)


def _number(values: dict[str, Any], name: str) -> float | None:
    """A setting that is a number and not negative; None for any other."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        return None
    return value


def _editor_settings() -> dict[str, Any]:
    path = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # there are none yet, or the editor is writing them
    return settings if isinstance(settings, dict) else {}
