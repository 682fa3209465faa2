"""Which value of a saved node is whose: `widgets_values` lists them in the order of the widgets."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .specs import DYNAMIC_COMBO, InputSpec, NodeSpec


def widget_values(spec: NodeSpec, node: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a saved node sends for its widgets, connected ones included.

    Inputs that the node was saved without have their defaults.
    """
    saved = node.get("widgets_values")
    if isinstance(saved, dict):  # some packs save them by name
        found = {s.name: saved.get(s.name, s.default) for s in spec.present(saved) if s.is_widget}
        return {name: _sent(spec, name, value, found) for name, value in found.items()}
    shown = _shown_as_widgets(node)
    values = list(saved) if isinstance(saved, list) else []
    forced = _forced(spec, shown)
    if len(forced) == len(values):  # saved before the input lost its widget
        values = [value for value, drop in zip(values, forced, strict=True) if not drop]
    found = dict(_assign(spec.inputs, iter(values), shown))
    return {name: _sent(spec, name, value, found) for name, value in found.items()}


def _shown_as_widgets(node: Mapping[str, Any]) -> set[str]:
    """Inputs that the saved node has widgets for, of types that only their packs know."""
    return {
        socket["widget"].get("name")
        for socket in node.get("inputs") or ()
        if isinstance(socket, dict) and isinstance(socket.get("widget"), dict)
    }


def _is_widget(spec: InputSpec, shown: set[str]) -> bool:
    return spec.is_widget or (spec.name in shown and not spec.options.get("forceInput"))


def _forced(spec: NodeSpec, shown: set[str]) -> list[bool]:
    found: list[bool] = []
    for one in spec.inputs:
        force = bool(one.options.get("forceInput"))
        if force or _is_widget(one, shown):
            found += [force, False] if one.options.get("control_after_generate") else [force]
    return found if any(found) else []


def _assign(
    specs: Sequence[InputSpec], values: Iterator[Any], shown: set[str]
) -> Iterator[tuple[str, Any]]:
    """Give each widget its value, in order; behind a dynamic combo come those of its choice."""
    for spec in specs:
        if not _is_widget(spec, shown):
            continue
        value = next(values, spec.default)
        for _ in range(spec.controls):
            next(values, None)
        if spec.type == "IMAGEUPLOAD" or spec.options.get("serialize") is False:
            continue
        yield spec.name, value
        if spec.type == DYNAMIC_COMBO and isinstance(value, str):
            yield from _assign(spec.branches().get(value, []), values, shown)


def _sent(spec: NodeSpec, name: str, value: Any, values: Mapping[str, Any]) -> Any:
    found = spec.input(name, values)
    if found is not None and found.options.get("dynamicPrompts") and isinstance(value, str):
        return choose(value)
    if isinstance(value, list):
        # A bare list would be a link.
        curve = found is not None and found.type == "CURVE"
        return {"__type__": "CURVE", "__value__": value} if curve else {"__value__": value}
    return value


def choose(text: str) -> str:
    """Take one alternative of each ``{a|b}`` by chance, and comments away, as the editor does.

    A backslash before a brace or bar makes it plain text.
    """
    text = re.sub(r"/\*[\s\S]*?\*/|//.*", "", text)
    chosen = ""
    place = 0
    while place < len(text):
        character = text[place]
        if character == "\\":
            chosen += text[place : place + 2]
            place += 2
        elif character == "{":
            alternatives, place = _alternatives(text, place + 1)
            chosen += choose(random.choice(alternatives))  # noqa: S311 - no secret
        else:
            chosen += character
            place += 1
    return re.sub(r"\\([{}|])", r"\1", chosen)


def _alternatives(text: str, place: int) -> tuple[list[str], int]:
    """What stands between the bars up to the closing brace, and the place behind it."""
    found = [""]
    depth = 0
    while place < len(text):
        character = text[place]
        place += 1
        if character == "\\":
            found[-1] += text[place - 1 : place + 1]
            place += 1
            continue
        if character == "}" and depth == 0:
            break
        if character == "|" and depth == 0:
            found.append("")
            continue
        depth += (character == "{") - (character == "}")
        found[-1] += character
    return found, place
