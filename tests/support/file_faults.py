"""Faults of files: a full disk, a killed process, and files that others change while they are read.

What a program does to files below a folder passes through here and is counted, see `faults`.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .faults import Points

_WRITING = frozenset("wax+")


def disk_full(name: str) -> None:
    """What a system says where there is no space; removing files goes on."""
    if name.partition(" ")[0] in ("unlink", "chmod", "utime"):
        return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def kill(name: str) -> None:
    """End this process as a power cut does: nothing more of it is run."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def writes(points: Points, folder: Path) -> Iterator[None]:
    """Everything that changes files below a folder is a point, before it is done.

    A fault while bytes are written comes when half of them are there.
    """
    with _watched(points, folder, reading=False):
        yield


@contextmanager
def reads(points: Points, folder: Path) -> Iterator[None]:
    """Every look at files below a folder is a point, before it is done."""
    with _watched(points, folder, reading=True):
        yield


@contextmanager
def _watched(points: Points, folder: Path, reading: bool) -> Iterator[None]:
    watch = _Watch(points, os.path.realpath(folder))
    with ExitStack() as stack:
        for place, name, action in watch.replacements(reading):
            stack.enter_context(patch.object(place, name, action))
        yield


class _Watch:
    def __init__(self, points: Points, folder: str) -> None:
        self._points = points
        self._folder = folder
        self._descriptors: dict[int, str] = {}

    def replacements(self, reading: bool) -> list[tuple[Any, str, Callable[..., Any]]]:
        """Module, name and stand-in of each function that is watched."""
        opened = self._opening(io.open, reading)
        found = [(io, "open", opened), (builtins, "open", opened)]
        if reading:
            found += [(os, name, self._before(getattr(os, name))) for name in ("stat", "scandir")]
            return found
        changing = ("replace", "rename", "mkdir", "unlink", "chmod", "utime", "truncate")
        found += [(os, name, self._before(getattr(os, name))) for name in changing]
        found += [(os, "open", self._descriptor(os.open)), (os, "fsync", self._sync(os.fsync))]
        return found

    def _inside(self, path: object) -> str | None:
        """The name of a file if it is one of those that are watched."""
        if isinstance(path, int):
            return self._descriptors.get(path)
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (that of pathlib is watched)
        return os.path.basename(full) if full.startswith(self._folder) else None  # noqa: PTH119

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            name = self._inside(path)
            if name is not None:
                self._points.reach(f"{real.__name__} {name}")
            return real(path, *args, **kwargs)

        return act

    def _descriptor(self, real: Callable[..., int]) -> Callable[..., int]:
        def act(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            name = self._inside(path) if flags & (os.O_WRONLY | os.O_RDWR) else None
            if name is not None:
                self._points.reach(f"make {name}")
            descriptor = real(path, flags, *args, **kwargs)
            if name is not None:
                self._descriptors[descriptor] = name
            return descriptor

        return act

    def _sync(self, real: Callable[..., None]) -> Callable[..., None]:
        def act(descriptor: int) -> None:
            self._points.reach("fsync")
            real(descriptor)

        return act

    def _opening(self, real: Callable[..., Any], reading: bool) -> Callable[..., Any]:
        def act(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            name = self._inside(file)
            changes = not _WRITING.isdisjoint(mode)
            if name is None or changes == reading:
                return real(file, mode, *args, **kwargs)
            if not isinstance(file, int):  # else it was counted when the descriptor was made
                self._points.reach(f"{'make' if changes else 'open'} {name}")
            return _File(real(file, mode, *args, **kwargs), self._points, name)

        return act


class _File:
    """An open file whose reads and writes are points."""

    def __init__(self, file: Any, points: Points, name: str) -> None:
        self._file = file
        self._points = points
        self._name = name
        self._written = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        while line := self.readline():
            yield line

    def read(self, *args: Any) -> Any:
        self._points.reach(f"read {self._name}")
        return self._file.read(*args)

    def readinto(self, buffer: Any) -> Any:
        self._points.reach(f"read {self._name}")
        return self._file.readinto(buffer)

    def readline(self, *args: Any) -> Any:
        self._points.reach(f"read {self._name}")
        return self._file.readline(*args)

    def write(self, data: Any) -> Any:
        self._written = True
        half = len(data) // 2
        written = self._file.write(data[:half])
        self._file.flush()
        self._points.reach(f"write {self._name}")
        return written + self._file.write(data[half:])

    def flush(self) -> None:
        if self._written:
            self._points.reach(f"flush {self._name}")
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            if self._written:  # what was kept back until now may not fit
                self._points.reach(f"close {self._name}")
