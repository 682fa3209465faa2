"""Rows as they come in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.lora.rows import LoraRow, RowError, parse_rows

NAMES = st.text(st.characters(exclude_characters="\\", exclude_categories=("Cs",)), min_size=1)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"lora": NAMES.filter(lambda name: name != "None")},
        optional={
            "on": st.booleans(),
            "strength": st.floats(allow_nan=False, allow_infinity=False),
            "note": st.text(),
        },
    )
)


@given(ROWS)
def test_every_spelling_of_the_same_rows_is_the_same(rows: list[dict[str, Any]]) -> None:
    expected = tuple(
        LoraRow(r["lora"], float(r.get("strength", 1.0)), r.get("on", True)) for r in rows
    )
    assert parse_rows(rows) == expected
    assert parse_rows(json.dumps(rows)) == expected
    assert parse_rows({"__value__": rows}) == expected
    assert parse_rows(tuple(rows)) == expected


def test_windows_names_become_portable() -> None:
    assert parse_rows([{"lora": "styles\\ink.safetensors"}])[0].lora == "styles/ink.safetensors"


@pytest.mark.parametrize("unfilled", ["", "None", None])
def test_rows_that_are_not_filled_in_are_left_out(unfilled: str | None) -> None:
    assert parse_rows([{"lora": unfilled}, {"lora": "a"}]) == (LoraRow("a"),)
    assert parse_rows("") == ()


def test_only_rows_that_are_on_and_not_zero_are_active() -> None:
    rows = [{"lora": "a", "on": False}, {"lora": "b", "strength": 0}, {"lora": "c", "strength": -1}]
    assert [row.lora for row in parse_rows(rows) if row.active] == ["c"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (5, "rows must be a list"),
        ({"lora": "a"}, "rows must be a list"),
        ("[{", "not valid JSON"),
        (["a.safetensors"], r"rows\[0\] must be an object"),
        ([{"lora": "a"}, {"lora": 7}], r"rows\[1\]\.lora"),
        ([{"lora": "a", "on": "yes"}], r"rows\[0\]\.on"),
        ([{"lora": "a", "strength": "strong"}], r"rows\[0\]\.strength"),
        ([{"lora": "a", "strength": True}], r"rows\[0\]\.strength"),
        ([{"lora": "a", "strength": math.nan}], r"rows\[0\]\.strength must be finite"),
        ([{"lora": "a", "strength": math.inf}], r"rows\[0\]\.strength must be finite"),
    ],
)
def test_a_wrong_row_is_named(value: Any, place: str) -> None:
    with pytest.raises(RowError, match=place):
        parse_rows(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_any_json_is_parsed_or_refused_with_a_row_error(value: Any) -> None:
    try:
        rows = parse_rows(value)
    except RowError:
        return
    assert all(math.isfinite(row.strength) and isinstance(row.lora, str) for row in rows)
