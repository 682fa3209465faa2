"""Which file of a list a name means."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.lora.files.file_names import LoraNameError, resolve

LISTED = [
    "ink.safetensors",
    "people/anna v1.5.safetensors",
    "styles/ink.safetensors",
    "styles/Pastel.safetensors",
    "styles/deep/oil.safetensors",
    "old/water.pt",
    "old/water.safetensors",
    "a/twin.safetensors",
    "b/twin.safetensors",
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("styles/ink.safetensors", "styles/ink.safetensors"),
        ("styles/ink", "styles/ink.safetensors"),
        ("ink", "ink.safetensors"),
        ("oil", "styles/deep/oil.safetensors"),
        ("oil.safetensors", "styles/deep/oil.safetensors"),
        ("deep/oil", "styles/deep/oil.safetensors"),
        ("anna v1.5", "people/anna v1.5.safetensors"),
        ("pastel", "styles/Pastel.safetensors"),
        ("STYLES/PASTEL.SAFETENSORS", "styles/Pastel.safetensors"),
        ("water.pt", "old/water.pt"),
        ("b/twin", "b/twin.safetensors"),
    ],
)
def test_folder_extension_and_case_may_be_left_out(name: str, meant: str) -> None:
    assert resolve(name, LISTED) == meant


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("twin", ["may be any of", "a/twin.safetensors or b/twin.safetensors"]),
        ("old/water", ["may be any of", "old/water.pt or old/water.safetensors"]),
        (
            "other/oil",
            ["not in ComfyUI's loras folders", "Did you mean styles/deep/oil.safetensors"],
        ),
        ("oil.pt", ["not in", "styles/deep/oil.safetensors"]),
        ("inc.safetensors", ["not in", "ink.safetensors"]),
        ("eep/oil", ["not in"]),
        ("../../etc/passwd", ["not in"]),
        ("/ink.safetensors", ["not in"]),
        ("", ["not in"]),
    ],
)
def test_a_name_that_means_no_one_file_is_refused(name: str, words: list[str]) -> None:
    with pytest.raises(LoraNameError) as refusal:
        resolve(name, LISTED)
    for word in words:
        assert word in str(refusal.value)


def test_many_candidates_are_counted() -> None:
    with pytest.raises(LoraNameError, match=r"f0/x\.pt or .* or 15 more"):
        resolve("x", [f"f{index}/x.pt" for index in range(20)])


def test_a_name_is_compared_closely_with_few_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = difflib.get_close_matches

    def close(word: str, among: Collection[str], **options: Any) -> list[str]:
        compared.extend(among)
        return real(word, among, **options)

    monkeypatch.setattr(difflib, "get_close_matches", close)
    listed = [f"set {i % 60}/portrait {i}.safetensors" for i in range(5000)]
    listed.insert(2500, "inks/Water Colour v2.safetensors")
    with pytest.raises(LoraNameError, match=r"Did you mean inks/Water Colour v2\.safe"):
        resolve("watercolor_v2.safetensors", listed)
    assert len(compared) <= 50


NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@given(st.lists(NAMES, unique=True), NAMES)
def test_a_listed_name_is_itself_and_any_answer_is_listed(listed: list[str], name: str) -> None:
    assert all(resolve(other, listed) == other for other in listed)
    with contextlib.suppress(LoraNameError):
        assert resolve(name, listed) in listed
