"""The tensors of a change, one after the other, and the same change with others in their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

V = TypeVar("V")


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a delta, also of those within it, in the order of its fields."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors_of(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from tensors_of(getattr(value, item.name))


def with_tensors(value: V, tensors: Iterator[Tensor]) -> V:
    """Return the delta with its tensors replaced, taken from `tensors` in that order."""
    known: Any = value
    if isinstance(value, Tensor):
        known = next(tensors)
    elif isinstance(value, tuple):
        known = tuple(with_tensors(item, tensors) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        changed = {
            item.name: with_tensors(getattr(value, item.name), tensors) for item in fields(value)
        }
        known = replace(known, **changed)
    return known
