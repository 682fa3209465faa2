"""The safetensors header: parsed and checked before any tensor is touched.

Format: 8 bytes little-endian length N, N bytes of JSON (name -> dtype, shape, data_offsets, and
optional ``__metadata__`` of strings), then the data. Offsets count from the end of the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# The bound of the reference implementation.
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 16
_TOO_LARGE = 2**64  # likewise, of a side or a product of sides

ITEM_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
INTEGER_DTYPES = frozenset({"I64", "I32", "I16", "I8", "U8"})
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class HeaderError(ValueError):
    """The header is not that of a valid safetensors file; the message says what is wrong."""


class TensorInfo(NamedTuple):
    """One tensor of a file: safetensors dtype name, shape, and bytes ``begin:end`` of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors of a file in file order, its metadata, and where its data starts."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int


def header_length(prefix: bytes, file_size: int) -> int:
    """Return the length of the JSON from the first 8 bytes of a file.

    Raises:
        HeaderError: the length is impossible for a file of this size.
    """
    if len(prefix) < 8:
        raise HeaderError(f"only {len(prefix)} bytes long")
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise HeaderError(f"impossible header length {length}")
    if length > file_size - 8:
        raise HeaderError(f"header of {length} bytes in a file of {file_size} bytes")
    return length


def parse_header(text: bytes, file_size: int) -> Header:
    """Parse the JSON and check every entry against the size of the file.

    Raises:
        HeaderError: bad JSON, duplicate names, unknown dtypes, shapes that do not match the byte
            ranges, or ranges that overlap, leave holes, or lie outside the file.
    """
    try:
        content = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        if b"\\u" in text:  # only so can a text have half a character, which JSON forbids
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise HeaderError("header nested too deeply") from None
    except HeaderError:
        raise
    except ValueError as error:
        raise HeaderError(f"header is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise HeaderError("header is not a JSON object")
    metadata = content.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HeaderError("__metadata__ is not a table of strings")
    tensors = {name: _tensor(name, value) for name, value in content.items()}
    start = 8 + len(text)
    _check_ranges(tensors, file_size - start)
    return Header(tensors, metadata, start)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise HeaderError("header names a tensor twice")
    return result


def _no_constant(name: str) -> None:
    raise HeaderError(f"header is not valid JSON ({name} is no JSON number)")


def _sizes(value: object, limit: int) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > limit:
        return None
    fits = all(type(item) is int and 0 <= item < _TOO_LARGE for item in value)
    return tuple(value) if fits else None


def _tensor(full_name: str, value: object) -> TensorInfo:
    name = full_name[:100]
    if not isinstance(value, dict):
        raise HeaderError(f"entry {name!r} is not an object")
    dtype = value.get("dtype")
    shape = _sizes(value.get("shape"), MAX_DIMENSIONS)
    offsets = _sizes(value.get("data_offsets"), 2)
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise HeaderError(f"tensor {name!r} has unknown dtype {str(dtype)[:30]!r}")
    if shape is None:
        raise HeaderError(f"tensor {name!r} has an invalid shape")
    if offsets is None or len(offsets) != 2:
        raise HeaderError(f"tensor {name!r} has invalid data_offsets")
    begin, end = offsets
    size = 1
    for factor in (*shape, ITEM_SIZES[dtype]):
        size *= factor
        if size >= _TOO_LARGE:
            raise HeaderError(f"tensor {name!r} has an invalid shape")
    if end - begin != size:
        raise HeaderError(f"tensor {name!r} of {size} bytes is given the range {begin}:{end}")
    return TensorInfo(dtype, shape, begin, end)


def _check_ranges(tensors: Mapping[str, TensorInfo], data_size: int) -> None:
    position = 0
    for info in sorted(tensors.values(), key=lambda info: (info.begin, info.end)):
        if info.begin != position:
            fault = "overlap" if info.begin < position else "leave a hole"
            raise HeaderError(f"tensors {fault} at byte {min(info.begin, position)} of the data")
        position = info.end
    if position > data_size:
        raise HeaderError(f"truncated: {position - data_size} of {position} data bytes are missing")
    if position < data_size:
        raise HeaderError(f"{data_size - position} bytes after the last tensor")
