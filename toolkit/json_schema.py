"""Checks values against JSON Schema with the package jsonschema, an optional extra.

Every keyword of a schema must be one that is checked, or says nothing about values: what is
accepted has been checked. Nothing is fetched. No patterns are run, since one pattern can take
longer than anybody waits, and a pattern cannot be stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Set
from fractions import Fraction
from typing import Any

_PATTERNS = frozenset(("pattern", "patternProperties"))
# They say nothing about which values are valid, or say it to other keywords.
_ANNOTATIONS = frozenset[str]().union(
    ("$id", "$anchor", "$dynamicAnchor", "$comment", "$defs", "definitions", "title"),
    ("description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    ("contentEncoding", "contentMediaType", "contentSchema"),
    ("then", "else", "minContains", "maxContains"),
)
_MOST_REFERENCES = 20_000  # in one check: they can multiply without end
_SHOWN = 300  # characters of a message, which may repeat the value


class SchemaError(ValueError):
    """A schema that cannot be used; the message says why."""


class JsonSchema:
    """A schema that has been read, by 2020-12; that it names another draft is of no account.

    Args:
        schema: the JSON value, an object.

    Raises:
        SchemaError: the schema is not valid, has a keyword that is not checked, or refers to what
            is not in it.
        RuntimeError: the package jsonschema is not installed.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            import jsonschema
            from jsonschema.exceptions import best_match
            from jsonschema.validators import extend
            from referencing.jsonschema import EMPTY_REGISTRY
        except ImportError:
            raise RuntimeError(
                "JSON schemas are checked by the package jsonschema, which is not installed."
                f" Install it with: {sys.executable} -m pip install 'jsonschema>=4.18'"
            ) from None
        self.schema = schema
        self._left = 0
        root = {name: value for name, value in schema.items() if name != "$schema"}
        draft = jsonschema.Draft202012Validator
        try:
            draft.check_schema(root)
            _check_keywords(root, draft.VALIDATORS.keys())
        except jsonschema.SchemaError as error:
            raise SchemaError(_described(error)) from None
        except RecursionError:
            raise SchemaError("the schema is nested too deeply") from None
        counted = {name: self._counted(draft.VALIDATORS[name]) for name in ("$ref", "$dynamicRef")}
        checks = extend(draft, {**counted, "multipleOf": _multiple_of})
        self._validator = checks(root, registry=EMPTY_REGISTRY)
        self._best = best_match

    def fault(self, value: Any) -> str | None:
        """Say where and why a JSON value does not fit: ``$.size[0]: 'x' is not of type 'integer'``.

        Raises:
            SchemaError: the schema refers to itself without end.
        """
        self._left = _MOST_REFERENCES
        try:
            error = self._best(self._validator.iter_errors(value))
        except RecursionError:
            raise SchemaError("schema and value are nested too deeply to be compared") from None
        return None if error is None else _described(error)

    def _counted(self, check: Callable[..., Iterator[Any] | None]) -> Callable[..., Any]:
        def follow(*arguments: Any) -> Iterator[Any]:
            self._left -= 1
            if self._left < 0:
                raise SchemaError(
                    f"a check follows more than {_MOST_REFERENCES} references. Make the schema"
                    " simpler"
                )
            yield from check(*arguments) or ()

        return follow


def _check_keywords(root: Mapping[str, Any], checked: Set[str]) -> None:
    """Refuse what would be passed over, and references that lead nowhere.

    Raises:
        SchemaError: see there.
    """
    from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

    start = DRAFT202012.create_resource(root)
    registry = EMPTY_REGISTRY.with_resource(start.id() or "", start).crawl()
    waiting: list[tuple[Any, Any]] = [(registry.resolver(start.id() or ""), root)]
    seen: set[int] = set()
    while waiting:
        resolver, schema = waiting.pop()
        if isinstance(schema, bool) or id(schema) in seen:
            continue
        seen.add(id(schema))
        unknown = sorted((schema.keys() - checked - _ANNOTATIONS) | (schema.keys() & _PATTERNS))
        if unknown:
            raise SchemaError(f"the keyword {unknown[0]!r} is not checked here. Remove it")
        for inner in DRAFT202012.subresources_of(schema):
            resource = DRAFT202012.create_resource(inner)
            waiting.append((resolver.in_subresource(resource), inner))
        waiting += [
            _target(resolver, schema[name]) for name in ("$ref", "$dynamicRef") if name in schema
        ]


def _target(resolver: Any, reference: str) -> tuple[Any, Any]:
    from referencing.exceptions import Unresolvable

    try:
        found = resolver.lookup(reference)
    except (Unresolvable, ValueError, TypeError):  # the latter two of odd pointers
        raise SchemaError(
            f"{reference!r} is not in the schema. Nothing is fetched: put it into $defs"
        ) from None
    if not isinstance(found.contents, (Mapping, bool)):
        raise SchemaError(f"{reference!r} is not a schema")
    return found.resolver, found.contents


def _multiple_of(_: Any, step: float, value: Any, __: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and Fraction(repr(value)) % Fraction(repr(step)):  # as written: 0.3 is 3 times 0.1
        yield ValidationError(f"{value} is not a multiple of {step}")


def _described(error: Any) -> str:
    message = error.message
    shown = message if len(message) <= _SHOWN else f"{message[:_SHOWN]}..."
    return f"{error.json_path}: {shown}"
