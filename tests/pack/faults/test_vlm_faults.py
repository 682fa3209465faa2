"""No memory, and interrupts, at any place where images are encoded and answers written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import (
    Interrupted,
    Points,
    allocations,
    each_kind,
    each_point,
    interrupt,
    out_of_memory,
)
from support.snapshots import Snapshot, differences, snapshot
from vivace.devkit.doubles.small_vlm import local_model, picture
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.decode.prefix_cache import PrefixCache
from vivace.vlm.local_engine import LocalEngine, LocalRequest
from vivace.vlm.local_model import LocalModel
from vivace.vlm.text.chat_prompt import ImagePart, Turn
from vivace.vlm.vision.disk_tier import DiskTier
from vivace.vlm.vision.embedding_cache import EmbeddingCache, ImageEmbedding
from vivace.vlm.vision.hashing import EmbeddingKey
from vivace.vlm.vision.image_embeddings import embed_images

FAULTS = {"memory": out_of_memory, "interrupt": interrupt}
ERRORS = {"memory": torch.OutOfMemoryError, "interrupt": Interrupted}
REQUEST = LocalRequest(
    (Turn("user", (ImagePart(), "What is it?")),),
    GenerationSettings(max_new_tokens=3),
    keep_whole=True,
)


class Checks:
    """The calls of an `interrupt` argument as points."""

    def __init__(self) -> None:
        self._points: Points | None = None

    @contextmanager
    def watch(self, points: Points) -> Iterator[None]:
        self._points = points
        try:
            yield
        finally:
            self._points = None

    def __call__(self) -> None:
        if self._points is not None:
            self._points.reach("interrupt check")


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def model(request: pytest.FixtureRequest) -> Iterator[LocalModel]:
    """A small model, which is the same in the end."""
    made = local_model(request.param)
    before = snapshot(made.model)
    yield made
    assert differences(made.model, before) == []


def consistent(cache: EmbeddingCache, wanted: dict[EmbeddingKey, ImageEmbedding]) -> None:
    """What is kept is whole, and counted as what it takes."""
    kept = dict(cache.kept.by_use())
    assert cache.statistics.nbytes == sum(embedding.nbytes for embedding in kept.values())
    assert cache.statistics.entries == len(kept)
    for key, embedding in kept.items():
        assert torch.equal(embedding.packed, wanted[key].packed)


@pytest.mark.parametrize("fault", FAULTS)
@torch.no_grad()
def test_encoding_fails_whole(model: LocalModel, fault: str, tmp_path: Path) -> None:
    tower, pixels = model.tower, model.pixel_format
    assert tower is not None
    assert pixels is not None
    family = model.identity.model_id
    images = [picture(1, 2, 2, family), picture(2, 2, 2, family), picture(3, 1, 3, family)]
    checks, cache = Checks(), EmbeddingCache()

    def encode() -> Any:
        return embed_images(images, tower, pixels, model.identity, cache=cache, interrupt=checks)

    first = encode()
    wanted = dict(zip(first.keys, first.embeddings, strict=True))
    base: Snapshot = snapshot(tower.module)

    def anew() -> None:
        nonlocal cache
        for path in tmp_path.iterdir():
            path.unlink()
        cache = EmbeddingCache(tier=DiskTier(tmp_path))

    def after(error: BaseException | None) -> None:
        assert isinstance(error, ERRORS[fault])
        assert differences(tower.module, base) == []
        consistent(cache, wanted)
        assert {path.name for path in tmp_path.iterdir()} == {
            key.file_name for key, _ in cache.kept.by_use()
        }
        kept = len(cache)
        again = encode()
        assert (again.report.hits, again.report.misses) == (kept, 3 - kept)
        for one, other in zip(again.embeddings, first.embeddings, strict=True):
            assert torch.equal(one.packed, other.packed)
        consistent(cache, wanted)

    points = each_point(
        allocations if fault == "memory" else checks.watch,
        FAULTS[fault],
        encode,
        after,
        before=anew,
        chosen=each_kind if fault == "memory" else lambda names: range(len(names)),
    )
    assert len(points) >= (100 if fault == "memory" else 6)


def whole(prefixes: PrefixCache) -> None:
    """What is kept of prompts has all layers, and is counted as what it takes."""
    entries = prefixes.kept.by_use()
    assert prefixes.statistics.nbytes == sum(prefix.nbytes for _, prefix in entries)
    for key, prefix in entries:
        assert len(prefix.layers) == 4
        assert {tensor.shape[-2] for layer in prefix.layers for tensor in layer} == {len(key.ids)}
        assert prefix.nbytes == sum(tensor.nbytes for layer in prefix.layers for tensor in layer)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@torch.no_grad()
def test_answering_fails_whole(model: LocalModel, fault: str, warm: bool) -> None:
    image = picture(1, 2, 2, model.identity.model_id)
    checks = Checks()
    engine = LocalEngine(model)

    def answer() -> tuple[int, ...]:
        return engine.answer(REQUEST, [image], interrupt=checks).tokens

    wanted = answer()
    base = snapshot(model.model)
    embedded = embed_reference(model, image)

    def anew() -> None:
        engine.embeddings, engine.prefixes = EmbeddingCache(), PrefixCache()
        if warm:
            answer()

    def after(error: BaseException | None) -> None:
        assert isinstance(error, ERRORS[fault])
        assert differences(model.model, base) == []
        for _ in range(2):
            assert engine.embeddings is not None
            assert engine.prefixes is not None
            consistent(engine.embeddings, embedded)
            whole(engine.prefixes)
            assert answer() == wanted

    points = each_point(
        allocations if fault == "memory" else checks.watch,
        FAULTS[fault],
        answer,
        after,
        before=anew,
        chosen=each_kind if fault == "memory" else lambda names: range(len(names)),
    )
    assert len(points) >= (80 if fault == "memory" else 4)


def embed_reference(model: LocalModel, image: torch.Tensor) -> dict[EmbeddingKey, ImageEmbedding]:
    """The embedding of one image by its key."""
    assert model.tower is not None
    assert model.pixel_format is not None
    found = embed_images([image], model.tower, model.pixel_format, model.identity)
    return dict(zip(found.keys, found.embeddings, strict=True))
