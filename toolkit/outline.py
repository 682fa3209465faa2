"""Nested values as readable text of bounded length, whatever they are.

Nothing of an object but its type and name is shown: what it prints of itself may be endless, fail,
or be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any

import torch

MAX_LINES = 400
MAX_DEPTH = 12
MAX_TEXT = 2000
_SHOWN_BYTES = 16
_MAX_BITS = 4096  # Python refuses to write much longer integers
_INDENT = "  "


def outline(value: Any) -> str:
    """The value as JSON is written, with marks in angle brackets for what JSON has not.

    At most 400 lines, 12 levels and 2000 characters a text; cut places say what is missing. Values
    that contain themselves are marked where they come again.
    """
    lines = list(islice(_lines(value, "", "", frozenset()), MAX_LINES + 1))
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = ["<more is not shown>"]
    return "\n".join(lines)


def leaf(value: Any) -> str | None:
    """The text of a value that has no parts to show; None for mappings, lists and sets."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(clipped(value, MAX_TEXT), ensure_ascii=False)
    if isinstance(value, Enum):
        return f"<{type(value).__name__}.{value.name}>"
    if isinstance(value, int):
        bits = value.bit_length()
        return str(int(value)) if bits <= _MAX_BITS else f"<integer of {bits} bits>"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, complex):
        return repr(complex(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        head = bytes(value[:_SHOWN_BYTES]).hex(" ")
        return f"<{len(value)} bytes: {head}{' ...' if len(value) > _SHOWN_BYTES else ''}>"
    if isinstance(value, torch.Tensor):
        return f"<tensor {tensor_type(value)}>"
    if isinstance(value, PurePath):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, (Mapping, list, tuple, Set)):
        return None
    return named(value)


def named(value: Any) -> str:
    """The type of an object, and its name if it has one; nothing of it is called."""
    fields = getattr(value, "__dict__", None)
    name = fields.get("name") if isinstance(fields, dict) else None
    shown = f" '{clipped(name, 80)}'" if isinstance(name, str) else ""
    return f"<{type(value).__name__}{shown}>"


def tensor_type(tensor: torch.Tensor) -> str:
    """Element type and shape, as in `float32 [1, 77, 768]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def clipped(text: str, most: int) -> str:
    """The text, or its beginning and how much is missing; half characters become `?`."""
    shown = text[:most].encode("utf-8", "replace").decode("utf-8")
    return shown if len(text) <= most else f"{shown} <{len(text) - most} more characters>"


def _lines(value: Any, indent: str, before: str, around: frozenset[int]) -> Iterator[str]:
    text = leaf(value)
    if text is not None:
        yield f"{indent}{before}{text}"
        return
    if id(value) in around:
        yield f"{indent}{before}<contains itself>"
        return
    opening, closing = _brackets(value)
    count = len(value)
    if not count:
        yield f"{indent}{before}{opening}{closing}"
    elif len(around) == MAX_DEPTH:
        yield f"{indent}{before}{opening}<{count} entries>{closing}"
    else:
        yield f"{indent}{before}{opening}"
        inner = around | {id(value)}
        for key, item in _entries(value):
            yield from _lines(item, indent + _INDENT, key, inner)
        yield f"{indent}{closing}"


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, (Mapping, Set)):
        return ("{", "}")
    return ("(", ")") if isinstance(value, tuple) else ("[", "]")


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return (("", item) for item in value)
    return ((f"{leaf(key) or named(key)}: ", item) for key, item in value.items())
