"""Draws the packages and the imports between them: ``python -m vivace.devkit.architecture``.

The layers are those that `lint-imports` holds (`[tool.importlinter]` in `pyproject.toml`), a panel
for each of its contracts; the arrows are what the modules really import, as `grimp` finds it. A
thicker arrow is more imports.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from .rig.layout import ROOT

if TYPE_CHECKING:
    import grimp

PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, HEIGHT, TITLE = 860, 78, 36, 30
# In words of two or three, what a box stands for.
SUBJECTS = {
    "vivace.byte_lru": "bounded caches",
    "vivace.cli": "command line",
    "vivace.defaults": "values of inputs",
    "vivace.devkit": "development",
    "vivace.http_api": "HTTP answers",
    "vivace.hub": "model folders",
    "vivace.lazy_registry": "table of nodes",
    "vivace.lora": "files, factors, stacks",
    "vivace.migrate": "other packs' nodes",
    "vivace.music": "MusicGen",
    "vivace.nodes": "schemas, execute",
    "vivace.svdquant": "4-bit packings",
    "vivace.toolkit": "small nodes' work",
    "vivace.vlm": "Qwen-VL",
    "vivace.wrappers": "running models",
    "vivace.cli.commands": "one file each",
    "vivace.cli.doctor": "what fits together",
    "vivace.cli.server": "ComfyUI over HTTP",
    "vivace.cli.startup": "what a pack costs",
    "vivace.cli.training": "made of pictures",
    "vivace.cli.workflow": "prompts, values",
    "vivace.lora.composer": "one per module",
    "vivace.lora.examine": "from the header",
    "vivace.lora.factors": "what changes",
    "vivace.lora.files": "bytes, headers",
    "vivace.lora.mapping": "names of modules",
    "vivace.lora.tools": "new LoRA files",
    "vivace.vlm.decode": "token by token",
    "vivace.vlm.loading": "into memory",
    "vivace.vlm.onnx": "export",
    "vivace.vlm.remote": "servers",
    "vivace.vlm.text": "prompts, tokens",
    "vivace.vlm.vision": "images, encoded",
    "vivace.wrappers.lora": "stacks on models",
    "vivace.wrappers.preview": "values, shown",
    "vivace.wrappers.svdquant": "checkpoints",
    "vivace.wrappers.targets": "kinds of layers",
    "vivace.wrappers.vlm": "answers, captions",
    "vivace.devkit.bench": "measurements",
    "vivace.devkit.doubles": "stand-ins",
    "vivace.devkit.fuzz": "made-up input",
    "vivace.devkit.gpu": "on a real card",
    "vivace.devkit.matrix": "all versions",
    "vivace.devkit.rig": "ComfyUI, browser",
    "vivace.devkit.soak": "for hours",
    "vivace.devkit.weight_readers": "of ComfyUI",
}
_PALETTE = ("#3b6ea5", "#7a5ba8", "#a8635b", "#5b8c5a")
Rows = Sequence[Sequence[str]]
Arrows = Mapping[tuple[str, str], int]


class Place(NamedTuple):
    """The middle of a box."""

    x: float
    y: float


def rooms() -> dict[str, list[list[str]]]:
    """What each contract of the linter orders, by its package: the uppermost row first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, list[list[str]]] = {}
    for contract in text.split("[[tool.importlinter.contracts]]")[1:]:
        package = re.search(r'^containers = \["(.*)"\]$', contract, re.MULTILINE)
        if package:
            block = contract.partition("\nlayers = [")[2].partition("\n]")[0]
            rows = re.findall(r'^  "(.*)"', block, re.MULTILINE)
            found[package[1]] = [re.split(r" [|:] ", row) for row in rows]
    return found


def imports(package: str, rows: Rows) -> Counter[tuple[str, str]]:
    """How many modules below the first name of a package import one below the second."""
    graph = _graph()
    names = {name for row in rows for name in row}

    def room(module: str) -> str:
        inside = module.startswith(f"{package}.")
        return module.removeprefix(f"{package}.").partition(".")[0] if inside else ""

    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        start = room(module)
        if start in names:
            ends = {room(name) for name in graph.find_modules_directly_imported_by(module)}
            found.update((start, end) for end in ends if end in names and end != start)
    return found


@cache
def _graph() -> grimp.ImportGraph:
    import grimp

    return grimp.build_graph("vivace", cache_dir=None)


def picture() -> str:
    """All of it as SVG: the rooms, and below them what is in those that have rooms of their own."""
    y, panels = 0.0, []
    for package, rows in rooms().items():
        arrows = imports(package, rows)
        panels.append(f'<g transform="translate(0 {y:.0f})">\n{draw(package, rows, arrows)}</g>\n')
        y += height(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}"'
        ' font-family="sans-serif" text-anchor="middle">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{"".join(panels)}</svg>\n'
    )


def height(rows: Rows) -> float:
    """How much room `draw` takes."""
    return TITLE + ROW * len(rows)


def draw(package: str, rows: Rows, arrows: Arrows) -> str:
    """One panel of the picture: a package, and what is in it."""
    box = min(128, WIDTH / max(len(row) for row in rows) - 12)
    places = {
        name: Place(WIDTH * (column + 1) / (len(row) + 1), TITLE + HEIGHT / 2 + 10 + ROW * level)
        if len(row) < 6
        else Place(WIDTH * (column + 0.5) / len(row), TITLE + HEIGHT / 2 + 10 + ROW * level)
        for level, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    lines = [
        f'<text x="10" y="20" font-size="14" text-anchor="start">{escape(package)}</text>',
        *_arrows(places, arrows),
        *(_box(package, name, place, box) for name, place in places.items()),
    ]
    return "\n".join(lines) + "\n"


def _arrows(places: Mapping[str, Place], arrows: Arrows) -> Iterator[str]:
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


def _box(package: str, name: str, place: Place, width: float) -> str:
    left, top = place.x - width / 2, place.y - HEIGHT / 2
    subject = SUBJECTS.get(f"{package}.{name}", "")
    name_y = place.y - 2 if subject else place.y + 5
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"'
        f' fill="#f4f4f6" stroke="#555"/><text x="{place.x:.0f}" y="{name_y:.0f}" font-size="13"'
        f' font-weight="bold">{escape(name)}</text><text x="{place.x:.0f}" y="{place.y + 12:.0f}"'
        f' font-size="10" fill="#555">{escape(subject)}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    sys.stdout.write(f"Written: {PICTURE.name}.\n")
