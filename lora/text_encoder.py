"""The part of a LoRA file that is for a text encoder: found by name, read as it is.

What the names mean depends on the text encoder, which only the caller knows.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .file import LoraFile
from .mapping import IGNORED
from .naming import TEXT_ENCODER
from .report import Report

if TYPE_CHECKING:
    import torch


def is_for_text_encoder(reason: str | None) -> bool:
    """Whether that is why a tensor is ignored."""
    return reason == TEXT_ENCODER


def text_encoder_names(report: Report) -> list[str]:
    """Return the tensor names of a file that are for a text encoder, in file order."""
    return [
        entry.key
        for entry in report.keys
        if entry.status == IGNORED and is_for_text_encoder(entry.reason)
    ]


def read_tensors(path: str | os.PathLike[str], names: list[str]) -> dict[str, torch.Tensor]:
    """Read the named tensors on the CPU, in their stored dtype and shape.

    Raises:
        LoraError: the file cannot be read or is not valid.
    """
    with LoraFile(path) as file:
        return file.read(names, "cpu")
