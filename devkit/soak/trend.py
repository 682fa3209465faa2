"""Whether a series of samples grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

MB = 2**20
WARM_UP = 0.4
SHARE = 0.02
# The least growth that counts, for series whose mean says nothing. Patchers, and the objects that
# they consist of, come and go with the results that ComfyUI keeps.
FLOORS = {
    "objects": 20_000,
    "open_files": 3,
    "threads": 3,
    "networks": 1,
    "patchers": 60,
    "lora_bytes": 4 * MB,
    "image_bytes": 2 * MB,
    "prompt_bytes": 8 * MB,
}
SERIES = ("rss", "own_memory", "tensor_bytes", *FLOORS)

Verdict = Literal["flat", "grows", "unclear"]


@dataclass(frozen=True)
class Trend:
    """A straight line through samples, from the end of the warm-up on.

    Attributes:
        slope: least squares, per prompt; `low` and `high` are its 95 % confidence interval.
        mean: of the samples.
        span: prompts from the first to the last sample.
        allowed: growth over the span that does not count.
    """

    slope: float
    low: float
    high: float
    mean: float
    span: int
    allowed: float

    @property
    def growth(self) -> float:
        """Over the span."""
        return self.slope * self.span

    @property
    def verdict(self) -> Verdict:
        """`flat`: more growth than allowed can be ruled out. `grows`: it is more, not chance."""
        if self.high * self.span <= self.allowed:
            return "flat"
        return "grows" if self.low > 0 and self.growth > self.allowed else "unclear"


def trends(
    samples: Sequence[tuple[int, Mapping[str, int]]], share: float = SHARE
) -> dict[str, Trend]:
    """The trends of all series, without the first two fifths of the prompts.

    Args:
        samples: prompts so far, and the values by series.
        share: of the mean, which a series may grow by.

    Raises:
        ValueError: too few samples are left.
    """
    start = WARM_UP * samples[-1][0]
    judged = [sample for sample in samples if sample[0] >= start]
    if len(judged) < 4:
        raise ValueError(f"{len(judged)} samples after the warm-up say nothing; run more prompts")
    xs = [prompts for prompts, _ in judged]
    names = [name for name in SERIES if name in judged[0][1]]
    return {
        name: trend(xs, [values[name] for _, values in judged], share, FLOORS.get(name, 0))
        for name in names
    }


def trend(xs: Sequence[int], ys: Sequence[float], share: float = SHARE, floor: float = 0) -> Trend:
    """The line through at least four points.

    The interval is that of Student's t for the residuals, widened where each residual is like the
    one before it, since such samples say less than independent ones.
    """
    from scipy.stats import t

    count, mean_x, mean_y = len(xs), sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = [y - mean_y - slope * (x - mean_x) for x, y in zip(xs, ys, strict=True)]
    squares = sum(value**2 for value in rest)
    alike = sum(a * b for a, b in pairwise(rest)) / squares if squares else 0.0
    alike = min(max(alike, 0.0), 0.9)
    error = sqrt(squares / (count - 2) / spread) * sqrt((1 + alike) / (1 - alike))
    reach = float(t.ppf(0.975, count - 2)) * error
    allowed = max(share * mean_y, floor)
    return Trend(slope, slope - reach, slope + reach, mean_y, xs[-1] - xs[0], allowed)
