"""Every combination of the values of several inputs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from ..errors import UsageError

MOST_RUNS = 1000
Axis = tuple[str, list[str]]


def read_pair(text: str, option: str) -> tuple[str, str]:
    """``NODE.INPUT=VALUE`` in two."""
    target, equals, value = text.partition("=")
    if not equals or not target:
        raise UsageError(f"{option} {text}: there is no '='", f"Write {option} NODE.INPUT=VALUE")
    return target, value


def read_axis(text: str) -> Axis:
    """An input and its values: ``NODE.INPUT=a,b,c``, or numbers as in ``seed=1..4``.

    A comma that belongs to a value has a backslash before it.
    """
    target, values = read_pair(text, "--matrix")
    found: list[str] = []
    for part in re.split(r"(?<!\\),", values):
        ends = re.fullmatch(r"\s*(-?\d+)\.\.(-?\d+)\s*", part)
        if ends:
            first, last = int(ends[1]), int(ends[2])
            if abs(last - first) >= MOST_RUNS:
                raise UsageError(f"--matrix {text}: more than {MOST_RUNS} values")
            step = 1 if last >= first else -1
            found += [str(number) for number in range(first, last + step, step)]
        else:
            found.append(part.replace("\\,", ",").strip())
    return target, found


def combinations(axes: Sequence[Axis]) -> Iterator[list[tuple[str, str]]]:
    """Target and value of each axis, for each run; the last axis changes fastest.

    Raises:
        UsageError: an input is named twice, or there are more than 1000 runs.
    """
    names = [name for name, _ in axes]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--matrix names {name} twice", "Give all its values in one")
    count = 1
    for _, values in axes:
        count *= len(values)
    if count > MOST_RUNS:
        raise UsageError(f"--matrix makes {count} runs, more than {MOST_RUNS}", "Give fewer values")
    for values in itertools.product(*(values for _, values in axes)):
        yield list(zip(names, values, strict=True))
