"""Saved stacks: files, names, damage, several writers at once, export and import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.lora.rows import LoraRow
from vivace.toolkit.json_files import JsonFileError
from vivace.toolkit.stack_presets import (
    BUNDLE_FIELD,
    NoSuchStackError,
    StackPresetError,
    StackPresets,
)

INK = (LoraRow("styles/ink.safetensors", 0.8), LoraRow("b", -1.0, on=False, strength_clip=0.5))
OIL = (LoraRow("öl 🎨.safetensors"),)


@pytest.fixture
def presets(tmp_path: Path) -> StackPresets:
    return StackPresets(tmp_path / "stacks")


def test_stacks_are_readable_files(presets: StackPresets, tmp_path: Path) -> None:
    presets.save("Ink, soft", INK)
    presets.save("öl", OIL)
    assert presets.load("Ink, soft") == INK
    assert presets.list().values == {"Ink, soft": INK, "öl": OIL}
    text = (tmp_path / "stacks" / "Ink, soft.json").read_text("utf-8")
    assert json.loads(text)["rows"] == [
        {"on": True, "lora": "styles/ink.safetensors", "strength": 0.8},
        {"on": False, "lora": "b", "strength": -1.0, "strength_clip": 0.5},
    ]
    assert "öl 🎨" in (tmp_path / "stacks" / "öl.json").read_text("utf-8")


def test_reading_makes_no_folder(presets: StackPresets, tmp_path: Path) -> None:
    assert presets.list().values == {}
    with pytest.raises(NoSuchStackError, match="no stack 'ink'"):
        presets.load("ink")
    with pytest.raises(NoSuchStackError, match="no stack 'ink'"):
        presets.delete("ink")
    assert list(tmp_path.iterdir()) == []


def test_a_stack_can_be_replaced_emptied_and_deleted(presets: StackPresets, tmp_path: Path) -> None:
    for rows in (INK, OIL, ()):
        presets.save("mine", rows)
        assert presets.load("mine") == rows
    presets.delete("mine")
    assert list((tmp_path / "stacks").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *("", "a/b", "..", "../up", "/abs", "a\\b", "C:", ".hidden", "nul", "con.x", "a ", "a\n"),
        *("x" * 201, "?", "a\u202e", "\ud800", "é" * 61),
    ],
)
def test_names_that_some_file_system_cannot_hold_are_refused(
    presets: StackPresets, tmp_path: Path, name: str
) -> None:
    for action in (presets.load, presets.delete, lambda name: presets.save(name, INK)):
        with pytest.raises(StackPresetError, match="cannot name a stack"):
            action(name)
    assert list(tmp_path.iterdir()) == []


@given(st.text())
def test_any_name_is_a_file_in_the_folder_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("names")
    presets = StackPresets(folder / "stacks")
    try:
        presets.save(name, OIL)
    except StackPresetError:
        assert list(folder.iterdir()) == []
        return
    assert presets.load(name) == OIL
    assert len(presets.list().values) == 1
    assert [path.name for path in folder.iterdir()] == ["stacks"]


def test_names_that_differ_only_in_case_are_refused(presets: StackPresets) -> None:
    presets.save("Ink", INK)
    with pytest.raises(StackPresetError, match="only in case"):
        presets.save("ink", OIL)
    assert presets.list().values == {"Ink": INK}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"rows": [{"on": tr', "not a JSON object"),
        ("", "not a JSON object"),
        ('{"rows": 5}', "rows must be a list"),
        ("{}", "rows must be a list"),
        ('{"rows": [{"lora": "a"}, {"lora": "b", "strength": "x"}]}', "rows[1].strength"),
    ],
)
def test_a_damaged_file_is_left_out_with_a_message(
    presets: StackPresets, tmp_path: Path, content: str, problem: str
) -> None:
    presets.save("good", INK)
    (tmp_path / "stacks" / "bad.json").write_text(content)
    (tmp_path / "stacks" / ".half.tmp").write_text("{")
    (tmp_path / "stacks" / "trailing .json").write_text("{}")
    listing = presets.list()
    assert listing.values == {"good": INK}
    bad, unnameable = listing.problems
    assert bad.path.name == "bad.json"
    assert problem in str(bad)
    assert "cannot name a stack" in str(unnameable)
    with pytest.raises(JsonFileError, match=r"bad\.json"):
        presets.load("bad")
    presets.delete("bad")
    assert len(presets.list().problems) == 1


WRITER = """
import sys
from vivace.lora.rows import LoraRow
from vivace.toolkit.stack_presets import StackPresets
presets, number = StackPresets(sys.argv[1]), int(sys.argv[2])
for turn in range(40):
    presets.save("shared", [LoraRow(f"writer {number}", float(turn))] * 200)
    presets.save(f"own {number}", [LoraRow("x", float(turn))])
"""


def test_several_writers_leave_whole_stacks(presets: StackPresets, tmp_path: Path) -> None:
    folder = tmp_path / "stacks"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(number)])
        for number in range(3)
    ]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        listing = presets.list()
        assert listing.problems == ()
        if rows := listing.values.get("shared"):
            seen += 1
            assert len(rows) == 200
            assert len(set(rows)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen > 0
    assert set(presets.list().values) == {"shared", "own 0", "own 1", "own 2"}
    assert len(list(folder.iterdir())) == 4


def bundle(**stacks: Any) -> dict[str, Any]:
    rows = {name: [row.as_dict() for row in stack] for name, stack in stacks.items()}
    return {BUNDLE_FIELD: rows}


def test_stacks_come_from_another_machine_in_one_file(presets: StackPresets) -> None:
    presets.save("oil", INK)
    both = bundle(ink=INK, oil=OIL)
    assert presets.import_bundle(both) == ("ink",)
    assert presets.load("oil") == INK
    assert presets.import_bundle(both, overwrite=True) == ("ink", "oil")
    assert presets.list().values == {"ink": INK, "oil": OIL}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "not a file of exported stacks"),
        ({}, "not a file of exported stacks"),
        ({BUNDLE_FIELD: {"a": [], "b": [{"lora": 5}]}}, r"the stack 'b' .*rows\[0\]\.lora"),
        ({BUNDLE_FIELD: {"a": [], "../b": []}}, "cannot name a stack"),
        ({BUNDLE_FIELD: {"a": [], "A": []}}, "differs from 'a' only in case"),
        ({BUNDLE_FIELD: {"\u00e9": [], "e\u0301": []}}, "the stack '\u00e9' twice"),
        ({BUNDLE_FIELD: {"a": [], "MINE": []}}, "differs from 'mine' only in case"),
    ],
)
def test_a_bad_export_imports_nothing(presets: StackPresets, content: Any, problem: str) -> None:
    presets.save("mine", OIL)
    with pytest.raises(StackPresetError, match=f"(?i){problem}"):
        presets.import_bundle(content, overwrite=True)
    assert presets.list().values == {"mine": OIL}


def test_folders_below_hold_no_stacks(presets: StackPresets, tmp_path: Path) -> None:
    presets.save("ink", INK)
    (file,) = tmp_path.rglob("ink.json")
    (file.parent / "inner").mkdir(exist_ok=True)
    (file.parent / "inner" / "other.json").write_bytes(file.read_bytes())
    assert presets.list().values == {"ink": INK}
    assert not presets.list().problems
