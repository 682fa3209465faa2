"""docs/lora-files.md: every row of what is refused is refused, with the words that it has there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.oracle.compare import load
from support.oracle.refused_files import FILES
from support.oracle.tiny import ARCHITECTURES
from vivace.lora.errors import LoraModelError
from vivace.lora.examine import inspect

_PAGE = Path(__file__).parents[4] / "docs" / "lora-files.md"
_HEADING = "## What is refused"


def rows() -> dict[str, list[str]]:
    """The words of the reason by the first cell of each row."""
    section = _PAGE.read_text(encoding="utf-8").partition(_HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert all(len(row) == 3 for row in cells)
    return {what: re.findall(r"`([^`]+)`", words) for what, words, _ in cells}


def test_every_row_has_a_file() -> None:
    assert list(rows()) == list(FILES)


@pytest.mark.parametrize("what", FILES)
def test_row(what: str, tmp_path: Path) -> None:
    words = rows()[what]
    reasons = [_reasons(path) for path in FILES[what](tmp_path)]
    for reason in reasons:
        assert any(word in reason for word in words), reason
    for word in words:
        assert any(word in reason for reason in reasons), f"{word!r} in none of {reasons}"


def _reasons(path: Path) -> str:
    """Why nothing of a file is applied: the first reason, and what is known from its header."""
    try:
        lora = load(path)
    except LoraModelError as error:
        faults = [fault.reason for fault in inspect(path, ARCHITECTURES).faults]
        return "; ".join([str(error).replace(str(path), ""), *faults])
    raise AssertionError(f"applied: {lora.report.line()}")


CASES = len(FILES) + 13
