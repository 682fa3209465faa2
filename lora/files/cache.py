"""A thread-safe cache bounded in bytes."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

SIZE_VARIABLE = "VIVACE_LORA_CACHE_MB"
RAM_SHARE = 8
_FALLBACK_RAM = 8 * 2**30


class Sized(Protocol):
    """A value that knows its size."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


def total_memory() -> int:
    """Return the bytes of main memory, or 8 GiB where the system does not tell."""
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: dwLength first, ullTotalPhys second
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status[1])
        return _FALLBACK_RAM
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return _FALLBACK_RAM


def default_limit() -> int:
    """Return the bytes to keep: ``VIVACE_LORA_CACHE_MB`` (0 disables) or 1/8 of main memory.

    Raises:
        ValueError: the variable is not a number of megabytes.
    """
    text = os.environ.get(SIZE_VARIABLE)
    if not text:
        return total_memory() // RAM_SHARE
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = -1.0
    if not 0 <= megabytes < 2**40:
        raise ValueError(f"{SIZE_VARIABLE} is {text!r}; set it to a number of megabytes")
    return int(megabytes * 2**20)


class ByteLru(Generic[V]):
    """Least recently used values up to a number of bytes; larger values are not kept.

    Each missing key is loaded by one thread while others wait for it. An exception of the loader
    reaches its caller, and nothing is stored.

    Attributes:
        loading: a lock for each key that is being loaded now.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, V] = OrderedDict()
        self.loading: dict[Hashable, threading.Lock] = {}
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    @property
    def limit(self) -> int:
        """The bytes to keep; without an explicit limit, the default at the time of asking."""
        return default_limit() if self._limit is None else self._limit

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable) -> V | None:
        """Return the value and mark it as used, or None."""
        with self._lock:
            value = self._items.get(key)
            if value is not None:
                self._items.move_to_end(key)
                self.hits += 1
            return value

    def get_or_load(self, key: Hashable, load: Callable[[], V]) -> V:
        """Return the value for `key`, calling `load` once if it is not there."""
        value = self.get(key)
        if value is not None:
            return value
        with self._lock:
            gate = self.loading.setdefault(key, threading.Lock())
        with gate:
            value = self.get(key)
            if value is None:
                try:
                    value = load()
                    self._store(key, value)
                finally:
                    with self._lock:
                        self.loading.pop(key, None)
        return value

    def _store(self, key: Hashable, value: V) -> None:
        size, limit = value.nbytes, self.limit
        with self._lock:
            self.misses += 1
            if size > limit:
                return
            previous = self._items.pop(key, None)
            self.nbytes += size - (previous.nbytes if previous is not None else 0)
            self._items[key] = value
            self._evict()

    def resize(self, limit: int | None) -> None:
        """Change the bytes to keep, None being the default, and evict what is too much now."""
        with self._lock:
            self._limit = limit
            self._evict()

    def _evict(self) -> None:
        while self.nbytes > self.limit:
            _, evicted = self._items.popitem(last=False)
            self.nbytes -= evicted.nbytes

    def clear(self) -> None:
        """Forget every value."""
        with self._lock:
            self._items.clear()
            self.nbytes = 0
