"""Pictures on one sheet, each with what was different about its run."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CliError

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 512
_MARGIN = 12
_LINE = 18
_LETTER = 8


def write_sheet(path: Path, pictures: Sequence[tuple[str, Path]], columns: int = 0) -> None:
    """Write pictures and the labels below them as a PNG, whole or not at all.

    Args:
        path: the sheet.
        pictures: label and file of each.
        columns: how many stand side by side; 0 for about as many as there are rows.

    Raises:
        CliError: Pillow is missing.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        problem = "The contact sheet needs the package pillow"
        raise CliError(problem, "Install it: pip install pillow") from None

    images = [_thumbnail(file) for _, file in pictures]
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    labels = [textwrap.wrap(text, max(8, width // _LETTER)) for text, _ in pictures]
    below = _LINE * max(len(lines) for lines in labels) + 6
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    across, down = width + _MARGIN, height + below + _MARGIN
    sheet = Image.new("RGB", (columns * across + _MARGIN, rows * down + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for index, (image, lines) in enumerate(zip(images, labels, strict=True)):
        left, top = _MARGIN + index % columns * across, _MARGIN + index // columns * down
        sheet.paste(image, (left, top))
        for line, text in enumerate(lines):
            draw.text((left, top + height + 4 + line * _LINE), text, fill="black", font=font)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        sheet.save(unfinished, "PNG")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _thumbnail(file: Path) -> Image:
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return image
