"""Curves: what operations take at growing sizes, and how steeply that grows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import linear_regression, median
from typing import Any

from .harness import Result, Target, Timings, spread

END = 3  # so many of the largest sizes tell where a curve is going
LINEAR = Target("at most", 1.15)  # in proportion to the size; the rest is room for noise
SORTING = Target("at most", 1.3)
CONSTANT = Target("at most", 0.15)


@dataclass(frozen=True)
class Curve:
    """Operations at several sizes.

    Attributes:
        name: what grows, such as "LoRAs in a stack".
        unit: of the sizes; empty for a plain number.
        sizes: ascending.
        bounds: of the exponent of each operation, in the order of the tables.
        step: runs and times the operations once, at one size; some may have no meaning there.
    """

    name: str
    unit: str
    sizes: Sequence[float]
    bounds: Mapping[str, Target]
    step: Callable[[float, Timings], None]


def often(timings: Timings, name: str, action: Callable[[], object], times: int) -> None:
    """Time an action that is too short for the clock: the mean of so many runs."""

    def run() -> None:
        for _ in range(times):
            action()

    timings.time(name, run, fresh=False)
    timings.seconds[name][-1] /= times


def measure(curve: Curve, rounds: int, device: str = "cpu") -> tuple[list[Result], dict[str, Any]]:
    """Go through all sizes in every round, each time in another order; the first does not count.

    Returns:
        The exponents as results, and all medians with their spread.
    """
    timings = {size: Timings(device) for size in curve.sizes}
    order = random.Random(1)  # noqa: S311 - the same order every time
    for count in range(rounds + 1):
        for size in order.sample(list(curve.sizes), len(curve.sizes)):
            curve.step(size, timings[size] if count else Timings(device))
    results, operations = [], []
    for name, bound in curve.bounds.items():
        by_size = {size: timings[size].seconds.get(name) for size in curve.sizes}
        present = [(size, values) for size, values in by_size.items() if values]
        whole, end = _exponents(present), _exponents(present[-END:])
        result = Result(f"{curve.name}, {_range(curve)}", name, spread(whole), bound)
        results.append(_explained(result, spread(end)["median"], present[-1]))
        operations.append(
            {
                "operation": name,
                "milliseconds": [values and _milliseconds(values) for values in by_size.values()],
                "exponent": spread(whole),
                "exponent_at_the_end": spread(end),
            }
        )
    return results, {
        "curve": curve.name,
        "unit": curve.unit,
        "sizes": list(curve.sizes),
        "sizes_at_the_end": END,
        "rounds": rounds,
        "operations": operations,
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope in a plot with logarithmic axes, by least squares: 1 is in proportion."""
    logs = [[math.log(value) for value in axis] for axis in (sizes, values)]
    return linear_regression(*logs).slope


def _exponents(by_size: Sequence[tuple[float, Sequence[float]]]) -> list[float]:
    """The exponent in each round, to three decimals."""
    sizes = [size for size, _ in by_size]
    rounds = zip(*(values for _, values in by_size), strict=True)
    return [round(exponent(sizes, one), 3) + 0.0 for one in rounds]  # + 0.0: without a sign


def _explained(result: Result, end: float, largest: tuple[float, Sequence[float]]) -> Result:
    if result.hit is not False:
        return result
    size, seconds = largest
    reason = f"{end:g} over the {END} largest; {1000 * median(seconds):.4g} ms at {size:g}"
    return replace(result, reason=reason)


def _milliseconds(values: Sequence[float]) -> dict[str, float]:
    return spread([1000 * value for value in values])


def _range(curve: Curve) -> str:
    unit = f" {curve.unit}" if curve.unit else ""
    return f"{curve.sizes[0]:g} .. {curve.sizes[-1]:g}{unit}"
