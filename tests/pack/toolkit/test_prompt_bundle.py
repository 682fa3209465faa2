"""Prompts carried from one library to another in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vivace.toolkit.json_files import JsonFileError
from vivace.toolkit.prompt_bundle import Imported, export_prompts, import_prompts
from vivace.toolkit.prompt_library import (
    Prompt,
    PromptConflictError,
    PromptLibrary,
    PromptLibraryError,
)

CAT = Prompt("a {red|black} cat", "blurry", ("animal", "Test"), "for tests")
DOG = Prompt("ein Hund, grün 🐕")


def test_export_and_import(library: PromptLibrary, tmp_path: Path) -> None:
    library.save("a/cat", CAT)
    library.save("dog", DOG)
    bundle = tmp_path / "out" / "bundle.json"
    export_prompts(library, ["a/cat", "dog"], bundle)
    other = PromptLibrary(tmp_path / "other")
    assert import_prompts(other, bundle) == Imported(("a/cat", "dog"), ())
    assert other.list() == library.list()
    assert import_prompts(other, bundle, "rename") == Imported((), ("a/cat", "dog"))
    with pytest.raises(PromptLibraryError, match="no prompt 'bird'"):
        export_prompts(library, ["bird"], bundle)


def test_import_onto_others_of_the_same_name(library: PromptLibrary, tmp_path: Path) -> None:
    library.save("cat", CAT)
    bundle = tmp_path / "bundle.json"
    export_prompts(library, ["cat"], bundle)
    library.save("cat", DOG)
    assert import_prompts(library, bundle, "keep") == Imported((), ("cat",))
    assert library.load("cat") == DOG
    assert import_prompts(library, bundle, "rename") == Imported(("cat 2",), ())
    library.save("cat 2", DOG)
    assert import_prompts(library, bundle, "rename") == Imported(("cat 3",), ())
    assert import_prompts(library, bundle, "replace") == Imported(("cat",), ())
    assert library.list().prompts == {"cat": CAT, "cat 2": DOG, "cat 3": CAT}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("{", "damaged"),
        ("{}", "not a file of exported prompts"),
        ('{"vivace_prompts": []}', "not a file of exported prompts"),
        ('{"vivace_prompts": {"a": {"positive": "x"}, "b": 1}}', "needs a text 'positive'"),
        ('{"vivace_prompts": {"a": {"positive": "x"}, "../b": {}}}', "cannot name a prompt"),
        (
            '{"vivace_prompts": {"\\u00e9": {"positive": "x"}, "e\\u0301": {"positive": "y"}}}',
            "the prompt '\u00e9' twice. Rename one",
        ),
    ],
)
def test_bad_bundles_are_refused_whole(
    library: PromptLibrary, tmp_path: Path, content: str | None, problem: str
) -> None:
    bundle = tmp_path / "bundle.json"
    if content is not None:
        bundle.write_text(content)
    with pytest.raises(JsonFileError, match=problem):
        import_prompts(library, bundle)
    assert library.list().prompts == {}


def test_a_bundle_whose_names_differ_in_case_is_refused_whole(
    library: PromptLibrary, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.json"
    names = ("a", "in/b", "In/c")
    bundle.write_text(json.dumps({"vivace_prompts": {name: {"positive": ""} for name in names}}))
    with pytest.raises(PromptConflictError, match="'In' differs from 'in' only in case"):
        import_prompts(library, bundle)
    assert library.list().prompts == {}
