"""The results as a picture: ratios on a logarithmic scale, with their targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

WIDTH, LEFT, RIGHT, ROW, MARGIN = 1240, 470, 130, 26, 28
INK, FAINT, PAPER = (30, 33, 38), (205, 209, 214), (255, 255, 255)
OPEN, GOOD, BAD = (110, 133, 160), (58, 141, 96), (196, 98, 62)
_READ_SO = "Bar: median; line: least to greatest; tick: target (green hit, orange missed)"


class Panel(NamedTuple):
    """A heading, and the start of the names of the measures below it."""

    title: str
    measures: tuple[str, ...]


LORA = (
    Panel("Reading and composing, as multiples of reading with safetensors (less is better)",
          ("first apply / read with", "second LoRA")),
    Panel("Others, as multiples of our first apply (more is better for us)",
          ("ComfyUI's loader", "naive pipeline / first apply")),
    Panel("Changes of a stack: first apply as a multiple (more is better)",
          ("first apply / strength", "first apply / toggle", "first apply of ten")),
    Panel("Key mapping: naive as a multiple (more is better)", ("naive mapping",)),
    Panel("Peak host memory as a multiple of the file (less is better)", ("peak host memory",)),
    Panel("A step with a branch, as a multiple of one with merged weights (less is better)",
          ("branch of rank",)),
)  # fmt: skip


SVDQUANT = (
    Panel("Nunchaku's algorithm as a multiple of ours (more is better)", ("unpack, join, repack",)),
    Panel("Our first apply as a multiple of our changes (more is better)", ("first apply /",)),
    Panel("Loading a checkpoint as a multiple of a plain read (less is better)", ("load",)),
)

VLM = (
    Panel("A new image at ultra, not compiled, as a multiple of lower presets (more is better)",
          ("ultra /",)),
    Panel("A new image as a multiple of one seen before (more is better)", ("seen before",)),
    Panel("Plain transformers, its processor included, as a multiple of ours (more is better)",
          ("plain / ours",)),
    Panel("Our encoder as a multiple of the compiled one (more is better)", ("eager / compiled",)),
    Panel("Copying pixels to the device as a multiple of encoding (less is better)",
          ("copy to the device",)),
    Panel("Answers by plain transformers as a multiple of ours (more is better)",
          ("decode", "answer")),
)  # fmt: skip


def draw(report: Mapping[str, Any], path: Path, subject: str, panels: Sequence[Panel]) -> None:
    """Write the picture of a report."""
    groups = [(panel.title, _rows(report["results"], panel)) for panel in panels]
    groups = [(title, rows) for title, rows in groups if rows]
    height = MARGIN * 2 + 50 + sum(64 + ROW * len(rows) for _, rows in groups)
    image = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(image)
    text = f"{heading(report, subject)}\n{_READ_SO}"
    pen.text((MARGIN, MARGIN), text, INK, ImageFont.load_default(15))
    top = MARGIN + 50
    for title, rows in groups:
        _panel(pen, title, rows, top)
        top += 64 + ROW * len(rows)
    image.save(path, optimize=True)


def heading(report: Mapping[str, Any], subject: str) -> str:
    """What was measured, when, and on what."""
    versions, hardware = report["versions"], report["hardware"]
    where = hardware["gpu"] or f"{hardware['cpu']}, {hardware['cores']} cores"
    return (
        f"{subject}, {report['date']}: {where}, torch {versions['torch']},"
        f" ComfyUI {versions['comfyui']}"
    )


def _rows(results: Sequence[Mapping[str, Any]], panel: Panel) -> list[Mapping[str, Any]]:
    rows = [result for result in results if result["measure"].startswith(panel.measures)]
    return sorted(rows, key=lambda row: row["measure"])


def _panel(pen: ImageDraw.ImageDraw, title: str, rows: list[Mapping[str, Any]], top: int) -> None:
    pen.text((MARGIN, top), title, INK, ImageFont.load_default(16))
    scale = _Scale(rows)
    first, last = top + 30, top + 30 + ROW * len(rows)
    font = ImageFont.load_default(12)
    for tick in scale.ticks():
        x = scale(tick)
        pen.line((x, first, x, last), FAINT if tick != 1 else INK)
        pen.text((x, last + 3), f"{tick:g}", INK, font, anchor="ma")
    for i, row in enumerate(rows):
        _bar(pen, row, scale, first + ROW * i)


def _bar(pen: ImageDraw.ImageDraw, row: Mapping[str, Any], scale: _Scale, top: int) -> None:
    ratio, middle = row["ratio"], top + ROW // 2
    color = OPEN if "hit" not in row else GOOD if row["hit"] else BAD
    ends = sorted((scale(1.0), scale(ratio["median"])))
    pen.rectangle((ends[0], top + 5, ends[1], top + ROW - 6), color)
    pen.line((scale(ratio["min"]), middle, scale(ratio["max"]), middle), INK, 2)
    if "target" in row:
        x = scale(row["target"]["value"])
        pen.line((x, top + 2, x, top + ROW - 3), INK, 3)
    font = ImageFont.load_default(12)
    label = f"{row['measure']},  {row['case']}"
    pen.text((LEFT - 10, middle), label, INK, font, anchor="rm")
    pen.text((WIDTH - MARGIN, middle), f"{ratio['median']:.4g}", INK, font, anchor="rm")


class _Scale:
    """From a ratio to a horizontal position, logarithmically; covers all rows and 1."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        values = [row["ratio"][name] for row in rows for name in ("min", "max")]
        values += [row["target"]["value"] for row in rows if "target" in row]
        logs = [math.log10(value) for value in [*values, 1.0] if value > 0]
        self._low, self._high = min(logs) - 0.02, max(logs) + 0.02

    def __call__(self, value: float) -> float:
        share = (math.log10(max(value, 10**self._low)) - self._low) / (self._high - self._low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """Round numbers within the scale, not too many."""
        steps = (1, 2, 5) if self._high - self._low < 1.5 else (1,)
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        found = [step * 10.0**power for power in powers for step in steps]
        return [tick for tick in found if self._low <= math.log10(tick) <= self._high]
