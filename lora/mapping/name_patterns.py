"""Values by name pattern, matched as peft does, within bounds that no file can exceed.

peft takes the first key of ``rank_pattern`` or ``alpha_pattern`` for which
``re.match(rf"(.*\\.)?({key})$", module_name)`` holds (``peft/utils/other.py``, 0.21).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import comb

# A file's regular expressions are somebody else's program, and matching one may take steps without
# end. `n` repeats cost about as many as there are ways to place them in a name.
_MOST_STEPS = 200_000
_LONGEST = 256
_NAME = 60
_LITERAL = re.compile(r"\^?[\w.\-]*\$?")
_REPEAT = re.compile(r"(?<![\\(])[*+?{]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")


class PatternError(ValueError):
    """A pattern that cannot be used; the message quotes it and says why."""


class _Plain:
    """Patterns without other signs than dots, which match any character, as in any expression.

    They are grouped by their length and where their dots are: a name is looked up once for each
    group of its length, with the same places left out.
    """

    def __init__(self) -> None:
        self._groups: dict[int, dict[tuple[int, ...], dict[str, tuple[int, float]]]] = {}

    def add(self, pattern: str, place: int, value: float) -> None:
        """Add a pattern; the first of equal ones counts."""
        dots = tuple(i for i, letter in enumerate(pattern) if letter == ".")
        group = self._groups.setdefault(len(pattern), {}).setdefault(dots, {})
        group.setdefault(pattern, (place, value))

    def find(self, name: str) -> list[tuple[int, float]]:
        """Return place and value of the patterns that match a whole name."""
        found = []
        for dots, group in self._groups.get(len(name), {}).items():
            letters = list(name)
            for i in dots:
                letters[i] = "."
            hit = group.get("".join(letters))
            if hit is not None:
                found.append(hit)
        return found


@dataclass(frozen=True)
class NamePatterns:
    """Numbers by pattern of module names; build it with `parse`."""

    _anywhere: _Plain = field(default_factory=_Plain)
    _anchored: _Plain = field(default_factory=_Plain)
    _expressions: tuple[tuple[int, re.Pattern[str], float], ...] = ()
    _count: int = 0

    def __bool__(self) -> bool:
        return self._count > 0

    @staticmethod
    def parse(values: Mapping[str, float]) -> NamePatterns:
        """Read patterns in their order.

        Raises:
            PatternError: one is no regular expression, or could take very long to match.
        """
        anywhere, anchored = _Plain(), _Plain()
        expressions: list[tuple[int, re.Pattern[str], float]] = []
        for place, (pattern, value) in enumerate(values.items()):
            if _LITERAL.fullmatch(pattern):
                table = anchored if pattern.startswith("^") else anywhere
                table.add(pattern.strip("^$"), place, value)
            else:
                expressions.append((place, _compiled(pattern), value))
        if sum(_steps(pattern) for pattern in values) > _MOST_STEPS:
            raise PatternError(f"{len(values)} patterns could take very long to match")
        return NamePatterns(anywhere, anchored, tuple(expressions), len(values))

    def get(self, name: str) -> float | None:
        """Return the value of the first pattern that matches a dotted module name, or None."""
        if not self:
            return None
        found = self._anchored.find(name)
        start = 0
        while start >= 0:
            found += self._anywhere.find(name[start:])
            start = name.find(".", start) + 1 or -1
        first = min(found, default=None)
        for place, expression, value in self._expressions:
            if first is not None and first[0] < place:
                break
            if expression.match(name):
                return value
        return None if first is None else first[1]


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > _LONGEST:
        raise PatternError(f"{pattern[:40]!r}... has {len(pattern)} characters")
    if _REPEATED_GROUP.search(pattern) or _steps(pattern) > _MOST_STEPS:
        raise PatternError(f"{pattern!r} could take very long to match")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"{pattern!r} is not a regular expression ({error})") from None


def _steps(pattern: str) -> int:
    repeats = len(_REPEAT.findall(pattern))
    return comb(_NAME + repeats, repeats)
