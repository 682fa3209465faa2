"""Whether each direct dependency has its reason stated: a comment where it is named, and a row in
`SECURITY.md`."""

from __future__ import annotations

import re

from ..rig.layout import REQUIREMENTS, ROOT

SECURITY = ROOT / "SECURITY.md"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_QUOTED = re.compile(r'"([A-Za-z0-9._-]+)[^"]*"')


def unexplained() -> list[str]:
    """What is missing, a line each; empty if nothing is."""
    files = {path.name: path.read_text("utf-8") for path in sorted(REQUIREMENTS.glob("*.in"))}
    named = {name: of_requirements(text) for name, text in files.items()}
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named["pyproject.toml"] = of_extras(pyproject)
    listed = in_table(SECURITY.read_text(encoding="utf-8"))
    found = []
    for file, packages in named.items():
        for package, commented in packages.items():
            if not commented:
                found.append(f"{file} names {package} without a comment that says what it is for")
            if package not in listed:
                found.append(f"{file} names {package}, which no table of {SECURITY.name} explains")
    return found


def of_requirements(text: str) -> dict[str, bool]:
    """Packages of a requirements file, and whether a comment stands above them or beside them."""
    found, above = {}, False
    for line in text.splitlines():
        words, mark, comment = line.partition("#")
        if match := _NAME.match(words.strip()):
            found[match[0].lower()] = above or bool(comment.strip())
        else:
            above = bool(mark and comment.strip())
    return found


def of_extras(text: str) -> dict[str, bool]:
    """Packages of the extras in a `pyproject.toml`, and whether a comment explains the extra.

    Python 3.10 has no parser of TOML; what is read here is written as `pyproject.toml` writes it.
    """
    _, _, section = text.partition("\n[project.optional-dependencies]\n")
    section = section.partition("\n[")[0]
    found, above = {}, False
    for line in section.splitlines():
        words, mark, comment = line.partition("#")
        if not words.strip():
            above = bool(mark and comment.strip()) and (above or bool(mark))
            continue
        for name in _QUOTED.findall(words):
            found[name.lower()] = above or bool(comment.strip())
    return found


def in_table(text: str) -> set[str]:
    """Packages in the first column of tables whose second column is not empty."""
    rows = (
        line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")
    )
    cells = (row[0] for row in rows if len(row) == 2 and row[1].strip())
    return {name.lower() for cell in cells for name in _NAME.findall(cell.replace("`", " "))}
