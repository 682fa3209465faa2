"""The size of a picture, as words give it."""

from __future__ import annotations

import re

from ..errors import UsageError

_GRID = 16


def parse_size(text: str, place: str) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        UsageError: they are none; `place` says where they come from.
    """
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    size = tuple(map(int, found.groups())) if found else (0, 0)
    if not all(size) or any(length % _GRID for length in size):
        problem = f"{place} {text}: must be two multiples of {_GRID}"
        raise UsageError(problem, "Write it as 1328x800")
    return size[0], size[1]
