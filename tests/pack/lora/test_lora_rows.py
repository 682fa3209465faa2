"""Rows as they come in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.lora.rows import LoraRow, RowError, parse_rows, parse_stack

NAMES = st.text(st.characters(exclude_characters="\\", exclude_categories=("Cs",)), min_size=1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"lora": NAMES.filter(lambda name: name != "None")},
        optional={
            "on": st.booleans(),
            "strength": FLOATS,
            "strength_clip": FLOATS | st.none(),
            "note": st.text(),
        },
    )
)


@given(ROWS)
def test_every_spelling_of_the_same_rows_is_the_same(rows: list[dict[str, Any]]) -> None:
    expected = tuple(
        LoraRow(r["lora"], r.get("strength", 1.0), r.get("on", True), r.get("strength_clip"))
        for r in rows
    )
    assert parse_rows(rows) == expected
    assert parse_rows(json.dumps(rows)) == expected
    assert parse_rows({"__value__": rows}) == expected
    assert parse_rows(tuple(rows)) == expected
    assert parse_rows([row.as_dict() for row in expected]) == expected
    for other in (power_lora_loader(rows), [lora_manager(row) for row in rows]):
        assert not rows or parse_rows(other) == expected


def power_lora_loader(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The inputs that rgthree's loader sends for these rows, whose numbers may have gaps."""
    names = {"strength_clip": "strengthTwo"}
    inputs: dict[str, Any] = {"PowerLoraLoaderHeaderWidget": {"type": "Header"}, "Add": ""}
    for index, row in enumerate(rows):
        inputs[f"lora_{3 * index + 1}"] = {names.get(key, key): row[key] for key in row}
    return inputs


def lora_manager(row: dict[str, Any]) -> dict[str, Any]:
    names = {"strength_clip": "clipStrength", "lora": "name", "on": "active"}
    return {**{names.get(key, key): row[key] for key in row}, "expanded": False, "locked": True}


def test_the_text_encoder_has_the_strength_of_the_model_unless_it_has_its_own() -> None:
    same, own = parse_rows([{"lora": "a", "strength": 0.5}, {"lora": "b", "strength_clip": 0}])
    assert (same.strength, same.clip) == (0.5, 0.5)
    assert (own.strength, own.clip) == (1.0, 0.0)
    assert same.as_dict() == {"on": True, "lora": "a", "strength": 0.5}
    assert own.as_dict() == {"on": True, "lora": "b", "strength": 1.0, "strength_clip": 0.0}


@pytest.mark.parametrize("kind", [list, tuple])
def test_stacks_of_other_packs_are_rows(kind: type) -> None:
    stack = [kind(["a\\b.safetensors", 0.5, 0.25]), kind(["None", 1, 1]), kind(["c", 2])]
    assert parse_stack(stack) == (
        LoraRow("a/b.safetensors", 0.5, strength_clip=0.25),
        LoraRow("c", 2.0),
    )
    assert parse_stack(None) == ()


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        (5, "lora_stack must be a list"),
        ([("a",)], r"lora_stack\[0\] must be"),
        ([("a", 1, 1), "b"], r"lora_stack\[1\] must be"),
        ([("a", "strong", 1)], r"lora_stack\[0\]\.strength must be a number"),
        ([("a", 1, "strong")], r"lora_stack\[0\]\.strength_clip must be a number"),
    ],
)
def test_a_wrong_stack_is_named(stack: Any, place: str) -> None:
    with pytest.raises(RowError, match=place):
        parse_stack(stack)


def test_windows_names_become_portable() -> None:
    assert parse_rows([{"lora": "styles\\ink.safetensors"}])[0].lora == "styles/ink.safetensors"


@pytest.mark.parametrize("unfilled", ["", "None", None])
def test_rows_that_are_not_filled_in_are_left_out(unfilled: str | None) -> None:
    assert parse_rows([{"lora": unfilled}, {"lora": "a"}]) == (LoraRow("a"),)
    assert parse_rows("") == ()


def test_only_rows_that_are_on_and_not_zero_are_active() -> None:
    rows = [
        {"lora": "a", "on": False},
        {"lora": "b", "strength": 0},
        {"lora": "c", "strength": -1},
        {"lora": "d", "strength": 0, "strength_clip": 1},
        {"lora": "e", "strength": 0, "strength_clip": 0},
    ]
    assert [row.lora for row in parse_rows(rows) if row.active] == ["c", "d"]


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
        ([{"lora": "a", "strength": 10**400}], r"rows\[0\]\.strength must be finite"),
        ([{"lora": "a", "strength_clip": "x"}], r"rows\[0\]\.strength_clip must be a number"),
        ([{"name": "a", "clipStrength": "x"}], r"rows\[0\]\.clipStrength must be a number"),
        ([{"name": "a", "active": 1}], r"rows\[0\]\.active must be true or false"),
        ([{"name": 7}], r"rows\[0\]\.name must be the name"),
        (
            {"lora_1": {"lora": "a"}, "lora_4": {"lora": "b", "strengthTwo": []}},
            "lora_4.strengthTwo",
        ),
        ({"LORA_2": 5}, "LORA_2 must be an object"),
        ({}, "rows must be a list"),
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
