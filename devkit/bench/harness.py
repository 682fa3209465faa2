"""Timing by turns, paired ratios, and targets."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Timings:
    """Seconds of named actions, one value per round, so that ratios can be taken in pairs."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, action: Callable[[], T], *, fresh: bool = True) -> T:
        """Run and time an action. `fresh`: give freed memory back to the system before.

        Without that, whoever allocates in sizes that the C library keeps would be spared the page
        faults that everybody has when a process loads its first file.
        """
        if fresh:
            release_memory()
        self._synchronize()
        started = perf_counter()
        result = action()
        self._synchronize()
        self.seconds.setdefault(name, []).append(perf_counter() - started)
        return result

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def summary(self) -> dict[str, dict[str, float | int]]:
        """Milliseconds by name: median, least and greatest, and the number of rounds."""
        return {
            name: {"rounds": len(values), **spread([1000 * value for value in values])}
            for name, values in self.seconds.items()
        }

    def ratios(self, numerator: str, denominator: str) -> list[float]:
        """The ratio of two actions in each round; empty if either was not run."""
        pairs = zip(
            self.seconds.get(numerator, []), self.seconds.get(denominator, []), strict=False
        )
        return [a / b for a, b in pairs]


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest, to four significant digits."""
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def release_memory() -> None:
    """Collect garbage and give free heap memory back to the system, where that is possible."""
    gc.collect()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclass(frozen=True)
class Target:
    """A bound on a ratio: ``at most`` or ``at least`` a value."""

    bound: str
    value: float

    def hit(self, ratio: float) -> bool:
        """Whether a ratio keeps the bound."""
        return ratio <= self.value if self.bound == "at most" else ratio >= self.value


@dataclass(frozen=True)
class Result:
    """One ratio: what was compared, on what, and how it stands to its target, if it has one."""

    case: str
    measure: str
    ratio: dict[str, float]
    target: Target | None = None
    reason: str | None = None

    @property
    def hit(self) -> bool | None:
        """Whether the median keeps the target; None without a target."""
        return None if self.target is None else self.target.hit(self.ratio["median"])

    def as_json(self) -> dict[str, Any]:
        """A plain table; `target`, `hit` and `reason` only where there are any."""
        content = {key: value for key, value in asdict(self).items() if value is not None}
        return content if self.hit is None else {**content, "hit": self.hit}

    def line(self) -> str:
        """The result as a line of text."""
        r = self.ratio
        numbers = f"{r['median']:>9.4g}  ({r['min']:.4g} .. {r['max']:.4g})"
        text = f"{self.case:28} {self.measure:48} {numbers:34}"
        if self.target is None:
            return text.rstrip()
        verdict = "hit" if self.hit else "MISS"
        return f"{text} {self.target.bound} {self.target.value:g}: {verdict}"
