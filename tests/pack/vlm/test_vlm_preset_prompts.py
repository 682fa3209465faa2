"""Preset prompts, and joining them with the user's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.vlm.preset_prompts import NEEDS_OWN_PROMPT, NONE, PRESETS, instruction


def test_names_in_order() -> None:
    assert list(PRESETS) == [
        "None (my prompt only)",
        "Detailed description",
        "Short caption",
        "Tags",
        "Z-Image prompt",
        "Qwen-Image edit instruction",
        "Read the text (OCR)",
        "Compare the images",
        "Describe the video",
        "Improve my prompt",
    ]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != NONE])
def test_presets_are_whole_and_distinct(name: str) -> None:
    text = PRESETS[name]
    assert text == text.strip()
    assert text.endswith((".", ":"))
    assert "  " not in text
    assert text.count('"') % 2 == 0
    assert list(PRESETS.values()).count(text) == 1


def test_only_the_preset_without_text_is_empty() -> None:
    assert [name for name, text in PRESETS.items() if not text] == [NONE]
    assert set(PRESETS) >= NEEDS_OWN_PROMPT


@pytest.mark.parametrize(
    "name",
    [
        "Short caption",
        "Tags",
        "Z-Image prompt",
        "Qwen-Image edit instruction",
        "Read the text (OCR)",
        "Improve my prompt",
    ],
)
def test_what_is_used_as_it_is_asks_for_nothing_else(name: str) -> None:
    assert "Answer with the" in PRESETS[name]
    assert " only" in PRESETS[name]


@given(st.sampled_from(list(PRESETS)), st.text())
def test_joined(name: str, own: str) -> None:
    text = PRESETS[name]
    asked = own.strip()
    if not asked and (not text or name in NEEDS_OWN_PROMPT):
        with pytest.raises(ValueError, match="Write"):
            instruction(name, own)
        return
    expected = {
        (True, True): f"{text}\n\n{asked}",
        (True, False): text,
        (False, True): asked,
    }
    assert instruction(name, own) == expected[bool(text), bool(asked)]


def test_the_own_prompt_follows_after_a_blank_line() -> None:
    found = instruction("Short caption", "  In German,\nplease. \n")
    assert found == PRESETS["Short caption"] + "\n\nIn German,\nplease."


def test_nothing_asked() -> None:
    with pytest.raises(ValueError, match=r"prompt is empty\. Write one, or choose a preset"):
        instruction(NONE, " \n")
    with pytest.raises(ValueError, match="'Improve my prompt' needs a prompt of yours"):
        instruction("Improve my prompt", "")


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"no preset prompt 'Poem'\. .*'Tags', 'Z-Image prompt'"):
        instruction("Poem", "of the sea")
