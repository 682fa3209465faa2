"""Embeddings on disk: killed processes, damaged files, full folders."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.vlm.vision import disk_room
from vivace.vlm.vision.disk_tier import ABANDONED_AFTER, DiskTier
from vivace.vlm.vision.embedding_cache import EmbeddingCache, ImageEmbedding
from vivace.vlm.vision.hashing import EmbeddingKey

GRID = (1, 4, 4)


def key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"{number:032x}", GRID, "bicubic", "model", "main", "float32")


def embedding(number: int = 0, dtype: torch.dtype = torch.float32) -> ImageEmbedding:
    return ImageEmbedding(torch.full((2, 4, 8), float(number), dtype=dtype), GRID, 12.5)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_stored_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    assert DiskTier(tmp_path / "new").put(key(1), embedding(1, dtype))
    found = DiskTier(tmp_path / "new").get(key(1))
    assert found is not None
    assert found.packed.dtype == dtype
    assert torch.equal(found.packed, embedding(1, dtype).packed)
    assert (found.grid_thw, found.encode_ms) == (GRID, 12.5)
    assert names(tmp_path / "new") == {key(1).file_name}


def test_features_that_are_not_contiguous(tmp_path: Path) -> None:
    packed = torch.rand(4, 2, 8).transpose(0, 1)
    DiskTier(tmp_path).put(key(1), ImageEmbedding(packed, GRID, 1.0))
    found = DiskTier(tmp_path).get(key(1))
    assert found is not None
    assert torch.equal(found.packed, packed)


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "missing")
    assert tier.get(key(1)) is None
    assert len(tier) == tier.nbytes == 0
    tier.clear()
    assert not (tmp_path / "missing").exists()


def test_every_single_truncation_is_a_miss(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.put(key(1), embedding(1))
    path = tmp_path / key(1).file_name
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert tier.get(key(1)) is None
        assert not path.exists()


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.put(key(1), embedding(1))
    path = tmp_path / key(1).file_name
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        found = tier.get(key(1))
        # A digit of the time taken, or white space, may change; features never do.
        assert found is None or torch.equal(found.packed, embedding(1).packed)
        assert path.exists() == (found is not None)


def test_the_entry_of_another_key_is_a_miss(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.put(key(1), embedding(1))
    (tmp_path / key(1).file_name).rename(tmp_path / key(2).file_name)
    assert tier.get(key(2)) is None
    assert tier.get(replace(key(1), dtype="float16")) is None


def test_those_not_used_for_longest_are_removed(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.put(key(0), embedding(0))
    size = tier.nbytes
    tier.limit = 3 * size
    for number in range(3):
        tier.put(key(number), embedding(number))
        os.utime(tmp_path / key(number).file_name, (number + 1, number + 1))
    assert tier.get(key(0)) is not None
    tier.put(key(3), embedding(3))
    kept = {number for number in range(4) if (tmp_path / key(number).file_name).exists()}
    assert kept == {0, 2, 3}
    assert tier.nbytes <= tier.limit


def test_many_entries_stay_within_the_limit(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.put(key(0), embedding(0))
    tier.limit = 5 * tier.nbytes
    for number in range(200):
        assert tier.put(key(number), embedding(number))
        assert tier.nbytes <= tier.limit
    assert len(tier) == 5


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each folder was read, with a clock that stands still."""
    found: Counter[str] = Counter()
    real = os.scandir

    def scandir(path: Any) -> Any:
        found[os.fspath(path)] += 1
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(disk_room, "LOOK_AGAIN", math.inf)
    return found


def test_storing_does_not_read_the_folder_each_time(tmp_path: Path, scans: Counter[str]) -> None:
    for number in range(50):
        DiskTier(tmp_path).put(key(number), embedding(number))
    size = DiskTier(tmp_path).nbytes // 50
    scans.clear()
    tier = DiskTier(tmp_path)
    for number in range(50, 100):
        tier.put(key(number), embedding(number))
    assert scans.total() == 1
    tier.limit = 100 * size
    for number in range(100, 300):
        tier.put(key(number), embedding(number))
    assert scans.total() <= 4  # all entries were replaced twice
    assert len(tier) == 100
    kept = {number for number in range(300) if (tmp_path / key(number).file_name).exists()}
    assert kept == set(range(200, 300))


def test_entries_that_others_remove_or_use_are_noticed(tmp_path: Path, scans: Counter[str]) -> None:
    tier, other = DiskTier(tmp_path), DiskTier(tmp_path)
    for number in range(6):
        DiskTier(tmp_path).put(key(number), embedding(number))
        os.utime(tmp_path / key(number).file_name, (number + 1, number + 1))
    tier.limit = tier.nbytes
    tier.put(key(6), embedding(6))  # drives out the first
    (tmp_path / key(1).file_name).unlink()
    assert other.get(key(2)) is not None
    tier.put(key(7), embedding(7))  # there is room
    tier.put(key(8), embedding(8))  # drives out the oldest that was not used since
    kept = {number for number in range(9) if (tmp_path / key(number).file_name).exists()}
    assert kept == {2, 4, 5, 6, 7, 8}


def test_a_replaced_entry_counts_once(tmp_path: Path, scans: Counter[str]) -> None:
    tier = DiskTier(tmp_path)
    for number in (0, 1):
        tier.put(key(number), embedding(number))
    tier.limit = tier.nbytes
    for _ in range(20):
        tier.put(key(1), embedding(1))
    assert len(tier) == 2


def test_an_entry_beyond_the_limit_drives_out_nothing(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.put(key(1), embedding(1))
    tier.limit = tier.nbytes
    assert not tier.put(key(2), ImageEmbedding(torch.zeros(2, 40, 8), GRID, 1.0))
    assert tier.get(key(1)) is not None


def test_other_files_are_never_touched(tmp_path: Path) -> None:
    others = {"notes.txt", "model.safetensors", "writing-report.txt", "x" * 32 + ".safetensors"}
    for name in others:
        (tmp_path / name).write_bytes(b"precious" * 1000)
        os.utime(tmp_path / name, (1, 1))
    outside = tmp_path.parent / "outside.safetensors"
    outside.write_bytes(b"precious")
    link = tmp_path / ("0" * 32 + ".safetensors")
    link.symlink_to(outside)
    tier = DiskTier(tmp_path, limit=1200)
    for number in range(5):
        tier.put(key(number), embedding(number))
    tier.clear()
    assert names(tmp_path) == {*others, link.name}
    assert outside.read_bytes() == b"precious"


WRITER = """
import sys, torch
from pathlib import Path
from vivace.vlm.vision import disk_room
from vivace.vlm.vision.disk_tier import DiskTier
from vivace.vlm.vision.embedding_cache import ImageEmbedding
from vivace.vlm.vision.hashing import EmbeddingKey
tier = DiskTier(sys.argv[1])
for number in range(100_000):
    key = EmbeddingKey(f"{number:032x}", (1, 4, 4), "bicubic", "model", "main", "float32")
    tier.put(key, ImageEmbedding(torch.full((2, 50_000, 8), float(number)), (1, 4, 4), 12.5))
"""


def test_a_process_killed_at_any_time_leaves_whole_entries(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) as writer:
        deadline = time.monotonic() + 60
        while len(DiskTier(tmp_path)) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.kill()
    tier = DiskTier(tmp_path)
    count = len(tier)
    assert count >= 5
    for number in range(count):
        found = tier.get(key(number))
        assert found is not None
        assert bool((found.packed == number).all())


DYING = WRITER.replace(
    "tier = DiskTier",
    """import os, signal
Path.replace = lambda path, target: os.kill(os.getpid(), signal.SIGKILL)
tier = DiskTier""",
)


@pytest.mark.skipif(sys.platform == "win32", reason="there, no signal kills at once")
def test_a_process_killed_before_the_last_step_leaves_no_entry(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    tier = DiskTier(tmp_path)
    assert tier.get(key(0)) is None
    tier.put(key(0), embedding(0))
    assert left.exists()  # it might belong to a process that still writes
    long_ago = time.time() - 2 * ABANDONED_AFTER
    os.utime(left, (long_ago, long_ago))
    DiskTier(tmp_path).put(key(1), embedding(1))
    assert names(tmp_path) == {key(0).file_name, key(1).file_name}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    tier = DiskTier(tmp_path / "file" / "folder")
    assert not tier.put(key(1), embedding(1))
    assert tier.last_error is not None
    assert "cannot be written" in tier.last_error


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    tier = DiskTier(tmp_path)
    assert not tier.put(key(1), embedding(1))
    assert tier.last_error is not None
    assert "No space left" in tier.last_error
    assert not names(tmp_path)


def test_the_cache_finds_what_an_earlier_process_stored(tmp_path: Path) -> None:
    EmbeddingCache(tier=DiskTier(tmp_path)).put(key(1), embedding(1))
    cache = EmbeddingCache(tier=DiskTier(tmp_path))
    assert cache.get(key(1)) is not None
    (tmp_path / key(1).file_name).unlink()
    assert cache.get(key(1)) is not None
    assert cache.statistics.disk_hits == 1
