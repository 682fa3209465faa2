"""JSON Schema: what fits, where something does not, and schemas that are refused."""

from __future__ import annotations

import json
import sys
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
        ([], "$: [] is not of type 'object'"),
        ({}, "$: 'name' is a required property"),
        ({"name": ""}, "$.name: '' should be non-empty"),
        ({"name": "x", "age": True}, "$.age: True is not of type 'integer'"),
        ({"name": "x", "age": -1}, "$.age: -1 is less than the minimum of 0"),
        ({"name": "x", "tags": ["a", "c"]}, "$.tags[1]: 'c' is not one of ['a', 'b']"),
        ({"name": "x", "next": {"name": 5}}, "$.next.name: 5 is not of type 'string'"),
        ({"name": "x", "to do": 1}, "$: Additional properties are not allowed"),
    ],
)
def test_a_fault_names_the_place(value: Any, fault: str) -> None:
    assert str(JsonSchema(PERSON).fault(value)).startswith(fault)


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(str(JsonSchema({"type": "integer"}).fault("x" * 10_000))) < 400


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
        ({"contains": {"const": 1}, "minContains": 2}, [[1, 1]], [[1], [2, 2]]),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, [1, "ab"], ["a"]),
        ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}, {}], [{"a": 1}]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "const": 1}, [1], [2]),
        (
            {
                "$id": "http://127.0.0.1:9/x",
                "items": {"$ref": "#/$defs/a"},
                "$defs": {"a": {"const": 1}},
            },
            [[1]],
            [[2]],
        ),
        ({"items": {"$ref": "#a"}, "$defs": {"x": {"$anchor": "a", "const": 1}}}, [[1]], [[2]]),
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
        ({"pattern": "a+"}, "the keyword 'pattern' is not checked here"),
        ({"items": {"patternProperties": {"a": {}}}}, "'patternProperties' is not checked here"),
        ({"properties": {"a": {"typo": 1}}}, "the keyword 'typo' is not checked"),
        ({"type": "text"}, "$.type: 'text' is not valid"),
        ({"items": 5}, "$.items: 5 is not of type"),
        ({"properties": []}, "$.properties: [] is not of type 'object'"),
        ({"anyOf": {}}, "$.anyOf: {} is not of type 'array'"),
        ({"required": [1]}, "$.required[0]: 1 is not of type 'string'"),
        ({"minLength": -1}, "$.minLength: -1 is less than the minimum of 0"),
        ({"minimum": "1"}, "$.minimum: '1' is not of type 'number'"),
        ({"multipleOf": 0}, "$.multipleOf: 0 is less than or equal to"),
        ({"$ref": "http://127.0.0.1:9/x"}, "Nothing is fetched"),
        ({"$ref": "file:///etc/hostname"}, "Nothing is fetched"),
        ({"$dynamicRef": "http://127.0.0.1:9/x"}, "Nothing is fetched"),
        ({"$ref": "#anchor"}, "'#anchor' is not in the schema"),
        ({"$ref": "#/$defs/none"}, "'#/$defs/none' is not in the schema"),
        ({"$ref": "#/anyOf/x", "anyOf": [True]}, "'#/anyOf/x' is not in the schema"),
        ({"$ref": "#/default", "default": {"typo": "nothing"}}, "'typo' is not checked"),
        ({"$ref": "#/default", "default": 5}, "'#/default' is not a schema"),
        ({"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}, "'$schema'"),
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
    with pytest.raises(SchemaError, match="more than 20000 references"):
        JsonSchema({"$ref": "#/$defs/d0", "$defs": doubling}).fault(1)
    deep: Any = {}
    for _ in range(3000):
        deep = {"not": deep}
    with pytest.raises(SchemaError, match="deeply"):
        JsonSchema(deep)
    value = json.loads("[" * 900 + "]" * 900)
    with pytest.raises(SchemaError, match="deeply"):
        JsonSchema({"items": {"$ref": "#"}}).fault(value)


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(RuntimeError, match=r"pip install 'jsonschema>=4\.18'"):
        JsonSchema({})
