"""Other names for prompts, and a history that is begun anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vivace.toolkit.json_files import JsonFileError
from vivace.toolkit.prompt_library import (
    NoSuchPromptError,
    PromptConflictError,
    PromptLibrary,
    Run,
    SavedPrompt,
)
from vivace.toolkit.prompt_names import PromptNameError

CAT, DOG = SavedPrompt("a cat", "blurry", ("animal",)), SavedPrompt("a dog")


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    made = PromptLibrary(tmp_path / "library")
    made.save("cat", CAT)
    made.save("dog", DOG)
    return made


@pytest.mark.parametrize("name", ["animals/cat", "Cat", "cat 2"])
def test_a_prompt_gets_another_name(library: PromptLibrary, name: str) -> None:
    library.rename("cat", name)
    assert library.list().values == {name: CAT, "dog": DOG}


@pytest.mark.parametrize(
    ("name", "new_name", "error"),
    [
        ("cow", "x", NoSuchPromptError),
        ("cat", "dog", PromptConflictError),
        ("cat", "DOG", PromptConflictError),
        ("cat", "../cat", PromptNameError),
        ("../cat", "x", PromptNameError),
    ],
)
def test_what_cannot_be_renamed_stays(
    library: PromptLibrary, name: str, new_name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        library.rename(name, new_name)
    assert library.list().values == {"cat": CAT, "dog": DOG}


def test_a_damaged_prompt_stays_where_it_is(library: PromptLibrary, tmp_path: Path) -> None:
    path = tmp_path / "library" / "bad.json"
    path.write_text("{")
    with pytest.raises(JsonFileError):
        library.rename("bad", "good")
    assert path.read_text() == "{"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(library: PromptLibrary, tmp_path: Path) -> None:
    (tmp_path / "library" / "locked").mkdir(mode=0o500)
    with pytest.raises(JsonFileError, match="cannot be written"):
        library.rename("cat", "locked/cat")
    assert library.load("cat") == CAT


def test_a_history_is_forgotten_even_if_damaged(library: PromptLibrary, tmp_path: Path) -> None:
    library.record(Run("cat", "a cat", "", 1))
    assert len(library.history()) == 1
    library.forget_history()
    assert library.history() == []
    (tmp_path / "library" / ".history.json").write_text("{")
    library.forget_history()
    assert library.history() == []
