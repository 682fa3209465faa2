"""Image files, as a folder of images holds them and as they are sent to a server."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image

from ....vlm.vision import image_file
from ....vlm.vision.image_file import ImageFileError, encoded_image, read_image
from .. import scratch
from ..mutations import bytes_of
from ..refusals import may_refuse

# Of the pack's own bound, so that an image that is allowed takes no second.
MAX_PIXELS = 2**18
_PNG = b"\x89PNG\r\n\x1a\n"


def target(data: bytes) -> None:
    """Read the file, and what came of it as a server is sent it."""
    with (
        scratch.file(data, "x.png") as path,
        patch.object(image_file, "MAX_PIXELS", MAX_PIXELS),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
        except ImageFileError as error:
            assert str(error).startswith(f"{path} ")
            str(error).encode()
            with may_refuse(ImageFileError):
                raise
            return
        height, width, channels = image.shape
        assert 0 < height * width <= MAX_PIXELS
        assert channels in (3, 4)
        assert image.dtype == torch.float32
        low, high = image.aminmax()
        assert 0 <= low <= high <= 1
        with may_refuse(ValueError):  # too narrow for any model
            assert encoded_image(image, "fast")


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@lru_cache(maxsize=1)
def _images() -> tuple[bytes, ...]:
    chance = random.Random(5)  # noqa: S311
    rgba = Image.frombytes("RGBA", (9, 7), chance.randbytes(9 * 7 * 4))
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.frombytes("I;16", (9, 7), chance.randbytes(9 * 7 * 2))
    float_grey = Image.new("F", (5, 4), 0.5)
    turned = Image.Exif()
    turned[0x0112] = 6
    found = [
        *(_saved(rgba.convert(mode), "PNG") for mode in ("RGBA", "RGB", "L", "LA", "P", "1")),
        _saved(deep, "PNG"),
        _saved(rgb, "JPEG", exif=turned),
        _saved(grey, "JPEG", progressive=True),
        _saved(rgb.convert("CMYK"), "JPEG"),
        _saved(rgba, "WEBP", lossless=True),
        _saved(rgb, "WEBP", exif=turned),
        _saved(rgb, "BMP"),
        _saved(rgba.convert("P"), "BMP"),
        _saved(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)]),
        _saved(rgba, "GIF"),
        *(_saved(rgb, "TIFF", compression=c) for c in ("raw", "tiff_lzw", "jpeg", "packbits")),
        _saved(deep, "TIFF"),
        _saved(float_grey, "TIFF"),
    ]
    return tuple(found)


def seeds() -> Sequence[bytes]:
    """Small images of every format and many modes."""
    return _images()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change bytes; the checksums of a PNG mostly fit afterwards, so that its content is read."""
    found = bytes_of(data, chance)
    if found.startswith(_PNG) and chance.random() < 0.8:
        return _PNG + b"".join(_chunks(found))
    if chance.random() < 0.3 and len(found) > 16:  # numbers of tags, sizes and offsets
        place = chance.randrange(len(found) - 4)
        value = chance.choice((0, 1, 2, 0xFFFF, 0x10000, 2**31, 2**32 - 1))
        found = found[:place] + struct.pack(chance.choice("<>") + "I", value) + found[place + 4 :]
    return found


def _chunks(data: bytes) -> list[bytes]:
    """The chunks of a PNG, each with its length and checksum put right."""
    found = []
    place = len(_PNG)
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        check = struct.pack(">I", zlib.crc32(kind + content))
        found.append(struct.pack(">I", len(content)) + kind + content + check)
        place += size + 12
    return found
