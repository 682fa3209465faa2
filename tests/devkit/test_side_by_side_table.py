"""The table of what was compared names tests that exist, and all that compare."""

from __future__ import annotations

import re

from vivace.devkit.rig.layout import ROOT

TABLE = ROOT / "docs" / "side-by-side.md"


def test_rows_name_tests_that_exist() -> None:
    rows = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) > 20
    assert all(named), "a row without a test"
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }
    assert {name for names in named for name in names} <= defined


def test_all_comparisons_have_a_row() -> None:
    table = TABLE.read_text("utf-8")
    folder = ROOT / "tests" / "pack" / "wrappers" / "side_by_side"
    files = list(folder.glob("test_*.py"))
    assert files
    for file in files:
        for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE):
            assert f"`{name}`" in table, name
