"""Names of prompts, and the files that they must not lead to."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.toolkit.json_files import JsonFileError
from vivace.toolkit.prompt_bundle import import_bundle
from vivace.toolkit.prompt_library import (
    PromptLibrary,
    PromptLibraryError,
    SavedPrompt,
)
from vivace.toolkit.prompt_names import PromptNameError, check_name

CAT = SavedPrompt("a {red|black} cat", "blurry", ("animal", "Test"), "for tests")
DOG = SavedPrompt("ein Hund, grün 🐕")


def test_names_that_differ_only_in_case_are_refused(library: PromptLibrary) -> None:
    library.save("Animals/Cat", CAT)
    for name in ("Animals/cat", "animals/Cat", "animals/dog"):
        with pytest.raises(PromptLibraryError, match="only in case"):
            library.save(name, DOG)
    library.save("Animals/Cat", DOG)
    assert list(library.list().values) == ["Animals/Cat"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "a/../../x",
        "/etc/x",
        "a//b",
        "a/",
        "C:/x",
        "a\\b",
        "\\\\server\\x",
        ".hidden",
        "a/.history",
        "a.json/b",
        "con",
        "CON.txt",
        "a/Nul ",
        "com1",
        "lpt³.x",
        "COM1 .x",
        "x.",
        " x",
        "a /b",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "a\u200bb",
        "a\ufeff",
        "\ud800",
        "a*",
        'a"b',
        "x" * 121,
        "ü" * 61,
        "/".join("a" * 9),
        "/".join(["x" * 60] * 4),
    ],
)
def test_tricky_names_are_refused_everywhere(
    library: PromptLibrary, tmp_path: Path, name: str
) -> None:
    bundle = {"vivace_prompts": {"fine": {"positive": "x"}, name: {}}}
    for action in (
        lambda: library.save(name, CAT),
        lambda: library.load(name),
        lambda: library.delete(name),
    ):
        with pytest.raises(PromptNameError):
            action()
    with pytest.raises(JsonFileError, match=r"bundle\.json"):
        import_bundle(library, bundle, Path("bundle.json"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "a b/c d",
        "grün",
        "猫/黒",
        "\U0001f469\u200d\U0001f680",  # an emoji of two, joined
        "\u0645\u06cc\u200c\u0634\u0648\u062f",  # a Persian word with a joiner
        "console",
        "com",
        "a.b",
    ],
)
def test_ordinary_names_are_taken(library: PromptLibrary, name: str) -> None:
    library.save(name, CAT)
    assert library.list().values == {unicodedata.normalize("NFC", name): CAT}


def test_one_name_in_two_unicode_forms_is_one_prompt(library: PromptLibrary) -> None:
    library.save("gru\u0308n", CAT)
    assert library.load("gr\u00fcn") == CAT
    library.save("gr\u00fcn", DOG)
    assert list(library.list().values) == ["gr\u00fcn"]


@given(st.text(st.sampled_from("./\\:~ \0aCON1é\u202e"), max_size=12))
def test_no_name_leads_out(name: str) -> None:
    checked = refusal = ""
    try:
        checked = check_name(name)
    except PromptNameError as error:
        refusal = str(error)
    if not checked:
        assert refusal
        assert refusal.isprintable()
        return
    parts = checked.split("/")
    assert all(part and not part.startswith(".") and part == part.strip() for part in parts)
    assert not set(checked) & set("\\:\0")
    assert os.path.normpath(checked) == checked


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_out_of_the_library_are_not_followed(library: PromptLibrary, tmp_path: Path) -> None:
    library.save("fine", CAT)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text('{"positive": "secret"}')
    root = tmp_path / "library"
    (root / "folder").symlink_to(outside, target_is_directory=True)
    (root / "file.json").symlink_to(outside / "secret.json")
    (root / "inner.json").symlink_to(root / "fine.json")
    for name in ("folder/secret", "folder/new", "file"):
        for action in (library.load, library.delete, lambda name: library.save(name, DOG)):
            with pytest.raises(JsonFileError, match="leads out of the library"):
                action(name)
    listing = library.list()
    assert listing.values == {"fine": CAT, "inner": CAT}
    assert [error.path.name for error in listing.problems] == ["file.json"]
    assert [path.name for path in outside.iterdir()] == ["secret.json"]


def test_a_library_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    PromptLibrary(tmp_path / "link").save("cat", CAT)
    assert PromptLibrary(tmp_path / "real").load("cat") == CAT
