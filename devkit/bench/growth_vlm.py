"""Curves of the QwenVL engine: images in a batch, and entries of its caches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from ...byte_lru import ByteLru
from ...vlm.vision.disk_tier import DiskTier
from ...vlm.vision.embedding_cache import EmbeddingCache, ImageEmbedding
from ...vlm.vision.hashing import EmbeddingKey
from .curves import CONSTANT, LINEAR, Curve, often
from .harness import Timings
from .vlm_images import Bed
from .vlm_models import QWEN3_VL_4B, build_model

IMAGES = (1, 2, 4, 8, 16)
ENTRIES = (10, 100, 1000, 10_000)
LAYERS = 24  # of them the tower has one
PRESET = "fast"
_GRID = (1, 4, 4)
_AT_ONCE = 100
_FIRST_WRITE = "disk: first write of a process"


def images(folder: Path, device: str, quick: bool) -> Curve:
    """Images of 1024 x 1024 pixels, embedded by a tower of one layer."""
    counts = IMAGES[:3] if quick else IMAGES
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = build_model(QWEN3_VL_4B, device, dtype, LAYERS, 1)
    bed = Bed(QWEN3_VL_4B, model, device, max(counts))
    tier = DiskTier(folder / "embeddings")

    def step(size: float, timings: Timings) -> None:
        number = int(size)
        bed.change()
        cache, restarted = EmbeddingCache(), EmbeddingCache(tier=tier)
        new = timings.time("all new", lambda: bed.embed("eager", PRESET, number, cache))
        _same("images encoded", new.report.misses, number)
        seen = timings.time("all in memory", lambda: bed.embed("eager", PRESET, number, cache))
        _same("images found in memory", seen.report.hits, number)
        for key, embedding in zip(new.keys, new.embeddings, strict=True):
            tier.put(key, replace(embedding, packed=embedding.packed.cpu()))
        found = timings.time("all on disk", lambda: bed.embed("eager", PRESET, number, restarted))
        _same("images found on disk", found.report.hits, number)
        tier.clear()

    names: tuple[str, ...] = ("all new", "all in memory", "all on disk")
    return Curve("images in a batch", "", counts, dict.fromkeys(names, LINEAR), step)


_CACHES = {
    **dict.fromkeys(("memory: find", "memory: miss", "memory: replace the oldest"), CONSTANT),
    "LoRA cache: find": CONSTANT,
    **dict.fromkeys(("disk: find", "disk: miss", "disk: write"), CONSTANT),
    "disk: replace the oldest": CONSTANT,
    _FIRST_WRITE: LINEAR,
}


def cache_entries(folder: Path, device: str, quick: bool) -> Curve:
    """Small embeddings in memory and on disk, and values of the cache of LoRA files."""
    counts = ENTRIES[:3] if quick else ENTRIES
    small = ImageEmbedding(torch.zeros(1, 4, 8), _GRID, 1.0)
    for number in counts:
        tier = DiskTier(folder / str(number))
        for index in range(number):
            tier.put(_key(index), small)
    fresh = map(_key, count(10**6))

    def step(size: float, timings: Timings) -> None:
        number = int(size)
        _in_memory(number, small, fresh, timings)
        _on_disk(folder / str(number), number, small, fresh, timings)

    return Curve("entries of a cache", "", counts, _CACHES, step)


def _in_memory(
    number: int, small: ImageEmbedding, fresh: Iterator[EmbeddingKey], timings: Timings
) -> None:
    cache = EmbeddingCache(limit=number * small.nbytes)
    loras: ByteLru[ImageEmbedding] = ByteLru(limit=number * small.nbytes)
    for index in range(number):
        cache.put(_key(index), small)
        loras.get_or_load(_key(index), lambda: small)
    known, unknown = _key(number // 2), next(fresh)
    often(timings, "memory: find", lambda: cache.get(known), _AT_ONCE)
    often(timings, "memory: miss", lambda: cache.get(unknown), _AT_ONCE)
    often(timings, "LoRA cache: find", lambda: loras.get(known), _AT_ONCE)
    put = lambda: cache.put(next(fresh), small)  # noqa: E731
    often(timings, "memory: replace the oldest", put, _AT_ONCE)
    _same("evictions", cache.statistics.evictions, _AT_ONCE)


def _on_disk(
    folder: Path,
    number: int,
    small: ImageEmbedding,
    fresh: Iterator[EmbeddingKey],
    timings: Timings,
) -> None:
    """Read, write and replace; the folder has as many entries as before afterwards."""
    tier = DiskTier(folder)
    _same("entries", len(tier), number)
    written = [next(fresh) for _ in range(11)]
    timings.time(_FIRST_WRITE, lambda: tier.put(written[0], small), fresh=False)
    others = iter(written[1:])
    often(timings, "disk: write", lambda: tier.put(next(others), small), 10)
    unknown = next(fresh)
    often(timings, "disk: find", lambda: tier.get(written[0]), 10)
    often(timings, "disk: miss", lambda: tier.get(unknown), 10)
    for key in written:
        (folder / key.file_name).unlink()
    full = DiskTier(folder)
    full.limit = full.nbytes
    full.put(next(fresh), small)
    often(timings, "disk: replace the oldest", lambda: full.put(next(fresh), small), 10)
    _same("entries", len(full), number)


def _key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"{number:032x}", _GRID, "bicubic", "model", "main", "float32")


def _same(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{what}: {found}, not {wanted}")
