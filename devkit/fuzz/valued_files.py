"""Safetensors files from a description that also says what the tensors hold.

``{"metadata": {…}, "config": text, "tensors": {name: [dtype, shape, seed, factor, offset]}}``: a
tensor holds elements of an endless row of random numbers, from `offset` on, times `factor`. Seed 0
is the row of ones. The configuration goes into a file of its own beside the LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...lora.files.open_file import dtype_names
from .sketch import MAX_BYTES, size_of, with_header

_ROW = 2**14
_NARROW = ("F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class ValuedFile:
    """The bytes of a file, the tensors in it, and what stands beside it."""

    content: bytes
    tensors: Mapping[str, Tensor]
    config: str | None = None

    def write(self, folder: Path) -> Path:
        """Write the file, and its configuration if there is one."""
        path = folder / "x.safetensors"
        path.write_bytes(self.content)
        if self.config is not None:
            text = self.config.encode("utf-8", "surrogatepass")
            (folder / "adapter_config.json").write_bytes(text)
        return path


def valued_file(description: Any) -> ValuedFile | None:
    """Make the file of a description; None for what is none, or is too large."""
    if not isinstance(description, dict) or not isinstance(description.get("tensors"), dict):
        return None
    header: dict[str, Any] = {"__metadata__": description.get("metadata")}
    tensors: dict[str, Tensor] = {}
    pieces: list[bytes] = []
    end = 0
    for name, value in description["tensors"].items():
        if not isinstance(value, list) or len(value) < 2:
            return None
        dtype, shape, *how = value
        size = size_of(dtype, shape)
        if size is None or end + size > MAX_BYTES:
            return None
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        tensor = _tensor(dtype, shape, how)
        if tensor is not None:
            tensors[name] = tensor
        pieces.append(bytes(size) if tensor is None else _bytes(tensor))
        end += size
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    config = description.get("config")
    content = with_header(text, b"".join(pieces))
    return ValuedFile(content, tensors, config if isinstance(config, str) else None)


def _tensor(dtype: str, shape: list[int], how: list[Any]) -> Tensor | None:
    """The values in the type of the file; None for types that torch has not."""
    torch_dtype = {name: key for key, name in dtype_names().items()}.get(dtype)
    if torch_dtype is None:
        return None
    found = [_number(one) for one in how[:3]]
    seed, factor, offset = found + [0.0, 1.0, 0.0][len(found) :]
    places = torch.arange(prod(shape)) + _whole(offset)
    values = _row(_whole(seed) % 1000)[places % _ROW] * factor
    if not torch_dtype.is_floating_point:
        limits = torch.iinfo(torch.uint8 if torch_dtype == torch.bool else torch_dtype)
        low, high = max(limits.min, -(2**53)), min(limits.max, 2**53)
        values = values.nan_to_num(0.0).round().clamp(low, high)
    elif dtype in _NARROW:  # which have no infinity to speak of
        limit = torch.finfo(torch_dtype).max
        values = values.clamp(-limit, limit)
    return values.to(torch_dtype).reshape(shape)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, (int, float)) else 0.0
    except OverflowError:
        return float("inf")


def _whole(value: float) -> int:
    return int(value) if abs(value) < 2**31 else 0


@lru_cache(maxsize=128)
def _row(seed: int) -> Tensor:
    if seed == 0:
        return torch.ones(_ROW, dtype=torch.float64)
    return torch.randn(_ROW, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
