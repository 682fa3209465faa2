"""Prompts carried from one library to another in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vivace.toolkit.json_files import JsonFileError, read_object, write_object
from vivace.toolkit.prompt_bundle import Existing, Imported, bundle_of, import_bundle
from vivace.toolkit.prompt_library import (
    PromptConflictError,
    PromptLibrary,
    PromptLibraryError,
    SavedPrompt,
)

CAT = SavedPrompt("a {red|black} cat", "blurry", ("animal", "Test"), "for tests")
DOG = SavedPrompt("ein Hund, grün 🐕")


def export_prompts(library: PromptLibrary, names: list[str], path: Path) -> None:
    write_object(path, bundle_of(library, names))


def import_prompts(library: PromptLibrary, path: Path, existing: Existing = "keep") -> Imported:
    return import_bundle(library, read_object(path) or {}, path, existing)


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
    assert library.list().values == {"cat": CAT, "cat 2": DOG, "cat 3": CAT}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
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
    library: PromptLibrary, tmp_path: Path, content: str, problem: str
) -> None:
    bundle = tmp_path / "bundle.json"
    bundle.write_text(content)
    with pytest.raises(JsonFileError, match=problem):
        import_prompts(library, bundle)
    assert library.list().values == {}


def test_a_bundle_whose_names_differ_in_case_is_refused_whole(
    library: PromptLibrary, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.json"
    names = ("a", "in/b", "In/c")
    bundle.write_text(json.dumps({"vivace_prompts": {name: {"positive": ""} for name in names}}))
    with pytest.raises(PromptConflictError, match="'In' differs from 'in' only in case"):
        import_prompts(library, bundle)
    assert library.list().values == {}
