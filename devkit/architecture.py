"""Draws the packages and the imports between them: ``python -m vivace.devkit.architecture``.

The layers are those that `lint-imports` holds (`[tool.importlinter]` in `pyproject.toml`), the
arrows what the modules really import, as `grimp` finds it. A thicker arrow is more imports.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from .rig.layout import ROOT

PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, BOX, HEIGHT = 860, 78, 128, 36
# In words of two or three, what a box stands for.
SUBJECTS = {
    "cli": "command line",
    "http_api": "server, registered",
    "lazy_registry": "table of nodes",
    "lora": "files, factors, stacks",
    "lora_tools": "new LoRA files",
    "migrate": "other packs' nodes",
    "music": "MusicGen",
    "nodes": "schemas, execute",
    "profiler": "start-up",
    "routes": "HTTP answers",
    "svdquant": "4-bit packings",
    "toolkit": "small nodes' work",
    "vlm": "Qwen-VL",
    "wrappers": "running models",
}
_PALETTE = ("#3b6ea5", "#7a5ba8", "#a8635b", "#5b8c5a")


class Place(NamedTuple):
    """The middle of a box."""

    x: float
    y: float


def layers() -> list[list[str]]:
    """The packages of each layer, the uppermost first, as the linter's contract names them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("\nlayers = [")[2].partition("\n]")[0]
    rows = [line.strip().strip('",') for line in block.splitlines() if line.strip()]
    return [[name.strip() for name in row.split("|")] for row in rows]


def imports() -> Counter[tuple[str, str]]:
    """How many modules of the first package import one of the second."""
    import grimp

    graph = grimp.build_graph("vivace", cache_dir=None)
    packages = {name for row in layers() for name in row}
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        start = _package(module)
        if start not in packages:
            continue
        ends = {_package(name) for name in graph.find_modules_directly_imported_by(module)}
        found.update((start, end) for end in ends if end in packages and end != start)
    return found


def _package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def draw(rows: Sequence[Sequence[str]], arrows: Mapping[tuple[str, str], int]) -> str:
    """The picture as SVG."""
    places = {
        name: Place(WIDTH * (column + 1) / (len(row) + 1), 40 + ROW * level)
        for level, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    height = 40 + ROW * (len(rows) - 1) + HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" text-anchor="middle">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        *_arrows(places, arrows),
        *(_box(name, place) for name, place in places.items()),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _arrows(places: Mapping[str, Place], arrows: Mapping[tuple[str, str], int]) -> Iterator[str]:
    for index, ((start, end), count) in enumerate(sorted(arrows.items())):
        (x, y), (to_x, to_y) = places[start], places[end]
        y, to_y = y + HEIGHT / 2, to_y - HEIGHT / 2 - 5
        # Arrows over several layers go around the boxes between.
        bend = 0.0 if to_y - y < ROW else (90 if (x + to_x) / 2 >= WIDTH / 2 else -90)
        middle = f"{(x + to_x) / 2 + bend:.0f} {(y + to_y) / 2:.0f}"
        color = _PALETTE[index % len(_PALETTE)]
        thick = 1 + math.log2(1 + count) / 2
        yield (
            f'<path d="M{x:.0f} {y:.0f} Q{middle} {to_x:.0f} {to_y:.0f}" fill="none"'
            f' stroke="{color}" stroke-width="{thick:.1f}" stroke-opacity="0.6">'
            f"<title>{start} imports {end}: {count} modules</title></path>"
        )
        point = (
            f"{to_x:.0f},{to_y + 5:.0f} {to_x - 4:.0f},{to_y - 3:.0f} {to_x + 4:.0f},{to_y - 3:.0f}"
        )
        yield f'<polygon points="{point}" fill="{color}"/>'


def _box(name: str, place: Place) -> str:
    left, top = place.x - BOX / 2, place.y - HEIGHT / 2
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX}" height="{HEIGHT}" rx="5" fill="#f4f4f6"'
        f' stroke="#555"/><text x="{place.x:.0f}" y="{place.y - 2:.0f}" font-size="13"'
        f' font-weight="bold">{escape(name)}</text><text x="{place.x:.0f}" y="{place.y + 12:.0f}"'
        f' font-size="10" fill="#555">{escape(SUBJECTS[name])}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(layers(), imports()), encoding="utf-8")
    sys.stdout.write(f"Written: {PICTURE.name}.\n")
