"""A full disk at every step of everything that writes files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.faults import Points, each_point
from support.file_faults import disk_full, reads, writes
from vivace.toolkit.json_files import JsonFileError
from vivace.vlm.vision.disk_tier import DiskTier
from vivace.vlm.vision.embedding_cache import EmbeddingCache, ImageEmbedding
from vivace.vlm.vision.hashing import EmbeddingKey

from .writers import TENSORS, WRITERS, conversion, library


def key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"{number:032x}", (1, 4, 4), "bicubic", "model", "main", "float32")


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_written_by_half(writer: str, lasting: bool, tmp_path: Path) -> None:
    points = WRITERS[writer](tmp_path).check(lasting)
    assert len(points) >= 4, points


@pytest.mark.parametrize("lasting", [False, True])
def test_an_embedding_that_cannot_be_stored_is_still_of_use(tmp_path: Path, lasting: bool) -> None:
    one, two = (ImageEmbedding(torch.full((2, 4, 8), n), (1, 4, 4), 1.0) for n in (1.0, 2.0))
    DiskTier(tmp_path).put(key(1), one)
    cache = EmbeddingCache(tier=DiskTier(tmp_path))

    def before() -> None:
        (tmp_path / key(2).file_name).unlink(missing_ok=True)

    def check(error: BaseException | None) -> None:
        assert error is None
        names = {path.name for path in tmp_path.iterdir()}
        assert names in ({key(1).file_name}, {key(1).file_name, key(2).file_name})
        assert (cache.statistics.entries, cache.statistics.nbytes) == (1, two.nbytes)
        cache.put(key(2), two)
        for number, wanted in ((1, one), (2, two)):
            found = DiskTier(tmp_path).get(key(number))
            assert found is not None
            assert torch.equal(found.packed, wanted.packed)

    points = each_point(
        lambda points: writes(points, tmp_path),
        disk_full,
        lambda: cache.put(key(2), two),
        check,
        before=before,
        lasting=lasting,
    )
    assert len(points) >= 4


def test_a_disk_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    """What the cache node shows and clears goes through the folder."""
    DiskTier(tmp_path).put(key(1), ImageEmbedding(torch.ones(2, 4, 8), (1, 4, 4), 1.0))
    tier = DiskTier(tmp_path)

    def use() -> None:
        found = tier.get(key(1))
        figures = len(tier), tier.nbytes
        tier.clear()
        stored = tier.put(key(2), ImageEmbedding(torch.ones(2, 4, 8), (1, 4, 4), 1.0))
        assert found is None
        assert figures == (0, 0)
        assert not stored

    with reads(Points(0, unreadable, lasting=True), tmp_path):
        use()
    assert tier.last_error is not None
    assert "Input/output error" in tier.last_error
    assert tier.get(key(1)) is not None


def unreadable(name: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), name)


def test_a_full_disk_is_said_of_the_prompt_not_of_the_lock(tmp_path: Path) -> None:
    prompts = library(tmp_path)
    said: list[str] = []

    def rename() -> None:
        try:
            prompts.rename("cat", "animals/cat")
        except JsonFileError as error:
            said.append(error.path.name)
            raise

    def back(_: BaseException | None) -> None:
        if "animals/cat" in prompts.list().values:
            prompts.rename("animals/cat", "cat")

    points = each_point(
        lambda points: writes(points, tmp_path),
        disk_full,
        rename,
        back,
        before=lambda: back(None),
    )
    of_lock = sum(point == "make .lock" for point in points)
    assert of_lock > 0
    assert said == [".lock"] * of_lock + ["cat.json"]


def test_what_is_converted_is_whole(tmp_path: Path) -> None:
    conversion(tmp_path)
    found = load_file(tmp_path / "model.kitchen.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
