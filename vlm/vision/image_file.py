"""Images from files, and as files: what an image folder holds, and what a server is sent."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .auto_quality import choose_quality
from .hashing import image_hash
from .pixels import check_image, to_rgb
from .quality import grid_of

if TYPE_CHECKING:
    from PIL.Image import Image

# Which model a server runs is not known; these sizes, of Qwen2.5-VL, suit others as well.
PATCH = 14
MERGE = 2
JPEG_QUALITY = 95
# A file says its size before it is decoded; as float32 RGB this many pixels take 1.2 GB.
MAX_PIXELS = 100_000_000
# By content, not by name. Pillow knows more, some of which start other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_ALPHA_MODES = frozenset({"RGBA", "RGBa", "LA", "PA"})


class ImageFileError(ValueError):
    """An image file that cannot be used; the message names it and says what to do."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path} {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[ImageFileError], tuple[Path, str, str]]:
        return type(self), (self.path, self.problem, self.remedy)


def image_key(image: torch.Tensor) -> str:
    """Return the key under which `encoded_images` files an image: equal for equal images."""
    return image_hash(image)


def encoded_images(
    images: Sequence[torch.Tensor], quality: str
) -> tuple[list[str], dict[str, bytes]]:
    """Encode images for a server, each distinct one once.

    Returns:
        The key of each image in order, and PNG or JPEG files by these keys.

    Raises:
        ValueError: as `encoded_image`; the message gives the image's number, from 1.
    """
    keys = [image_key(image) for image in images]
    files: dict[str, bytes] = {}
    for number, (key, image) in enumerate(zip(keys, images, strict=True), 1):
        if key not in files:
            try:
                files[key] = encoded_image(image, quality)
            except ValueError as error:
                raise ValueError(f"Image {number}: {error}") from None
    return keys, files


def encoded_image(image: torch.Tensor, quality: str) -> bytes:
    """Resize an image as a preset says and write it as a file: PNG or JPEG, the smaller of the two.

    Drawings and screenshots so come out as PNG, without loss; photographs as JPEG of quality 95
    with colour at full resolution. The image is never enlarged.

    Args:
        image: `[H, W, C]`, as for `pixels.to_rgb`.
        quality: a preset of `quality.QUALITIES`, or ``"auto"``.

    Raises:
        ValueError: no image, as `pixels.to_rgb` says, or an unknown preset.
    """
    from PIL import Image

    check_image(image)
    if image.ndim != 3:
        raise ValueError("This is a video. Send its frames one by one")
    height, width = image.shape[0], image.shape[1]
    if quality == "auto":
        quality = choose_quality(image, PATCH, MERGE).quality
    grid = grid_of(height, width, quality, PATCH, MERGE)
    # A grid is rounded to whole tokens, up or down.
    pixels = to_rgb(image, (min(grid.height, height), min(grid.width, width)))
    values = (pixels * 255).round().to(torch.uint8).movedim(0, -1).contiguous().cpu()
    picture = Image.fromarray(values.numpy())
    png, jpeg = io.BytesIO(), io.BytesIO()
    # Level 1 takes a fifth of the time of the default; files are hardly larger.
    picture.save(png, "PNG", compress_level=1)
    picture.save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return min(png.getvalue(), jpeg.getvalue(), key=len)


def read_image(path: Path) -> torch.Tensor:
    """Read an image file, turned as its EXIF orientation says; of an animation, the first frame.

    Returns:
        `[H, W, 3]`, or `[H, W, 4]` if the file has transparency; float32 of 0 to 1.

    Raises:
        ValueError: the file cannot be read, is no image, is damaged, has more than `MAX_PIXELS`, or
            pixels of an unknown range.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if math.prod(picture.size) > MAX_PIXELS:
                raise _too_large(path)
            picture.load()
            return _pixels(path, _upright(picture))
    except ImageFileError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Image.UnidentifiedImageError:
        problem = "is no PNG, JPEG, WebP, BMP, TIFF or GIF image, whatever its name says"
        raise ImageFileError(path, problem, "Convert it to PNG, or move it away") from None
    except Exception as error:  # noqa: BLE001  (decoders fail on damaged files in any way they like)
        if isinstance(error, OSError) and error.strerror:  # else it is a decoder's
            problem, remedy = (
                f"cannot be read ({error.strerror})",
                "Check the path and the permissions",
            )
            raise ImageFileError(path, problem, remedy) from None
        reason = str(error) or type(error).__name__
        problem = f"cannot be decoded ({reason})"
        remedy = "It may be damaged: open it in an image editor and save it anew, or move it away"
        raise ImageFileError(path, problem, remedy) from None


def _upright(picture: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001  (damaged EXIF, of whatever kind, leaves the pixels intact)
        return picture


def _pixels(path: Path, picture: Image) -> torch.Tensor:
    import numpy as np

    if picture.mode.startswith("I") or picture.mode == "F":
        grey = torch.from_numpy(np.array(picture, dtype=np.float32))
        if picture.mode != "F":  # 16 bits, also where Pillow holds them in 32
            grey = grey / 65535
        low, high = grey.aminmax()
        if not (low >= 0 and high <= 1):  # NaN included
            problem = "has pixels of more than 16 bits, or numbers outside of 0 to 1"
            raise ImageFileError(path, problem, "Save it with 8 or 16 bits per channel")
        return grey[..., None].repeat(1, 1, 3)
    transparent = picture.mode in _ALPHA_MODES or "transparency" in picture.info
    converted = picture.convert("RGBA" if transparent else "RGB")
    return torch.from_numpy(np.array(converted)).float() / 255


def _too_large(path: Path) -> ImageFileError:
    problem = f"has more than {MAX_PIXELS // 10**6} million pixels"
    return ImageFileError(path, problem, "Scale it down, or move it away")
