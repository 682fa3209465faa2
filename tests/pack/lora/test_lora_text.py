"""LoRAs in a prompt: tags to rows."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vivace.lora.prompt_tags import parse_text
from vivace.lora.rows import LoraRow, RowError

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(
    st.characters(exclude_characters="<>:\\", exclude_categories=("Cs",)), min_size=1
).filter(lambda name: name == name.strip())
ROWS = st.lists(st.builds(LoraRow, NAMES, FLOATS, st.booleans(), FLOATS | st.none()))


def as_tags(rows: list[LoraRow]) -> str:
    """The rows that are on, as a person writes them."""
    return " ".join(
        f"<lora:{row.lora}:{row.strength!r}>"
        if row.strength_clip is None
        else f"<lora:{row.lora}:{row.strength!r}:{row.strength_clip!r}>"
        for row in rows
        if row.on
    )


@given(ROWS)
@example([LoraRow("a", 1e-7, strength_clip=-0.0), LoraRow("styles/ink.safetensors", 1e22)])
def test_rows_survive_being_text(rows: list[LoraRow]) -> None:
    parsed, rest = parse_text(as_tags(rows))
    assert parsed == tuple(row for row in rows if row.on)
    assert rest == ""


@given(ROWS, st.lists(st.text(string.ascii_letters + " ,\n.()"), min_size=1))
def test_no_word_of_the_text_is_lost(rows: list[LoraRow], pieces: list[str]) -> None:
    tags = [as_tags([LoraRow(r.lora, r.strength)]) for r in rows]
    texts = [*pieces, *[""] * max(0, len(tags) - len(pieces))]
    text = "".join(piece + tag for piece, tag in zip(texts, tags, strict=False))
    text += "".join(texts[len(tags) :])
    parsed, rest = parse_text(text)
    assert [row.lora for row in parsed] == [row.lora for row in rows]
    letters = re.sub(r"[ \t,]", "", re.sub("<lora:[^>]*>", "", text))
    assert re.sub(r"[ \t,]", "", rest) == letters


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        rows, rest = parse_text(text)
    except RowError:
        assert "<lora:" in text.lower()
        return
    assert rows or rest == text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a cat, <lora:x:1>, in the rain", "a cat, in the rain"),
        ("a cat <lora:x:1>, in the rain", "a cat, in the rain"),
        ("a cat <lora:x:1> in the rain", "a cat in the rain"),
        ("<lora:x:1>, a cat", "a cat"),
        ("a cat, <lora:x:1>", "a cat"),
        ("a cat, <lora:x:1>, <lora:y:1> in the rain", "a cat, in the rain"),
        ("a <lora:x:1><lora:y:1>cat", "a cat"),
        ("un<lora:x:1>broken", "unbroken"),
        ("a cat, <lora:x:1>\n\n  in the rain ", "a cat\n\n  in the rain "),
        (" a cat, ", " a cat, "),
        ("<lora:x:1>", ""),
    ],
)
def test_the_rest_reads_as_if_there_had_been_no_tag(text: str, rest: str) -> None:
    assert parse_text(text)[1] == rest


def test_strengths_are_those_of_model_and_text_encoder() -> None:
    rows, _ = parse_text("<lora:a> <LoRA:styles\\b:.5> < lora> <lora: c d : -1 : 2e-1 >")
    assert rows == (
        LoraRow("a"),
        LoraRow("styles/b", 0.5),
        LoraRow("c d", -1.0, strength_clip=0.2),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<lora:ink:strong>", "'<lora:ink:strong>' in the text has a strength that is no number"),
        ("<lora:ink:nan>", "strength that is no number"),
        ("<lora:ink:1e999>", "strength that is no number"),
        ("<lora:ink:0.5:>", "strength that is no number"),
        ("<lora::1>", "'<lora::1>' in the text is none of a LoRA"),
        ("<lora:ink:1:1:1>", "is none of a LoRA"),
        ("a <lora:ink:1", "'<lora:ink:1' in the text has no closing"),
        ("<lora:a <lora:b:1>", "'<lora:a ' in the text has no closing"),
        ("<<lora:a>lora:b>", "'<lora:b' in the text has no closing"),
    ],
)
def test_a_wrong_tag_is_named(text: str, words: str) -> None:
    with pytest.raises(RowError) as refusal:
        parse_text(text)
    assert words in str(refusal.value)
    assert "<lora:style:0.8>" in str(refusal.value)


def test_time_is_linear_in_the_text() -> None:
    # Quadratic, either would take minutes.
    for text in (" ," * 500_000, "<lora" * 400_000, "a, <lora:x:1>," * 50_000):
        rows, rest = parse_text(text)
        assert len(rest) <= len(text)
    assert len(rows) == 50_000
