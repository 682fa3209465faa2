"""The contact sheet: one labelled picture per run."""

from __future__ import annotations

import io
from pathlib import Path

MARGIN = 12
LABEL = 26
COLUMNS = 4


def write_contact_sheet(path: Path, pictures: list[tuple[str, bytes]]) -> None:
    """Lay out PNG files with their labels and write the sheet as PNG."""
    from PIL import Image, ImageDraw, ImageFont

    images = [(label, Image.open(io.BytesIO(data)).convert("RGB")) for label, data in pictures]
    width = max(image.width for _, image in images)
    height = max(image.height for _, image in images)
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    size = (
        columns * (width + MARGIN) + MARGIN,
        rows * (height + LABEL + MARGIN) + MARGIN,
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for index, (label, image) in enumerate(images):
        left = MARGIN + index % COLUMNS * (width + MARGIN)
        top = MARGIN + index // COLUMNS * (height + LABEL + MARGIN)
        sheet.paste(image, (left, top))
        draw.text((left, top + height + 5), label, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
