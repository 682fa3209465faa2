"""Values of variables as a text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.toolkit.prompt_variables import VariablesError, parse_variables


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        (" \n# subject = dog\n", {}),
        ("subject = a cat\nstyle=ink", {"subject": "a cat", "style": "ink"}),
        ("größe: 3 m = groß", {"größe": "3 m = groß"}),
        ("empty =", {"empty": ""}),
        ("a = {b|c}", {"a": "{b|c}"}),
        ('{"a": "x\\ny", "n": 2.5, "on": true}', {"a": "x\ny", "n": "2.5", "on": "true"}),
    ],
)
def test_values(text: str, values: dict[str, str]) -> None:
    assert parse_variables(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb", "line 2 of variables gives no value: 'b'"),
        ("2a = 1", "line 1"),
        ("a = 1\na = 2", "gives 'a' twice, again in line 2"),
        ('{"a": ', "is none"),
        ("{" * 100_000, "is none"),
        ('{"a": ["x"]}', "'a' in variables is no text or number"),
        ('{"a": null}', "'a' in variables is no text or number"),
    ],
)
def test_what_gives_none(text: str, message: str) -> None:
    with pytest.raises(VariablesError, match=message):
        parse_variables(text)


@given(st.dictionaries(st.text(), st.text()))
def test_json_round_trips(values: dict[str, str]) -> None:
    assert parse_variables(json.dumps(values)) == values
