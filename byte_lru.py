"""Values kept in memory up to a number of bytes; the least recently used go first.

LoRA files, image embeddings and the beginnings of prompts are kept so, each in a cache of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar


class Sized(Protocol):
    """A value that knows its size."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class ByteLru(Generic[V]):
    """A thread-safe cache, bounded in bytes. Values that alone exceed the limit are not kept.

    Each missing key is loaded by one thread while others wait for it. An exception of the loader
    reaches its caller, and nothing is stored.

    Args:
        limit: the bytes to keep, or what says so whenever it is asked.

    Attributes:
        nbytes: of all values that are kept.
        hits, misses, evictions: how often so far.
        loading: a lock for each key that is being loaded now.
    """

    def __init__(self, limit: int | Callable[[], int]) -> None:
        self._limit = limit
        # Dropping a value may drop others of the same cache, by a weak reference's callback.
        self._lock = threading.RLock()
        self._items: OrderedDict[Hashable, V] = OrderedDict()
        self.loading: dict[Hashable, threading.Lock] = {}
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    @property
    def limit(self) -> int:
        """The bytes to keep."""
        return self._limit if isinstance(self._limit, int) else self._limit()

    def __len__(self) -> int:
        return len(self._items)

    def by_use(self) -> list[tuple[Any, V]]:
        """The keys with their values, that which was used last at the end."""
        with self._lock:
            return list(self._items.items())

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
                    self.put(key, value)
                    with self._lock:
                        self.misses += 1
                finally:
                    with self._lock:
                        self.loading.pop(key, None)
        return value

    def put(self, key: Hashable, value: V) -> bool:
        """Keep a value, in place of any other of the key; False if it alone exceeds the limit."""
        size, limit = value.nbytes, self.limit
        if size > limit:
            return False
        with self._lock:
            self.pop(key)
            self.nbytes += size
            self._items[key] = value
            self._evict()
        return True

    def pop(self, key: Hashable) -> V | None:
        """Forget a value and return it, or None."""
        with self._lock:
            value = self._items.pop(key, None)
            self.nbytes -= 0 if value is None else value.nbytes
            return value

    def resize(self, limit: int | Callable[[], int]) -> None:
        """Change the bytes to keep, and evict what is too much now."""
        with self._lock:
            self._limit = limit
            self._evict()

    def _evict(self) -> None:
        while self.nbytes > self.limit:
            _, evicted = self._items.popitem(last=False)
            self.nbytes -= evicted.nbytes
            self.evictions += 1

    def clear(self) -> None:
        """Forget every value."""
        with self._lock:
            self._items.clear()
            self.nbytes = 0
