"""Many names in few words: those that differ in one number are written as one, with its range."""

from __future__ import annotations

from collections.abc import Iterable


def folded(names: Iterable[str]) -> list[str]:
    """Return names in which `a.0.b`, `a.1.b` and `a.2.b` are one, `a.{0-2}.b`.

    Each name can be read off the result, and nothing else: only whole components that are numbers
    are put together, the first that differs.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for name in names:
        head, number, tail = _split(name)
        numbers = groups.setdefault((head, tail if number >= 0 else name), [])
        if number >= 0:
            numbers.append(number)
    return [
        f"{head}{_ranges(sorted(numbers))}{tail}" if numbers else tail
        for (head, tail), numbers in groups.items()
    ]


def _split(name: str) -> tuple[str, int, str]:
    """The first number that is a whole component, and what is around it; -1 if there is none."""
    parts = name.split(".")
    for i, part in enumerate(parts[1:], 1):
        if part.isascii() and part.isdecimal() and str(int(part[:9])) == part:
            tail = ".".join(["", *parts[i + 1 :]]) if i + 1 < len(parts) else ""
            return ".".join(parts[:i]) + ".", int(part), tail
    return "", -1, ""


def _ranges(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans) + "}"
