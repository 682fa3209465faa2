"""Settings of the pack that the user changes in the editor's settings dialog."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import folder_paths

CACHE_SETTING = "Vivace.LoRA.CacheMB"
VLM_MEMORY_SETTING = "Vivace.QwenVL.MemoryMB"
VLM_DISK_SETTING = "Vivace.QwenVL.DiskMB"
LOG_SETTING = "Vivace.General.LogDetail"
CACHE_VARIABLE = "VIVACE_LORA_CACHE_MB"


class _Details(logging.Handler):
    """Hands details to the handlers of ComfyUI's log that take no more than its usual messages."""

    def emit(self, record: logging.LogRecord) -> None:
        for handler in logging.getLogger().handlers:
            if record.levelno < handler.level <= logging.INFO:
                handler.handle(record)


PACK_LOGGER = logging.getLogger(__name__.rpartition(".nodes.")[0])
# "normal" leaves the choice to ComfyUI's --verbose.
_LEVELS = {"quiet": logging.WARNING, "normal": logging.NOTSET, "detailed": logging.DEBUG}


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


def apply_log_detail() -> None:
    """Have the pack log as much as the editor's setting says."""
    level = _LEVELS.get(str(_editor_settings().get(LOG_SETTING)), logging.NOTSET)
    PACK_LOGGER.setLevel(level)
    PACK_LOGGER.handlers = [_Details()] if level == logging.DEBUG else []


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
