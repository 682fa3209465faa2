"""Version numbers, as far as they have to be compared here."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(==|>=|~=)\s*([0-9][^\s,;]*)")


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: ``"2.11.0+cu130"`` gives ``(2, 11, 0)``."""
    found = _RELEASE.match(version)
    return tuple(map(int, found[1].split("."))) if found else ()


def at_least(version: str, least: str) -> bool:
    """Whether a version is as new as another; missing numbers count as 0."""
    ours, theirs = numbers(version), numbers(least)
    size = max(len(ours), len(theirs))
    return _filled(ours, size) >= _filled(theirs, size)


def _filled(found: tuple[int, ...], size: int) -> tuple[int, ...]:
    return found + (0,) * (size - len(found))


def minor(version: str) -> str:
    """The first two numbers, as ``"2.11"``."""
    return ".".join(map(str, numbers(version)[:2]))


def build(version: str) -> str:
    """What stands behind the plus sign, such as ``"cu130"``; "" if nothing."""
    return version.partition("+")[2]


def requirements(text: str) -> list[tuple[str, str, str]]:
    """Name, ``==``, ``>=`` or ``~=``, and version, of the lines of a requirements file."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    matches = (_REQUIREMENT.match(line) for line in lines)
    return [(match[1], match[2], match[3]) for match in matches if match]


def fulfils(version: str, sign: str, wanted: str) -> bool:
    """Whether a version is what a requirement asks for."""
    if sign == "==":
        size = max(len(numbers(version)), len(numbers(wanted)))
        return _filled(numbers(version), size) == _filled(numbers(wanted), size)
    same_series = numbers(version)[: len(numbers(wanted)) - 1] == numbers(wanted)[:-1]
    return at_least(version, wanted) and (sign == ">=" or same_series)
