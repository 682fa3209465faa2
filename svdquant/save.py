"""Writes a converted checkpoint, so that the next load is a plain read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..lora.file import Stamp

# The file that a copy was made of, as far as the file system tells.
SOURCE = "vivace_source"
_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.int8: "I8",
    torch.uint8: "U8",
}


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
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in state_dict.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for tensor in state_dict.values():
                if tensor.numel():
                    file.write(_bytes(tensor))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
