"""The prompt library: files, search, history, damage, several writers at once."""

from __future__ import annotations

import json
import pickle
import string
import subprocess
import sys
from pathlib import Path

import pytest
from vivace.toolkit import json_files, prompt_history
from vivace.toolkit.json_files import JsonFileError
from vivace.toolkit.prompt_library import (
    PromptLibrary,
    PromptLibraryError,
    Run,
    SavedPrompt,
    expand_prompt,
)

CAT = SavedPrompt("a {red|black} cat", "blurry", ("animal", "Test"), "for tests")
DOG = SavedPrompt("ein Hund, grün 🐕")


def test_prompts_are_readable_files(library: PromptLibrary, tmp_path: Path) -> None:
    library.save("animals/cat", CAT)
    library.save("hund", DOG)
    assert library.load("animals/cat") == CAT
    assert library.load("hund") == DOG
    text = (tmp_path / "library" / "animals" / "cat.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "positive": "a {red|black} cat",
        "negative": "blurry",
        "tags": ["animal", "Test"],
        "note": "for tests",
    }
    assert "grün 🐕" in (tmp_path / "library" / "hund.json").read_text(encoding="utf-8")


def test_reading_makes_no_folder(library: PromptLibrary, tmp_path: Path) -> None:
    assert library.list().values == {}
    assert library.history() == []
    with pytest.raises(PromptLibraryError, match="there is no prompt 'cat'"):
        library.load("cat")
    assert list(tmp_path.iterdir()) == []


def test_a_file_written_by_hand_is_enough(library: PromptLibrary, tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "a.b.json").write_text('{"positive": "x", "new field": 1}')
    (tmp_path / "library" / "notes.txt").write_text("not a prompt")
    assert library.list().values == {"a.b": SavedPrompt("x")}


def test_saving_again_replaces_or_refuses(library: PromptLibrary) -> None:
    library.save("cat", CAT)
    with pytest.raises(PromptLibraryError, match="'cat' already"):
        library.save("cat", DOG, overwrite=False)
    assert library.load("cat") == CAT
    library.save("cat", DOG)
    assert library.load("cat") == DOG
    library.delete("cat")
    assert library.list().values == {}
    with pytest.raises(PromptLibraryError, match="there is no prompt"):
        library.delete("cat")


def test_both_texts_are_expanded() -> None:
    prompt = SavedPrompt("{a|b} {x}", "{a|b} no {x}")
    positive, negative = expand_prompt(prompt, {"x": "1"}, seed=3)
    assert positive in ("a 1", "b 1")
    assert negative == positive.replace(" ", " no ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"positive": "half',
        b"[]",
        b"{}",
        b'{"positive": 1}',
        b'{"positive": "x", "tags": "a"}',
        b'{"positive": "x", "tags": [1]}',
        b'{"positive": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_damaged_files_are_reported_and_kept(
    library: PromptLibrary, tmp_path: Path, content: bytes
) -> None:
    library.save("fine", CAT)
    path = tmp_path / "library" / "broken.json"
    path.write_bytes(content)
    for action in (lambda: library.load("broken"), lambda: library.save("broken", DOG)):
        with pytest.raises(JsonFileError, match=r"broken\.json: damaged.*Repair it") as caught:
            action()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    listing = library.list()
    assert listing.values == {"fine": CAT}
    assert [error.path for error in listing.problems] == [path]
    assert path.read_bytes() == content
    library.delete("broken")
    library.save("broken", DOG)


def test_a_failed_write_changes_nothing(
    library: PromptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.save("cat", CAT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json_files.os, "fsync", full)
    with pytest.raises(JsonFileError, match=r"cannot be written \(No space left"):
        library.save("cat", DOG)
    assert library.load("cat") == CAT
    assert {path.name for path in (tmp_path / "library").iterdir()} == {".lock", "cat.json"}


def test_a_file_in_the_way(library: PromptLibrary, tmp_path: Path) -> None:
    (tmp_path / "library").write_text("")
    with pytest.raises(JsonFileError, match="cannot be written"):
        library.save("cat", CAT)


def test_too_much_text_is_refused(library: PromptLibrary) -> None:
    with pytest.raises(JsonFileError, match="would be larger than 16 MiB"):
        library.save("long", SavedPrompt("x" * (16 * 2**20)))
    assert library.list().values == {}


def test_half_characters_do_not_make_a_damaged_file(library: PromptLibrary) -> None:
    library.save("odd", SavedPrompt("a\ud800b"))
    assert library.load("odd") == SavedPrompt("a?b")


def test_history_is_bounded_and_in_order(library: PromptLibrary) -> None:
    for number in range(prompt_history.HISTORY_LENGTH + 5):
        library.record(Run("cat", f"text {number}", "", number, {"x": "1"}))
    runs = library.history()
    assert [run.seed for run in runs] == list(range(5, prompt_history.HISTORY_LENGTH + 5))
    assert runs[-1].variables == {"x": "1"}
    assert runs[-1].when.endswith("+00:00")
    assert library.list().values == {}


def test_history_is_bounded_in_size(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_history, "HISTORY_CHARACTERS", 1000)
    for number in range(20):
        library.record(Run("", "x" * 300, "", number))
    assert [run.seed for run in library.history()][-1] == 19
    assert 1 <= len(library.history()) <= 2
    library.record(Run("", "x" * 3000, "", 20))
    assert [run.seed for run in library.history()] == [20]


@pytest.mark.parametrize("content", ["", "{}", '{"runs": [1]}', '{"runs": [{"name": 1}]}'])
def test_a_damaged_history_is_reported_and_kept(
    library: PromptLibrary, tmp_path: Path, content: str
) -> None:
    library.save("cat", CAT)
    path = tmp_path / "library" / ".history.json"
    path.write_text(content)
    with pytest.raises(JsonFileError, match="damaged"):
        library.record(Run("cat", "x", "", 0))
    with pytest.raises(JsonFileError, match="damaged"):
        library.history()
    assert path.read_text() == content


WRITER = """
import string, sys
from vivace.toolkit.prompt_library import SavedPrompt, PromptLibrary, Run
library, process = PromptLibrary(sys.argv[1]), int(sys.argv[2])
for number in range(25):
    library.save("shared", SavedPrompt(string.ascii_letters * 200, f"{process}/{number}"))
    library.save(f"own/{process}-{number}", SavedPrompt("x"))
    library.record(Run("shared", "x", "", process * 25 + number))
"""


def test_two_processes_write_at_once(library: PromptLibrary, tmp_path: Path) -> None:
    """Nothing is lost, and no reader ever sees half a file."""
    root = tmp_path / "library"
    library.save("shared", SavedPrompt(string.ascii_letters * 200))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, root, str(process)]) for process in range(2)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        assert library.load("shared").positive == string.ascii_letters * 200
        library.history()
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 0
    listing = library.list()
    assert listing.problems == ()
    assert len(listing.values) == 1 + 2 * 25
    assert sorted(run.seed for run in library.history()) == list(range(50))
    assert not list(root.rglob("*.tmp"))
