"""The folders that ComfyUI looks for models in, as it finds them without arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .finding import BROKEN, WARNING, Finding

EXTRA = "extra_model_paths.yaml"


class BadPathsError(ValueError):
    """The file with further folders is not what ComfyUI can read."""


def model_roots(
    comfyui: Path | None, models: Path | None, names: tuple[str, ...], findings: list[Finding]
) -> dict[str, list[Path]]:
    """Folders by ComfyUI's names of them, its own first.

    Args:
        comfyui: its folder, whose ``extra_model_paths.yaml`` counts.
        models: the folder of its own models, if it is another one than ``models``.
        names: the names to look for.
        findings: gets what is wrong with the file.
    """
    own = models or (comfyui / "models" if comfyui else None)
    roots = {name: [own / name] if own else [] for name in names}
    path = comfyui / EXTRA if comfyui else None
    if path is None or not path.is_file():
        return roots
    try:
        for name, folder in _extra(path):
            if name in roots and folder not in roots[name]:
                roots[name].append(folder)
    except ImportError:
        problem = f"{path} was not read, since the package pyyaml is missing"
        findings.append(Finding(WARNING, "models", problem, "Install it beside vivace"))
    except (OSError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        problem = f"ComfyUI cannot start with {path}: {why}"
        findings.append(Finding(BROKEN, "models", problem, "Correct it, or take it away"))
    return roots


def _extra(path: Path) -> list[tuple[str, Path]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadPathsError(str(error)) from None
    if content is None:
        return []
    if not isinstance(content, dict):
        raise BadPathsError("it is not a table")
    found: list[tuple[str, Path]] = []
    for section in content.values():
        if section is not None:
            found += _section(section, path.parent)
    return found


def _section(section: Any, beside: Path) -> list[tuple[str, Path]]:
    if not isinstance(section, dict):
        raise BadPathsError("a section is not a table")
    base = beside
    if text := section.get("base_path"):
        base = beside / os.path.expandvars(os.path.expanduser(str(text)))  # noqa: PTH111
    found: list[tuple[str, Path]] = []
    for name, lines in section.items():
        if name in ("base_path", "is_default"):
            continue
        if not isinstance(lines, str):
            raise BadPathsError(f"'{name}' is no text")
        found += [(name, Path(os.path.normpath(base / line))) for line in lines.split("\n") if line]
    return found
