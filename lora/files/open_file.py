"""One open LoRA file: header first, then only the tensors that are asked for, each at most once.

Reads go through ``readinto`` on the one handle, not through a memory map: a file that shrinks under
a map kills the process, under ``readinto`` it is an error. Neighbouring tensors are read in runs.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Container, Iterable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from ..errors import LoraError, LoraFileError, LoraFormatError
from .file_types import PICKLES
from .header import Header, HeaderError, TensorInfo, header_length, parse_header
from .tensor_run import OneDtype, Spans, TensorRun, runs
from .unpickle import unpickle

if TYPE_CHECKING:
    import torch

    Watch = Callable[[torch.Tensor, tuple[str, ...]], None]

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
        self._unpickled = unpickle(self._handle, self.path)
        tensors = {name: _info(tensor) for name, tensor in self._unpickled.items()}
        return Header(tensors, {}, 0)

    def read(
        self,
        names: Iterable[str],
        device: str | torch.device = "cpu",
        on_host: Container[str] = (),
        watch: Watch | None = None,
    ) -> dict[str, torch.Tensor]:
        """Read the named tensors in their stored dtype and shape, in file order.

        Tensors named in `on_host` stay on the CPU whatever the device. Tensors of one run share a
        storage, in which each is aligned: kernels may round differently for unaligned memory, and
        the same factors shall give the same bits wherever they lie in a file. Peak host memory
        beyond the result is one run.

        Args:
            watch: is shown all that was read, on the device: flat tensors of one dtype, each with
                the names of the tensors whose values it holds, and zeros. On the CPU that is as
                soon as they are read, while they are in the processor's cache.

        Raises:
            KeyError: a name is not in the header.
            LoraFileError: the file ends early or cannot be read.
        """
        import torch

        infos = {name: self.header.tensors[name] for name in names}
        place = torch.device(device)
        if self._unpickled is not None:
            return self._read_unpickled(infos, place, on_host, watch)
        result: dict[str, torch.Tensor] = {}
        for run in runs(infos):
            result.update(self._read_run(run, place, on_host, watch))
        return result

    def _read_run(
        self, run: TensorRun, device: torch.device, on_host: Container[str], watch: Watch | None
    ) -> dict[str, torch.Tensor]:
        import torch

        dtypes = {name: dtype for dtype, name in dtype_names().items()}
        at_once = watch is not None and device.type == "cpu"
        host = torch.empty(run.size, dtype=torch.uint8)
        for piece in run.pieces:
            self._fill_piece(piece, run.spans, host)
            if watch is not None and at_once:
                watch(host[piece.start : piece.stop].view(dtypes[piece.dtype]), piece.names)
        staged = host.to(device)
        if watch is not None and not at_once:
            for piece in run.pieces:
                watch(staged[piece.start : piece.stop].view(dtypes[piece.dtype]), piece.names)
        result: dict[str, torch.Tensor] = {}
        for name in run.names:
            start, stop = run.spans[name]
            source = host if name in on_host else staged
            info = self.header.tensors[name]
            result[name] = source[start:stop].view(dtypes[info.dtype]).reshape(info.shape)
        self.tensors_read += len(run.names)
        return result

    def _read_unpickled(
        self,
        names: Iterable[str],
        device: torch.device,
        on_host: Container[str],
        watch: Watch | None,
    ) -> dict[str, torch.Tensor]:
        result: dict[str, torch.Tensor] = {}
        for name in names:
            tensor = cast("dict[str, torch.Tensor]", self._unpickled).pop(name)
            self.tensors_read += 1
            self.bytes_read += tensor.nbytes
            result[name] = tensor if name in on_host else tensor.to(device)
            if watch is not None:
                watch(result[name].flatten(), (name,))
        return result

    def _fill_piece(self, piece: OneDtype, spans: Spans, host: torch.Tensor) -> None:
        """Read the bytes of a piece into `host`, uint8 ``[size of the run]``; gaps become zero."""
        size = piece.stop - piece.start
        address = host.data_ptr() + piece.start
        buffer = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        end = 0
        for name in piece.names:
            start, stop = (at - piece.start for at in spans[name])
            buffer[end:start] = bytes(start - end)
            self._fill(buffer[start:stop], self.header.data_start + self.header.tensors[name].begin)
            self.bytes_read += stop - start
            end = stop
        buffer[end:] = bytes(size - end)

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
