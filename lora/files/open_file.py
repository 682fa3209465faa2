"""One open LoRA file: header first, then only the tensors that are asked for, each at most once.

Reads go through ``readinto`` on the one handle, not through a memory map: a file that shrinks under
a map kills the process, under ``readinto`` it is an error. Neighbouring tensors are read in runs.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import stat
from collections.abc import Container, Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import LoraError, LoraFileError, LoraFormatError
from .file_types import PICKLES
from .header import Header, HeaderError, TensorInfo, header_length, parse_header

if TYPE_CHECKING:
    import torch

ALIGNMENT = 64  # bytes; what torch's own CPU allocations have
# Tensors are staged together up to this many bytes: large enough for full bandwidth, small enough
# that the staging copy on the way to another device does not matter.
RUN_BYTES = 32 * 2**20

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_DOWNLOAD_AGAIN = "Download the file again"


class Stamp(NamedTuple):
    """Identity of a file's content as far as the file system tells.

    Tools can set the modification time back, but not the time of the last change of the inode, nor
    can a file that replaces another have its inode number.
    """

    size: int
    mtime_ns: int
    inode: int = 0
    ctime_ns: int = 0

    @staticmethod
    def of(status: os.stat_result) -> Stamp:
        """Return the stamp of a status."""
        return Stamp(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """Return the stamp of a regular file.

    Raises:
        LoraFileError: it is missing, cannot be accessed, or is no regular file.
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise LoraFileError(path, "no such file", "Check the name and the loras folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LoraFileError(path, f"cannot be accessed ({reason})", "Check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise LoraFileError(path, "is a folder, not a file", "Choose a LoRA file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise LoraFileError(path, "is not a regular file", "Choose a .safetensors file")
    return Stamp.of(status)


class LoraFile:
    """A LoRA file, opened once. Use as a context manager.

    Attributes:
        header: names, dtypes, shapes and metadata, fully checked.
        stamp: identity of the content at the time of opening.
        opens, tensors_read, bytes_read: what was done to the file; header bytes are not counted.

    Raises:
        LoraFileError: the file cannot be read.
        LoraFormatError: it is not a valid safetensors file, or a pickle with more than tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.opens = 0
        self.tensors_read = 0
        self.bytes_read = 0
        self.stamp = stamp(self.path)
        self._unpickled: dict[str, torch.Tensor] | None = None
        self._handle = self._open()
        try:
            self.header = self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LoraFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle; safe to call twice."""
        self._handle.close()
        self._unpickled = None

    def _open(self) -> FileIO:
        self.opens += 1
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:
            problem = f"cannot be opened ({error.strerror})"
            raise LoraFileError(self.path, problem, "Check the file's permissions") from None

    def _read_header(self) -> Header:
        size = self.stamp.size
        if size == 0:
            raise LoraFormatError(self.path, "the file is empty", _DOWNLOAD_AGAIN)
        try:
            start = self._handle.read(64)
        except OSError as error:
            raise self._unreadable(error) from None
        if start[8:9] != b"{":  # the first bytes of a valid file are a length, so may be anything
            if start.startswith(_PICKLE_STARTS):
                return self._read_pickle()
            if problem := _recognize(start):
                raise LoraFormatError(self.path, problem, _DOWNLOAD_AGAIN)
        try:
            text = bytearray(header_length(start[:8], size))
            self._fill(memoryview(text), 8)
            return parse_header(bytes(text), size)
        except HeaderError as error:
            problem = f"not a valid safetensors file: {error}"
            raise LoraFormatError(self.path, problem, _DOWNLOAD_AGAIN) from None

    def _read_pickle(self) -> Header:
        if self.path.suffix.lower() not in PICKLES:
            remedy = "Rename it to .pt if you trust it, or convert it to safetensors"
            raise LoraFormatError(self.path, "holds a pickle, not safetensors data", remedy)
        self._unpickled = _unpickle(self._handle, self.path)
        tensors = {name: _info(tensor) for name, tensor in self._unpickled.items()}
        return Header(tensors, {}, 0)

    def read(
        self,
        names: Iterable[str],
        device: str | torch.device = "cpu",
        on_host: Container[str] = (),
    ) -> dict[str, torch.Tensor]:
        """Read the named tensors in their stored dtype and shape, in file order.

        Tensors named in `on_host` stay on the CPU whatever the device. Tensors of one run share a
        storage, in which each is aligned: kernels may round differently for unaligned memory, and
        the same factors shall give the same bits wherever they lie in a file. Peak host memory
        beyond the result is one run.

        Raises:
            KeyError: a name is not in the header.
            LoraFileError: the file ends early or cannot be read.
        """
        import torch

        if self._unpickled is not None:
            found = {name: self._unpickled.pop(name) for name in names}
            self.tensors_read += len(found)
            self.bytes_read += sum(tensor.nbytes for tensor in found.values())
            return {n: t if n in on_host else t.to(device) for n, t in found.items()}
        infos = {name: self.header.tensors[name] for name in names}
        dtypes = {name: dtype for dtype, name in dtype_names().items()}
        place = torch.device(device)
        result: dict[str, torch.Tensor] = {}
        for run in _runs(infos):
            places, size = _aligned([infos[name] for name in run])
            host = torch.empty(size, dtype=torch.uint8)
            buffer = memoryview((ctypes.c_char * size).from_address(host.data_ptr())).cast("B")
            for name, (start, stop) in zip(run, places, strict=True):
                self._fill(buffer[start:stop], self.header.data_start + infos[name].begin)
                self.bytes_read += stop - start
            staged = host.to(place)
            for name, (start, stop) in zip(run, places, strict=True):
                source = host if name in on_host else staged
                info = infos[name]
                result[name] = source[start:stop].view(dtypes[info.dtype]).reshape(info.shape)
            self.tensors_read += len(run)
        return result

    def _fill(self, buffer: memoryview, offset: int) -> None:
        filled = 0
        try:
            self._handle.seek(offset)
            while filled < len(buffer):
                count = self._handle.readinto(buffer[filled:])
                if not count:
                    raise LoraFileError(self.path, "the file ends early", _DOWNLOAD_AGAIN)
                filled += count
        except OSError as error:
            raise self._unreadable(error) from None

    def check_unchanged(self, since: Stamp) -> None:
        """Compare the file now, and as it was opened, with an earlier stamp.

        Raises:
            LoraFileError: it was changed or replaced in between.
        """
        if not since == self.stamp == stamp(self.path):
            remedy = "Wait until it is complete and run again"
            raise LoraFileError(self.path, "the file changed while it was being read", remedy)

    def _unreadable(self, error: OSError) -> LoraError:
        problem = f"cannot be read ({error.strerror})"
        return LoraFileError(self.path, problem, "Check the disk and the file's permissions")


def _recognize(start: bytes) -> str | None:
    """Name what is commonly saved under a LoRA's name by mistake."""
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself"
    if start.lstrip()[:1] == b"<":
        return "this is a web page, not a LoRA"
    if start.startswith(b"GGUF"):
        return "this is a GGUF file, not a LoRA in safetensors format"
    return None


def _runs(infos: Mapping[str, TensorInfo]) -> Iterator[list[str]]:
    """Yield names in file order, in groups of at most `RUN_BYTES` (or one larger tensor)."""
    names: list[str] = []
    size = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end)):
        if names and size + info.end - info.begin > RUN_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += info.end - info.begin
    if names:
        yield names


def _aligned(infos: Iterable[TensorInfo]) -> tuple[list[tuple[int, int]], int]:
    """Lay tensors out one behind the other, aligned; return (start, stop) of each, and the size."""
    places: list[tuple[int, int]] = []
    start = 0
    for info in infos:
        stop = start + info.end - info.begin
        places.append((start, stop))
        start = -(-stop // ALIGNMENT) * ALIGNMENT
    return places, start


def _info(tensor: torch.Tensor) -> TensorInfo:
    dtype = dtype_names().get(tensor.dtype, str(tensor.dtype))
    if str(tensor.layout) != "torch.strided":
        dtype = str(tensor.layout)
    return TensorInfo(dtype, tuple(tensor.shape), 0, tensor.numel() * tensor.dtype.itemsize)


def dtype_names() -> dict[torch.dtype, str]:
    """What safetensors calls torch's types."""
    import torch

    return {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }


def _unpickle(handle: FileIO, path: Path) -> dict[str, torch.Tensor]:
    """Load a state_dict with torch's restricted unpickler, which runs no code from the file."""
    import torch

    handle.seek(0)
    try:
        content = torch.load(handle, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        problem = "the pickle holds more than tensors, so it could run code"
        raise LoraFormatError(path, problem, "Convert it to safetensors") from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        summary = str(error).partition("\n")[0]
        problem = f"not a readable PyTorch file ({summary})"
        raise LoraFormatError(path, problem, _DOWNLOAD_AGAIN) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise LoraFormatError(path, "holds no table of tensors", "Choose a LoRA file")
    return {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }
