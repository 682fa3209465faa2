"""Where ComfyUI is, which version it is, and which Python runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from ..startup.server import comfyui_around, find_python
from .finding import BROKEN, WARNING, Finding
from .version_numbers import at_least

OLDEST_COMFYUI = "0.16.0"
_PACK = Path(__file__).absolute().parents[2]
_NAME_IT = "Name it with --comfyui, VIVACE_COMFYUI, or 'comfyui:' in the configuration file"


class Installation:
    """A ComfyUI on this machine, or none.

    Attributes:
        folder: its folder, or None if none is known.
        version: of ComfyUI; "" if it is not known.
        python: the program that runs it.
    """

    def __init__(self, folder: Path | None, version: str, python: str) -> None:
        self.folder = folder
        self.version = version
        self.python = python


def find_installation(
    folder: Path | None, python: str | None, findings: list[Finding]
) -> Installation:
    """What the settings name, or the ComfyUI among whose custom nodes this pack lies.

    Args:
        folder: ComfyUI's folder, as the setting says.
        python: its Python, as the setting says.
        findings: gets what is wrong.
    """
    named = folder is not None
    folder = folder.absolute() if folder is not None else comfyui_around(_PACK)
    if folder is None:
        problem = "It is not known where ComfyUI is, so only this Python was looked at"
        findings.append(Finding(WARNING, "versions", problem, _NAME_IT))
    elif named and not (folder / "main.py").is_file():
        problem = f"{folder} is not ComfyUI's folder: it has no main.py"
        findings.append(Finding(BROKEN, "versions", problem, _NAME_IT))
        folder = None
    found = python or (find_python(folder) if folder else None) or sys.executable
    version = _version(folder) if folder else ""
    if version and not at_least(version, OLDEST_COMFYUI):
        problem = f"ComfyUI {version} is too old for this pack, which needs {OLDEST_COMFYUI}"
        findings.append(Finding(BROKEN, "versions", problem, "Update ComfyUI"))
    return Installation(folder, version, str(found))


def _version(folder: Path) -> str:
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    _, _, rest = text.partition("__version__")
    return rest.partition("\n")[0].strip(" =\"'\r")
