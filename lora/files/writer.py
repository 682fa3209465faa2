"""Writes a safetensors file tensor by tensor; readers find it complete or not at all."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# What an entry of the header takes beside its name, with the largest numbers that may occur.
_ENTRY_BYTES = 160
_SPARE_BYTES = 1024
# An unfinished file nobody has written to for so many seconds was left by a process that died.
ABANDONED_AFTER = 600.0


class TensorWriter:
    """A file that is being written beside its final place; use as a context manager.

    Room for the header is kept before the data and filled with spaces, so that only one tensor
    needs to be in memory. If the block ends by an exception (Ctrl-C is one), nothing is left; what
    a killed process has left is removed by the next one that writes the same file.

    Args:
        path: the file; one that is there is replaced at the end.
        names: of the tensors that may be added.
        metadata: of the header; `metadata` may still be changed while the file is written, by up
            to 1 KiB.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, names: Iterable[str], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.metadata = dict(metadata)
        self._entries: dict[str, object] = {}
        self._end = 0
        room = len(json.dumps(self.metadata)) + _SPARE_BYTES
        room += sum(len(json.dumps(name)) + _ENTRY_BYTES for name in names)
        self._room = -(-room // 8) * 8
        _remove_abandoned(path)
        self._unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        self._file = self._unfinished.open("wb")
        self._file.seek(8 + self._room)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors so far."""
        return self._end

    def __enter__(self) -> TensorWriter:
        return self

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor behind those that were added before."""
        from .open_file import dtype_names

        begin, self._end = self._end, self._end + tensor.nbytes
        self._entries[name] = {
            "dtype": dtype_names()[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, self._end],
        }
        if tensor.numel():
            self._file.write(_bytes(tensor))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._file:
                if kind is None:
                    self._write_header()
            if kind is None:
                self._unfinished.replace(self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _write_header(self) -> None:
        text = json.dumps({"__metadata__": self.metadata, **self._entries}).encode()
        if len(text) > self._room:
            raise ValueError(f"a header of {len(text)} bytes, where {self._room} were kept")
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little"))
        self._file.write(text.ljust(self._room))
        self._file.flush()
        os.fsync(self._file.fileno())


def _remove_abandoned(path: Path) -> None:
    for other in path.parent.glob(f"{glob.escape(path.name)}.[0-9]*.part"):
        with suppress(OSError):  # its process has just finished it, or it is not ours
            # The clock may have been set in between, either way.
            if abs(time.time() - other.stat().st_mtime) > ABANDONED_AFTER:
                other.unlink()


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
