"""Room in a folder of files that is bounded in bytes, without reading the folder for every file."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# What other processes do to the folder is noticed after so many seconds.
LOOK_AGAIN = 10.0


class StoredFile(NamedTuple):
    """A file: time of last use in ns, bytes, path."""

    used: int
    size: int
    path: Path


class DiskRoom:
    """The bytes of a folder's files, and which of them were not used for longest.

    The folder is read once, and again when it is full and the files known from before have gone, or
    when that was long ago; so a file costs the same whatever the number of others.

    Args:
        look: reads the folder.
        remove: removes a file, if it is there.
    """

    def __init__(
        self, look: Callable[[], list[StoredFile]], remove: Callable[[Path], None]
    ) -> None:
        self._look = look
        self._remove = remove
        self._lock = threading.Lock()
        self._looked = -LOOK_AGAIN
        self._newest_first: list[StoredFile] = []
        self._total = 0

    def make(self, nbytes: int, limit: int, path: Path) -> None:
        """Remove files until `nbytes` more are within the limit.

        `path` is where they will be written: a file there is not counted, and stays.
        """
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_AGAIN:
                self._read()
            replaced = _status(path)
            more = nbytes - (replaced.st_size if replaced is not None else 0)
            if self._total + more > limit:
                self._remove_oldest(limit - more, path)
            self._total += more

    def forget(self) -> None:
        """Read the folder again next time: files have gone."""
        self._looked = -LOOK_AGAIN

    def _read(self) -> None:
        found = self._look()
        self._newest_first = sorted(found, reverse=True)
        self._total = sum(file.size for file in found)
        self._looked = time.monotonic()

    def _remove_oldest(self, limit: int, kept: Path) -> None:
        looked = False
        while self._total > limit:
            if not self._newest_first:
                if looked:
                    return
                self._read()
                looked = True
                continue
            file = self._newest_first.pop()
            status = _status(file.path)
            if status is None:  # another process has removed it
                self._total -= file.size
            elif file.path != kept and status.st_mtime_ns == file.used:
                self._remove(file.path)
                self._total -= file.size
            # One that was used since stays; the next look finds it again.


def _status(path: Path) -> os.stat_result | None:
    """Of a file that is neither a link nor a folder."""
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
