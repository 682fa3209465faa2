"""Embeddings in main memory."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
import torch
from vivace.vlm.vision.embedding_cache import EmbeddingCache, ImageEmbedding
from vivace.vlm.vision.hashing import EmbeddingKey

GRID = (1, 4, 4)
BYTES = 2 * 4 * 8 * 4


def key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"{number:032x}", GRID, "bicubic", "model", "main", "float32")


def embedding(number: int = 0, tokens: int = 4) -> ImageEmbedding:
    return ImageEmbedding(torch.full((2, tokens, 8), float(number)), GRID, 10.0)


class Shelf:
    """A tier that remembers what is asked of it."""

    def __init__(self) -> None:
        self.kept: dict[EmbeddingKey, ImageEmbedding] = {}
        self.asked: list[EmbeddingKey] = []

    def get(self, key: EmbeddingKey) -> ImageEmbedding | None:
        self.asked.append(key)
        return self.kept.get(key)

    def put(self, key: EmbeddingKey, embedding: ImageEmbedding) -> bool:
        self.kept[key] = embedding
        return True

    def clear(self) -> None:
        self.kept.clear()


def test_levels_share_one_allocation() -> None:
    packed = torch.rand(4, 6, 8)
    entry = ImageEmbedding(packed, GRID, 1.0)
    assert torch.equal(entry.features, packed[0])
    assert len(entry.deepstack) == 3
    assert entry.deepstack[2].data_ptr() == packed[3].data_ptr()
    assert entry.nbytes == packed.nbytes
    assert ImageEmbedding(packed[:1], GRID, 1.0).deepstack == ()


def test_hits_misses_and_saved_time() -> None:
    cache = EmbeddingCache(10 * BYTES)
    assert cache.get(key(1)) is None
    cache.put(key(1), embedding(1))
    found = cache.get(key(1))
    assert found is not None
    assert torch.equal(found.packed, embedding(1).packed)
    cache.get(key(1))
    figures = cache.statistics
    assert (figures.hits, figures.misses, figures.saved_ms) == (2, 1, 20.0)
    assert (figures.entries, figures.nbytes, figures.limit) == (1, BYTES, 10 * BYTES)


def test_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(2 * BYTES)
    cache.put(key(1), embedding(1))
    cache.put(key(2), embedding(2))
    cache.get(key(1))
    cache.put(key(3), embedding(3))
    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is not None
    assert cache.get(key(3)) is not None
    assert cache.statistics.evictions == 1


def test_an_entry_beyond_the_limit_is_not_kept_and_drives_out_nothing() -> None:
    cache = EmbeddingCache(2 * BYTES)
    cache.put(key(1), embedding(1))
    cache.put(key(2), embedding(2, tokens=9))
    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is not None
    assert cache.statistics.too_large == 1


def test_putting_twice_counts_once() -> None:
    cache = EmbeddingCache(10 * BYTES)
    cache.put(key(1), embedding(1))
    cache.put(key(1), embedding(1, tokens=8))
    assert cache.statistics.nbytes == 2 * BYTES


def test_ten_thousand_images_stay_within_the_limit() -> None:
    limit = 100 * BYTES
    cache = EmbeddingCache(limit)
    chance = random.Random(0)  # noqa: S311
    model: dict[EmbeddingKey, int] = {}
    for number in range(10_000):
        entry = embedding(number, tokens=chance.randint(1, 12))
        cache.put(key(number), entry)
        model[key(number)] = entry.nbytes
        while sum(model.values()) > limit:
            del model[next(iter(model))]
        assert cache.statistics.nbytes == sum(model.values()) <= limit
    assert [each for each in map(key, range(10_000)) if cache.get(each)] == list(model)
    assert cache.statistics.evictions == 10_000 - len(model)


def test_resize_and_clear() -> None:
    cache = EmbeddingCache(10 * BYTES)
    for number in range(10):
        cache.put(key(number), embedding(number))
    cache.resize(3 * BYTES)
    assert [number for number in range(10) if cache.get(key(number))] == [7, 8, 9]
    cache.clear()
    assert len(cache) == cache.statistics.nbytes == 0
    assert cache.get(key(9)) is None


def test_a_tier_is_asked_once_and_told_of_everything() -> None:
    shelf = Shelf()
    EmbeddingCache(10 * BYTES, shelf).put(key(1), embedding(1))
    cache = EmbeddingCache(10 * BYTES, shelf)
    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is not None
    assert cache.get(key(1)) is not None
    assert shelf.asked == [key(2), key(1)]
    figures = cache.statistics
    assert (figures.hits, figures.disk_hits, figures.misses) == (2, 1, 1)
    cache.clear()
    assert not shelf.kept


def test_what_memory_cannot_hold_is_still_on_the_tier() -> None:
    cache = EmbeddingCache(0, Shelf())
    cache.put(key(1), embedding(1))
    assert len(cache) == 0
    assert cache.get(key(1)) is not None


def test_statistics_do_not_change_afterwards() -> None:
    cache = EmbeddingCache(10 * BYTES)
    before = cache.statistics
    cache.put(key(1), embedding(1))
    assert before == replace(cache.statistics, entries=0, nbytes=0)


def test_many_threads() -> None:
    cache = EmbeddingCache(20 * BYTES)
    wrong: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        for _ in range(500):
            number = chance.randrange(50)
            found = cache.get(key(number))
            if found is None:
                cache.put(key(number), embedding(number))
            elif float(found.features[0, 0]) != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = cache.statistics
    assert not wrong
    assert figures.hits + figures.misses == 2000
    assert figures.nbytes == figures.entries * BYTES <= 20 * BYTES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_entries_lie_in_pinned_memory() -> None:
    shelf = Shelf()
    shelf.kept[key(1)] = embedding(1)
    found = EmbeddingCache(10 * BYTES, shelf).get(key(1))
    assert found is not None
    assert found.packed.is_pinned()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine that locks no pages")
def test_what_cannot_be_pinned_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a driver, pinning fails as it does where the system locks no more pages.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    shelf = Shelf()
    shelf.kept[key(1)] = embedding(1)
    cache = EmbeddingCache(10 * BYTES, shelf)
    found = cache.get(key(1))
    assert found is not None
    assert torch.equal(found.packed, embedding(1).packed)
    assert cache.get(key(1)) is found
    assert cache.statistics.hits == 2
