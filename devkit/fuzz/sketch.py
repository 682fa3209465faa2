"""Safetensors files from a description: names, types and shapes, without offsets and values."""

from __future__ import annotations

import json
from math import prod
from typing import Any

from ...lora.files.header import ITEM_SIZES

MAX_BYTES = 2**20
# A small number in every type: 0.0115 in BF16 and F32, 1.06 in F16, 60 in a byte.
_FILL = b"\x3c"


def file_of(description: Any) -> bytes | None:
    """The file of ``{"metadata": {…}, "tensors": {name: [dtype, shape, text]}}``; None for others.

    A tensor holds the bytes of its text, repeated or cut, or, without one, small numbers. What is
    no description of a tensor goes into the header as it is.
    """
    if not isinstance(description, dict) or not isinstance(description.get("tensors"), dict):
        return None
    header: dict[str, Any] = {"__metadata__": description.get("metadata")}
    body = b""
    for name, value in description["tensors"].items():
        dtype, shape, text = (
            (*value, None, None, None)[:3] if isinstance(value, list) else (0, 0, 0)
        )
        size = size_of(dtype, shape)
        if size is None:
            header[name] = value
            continue
        if len(body) + size > MAX_BYTES:
            return None
        header[name] = {
            "dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + size],
        }  # fmt: skip
        fill = text.encode("utf-8", "replace") if isinstance(text, str) and text else _FILL
        body += (fill * (size // len(fill) + 1))[:size]
    return with_header(json.dumps(header).encode("utf-8", "surrogatepass"), body)


def with_header(text: bytes, body: bytes) -> bytes:
    """A file with this header, of whatever kind."""
    return len(text).to_bytes(8, "little") + text + body


def size_of(dtype: Any, shape: Any) -> int | None:
    """Bytes of a tensor, or None if there is none of this type and shape, or it is too large."""
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES or not isinstance(shape, list):
        return None
    if len(shape) > 20 or not all(type(side) is int and side >= 0 for side in shape):
        return None
    size = prod(shape) * ITEM_SIZES[dtype]
    return size if size <= MAX_BYTES else None
