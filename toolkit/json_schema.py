"""Checks values against JSON Schema (2020-12): the keywords that say what shape a value has.

Keywords that are not known here are refused, never passed over: what is accepted has been checked.
References lead to places in the schema itself; nothing is fetched, and no patterns are run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

# They say nothing about which values are valid.
_ANNOTATIONS = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default")
) | {"examples", "format", "deprecated", "readOnly", "writeOnly"}
_MOST_CHECKS = 1_000_000  # references can multiply without end
_TYPES: Mapping[str, str] = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
}
_ONE_SCHEMA = ("items", "additionalProperties", "not")
_SEVERAL_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "$defs", "definitions")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class SchemaError(ValueError):
    """A schema that cannot be used; the message names the place in it."""


class JsonSchema:
    """A schema that has been read.

    Args:
        schema: the JSON value, an object.

    Raises:
        SchemaError: a keyword is unknown or has a value that it cannot have, or a reference leads
            nowhere.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._left = 0
        self._known: set[int] = set()
        try:
            self._read(schema, "#")
        except RecursionError:
            raise SchemaError("the schema is nested too deeply") from None

    def fault(self, value: Any) -> str | None:
        """Say where and why a JSON value does not fit, such as ``$.size[0] is not an integer``.

        Raises:
            SchemaError: the schema refers to itself without end.
        """
        self._left = _MOST_CHECKS
        try:
            return next(self._faults(value, self.schema, "$"), None)
        except RecursionError:
            raise SchemaError("schema and value are nested too deeply to be compared") from None

    def _read(self, schema: Any, place: str) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, Mapping):
            raise SchemaError(f"{place} is not a schema: an object, true or false")
        if id(schema) in self._known:
            return
        self._known.add(id(schema))
        for name, value in schema.items():
            here = f"{place}/{name}"
            if name in _NAMED_SCHEMAS:
                for key, inner in _expect(value, Mapping, here, "an object").items():
                    self._read(inner, f"{here}/{key}")
            elif name in _SEVERAL_SCHEMAS:
                for number, inner in enumerate(_expect(value, list, here, "an array")):
                    self._read(inner, f"{here}/{number}")
            elif name in _ONE_SCHEMA:
                self._read(value, here)
            elif name == "$ref":
                self._read(self._target(value, here), here)
            elif name not in _ANNOTATIONS:
                _check_keyword(name, value, place, here)

    def _target(self, reference: Any, place: str) -> Any:
        if not isinstance(reference, str) or not re.match("#(/|$)", reference):
            raise SchemaError(f"{place} does not refer to a place in the schema, such as #/$defs/x")
        found: Any = self.schema
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, Mapping) and key in found:
                found = found[key]
            else:
                raise SchemaError(f"{place} refers to {reference}, which is not in the schema")
        if not isinstance(found, (Mapping, bool)):
            raise SchemaError(f"{place} refers to {reference}, which is not a schema")
        return found

    def _faults(self, value: Any, schema: Any, place: str) -> Iterator[str]:
        self._left -= 1
        if self._left < 0:
            raise SchemaError(f"more than {_MOST_CHECKS} checks. Make the schema simpler")
        if isinstance(schema, bool):
            if not schema:
                yield f"{place} must not be there"
            return
        if "$ref" in schema:
            yield from self._faults(value, self._target(schema["$ref"], "$ref"), place)
        yield from _own_faults(value, schema, place)
        yield from self._inner_faults(value, schema, place)
        yield from self._choice_faults(value, schema, place)

    def _inner_faults(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[str]:
        if isinstance(value, dict):
            known = schema.get("properties", {})
            for name, inner in value.items():
                if name in known:
                    yield from self._faults(inner, known[name], _member(place, name))
                elif schema.get("additionalProperties") is False:
                    yield f"{place} has the property {name!r}, which the schema does not allow"
                elif "additionalProperties" in schema:
                    rest = schema["additionalProperties"]
                    yield from self._faults(inner, rest, _member(place, name))
        elif isinstance(value, list):
            first = schema.get("prefixItems", [])
            for number, inner in enumerate(value):
                own = first[number] if number < len(first) else schema.get("items", True)
                yield from self._faults(inner, own, f"{place}[{number}]")

    def _choice_faults(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[str]:
        for inner in schema.get("allOf", ()):
            yield from self._faults(value, inner, place)
        for name, most in (("anyOf", math.inf), ("oneOf", 1)):
            if name not in schema:
                continue
            faults = [next(self._faults(value, inner, place), None) for inner in schema[name]]
            fitting = faults.count(None)
            if fitting == 0:
                reasons = "; or ".join(dict.fromkeys(fault for fault in faults if fault))
                yield f"{place} fits none of the {name} schemas ({reasons})"
            elif fitting > most:
                yield f"{place} fits {fitting} of the oneOf schemas"
        if "not" in schema and next(self._faults(value, schema["not"], place), None) is None:
            yield f"{place} fits the schema that it must not fit"


def _own_faults(value: Any, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    """What the keywords say that look at nothing below the value."""
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in types):
            yield f"{place} is not {' or '.join(_TYPES[name] for name in types)}"
    if "const" in schema and _canonical(value) != _canonical(schema["const"]):
        yield f"{place} is not {json.dumps(schema['const'], ensure_ascii=False)}"
    if "enum" in schema and _canonical(value) not in map(_canonical, schema["enum"]):
        allowed = ", ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
        yield f"{place} is none of {allowed}"
    for kind, name, unit in ((str, "Length", "characters"), (list, "Items", "items")):
        if isinstance(value, kind):
            yield from _count_faults(len(value), schema, name, unit, place)
    if isinstance(value, list) and schema.get("uniqueItems") and _repeats(value):
        yield f"{place} has equal items"
    if isinstance(value, dict):
        yield from _count_faults(len(value), schema, "Properties", "properties", place)
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{place} lacks the property {name!r}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number_faults(value, schema, place)


def _count_faults(
    count: int, schema: Mapping[str, Any], name: str, unit: str, place: str
) -> Iterator[str]:
    least, most = schema.get(f"min{name}", 0), schema.get(f"max{name}", math.inf)
    if not least <= count <= most:
        wanted = f"at least {least}" if count < least else f"at most {most}"
        yield f"{place} has {count} {unit}, and must have {wanted}"


def _number_faults(value: float, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    for name, sound, wanted in (
        ("minimum", lambda bound: value >= bound, "at least"),
        ("maximum", lambda bound: value <= bound, "at most"),
        ("exclusiveMinimum", lambda bound: value > bound, "above"),
        ("exclusiveMaximum", lambda bound: value < bound, "below"),
    ):
        if name in schema and not sound(schema[name]):
            yield f"{place} is {value}, and must be {wanted} {schema[name]}"
    if "multipleOf" in schema:
        step = schema["multipleOf"]
        if Fraction(repr(value)) % Fraction(repr(step)):  # as written: 0.3 is three times 0.1
            yield f"{place} is {value}, and must be a multiple of {step}"


def _check_keyword(name: str, value: Any, place: str, here: str) -> None:
    """Refuse a keyword that is unknown, or whose value is of no use."""
    if name == "type":
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str) or one not in _TYPES:
                raise SchemaError(f"{here} is {one!r}, none of {', '.join(_TYPES)}")
    elif name == "enum":
        _expect(value, list, here, "an array")
    elif name == "required":
        if not all(isinstance(one, str) for one in _expect(value, list, here, "an array")):
            raise SchemaError(f"{here} is not an array of names")
    elif name in _COUNTS:
        if not _is(value, "integer") or value < 0:
            raise SchemaError(f"{here} is {value!r}, not a count")
    elif name in _BOUNDS or name == "multipleOf":
        if not _is(value, "number") or (name == "multipleOf" and value <= 0):
            raise SchemaError(f"{here} is {value!r}, not a number of use there")
    elif name == "uniqueItems":
        _expect(value, bool, here, "true or false")
    elif name != "const":
        raise SchemaError(f"{place} has the keyword {name!r}, which is not checked here. Remove it")


def _expect(value: Any, kind: Any, place: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise SchemaError(f"{place} is not {what}")
    return value


def _is(value: Any, name: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "number": number,
        "integer": number and value == value // 1,
        "boolean": isinstance(value, bool),
        "null": value is None,
    }[name]


def _repeats(values: list[Any]) -> bool:
    return len({_canonical(value) for value in values}) < len(values)


def _canonical(value: Any) -> str:
    """The same text for equal JSON values, and only for them: 1 equals 1.0, but not true."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _member(place: str, name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_]\w*", name)
    return f"{place}.{name}" if plain else f"{place}[{json.dumps(name, ensure_ascii=False)}]"
