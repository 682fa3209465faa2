"""A place for the files that targets are given, in memory where the system has such a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

_NUMBERS = count()


@lru_cache(maxsize=1)
def _root() -> TemporaryDirectory[str]:
    memory = Path("/dev/shm")  # noqa: S108  (a folder of random name is made in it)
    return TemporaryDirectory(prefix="vivace-fuzz-", dir=memory if memory.is_dir() else None)


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder, whose name was never used before: what is cached by path cannot be stale.

    Raises:
        AssertionError: when the block ends well, a file in the folder is still open.
    """
    with TemporaryDirectory(prefix=f"{next(_NUMBERS)}-", dir=_root().name) as name:
        yield Path(name)
        assert not _open_files(name), "a file is still open"


@contextmanager
def file(data: bytes, name: str) -> Iterator[Path]:
    """A file of that name in a new folder."""
    with folder() as place:
        path = place / name
        path.write_bytes(data)
        yield path


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _open_files(root: str) -> list[str]:
    """Files below a folder that this process has open, where the system tells."""
    if sys.platform != "linux":
        return []
    found = []
    for entry in os.scandir("/proc/self/fd"):
        try:
            target = str(Path(entry.path).readlink())
        except OSError:
            continue
        if target.startswith(root):
            found.append(target)
    return found
