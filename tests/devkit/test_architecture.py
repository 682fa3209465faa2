"""The picture of the packages is that of their imports."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from vivace.devkit import architecture
from vivace.devkit.rig.layout import ROOT

ROOMS = architecture.rooms()


def test_the_picture_is_drawn_from_the_imports() -> None:
    remedy = "run `.dev/venv/bin/python -m vivace.devkit.architecture`"
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.picture(), remedy


@pytest.mark.parametrize("package", ROOMS)
def test_arrows_point_down_only(package: str) -> None:
    rows = ROOMS[package]
    level = {name: number for number, row in enumerate(rows) for name in row}
    found = architecture.imports(package, rows)
    assert found
    # Of one file that is named in another of its row, only a type is used.
    wrong = [pair for pair in found if level[pair[0]] >= level[pair[1]]]
    assert all(
        pair in [("repeated_modules", "loader"), ("loader", "repeated_modules")] for pair in wrong
    )


def test_a_box_and_an_arrow_for_each() -> None:
    drawn = architecture.draw("vivace", [["nodes"], ["lora"]], Counter({("nodes", "lora"): 3}))
    assert drawn.count("<rect") == 2
    assert "nodes imports lora: 3 modules" in drawn


def test_every_name_has_its_box() -> None:
    known = {f"{package}.{name}" for package in ROOMS for row in ROOMS[package] for name in row}
    assert set(architecture.SUBJECTS) <= known


def test_nothing_outside_imports_the_tests() -> None:
    named = re.compile(r"^\s*(?:from|import) (?:[\w.]*\.)?tests\b|^\s*from support\b", re.MULTILINE)
    folders = [path for path in ROOT.iterdir() if path.name not in (".dev", ".git", "tests")]
    sources = [*ROOT.glob("*.py"), *(file for path in folders for file in path.rglob("*.py"))]
    assert len(sources) > 400
    assert not [path for path in sources if named.search(path.read_text(encoding="utf-8"))]
