"""Curves as a picture: a panel for each, time against size, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .plot import FAINT, INK, MARGIN, PAPER, Panel, heading

COLUMNS, WIDE, HIGH = 2, 700, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 280, 34, 44  # around the axes, inside of a panel
COLORS = (
    *((38, 98, 166), (196, 98, 62), (58, 141, 96), (140, 80, 160), (170, 134, 20)),
    *((20, 140, 150), (190, 60, 100), (100, 100, 100), (110, 70, 40), (70, 70, 200)),
    *((130, 160, 40), (0, 0, 0)),
)


def draw_curves(
    report: Mapping[str, Any], path: Path, subject: str, panels: Sequence[Panel] = ()
) -> None:
    """Write the picture of the curves among a report's details."""
    curves = report["details"]
    rows = -(-len(curves) // COLUMNS)
    size = (2 * MARGIN + COLUMNS * WIDE, 2 * MARGIN + 40 + rows * HIGH)
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    text = f"{heading(report, subject)}\nDot: median; line: least to greatest. Behind a name: its"
    text += " exponent over the whole range, median of the rounds."
    pen.text((MARGIN, MARGIN // 2), text, INK, ImageFont.load_default(15))
    for index, curve in enumerate(curves):
        left = MARGIN + index % COLUMNS * WIDE
        top = MARGIN + 40 + index // COLUMNS * HIGH
        _Axes(pen, curve, left, top).draw()
    image.save(path, optimize=True)


class _Axes:
    """The panel of a curve, at a place in the picture."""

    def __init__(
        self, pen: ImageDraw.ImageDraw, curve: Mapping[str, Any], left: int, top: int
    ) -> None:
        self._pen = pen
        self._curve = curve
        self._left, self._right = left + LEFT, left + WIDE - RIGHT
        self._top, self._bottom = top + TOP, top + HIGH - BOTTOM
        values = [one[key] for line in curve["operations"] for one in _there(line) for key in one]
        self._x = _decades(curve["sizes"], 0.03)
        self._y = _decades(values, 0.05)

    def draw(self) -> None:
        """The axes, the lines, and their names."""
        curve, font = self._curve, ImageFont.load_default(16)
        unit = f", {curve['unit']}" if curve["unit"] else ""
        title = f"Milliseconds by {curve['curve']}{unit}"
        self._pen.text((self._left, self._top - TOP + 4), title, INK, font)
        self._grid()
        for color, line in zip(COLORS, curve["operations"], strict=False):
            self._line(line, color)
        self._names()

    def _grid(self) -> None:
        font = ImageFont.load_default(12)
        for size in self._curve["sizes"]:
            x = self._across(size)
            self._pen.line((x, self._bottom, x, self._bottom + 4), INK)
            self._pen.text((x, self._bottom + 6), f"{size:g}", INK, font, anchor="ma")
        for power in range(math.ceil(self._y[0]), math.floor(self._y[1]) + 1):
            y = self._down(10.0**power)
            self._pen.line((self._left, y, self._right, y), FAINT)
            self._pen.text((self._left - 6, y), f"{10.0**power:g}", INK, font, anchor="rm")
        self._pen.rectangle((self._left, self._top, self._right, self._bottom), outline=INK)

    def _line(self, line: Mapping[str, Any], color: tuple[int, int, int]) -> None:
        points = []
        for size, found in zip(self._curve["sizes"], line["milliseconds"], strict=True):
            if found is None:
                continue
            x, y = self._across(size), self._down(found["median"])
            self._pen.line((x, self._down(found["min"]), x, self._down(found["max"])), color, 1)
            self._pen.ellipse((x - 3, y - 3, x + 3, y + 3), color)
            points.append((x, y))
        self._pen.line(points, color, 2)

    def _names(self) -> None:
        """Beside the lines, from the one that ends highest down."""
        font = ImageFont.load_default(13)
        lines = zip(COLORS, self._curve["operations"], strict=False)
        ends = sorted(lines, key=lambda one: -_there(one[1])[-1]["median"])
        for place, (color, line) in enumerate(ends):
            y = self._top + 10 + 22 * place
            text = f"{line['operation']}: {line['exponent']['median']:.2f}"
            self._pen.rectangle((self._right + 12, y - 5, self._right + 22, y + 5), color)
            self._pen.text((self._right + 28, y), text, INK, font, anchor="lm")

    def _across(self, size: float) -> float:
        return self._left + _share(size, self._x) * (self._right - self._left)

    def _down(self, milliseconds: float) -> float:
        return self._bottom - _share(milliseconds, self._y) * (self._bottom - self._top)


def _there(line: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """What was measured of an operation: some have no meaning at some size."""
    return [found for found in line["milliseconds"] if found is not None]


def _decades(values: Sequence[float], edge: float) -> tuple[float, float]:
    """The range of the logarithms, with an edge on both sides as a share of it."""
    low, high = math.log10(min(values)), math.log10(max(values))
    more = edge * (high - low)
    return low - more, high + more


def _share(value: float, decades: tuple[float, float]) -> float:
    return (math.log10(value) - decades[0]) / (decades[1] - decades[0])
