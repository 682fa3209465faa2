"""Screenshots as small files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

THUMBNAIL_WIDTH = 480
THUMBNAIL_BYTES = 60_000
NODE_BYTES = 40_000


def save_node(screenshot: bytes, path: Path, limit: int = NODE_BYTES) -> int:
    """Write a PNG with few colours, below `limit`; its size in bytes.

    Raises:
        ValueError: it is too large with any number of colours.
    """
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    for colors in (128, 64, 32):
        packed = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
        if packed.tell() < limit:
            return _write(path, packed)
    raise ValueError(f"{path.name} would have {limit} bytes or more with any colours.")


def save_thumbnail(screenshot: bytes, path: Path) -> int:
    """Write a JPEG of `THUMBNAIL_WIDTH` pixels, below `THUMBNAIL_BYTES`; its size in bytes.

    Raises:
        ValueError: it is too large at any quality.
    """
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    size = THUMBNAIL_WIDTH, round(image.height * THUMBNAIL_WIDTH / image.width)
    small = image.resize(size, Image.Resampling.LANCZOS)
    for quality in range(88, 20, -6):
        packed = io.BytesIO()
        small.save(packed, "JPEG", quality=quality, optimize=True, progressive=True)
        if packed.tell() < THUMBNAIL_BYTES:
            return _write(path, packed)
    raise ValueError(f"{path.name} would have {THUMBNAIL_BYTES} bytes or more at any quality.")


def _write(path: Path, packed: io.BytesIO) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed.getvalue())
    return packed.tell()
