"""LoRA names and files, by ComfyUI's own list of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def roots(comfyui: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two loras folders, which ComfyUI looks into in this order, and nothing else."""
    import folder_paths

    found = [tmp_path / "first", tmp_path / "second"]
    for root in found:
        root.mkdir()
    entry = ([str(root) for root in found], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return found


@pytest.fixture
def lora_files(roots: list[Path]) -> Any:
    from vivace.nodes import lora_files

    return lora_files


def make(root: Path, *names: str, modified: int = 1) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (modified, modified))


def test_the_first_folder_that_has_a_file_is_the_one(lora_files: Any, roots: list[Path]) -> None:
    make(roots[0], "a.safetensors", "s/b.safetensors", modified=10)
    make(roots[1], "a.safetensors", "a.png", "s/c.safetensors", "s/c.preview.JPG", modified=20)
    assert lora_files.lora_entries() == [
        {"name": "a.safetensors", "preview": False, "modified": 10.0},
        {"name": "s/b.safetensors", "preview": False, "modified": 10.0},
        {"name": "s/c.safetensors", "preview": True, "modified": 20.0},
    ]
    assert lora_files.lora_path("a") == roots[0] / "a.safetensors"


def test_each_folder_is_read_once(
    lora_files: Any, roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in range(3):
        make(roots[0], *(f"f{folder}/{index}.safetensors" for index in range(50)))
    listed = lora_files.listed_loras()
    scans: Counter[str] = Counter()
    real = os.scandir

    def scandir(path: Any) -> Any:
        scans[os.fspath(path)] += 1
        return real(path)

    def stat(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was looked for by name")

    with monkeypatch.context() as patch:
        patch.setattr(lora_files.os, "scandir", scandir)
        patch.setattr(lora_files, "listed_loras", lambda: listed)
        patch.setattr(Path, "stat", stat)
        entries = lora_files.lora_entries()
    assert len(entries) == 150
    assert scans == {str(root / f"f{folder}"): 1 for root in roots for folder in range(3)}


def test_the_table_of_names_is_made_anew_only_when_they_change(
    lora_files: Any, roots: list[Path]
) -> None:
    make(roots[0], "a.safetensors")
    before = lora_files.listed_loras()
    assert lora_files.missing_loras(["a"]) is None
    assert lora_files.listed_loras() is before
    make(roots[0], "s/b.safetensors")
    assert list(lora_files.listed_loras()) == ["a.safetensors", "s/b.safetensors"]
    (roots[0] / "s" / "b.safetensors").unlink()
    assert dict(lora_files.listed_loras()) == dict(before)


def test_what_has_gone_since_it_was_listed_is_left_out(lora_files: Any, roots: list[Path]) -> None:
    make(roots[0], "a.safetensors", "s/b.safetensors")
    listed = lora_files.listed_loras()
    (roots[0] / "s" / "b.safetensors").unlink()
    (roots[0] / "s").rmdir()
    lora_files.listed_loras, real = lambda: listed, lora_files.listed_loras
    try:
        assert [entry["name"] for entry in lora_files.lora_entries()] == ["a.safetensors"]
        with pytest.raises(ValueError, match=r"s/b' has gone\. Put the file there"):
            lora_files.lora_path("s/b")
    finally:
        lora_files.listed_loras = real


def test_a_link_that_leads_nowhere_hides_no_other_file(lora_files: Any, roots: list[Path]) -> None:
    make(roots[0], "a.safetensors", "z.safetensors")
    try:
        (roots[0] / "m.safetensors").symlink_to(roots[0] / "nothing")
    except OSError:
        pytest.skip("links need a privilege on Windows")
    names = [entry["name"] for entry in lora_files.lora_entries()]
    assert names == ["a.safetensors", "z.safetensors"]


def test_the_identity_changes_with_the_file_and_what_lies_beside_it(
    lora_files: Any, roots: list[Path]
) -> None:
    make(roots[0], "a.safetensors")
    seen = [lora_files.file_identity("a")]
    assert lora_files.file_identity("a") == seen[0]
    make(roots[0], "a.civitai.info")
    seen.append(lora_files.file_identity("a"))
    make(roots[0], "a.civitai.info", modified=2)
    seen.append(lora_files.file_identity("a"))
    make(roots[0], "a.safetensors", modified=2)
    seen.append(lora_files.file_identity("a"))
    assert len(set(seen)) == 4


def test_every_wrong_name_is_in_the_message(lora_files: Any, roots: list[Path]) -> None:
    make(roots[0], "x/twin.safetensors", "y/twin.safetensors", "ink.safetensors")
    message = lora_files.missing_loras(["ink", "twin", "gone", "gone", 7])
    assert message.count("'gone' is not in ComfyUI's loras folders") == 1
    assert "'twin' may be any of x/twin.safetensors or y/twin.safetensors" in message
    assert "'7' is not in" in message
    assert "'ink'" not in message
    assert lora_files.missing_loras(["ink", "x\\twin"]) is None
