"""Captions for many images: those of a graph, or those of a folder, a `.txt` beside each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from comfy.utils import ProgressBar

from ...defaults import DEFAULTS
from ...vlm.caption_folder import ImageFolder, write_caption
from ...vlm.question import Question
from ...vlm.remote.openai_reply import Reply
from ...vlm.remote.remote_errors import RemoteError
from ...vlm.vision.image_file import read_image
from .live_text import LiveText
from .vlm_session import Session

_SHOWN = 10

T = TypeVar("T")


@dataclass
class Captions:
    """What became of some images.

    Attributes:
        texts: of the images that got one, in order.
        failed: what went wrong, by the image's name.
        skipped: images that had a caption already.
    """

    texts: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    skipped: int = 0

    def lines(self) -> str:
        """Markdown for the report."""
        found = f"- captions: {len(self.texts)} written, {self.skipped} there already, "
        found += f"{len(self.failed)} failed\n"
        for name, error in list(self.failed.items())[:_SHOWN]:
            found += f"  - {name}: {error}\n"
        return found


@dataclass(frozen=True)
class BatchPrompt:
    """What is asked about each image, how many at a time, and where it is shown."""

    text: str
    system: str = ""
    batch_size: int = DEFAULTS["VivaceQwenVLBatch"]["batch_size"]
    node_id: str | None = None


def caption_images(
    session: Session, prompt: BatchPrompt, images: Sequence[torch.Tensor]
) -> Captions:
    """Caption images, each `[H, W, C]`.

    Raises:
        ValueError, RemoteError: an image cannot be used, or the server gave no reply for one.
    """
    found = Captions()
    bar = ProgressBar(len(images))
    live = _Live(prompt.node_id, len(images))
    for chunk in _chunks(list(enumerate(images, 1)), prompt.batch_size):
        for (number, _), outcome in zip(
            chunk, _ask(session, prompt, [image for _, image in chunk]), strict=True
        ):
            if isinstance(outcome, RemoteError):
                raise outcome
            found.texts.append(outcome.text)
            live.done(f"image {number}", outcome.text)
        bar.update_absolute(len(found.texts))
    return found


def caption_folder(
    session: Session, prompt: BatchPrompt, folder: ImageFolder, existing: str
) -> Captions:
    """Caption the images of a folder; each caption is written as soon as it is there.

    An image that cannot be used does not stop the others.

    Raises:
        ValueError: the folder cannot be used, or none of its images could.
        RemoteError: the server gave no reply for a whole batch. Captions written stay.
    """
    paths = folder.pending(existing)
    found = Captions(skipped=len(folder.images()) - len(paths))
    bar = ProgressBar(max(len(paths), 1))
    live = _Live(prompt.node_id, len(paths))
    for chunk in _chunks(paths, prompt.batch_size):
        outcomes = list(_caption_files(session, prompt, chunk))
        lost = [outcome for _, outcome in outcomes if isinstance(outcome, RemoteError)]
        if len(lost) == len(outcomes):  # it will be no better with the others
            raise lost[0]
        for path, outcome in outcomes:
            name = path.relative_to(folder.path).as_posix()
            if isinstance(outcome, Exception):
                found.failed[name] = outcome
                continue
            try:
                write_caption(path, outcome.text, existing)
            except (OSError, ValueError) as error:
                found.failed[name] = error
                continue
            found.texts.append(outcome.text)
            live.done(name, outcome.text)
        bar.update_absolute(len(found.texts) + len(found.failed))
    if found.failed and not found.texts:
        raise next(iter(found.failed.values()))
    return found


def _caption_files(
    session: Session, prompt: BatchPrompt, paths: Sequence[Path]
) -> Iterator[tuple[Path, Reply | Exception]]:
    images: dict[Path, torch.Tensor] = {}
    for path in paths:
        try:
            images[path] = read_image(path)
        except ValueError as error:
            yield path, error
    yield from _together(images, lambda some: _ask(session, prompt, some))


def _together(
    images: dict[Path, torch.Tensor], ask: Callable[[list[torch.Tensor]], list[T]]
) -> Iterable[tuple[Path, T | Exception]]:
    """Ask about all at once; where one of them cannot be used, about each for itself."""
    if not images:
        return []
    try:
        return list(zip(images, ask(list(images.values())), strict=True))
    except ValueError as error:
        if len(images) == 1:
            return [(next(iter(images)), error)]
    return [pair for path, image in images.items() for pair in _together({path: image}, ask)]


def _ask(
    session: Session, prompt: BatchPrompt, images: list[torch.Tensor]
) -> list[Reply | RemoteError]:
    questions = [Question(prompt.text, prompt.system, (image,)) for image in images]
    return session.ask(questions, lambda index, piece: None, lambda: None)


class _Live:
    """Shows how far the batch is, and the last caption."""

    def __init__(self, node_id: str | None, total: int) -> None:
        self._text = LiveText(node_id)
        self._total = total
        self._done = 0

    def done(self, name: str, caption: str) -> None:
        self._done += 1
        self._text.show(f"{self._done} of {self._total}, {name}:\n{caption}")


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
