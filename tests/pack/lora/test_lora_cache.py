"""The byte-bounded cache."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

import pytest
from vivace.byte_lru import ByteLru
from vivace.devkit.rig.layout import ROOT
from vivace.lora.files.cache import RAM_SHARE, SIZE_VARIABLE, default_limit, total_memory

WORDS = re.compile(r"popitem\(last=False\)|nbytes")


@dataclass(frozen=True)
class Value:
    nbytes: int


def put(cache: ByteLru[Value], key: str, size: int) -> Value:
    return cache.get_or_load(key, lambda: Value(size))


def test_least_recently_used_goes_first() -> None:
    cache: ByteLru[Value] = ByteLru(100)
    for key in "abc":
        put(cache, key, 30)
    assert cache.get("a") is not None
    put(cache, "d", 30)
    assert cache.get("b") is None
    assert [key for key in "acd" if cache.get(key)] == ["a", "c", "d"]
    assert (cache.nbytes, len(cache)) == (90, 3)


def test_large_values_are_returned_but_not_kept() -> None:
    cache: ByteLru[Value] = ByteLru(100)
    put(cache, "a", 60)
    assert put(cache, "big", 101).nbytes == 101
    assert cache.get("big") is None
    assert cache.get("a") is not None
    put(cache, "exact", 100)
    assert (cache.nbytes, len(cache)) == (100, 1)


def test_failed_loads_store_nothing_and_can_be_retried() -> None:
    cache: ByteLru[Value] = ByteLru(100)

    def fail() -> Value:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get_or_load("a", fail)
    assert len(cache) == 0
    assert put(cache, "a", 1).nbytes == 1


def test_clear() -> None:
    cache: ByteLru[Value] = ByteLru(100)
    put(cache, "a", 10)
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get("a")) == (0, 0, None)


def test_slow_load_does_not_block_other_keys() -> None:
    cache: ByteLru[Value] = ByteLru(100)
    started, release = threading.Event(), threading.Event()

    def slow() -> Value:
        started.set()
        assert release.wait(5)
        return Value(1)

    thread = threading.Thread(target=lambda: cache.get_or_load("slow", slow))
    thread.start()
    assert started.wait(5)
    assert put(cache, "quick", 1).nbytes == 1
    release.set()
    thread.join()
    assert cache.get("slow") is not None


def test_many_threads_keep_the_bound() -> None:
    cache: ByteLru[Value] = ByteLru(50)

    def work(seed: int) -> None:
        for i in range(300):
            put(cache, f"{(seed * 7 + i) % 23}", 1 + i % 9)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.nbytes <= 50
    assert cache.nbytes == sum(value.nbytes for _, value in cache.by_use())
    assert not cache.loading


@pytest.mark.parametrize(("text", "limit"), [("100", 100 * 2**20), ("0", 0), ("0.5", 2**19)])
def test_size_from_the_environment(text: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIZE_VARIABLE, text)
    assert default_limit() == limit
    assert ByteLru[Value](default_limit).limit == limit
    assert ByteLru[Value](7).limit == 7


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_bad_size_names_the_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIZE_VARIABLE, text)
    with pytest.raises(ValueError, match=SIZE_VARIABLE):
        default_limit()


def test_default_is_a_share_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIZE_VARIABLE, raising=False)
    assert total_memory() > 2**28
    assert default_limit() == total_memory() // RAM_SHARE


def test_a_smaller_limit_evicts_at_once() -> None:
    cache = ByteLru[Value](100)
    for key in "abc":
        cache.get_or_load(key, lambda: Value(30))
    cache.resize(60)
    assert [cache.get(key) is not None for key in "abc"] == [False, True, True]
    cache.resize(0)
    assert (len(cache), cache.nbytes) == (0, 0)
    cache.resize(default_limit)
    assert cache.limit == default_limit()


def test_there_is_no_second_cache_bounded_in_bytes() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] not in {".dev", "tests"}
        if {"popitem(last=False)", "nbytes"} <= set(WORDS.findall(path.read_text(encoding="utf-8")))
    }
    # These are bounded in number.
    assert found == {"byte_lru.py", "lora/examine.py", "vlm/decode/decode_graphs.py"}
