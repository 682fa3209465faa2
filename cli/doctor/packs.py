"""The other custom nodes: those that are known to stand in the way, and those that take our routes.

Only text is read; nothing of another pack is imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...http_api import ROUTES
from .finding import BROKEN, NOTE, WARNING, Finding
from .version_numbers import at_least

_TOPIC = "packs"
_SKIPPED = {".git", "node_modules", "__pycache__", ".venv", "venv"}
_LARGEST = 2**20  # of a Python file that somebody wrote
_NAME = "vivace"  # of this pack, in its pyproject.toml


class KnownPack:
    """A pack of which it is known what it does to others.

    Attributes:
        marks: files, relative to its folder, that tell it from other packs.
        effect: what follows when it is installed beside this one.
    """

    def __init__(self, name: str, marks: tuple[str, ...], effect: str, remedy: str) -> None:
        self.name = name
        self.marks = marks
        self.effect = effect
        self.remedy = remedy


_MIGRATE = "When 'vivace migrate' has put our nodes in the place of its, you can remove it"
KNOWN = (
    KnownPack(
        "ComfyUI-QwenImageLoraLoader",
        ("prestartup_script.py", "patches/nunchaku_patch.py"),
        "it replaces methods of Nunchaku's classes for every model, also for those with our LoRAs,"
        " and may start a second Python whenever ComfyUI starts",
        _MIGRATE,
    ),
    KnownPack(
        "ComfyUI-QwenVL",
        ("AILab_QwenVL.py",),
        "its models lie outside ComfyUI's memory management, and it unloads those of others",
        _MIGRATE,
    ),
    KnownPack(
        "comfyui-llm-toolkit",
        ("llmtoolkit_utils.py",),
        "it replaces environment variables of the server, such as API keys, by those of its .env"
        " file, and gives its modules common names that other packs may mean",
        _MIGRATE,
    ),
)


def look_at_packs(comfyui: Path, findings: list[Finding]) -> list[dict[str, Any]]:
    """Name, folder and version of each pack, in the order of their names.

    Args:
        comfyui: ComfyUI's folder.
        findings: gets what is wrong.
    """
    folder = comfyui / "custom_nodes"
    try:
        places = sorted(folder.iterdir(), key=lambda place: place.name.lower())
    except OSError as error:
        problem = f"{folder} cannot be read ({error.strerror})"
        findings.append(Finding(BROKEN, _TOPIC, problem, "Check the folder and its permissions"))
        return []
    packs = [place for place in places if _is_loaded(place)]
    ours = [place for place in packs if _is_ours(place)]
    if not ours:
        problem = f"This pack is not among the custom nodes in {folder}"
        remedy = "Install it there, unless extra_model_paths.yaml names another folder of nodes"
        findings.append(Finding(WARNING, _TOPIC, problem, remedy))
    for place in ours[1:]:
        problem = f"{place} is a second copy of this pack, beside {ours[0].name}"
        findings.append(Finding(BROKEN, _TOPIC, problem, "Keep one of them and restart ComfyUI"))
    for place in packs:
        if place not in ours:
            findings += _conflicts(place)
    return [{"name": place.name, "version": _version(place)} for place in packs]


def _is_loaded(place: Path) -> bool:
    """Whether ComfyUI imports it as a pack; single files are too small to matter here."""
    return place.is_dir() and place.name not in _SKIPPED and not place.name.endswith(".disabled")


def _is_ours(place: Path) -> bool:
    return _stated(place, "name") == _NAME


def _version(place: Path) -> str | None:
    return _stated(place, "version")


def _stated(place: Path, field: str) -> str | None:
    """The first value of this name in a pack's pyproject.toml."""
    for line in _read(place / "pyproject.toml").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == field:
            return value.strip().strip("\"'")
    return None


def _conflicts(place: Path) -> list[Finding]:
    found = [
        Finding(WARNING, _TOPIC, f"{place.name} is {one.name}: {one.effect}", one.remedy)
        for one in KNOWN
        if all((place / mark).is_file() for mark in one.marks)
    ]
    version = _version(place)
    loader = place / "nodes" / "models" / "qwenimage.py"
    if loader.is_file() and version and "unchaku" in place.name and not at_least(version, "1.2"):
        problem = f"{place.name} {version} has no loader for Z-Image"
        remedy = "If you want one, update it to 1.2 or later, and nunchaku with it"
        found.append(Finding(NOTE, _TOPIC, problem, remedy))
    for route in sorted(_our_routes_in(place)):
        problem = f"{place.name} also names the route {route}; only one of two can answer there"
        found.append(Finding(BROKEN, _TOPIC, problem, "Remove that pack, or report it to us"))
    return found


def _our_routes_in(place: Path) -> set[str]:
    """Which of our routes the Python files of a pack name, as text in quotes."""
    paths = {path for _, path, _, _ in ROUTES}
    found: set[str] = set()
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in names:
            text = _read(Path(folder, name)) if name.endswith(".py") else ""
            if "/vivace/" in text:
                found |= {path for path in paths if f'"{path}"' in text or f"'{path}'" in text}
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""
