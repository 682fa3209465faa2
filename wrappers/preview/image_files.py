"""Images written as PNG files into ComfyUI's folders, with the workflow inside."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal

import folder_paths
import torch
from comfy.cli_args import args
from PIL import Image
from PIL.PngImagePlugin import PngInfo

Saved = dict[str, str]
"""A file as the editor and `/view` name it: `filename`, `subfolder` and `type`."""

_COMPRESS = {"output": 4, "temp": 1}


def save_pngs(images: torch.Tensor, prefix: str, hidden: Any) -> list[Saved]:
    """Write images to the output folder; no file that is there is written over.

    Args:
        images: `[B, H, W, C]` with C of 1, 3 or 4, values 0..1; NaN becomes 0.
        prefix: of the file names, with ComfyUI's placeholders; may name folders below the output
            folder. Blank means `ComfyUI`.
        hidden: of the node, with the prompt and the workflow that go into the files.

    Raises:
        ValueError: `prefix` leads out of the output folder or cannot be a file's name, or the
            images have no pixels.
    """
    return _write(images, prefix.strip() or "ComfyUI", "output", hidden)


def preview_pngs(images: torch.Tensor, hidden: Any) -> list[Saved]:
    """Write images to the folder of temporary files; arguments and errors as for `save_pngs`."""
    return _write(images, f"vivace_{secrets.token_hex(4)}", "temp", hidden)


def _write(
    images: torch.Tensor, prefix: str, kind: Literal["output", "temp"], hidden: Any
) -> list[Saved]:
    pictures = _pictures(images)
    metadata = _metadata(hidden)
    folder, name, first, subfolder = _place(prefix, kind, images.shape[2], images.shape[1])
    saved = []
    numbers = count(first)
    for index, picture in enumerate(pictures):
        stem = name.replace("%batch_num%", str(index))
        try:
            file = next(f for n in numbers if not (folder / (f := f"{stem}_{n:05}_.png")).exists())
            picture.save(folder / file, pnginfo=metadata, compress_level=_COMPRESS[kind])
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(
                f"{folder}: the image '{stem}' cannot be written ({reason}). Check filename_prefix,"
                " the permissions of the folder and the disk."
            ) from None
        saved.append({"filename": file, "subfolder": subfolder, "type": kind})
    return saved


def _place(prefix: str, kind: str, width: int, height: int) -> tuple[Path, str, int, str]:
    root = str(folder_paths.get_directory_by_type(kind))
    try:
        folder, name, first, subfolder, _ = folder_paths.get_save_image_path(
            prefix, root, width, height
        )
    except Exception as error:  # noqa: BLE001 - ComfyUI's own, for what leads out of the folder
        raise ValueError(
            f"filename_prefix: {prefix!r} cannot be used ({str(error).splitlines()[0]})."
            " Give a name, with folders below the output folder if you like."
        ) from None
    return Path(folder), name, first, subfolder


def _pictures(images: torch.Tensor) -> Iterator[Image.Image]:
    """Pillow images of 8 bits, one at a time.

    Raises:
        ValueError: there are no pixels, or the shape is not that of images.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.numel() == 0:
        raise ValueError(
            f"image: there are no pixels to show in a tensor of shape {list(images.shape)}."
            " Connect an IMAGE, [batch, height, width, channels]; *Image Is Empty?* tells whether"
            " it has pixels."
        )
    return (_picture(image) for image in images)


def _picture(image: torch.Tensor) -> Image.Image:
    values = image.detach().float().cpu().nan_to_num(nan=0.0).clamp(0.0, 1.0)
    pixels = (values * 255.0).to(torch.uint8).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _metadata(hidden: Any) -> PngInfo | None:
    if args.disable_metadata:
        return None
    metadata = PngInfo()
    if hidden.prompt is not None:
        metadata.add_text("prompt", json.dumps(hidden.prompt))
    for name, value in (hidden.extra_pnginfo or {}).items():
        metadata.add_text(name, json.dumps(value))
    return metadata
