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


@dataclass(frozen=True)
class NamePatterns:
    """Numbers by pattern of module names; build it with `parse`."""

    _literal: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    _anchored: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    _expressions: tuple[tuple[int, re.Pattern[str], float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._literal or self._anchored or self._expressions)

    @staticmethod
    def parse(values: Mapping[str, float]) -> NamePatterns:
        """Read patterns in their order.

        Raises:
            PatternError: one is no regular expression, or could take very long to match.
        """
        literal: dict[str, tuple[int, float]] = {}
        anchored: dict[str, tuple[int, float]] = {}
        expressions: list[tuple[int, re.Pattern[str], float]] = []
        for place, (pattern, value) in enumerate(values.items()):
            # A dot in a plain name would match any character, but names have dots only there.
            if _LITERAL.fullmatch(pattern):
                table = anchored if pattern.startswith("^") else literal
                table.setdefault(pattern.strip("^$"), (place, value))
            else:
                expressions.append((place, _compiled(pattern), value))
        if sum(_steps(pattern) for pattern in values) > _MOST_STEPS:
            raise PatternError(f"{len(values)} patterns could take very long to match")
        return NamePatterns(literal, anchored, tuple(expressions))

    def get(self, name: str) -> float | None:
        """Return the value of the first pattern that matches a dotted module name, or None."""
        found = [self._anchored[name]] if name in self._anchored else []
        start = 0
        while self._literal and start >= 0:
            hit = self._literal.get(name[start:])
            if hit is not None:
                found.append(hit)
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
