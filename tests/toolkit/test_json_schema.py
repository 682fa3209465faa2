"""JSON Schema: what fits, where something does not, and schemas that are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vivace.toolkit.json_schema import JsonSchema, SchemaError

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        "next": {"$ref": "#/$defs/node"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"node": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "x"},
        {"name": "x", "age": 3.0, "tags": ["a", "b"], "next": {"name": "y", "next": None}},
    ],
)
def test_what_fits_has_no_fault(value: Any) -> None:
    assert JsonSchema(PERSON).fault(value) is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([], "$ is not an object"),
        ({}, "$ lacks the property 'name'"),
        ({"name": ""}, "$.name has 0 characters, and must have at least 1"),
        ({"name": "x", "age": True}, "$.age is not an integer"),
        ({"name": "x", "age": 150}, "$.age is 150, and must be below 150"),
        ({"name": "x", "age": -1}, "$.age is -1, and must be at least 0"),
        ({"name": "x", "tags": ["a", "c"]}, '$.tags[1] is none of "a", "b"'),
        ({"name": "x", "tags": ["a", "a"]}, "$.tags has equal items"),
        ({"name": "x", "to do": 1}, "$ has the property 'to do', which the schema does not allow"),
        (
            {"name": "x", "next": {"name": 5}},
            "$.next fits none of the anyOf schemas ($.next is not null; "
            "or $.next.name is not a string)",
        ),
    ],
)
def test_a_fault_names_the_place(value: Any, fault: str) -> None:
    assert JsonSchema(PERSON).fault(value) == fault


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"const": 1}, [1, 1.0], [True, 2, "1"]),
        ({"enum": [[1, {"a": None}]]}, [[1.0, {"a": None}]], [[1, {}], [True, {"a": None}]]),
        ({"type": ["string", "null"]}, ["", None], [0, False]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"multipleOf": 0.1}, [0.3, 7, "x"], [0.35]),
        ({"multipleOf": 3}, [9, 10**30 * 3], [10]),
        ({"minItems": 1, "maxItems": 2}, [[1], [1, 2], "x"], [[], [1, 2, 3]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"maxLength": 2}, ["ab", "😀😀"], ["abc"]),
        ({"prefixItems": [{"type": "string"}], "items": False}, [["a"], []], [[1], ["a", 1]]),
        ({"additionalProperties": {"type": "string"}}, [{"a": "b"}], [{"a": 1}]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, [0, 3], [1.5]),
        ({"not": {"type": "string"}}, [1], ["x"]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, [1], [2]),
        ({"properties": {"a": True, "b": False}}, [{"a": 1}, 5], [{"b": 1}]),
        ({"exclusiveMinimum": 0, "title": "t", "format": "email"}, [0.1], [0]),
    ],
)
def test_each_keyword(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    read = JsonSchema(schema)
    assert [value for value in good if read.fault(value) is not None] == []
    assert [value for value in bad if read.fault(value) is None] == []


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"pattern": "a+"}, "'pattern', which is not checked here"),
        ({"properties": {"a": {"typo": 1}}}, "#/properties/a has the keyword 'typo'"),
        ({"type": "text"}, "'text', none of"),
        ({"items": 5}, "#/items is not a schema"),
        ({"properties": []}, "#/properties is not an object"),
        ({"anyOf": {}}, "#/anyOf is not an array"),
        ({"required": [1]}, "not an array of names"),
        ({"minLength": -1}, "not a count"),
        ({"minimum": "1"}, "not a number of use"),
        ({"multipleOf": 0}, "not a number of use"),
        ({"$ref": "http://127.0.0.1/x"}, "does not refer to a place"),
        ({"$ref": "#anchor"}, "does not refer to a place"),
        ({"$ref": "#/$defs/none"}, "which is not in the schema"),
        ({"$ref": "#/default", "default": {"type": "nothing"}}, "none of"),
        ({"$ref": "#/default", "default": 5}, "which is not a schema"),
    ],
)
def test_schemas_of_no_use_are_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as error:
        JsonSchema(schema)
    assert message in str(error.value)


def test_schemas_without_end_are_stopped() -> None:
    with pytest.raises(SchemaError, match="deeply"):
        JsonSchema({"$ref": "#"}).fault(1)
    doubling = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} if n < 40 else {"const": 1}
        for n in range(41)
    }
    with pytest.raises(SchemaError, match="more than 1000000 checks"):
        JsonSchema({"$ref": "#/$defs/d0", "$defs": doubling}).fault(1)
    deep: Any = {}
    for _ in range(3000):
        deep = {"not": deep}
    with pytest.raises(SchemaError, match="deeply"):
        JsonSchema(deep)
    value = json.loads("[" * 900 + "]" * 900)
    with pytest.raises(SchemaError, match="deeply"):
        JsonSchema({"items": {"$ref": "#"}}).fault(value)
