"""Memory over prompts, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from .report import figure
from .trend import WARM_UP

WIDTH, LEFT, RIGHT, HEIGHT, GAP, TOP = 1240, 110, 40, 150, 62, 80
INK, FAINT, PAPER = (30, 33, 38), (225, 228, 232), (255, 255, 255)
LINE, DOT = (196, 98, 62), (58, 105, 160)


class Panel(NamedTuple):
    """A series and its heading."""

    series: str
    title: str


PANELS = (
    Panel("rss", "Resident memory of the server"),
    Panel("own_memory", "The same without files that are mapped"),
    Panel("tensor_bytes", "Memory of all tensors that are alive"),
    Panel("objects", "Objects that the garbage collector knows"),
)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a report: dots are samples, lines the trends that were judged."""
    panels = [panel for panel in PANELS if panel.series in found["trends"]]
    image = Image.new("RGB", (WIDTH, TOP + len(panels) * (HEIGHT + GAP)), PAPER)
    pen = ImageDraw.Draw(image)
    title = f"{found['prompts']} prompts, {found['date']}; dots: samples, line: judged trend"
    pen.text((LEFT, 24), title, INK, ImageFont.load_default(18))
    for number, panel in enumerate(panels):
        _panel(pen, found, panel, TOP + number * (HEIGHT + GAP))
    image.save(path, optimize=True)


def _panel(pen: ImageDraw.ImageDraw, found: Mapping[str, Any], panel: Panel, top: int) -> None:
    samples, trend = found["samples"], found["trends"][panel.series]
    last = max(sample["prompts"] for sample in samples)
    most = 1.15 * max(sample[panel.series] for sample in samples)

    def place(prompts: float, value: float) -> tuple[float, float]:
        across = (WIDTH - LEFT - RIGHT) * prompts / max(last, 1)
        return LEFT + across, top + HEIGHT - HEIGHT * value / max(most, 1)

    font = ImageFont.load_default(14)
    pen.text((LEFT, top - 24), f"{panel.title}: {trend['verdict']}", INK, font)
    for share in (0, 0.5, 1):
        y = top + HEIGHT - HEIGHT * share
        pen.line((LEFT, y, WIDTH - RIGHT, y), FAINT)
        pen.text((LEFT - 8, y), figure(panel.series, share * most), INK, font, anchor="rm")
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = place(share * last, 0)[0]
        pen.text((x, top + HEIGHT + 4), f"{share * last:.0f}", INK, font, anchor="ma")
    for sample in samples:
        x, y = place(sample["prompts"], sample[panel.series])
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), DOT)
    pen.line(_line(samples, trend, place), LINE, 2)


def _line(samples: Sequence[Mapping[str, int]], trend: Mapping[str, Any], place: Any) -> Any:
    """From the end of the warm-up on; a least squares line passes the means of both."""
    last = samples[-1]["prompts"]
    judged = [sample["prompts"] for sample in samples if sample["prompts"] >= WARM_UP * last]
    middle = sum(judged) / len(judged)
    ends = (judged[0], judged[-1])
    return [place(x, trend["mean"] + trend["slope"] * (x - middle)) for x in ends]
