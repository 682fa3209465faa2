"""Image embeddings kept in main memory, and on disk where that is wanted.

The cache knows no models: it stays when they are unloaded, and serves them when they come back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ...byte_lru import ByteLru
from .hashing import EmbeddingKey
from .pixel_transfer import empty_pinned, pinned

DEFAULT_LIMIT = 2 * 2**30


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What a vision tower makes of one image. The tensors are shared: never change them in place.

    Attributes:
        packed: `[1 + deepstack layers, tokens, dim]`, features of all levels in one allocation, so
            that one copy moves them; in the dtype of the tower.
        grid_thw: temporal patches, patch rows and patch columns.
        encode_ms: milliseconds that preprocessing, copying and encoding took.
    """

    packed: torch.Tensor
    grid_thw: tuple[int, int, int]
    encode_ms: float

    @property
    def features(self) -> torch.Tensor:
        """Merged features `[tokens, dim]`, which take the place of the image's tokens."""
        return self.packed[0]

    @property
    def deepstack(self) -> tuple[torch.Tensor, ...]:
        """Features `[tokens, dim]` for the first language layers; empty before Qwen3-VL."""
        return self.packed[1:].unbind()

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes

    def to(self, device: torch.device) -> ImageEmbedding:
        """Return it on `device`; from pinned memory, the copy does not hold up the caller."""
        return replace(self, packed=self.packed.to(device, non_blocking=True))


class Tier(Protocol):
    """A slower place behind the memory, such as `disk_tier.DiskTier`."""

    def get(self, key: EmbeddingKey) -> ImageEmbedding | None: ...

    def put(self, key: EmbeddingKey, embedding: ImageEmbedding) -> bool: ...

    def clear(self) -> None: ...


@dataclass(frozen=True)
class CacheStatistics:
    """Figures since the cache was made; `entries` and `nbytes` are those of now.

    Attributes:
        hits: images that were not encoded again, `disk_hits` of them read from disk.
        saved_ms: milliseconds that encoding them had taken.
        too_large: embeddings not kept because they alone exceed the limit.
    """

    entries: int = 0
    nbytes: int = 0
    limit: int = 0
    hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    evictions: int = 0
    too_large: int = 0
    saved_ms: float = 0.0


class EmbeddingCache:
    """A thread-safe cache of `ImageEmbedding`, bounded in bytes; the least recently used go first.

    Args:
        limit: bytes to keep in main memory.
        tier: where embeddings are also stored and looked for.

    Attributes:
        kept: what is in main memory.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, tier: Tier | None = None) -> None:
        self.tier = tier
        self.kept: ByteLru[ImageEmbedding] = ByteLru(limit)
        self._lock = threading.Lock()
        self._statistics = CacheStatistics()

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def statistics(self) -> CacheStatistics:
        with self._lock:
            return replace(
                self._statistics,
                entries=len(self.kept),
                nbytes=self.kept.nbytes,
                limit=self.kept.limit,
                evictions=self.kept.evictions,
            )

    def get(self, key: EmbeddingKey) -> ImageEmbedding | None:
        """Return the embedding and mark it as used, or None."""
        embedding = self.kept.get(key)
        if embedding is not None:
            self._count(hits=1, saved_ms=embedding.encode_ms)
            return embedding
        embedding = self.tier.get(key) if self.tier is not None else None
        if embedding is None:
            self._count(misses=1)
            return None
        self._count(hits=1, disk_hits=1, saved_ms=embedding.encode_ms)
        embedding = replace(embedding, packed=pinned(embedding.packed))
        self._keep(key, embedding)
        return embedding

    def put(self, key: EmbeddingKey, embedding: ImageEmbedding) -> None:
        """Keep an embedding whose tensor is in main memory."""
        self._keep(key, embedding)
        if self.tier is not None:
            self.tier.put(key, embedding)

    def _keep(self, key: EmbeddingKey, embedding: ImageEmbedding) -> None:
        if not self.kept.put(key, embedding):
            self._count(too_large=1)

    def resize(self, limit: int) -> None:
        """Change the bytes to keep, and evict what is too much now."""
        self.kept.resize(limit)

    def clear(self) -> None:
        """Forget every embedding, on disk too. The statistics go on."""
        self.kept.clear()
        if self.tier is not None:
            self.tier.clear()

    def _count(self, **added: float) -> None:
        with self._lock:
            old = self._statistics
            values = {name: getattr(old, name) + value for name, value in added.items()}
            self._statistics = replace(old, **values)


def to_host(packed: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
    """Start copying features to main memory; return the copy and a function that waits for it.

    From a GPU the copy goes to pinned memory and runs behind the encoder.
    """
    if packed.device.type != "cuda":
        return packed.cpu(), lambda: None
    host = empty_pinned(packed.shape, packed.dtype)
    host.copy_(packed, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return host, done.synchronize
