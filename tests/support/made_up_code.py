"""A ComfyUI of a few files that are only read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def comfyui_of(folder: Path, files: Mapping[str, str]) -> Path:
    """A folder with these files below `comfy/`."""
    for name, text in files.items():
        file = folder / "comfy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder
