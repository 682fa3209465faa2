"""Settings of the pack that the user changes in the editor's settings dialog."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import folder_paths

CACHE_SETTING = "Vivace.LoRA.CacheMB"
CACHE_VARIABLE = "VIVACE_LORA_CACHE_MB"


def lora_cache_bytes() -> int | None:
    """Bytes of RAM for LoRA factors from the editor's setting; None leaves it to the engine.

    The environment variable, which the engine reads itself, goes before the setting; a negative
    setting means automatic.
    """
    if os.environ.get(CACHE_VARIABLE):
        return None
    megabytes = _editor_settings().get(CACHE_SETTING)
    if isinstance(megabytes, bool) or not isinstance(megabytes, (int, float)) or megabytes < 0:
        return None
    return int(megabytes * 2**20)


def _editor_settings() -> dict[str, Any]:
    path = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # there are none yet, or the editor is writing them
    return settings if isinstance(settings, dict) else {}
