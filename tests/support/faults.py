"""Faults at every place where one may come: the places of a run are counted, then each fails in
turn.

An operation runs once to count its points, and once more for each of them with a fault there. What
must be true after any fault is for the caller to say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Act = Callable[[str], None]

_PACK = f"{Path(__file__).resolve().parents[2]}{os.sep}"
_NOT_OURS = tuple(f"{_PACK}{folder}{os.sep}" for folder in ("devkit", "tests", ".dev"))


class Interrupted(BaseException):
    """What ComfyUI's interrupt is: no `Exception`."""


@dataclass
class Points:
    """The points that a run passes, and what happens at one of them.

    Attributes:
        at: the number of the point, from 0; None to count only.
        act: what happens there, given the point's name; it may raise.
        lasting: it also happens at all points behind, as on a disk that stays full.
        passed: the names of the points, in order.
    """

    at: int | None
    act: Act
    lasting: bool = False
    passed: list[str] = field(default_factory=list)

    def reach(self, name: str) -> None:
        """Come to a point."""
        self.passed.append(name)
        number = len(self.passed) - 1
        if self.at is not None and (number == self.at or (self.lasting and number > self.at)):
            self.act(name)

    @property
    def met(self) -> str | None:
        """The point where the fault came; None if the run did not get there."""
        reached = self.at is not None and self.at < len(self.passed)
        return self.passed[self.at] if reached and self.at is not None else None


Watch = Callable[[Points], AbstractContextManager[Any]]


def each_kind(names: Sequence[str]) -> list[int]:
    """The first and the last of the points of each name, where all would take too long."""
    ends: dict[str, tuple[int, int]] = {}
    for number, name in enumerate(names):
        ends[name] = ends.get(name, (number, number))[0], number
    return sorted({number for pair in ends.values() for number in pair})


def each_point(
    watch: Watch,
    act: Act,
    operation: Callable[[], object],
    after: Callable[[BaseException | None], None],
    *,
    before: Callable[[], object] = lambda: None,
    lasting: bool = False,
    chosen: Callable[[Sequence[str]], Iterable[int]] = lambda names: range(len(names)),
) -> list[str]:
    """Run an operation with a fault at each of its points in turn.

    Args:
        watch: makes the context in which points are passed, such as `allocations`.
        act: the fault.
        operation: what to run.
        after: is given what the operation raised, if anything, when the fault is over.
        before: is called before each run, the one that counts included.
        chosen: which of the points are tried, given their names.

    Returns:
        The names of the points.
    """
    counted = Points(None, act)
    before()
    with watch(counted):
        operation()
    for at in chosen(counted.passed):
        points = Points(at, act, lasting)
        before()
        raised: BaseException | None = None
        with watch(points):
            try:
                operation()
            except BaseException as error:  # noqa: BLE001  (`after` judges it)
                raised = error.with_traceback(None)
        same = _kind(points.met) == _kind(counted.passed[at])  # names of files may be random
        assert same, f"point {at} was {counted.passed[at]} and is {points.met}"
        try:
            after(raised)
        except BaseException as error:
            place = f"after a fault at point {at}, {points.met}; the operation raised {raised!r}"
            raise AssertionError(f"{place}: {error}") from error
    return counted.passed


def _kind(point: str | None) -> str | None:
    return point and point.partition(" ")[0]


def out_of_memory(name: str) -> None:
    """What torch raises where there is no memory on a GPU."""
    raise torch.OutOfMemoryError(f"CUDA out of memory: {name}")


def interrupt(name: str) -> None:
    """The user's interrupt."""
    raise Interrupted(name)


class _Allocations(TorchDispatchMode):
    def __init__(self, points: Points, least: int) -> None:
        super().__init__()
        self._points = points
        self._least = least

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind not in (torch.Tensor, torch.nn.Parameter) for kind in types):
            return NotImplemented  # quantized weights: what they do it with will be seen
        known = {_place(value) for value in tree_leaves((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            place = _place(value)
            if place is not None and place not in known and value.nbytes >= self._least:
                self._points.reach(f"{func}{_caller()}")
        return result


def _caller() -> str:
    """Where the pack's own code is, in or around what allocates; empty if it is not the pack's."""
    frame = sys._getframe(2)
    while frame is not None:
        file = _real(frame.f_code.co_filename)
        if file.startswith(_PACK) and not file.startswith(_NOT_OURS):
            return f" at {file.removeprefix(_PACK)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _place(value: object) -> int | None:
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def allocations(points: Points, least: int = 256) -> AbstractContextManager[Any]:
    """Every tensor of at least so many bytes that gets memory of its own is a point."""
    return _Allocations(points, least)


@contextmanager
def interrupt_checks(points: Points) -> Iterator[None]:
    """Every time that somebody looks whether ComfyUI shall interrupt is a point."""
    from comfy import model_management

    def check() -> None:
        points.reach("interrupt check")

    with patch.object(model_management, "throw_exception_if_processing_interrupted", check):
        yield


@lru_cache(maxsize=10_000)
def _real(file: str) -> str:
    """Environments have the pack by a link."""
    return file if file.startswith("<") else os.path.realpath(file)
