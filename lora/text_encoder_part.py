"""The part of a LoRA file that is for a text encoder: found by name, read as it is.

What the names mean depends on the text encoder, which only the caller knows.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from .examine import Identity, identity, look
from .file_report import Report
from .files.open_file import LoraFile
from .mapping.module_names import Ignored

if TYPE_CHECKING:
    import torch

_KEPT = 8
_kept: OrderedDict[tuple[str, Identity], dict[str, torch.Tensor]] = OrderedDict()
_lock = Lock()


def text_encoder_names(report: Report) -> list[str]:
    """Return the tensor names of a file that are for a text encoder, in file order."""
    return [entry.key for entry in report.keys if entry.reason is Ignored.TEXT_ENCODER]


def keep_text_encoder(
    path: str | os.PathLike[str], content: Identity, file: LoraFile, names: list[str]
) -> None:
    """Read the named tensors of an open file, for the next `read_text_encoder` of it."""
    tensors = file.read(names, "cpu") if names else {}
    with _lock:
        _kept[_key(path, content)] = tensors
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)


def read_text_encoder(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return what a file has for a text encoder, on the CPU, in its stored dtype and shape.

    A file that was just loaded with its text encoder's part is not opened again.

    Raises:
        LoraError: the file cannot be read or is not valid.
    """
    content = identity(path)
    with _lock:
        tensors = _kept.pop(_key(path, content), None)
    if tensors is not None:
        return tensors
    names = text_encoder_names(look(path).report)
    if not names:
        return {}
    with LoraFile(path) as file:
        tensors = file.read(names, "cpu")
        file.check_unchanged(content.file)
    return tensors


def _key(path: str | os.PathLike[str], content: Identity) -> tuple[str, Identity]:
    return os.path.abspath(path), content  # noqa: PTH100  (resolve would follow links)
