"""Reads `widgets_values`, the list of a saved node that does not say which value is whose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

CONTROLS = ("fixed", "increment", "decrement", "randomize")
CONTROL = "control_after_generate"

Accepts = Callable[[Any], bool]


@dataclass(frozen=True)
class Widget:
    """One place of the list: the input's name, and what may stand there."""

    name: str
    accepts: Accepts
    optional: bool = False


@dataclass(frozen=True)
class Layout:
    """The order of a node's widgets in one version of its pack.

    After `head` come any number of rounds of `group`, whose inputs end in `_1`, `_2` and so on.
    """

    head: tuple[Widget, ...]
    group: tuple[Widget, ...] = ()

    @property
    def required(self) -> frozenset[str]:
        """Inputs without which a prompt's node is not this one."""
        return frozenset(widget.name for widget in self.head if not widget.optional)

    def read(self, values: Sequence[Any]) -> dict[str, Any] | None:
        """The values by input name, or None if the list is not of this layout."""
        return self._read(self.head, values)

    def _read(self, head: Sequence[Widget], values: Sequence[Any]) -> dict[str, Any] | None:
        """Give each value to a widget, in order; optional widgets may go without."""
        if not head:
            return self._read_rounds(values)
        first, others = head[0], head[1:]
        if values and first.accepts(values[0]):
            found = self._read(others, values[1:])
            if found is not None:
                return {first.name: values[0], **found}
        return self._read(others, values) if first.optional else None

    def _read_rounds(self, values: Sequence[Any]) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        size = len(self.group)
        if size == 0 or len(values) % size:
            return None if values else found
        for start in range(0, len(values), size):
            for widget, value in zip(self.group, values[start : start + size], strict=True):
                if not widget.accepts(value):
                    return None
                found[f"{widget.name}_{start // size + 1}"] = value
        return found


def is_text(value: Any) -> bool:
    """A string."""
    return isinstance(value, str)


def is_name(value: Any) -> bool:
    """The name of a file, or none."""
    return value is None or isinstance(value, str)


def is_switch(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # An int of hundreds of digits is no float.
    return isinstance(value, int) or math.isfinite(value)


def is_integer(value: Any) -> bool:
    """A whole number, also written as 3.0."""
    return is_number(value) and (isinstance(value, int) or value.is_integer())


def is_record(value: Any) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def is_list(value: Any) -> bool:
    """A JSON list."""
    return isinstance(value, list)


def one_of(*choices: str) -> Accepts:
    """One of these strings."""
    return lambda value: isinstance(value, str) and value in choices


def text(name: str) -> Widget:
    """A place for a string."""
    return Widget(name, is_text)


def switch(name: str, optional: bool = False) -> Widget:
    """A place for true or false."""
    return Widget(name, is_switch, optional)


def integer(name: str) -> Widget:
    """A place for a whole number."""
    return Widget(name, is_integer)


def number(name: str) -> Widget:
    """A place for a number."""
    return Widget(name, is_number)


def seed() -> tuple[Widget, Widget]:
    """A seed, and what the editor does with it after each run."""
    return integer("seed"), Widget(CONTROL, one_of(*CONTROLS), optional=True)
