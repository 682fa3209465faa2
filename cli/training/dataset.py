"""A folder of images and captions, and its way to the server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CliError

if TYPE_CHECKING:
    from ..output import Output
    from ..server.http import Server

# What the server's node reads.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Example:
    """An image file and its caption."""

    image: Path
    caption: str


def read_dataset(folder: Path, caption: str | None) -> list[Example]:
    """The images of a folder, in order of their names, each with its caption.

    Args:
        folder: images, each with a .txt of the same name.
        caption: for images without one.

    Raises:
        CliError: there is no such folder, it has no images, or one has no caption.
    """
    if not folder.is_dir():
        raise CliError(f"There is no folder {folder}", "Correct 'dataset' in the configuration")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    images = [path for path in images if path.is_file() and not path.name.startswith(".")]
    if not images:
        problem = f"{folder} holds no images ({', '.join(SUFFIXES)})"
        raise CliError(problem, "Correct 'dataset' in the configuration")
    return [Example(path, _caption(path, caption)) for path in images]


def _caption(image: Path, otherwise: str | None) -> str:
    path = image.with_suffix(".txt")
    try:
        text = path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
    except UnicodeDecodeError:
        raise CliError(f"{path} is no text in UTF-8", "Save it as UTF-8") from None
    if text or otherwise is not None:
        return text or otherwise or ""
    remedy = "Write it, run 'vivace caption', or give all such images a 'caption' in the file"
    raise CliError(f"{image} has no caption beside it ({path.name})", remedy)


def upload(examples: list[Example], server: Server, out: Output) -> str:
    """Put the images and captions into a folder of the server's inputs.

    The folder is named after the content, so that the same data set is there once only.

    Returns:
        The folder's name.

    Raises:
        CliError: a file cannot be read any more.
    """
    contents = [(path.image.read_bytes(), path.caption.encode()) for path in examples]
    digest = hashlib.sha256()
    for content, caption in contents:
        digest.update(hashlib.sha256(content).digest() + hashlib.sha256(caption).digest())
    folder = f"vivace-train-{digest.hexdigest()[:16]}"
    with out.progress("uploading", len(examples)) as step:
        for number, (example, (content, caption)) in enumerate(
            zip(examples, contents, strict=True), 1
        ):
            # The server's node looks for captions by names, which here have no surprises.
            name = f"{number:05}"
            server.upload(caption, f"{name}.txt", folder)
            server.upload(content, f"{name}{example.image.suffix.lower()}", folder)
            step(1, example.image.name)
    return folder
