"""Writes a converted checkpoint, so that the next load is a plain read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..lora.files.open_file import Stamp
from ..lora.files.writer import TensorWriter

# The file that a copy was made of, as far as the file system tells.
SOURCE = "vivace_source"


def converted_path(path: str | os.PathLike[str]) -> Path:
    """Return where the converted copy of a checkpoint lies: beside it."""
    source = Path(path)
    return source.with_name(f"{source.stem}.kitchen.safetensors")


def source_mark(stamp: Stamp) -> str:
    """Return what a copy says of its source: copies of another content are out of date."""
    return f"{stamp.size}-{stamp.mtime_ns}"


def write_converted(
    path: Path, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, one tensor at a time, and put it in place when it is complete.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with TensorWriter(path, state_dict, metadata) as file:
        for name, tensor in state_dict.items():
            file.add(name, tensor)
