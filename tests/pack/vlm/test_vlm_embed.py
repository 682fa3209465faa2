"""From images to embeddings: what is computed, how often, and that it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.vlm.vision import image_embeddings
from vivace.vlm.vision.compiled_encoder import CompiledGraphs
from vivace.vlm.vision.disk_tier import DiskTier
from vivace.vlm.vision.embedding_cache import EmbeddingCache
from vivace.vlm.vision.image_embeddings import Embedded, ModelIdentity, embed_images
from vivace.vlm.vision.pixels import PixelFormat
from vivace.vlm.vision.tower_check import stock_features
from vivace.vlm.vision.vision_tower import VisionTower

MODEL = ModelIdentity("Qwen/Qwen2.5-VL", "main")


def picture(seed: int, height: int = 84, width: int = 112) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


@dataclass
class Counted:
    """A tower and a cache, and what was done: images preprocessed, images per encoder call."""

    tower: VisionTower
    pixel_format: PixelFormat
    cache: EmbeddingCache | None = field(default_factory=EmbeddingCache)
    preprocessed: int = 0
    encoded: list[int] = field(default_factory=list)

    def __call__(self, *images: torch.Tensor, **options: Any) -> Embedded:
        options = {"model": MODEL, "cache": self.cache, **options}
        return embed_images(images, self.tower, self.pixel_format, **options)

    def take(self) -> tuple[int, list[int]]:
        """Return the counts since the last time."""
        counts = self.preprocessed, self.encoded
        self.preprocessed, self.encoded = 0, []
        return counts


@pytest.fixture
def counted(
    eager_tower: VisionTower, pixel_format: PixelFormat, monkeypatch: pytest.MonkeyPatch
) -> Counted:
    return watch(Counted(eager_tower, pixel_format), monkeypatch)


def watch(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> Counted:
    preprocess, encode = image_embeddings.preprocess, counted.tower.encode

    def count_preprocess(*arguments: Any) -> torch.Tensor:
        counted.preprocessed += 1
        return preprocess(*arguments)

    def count_encode(pixels: torch.Tensor, grid: tuple[int, int, int], images: int) -> torch.Tensor:
        counted.encoded.append(images)
        return encode(pixels, grid, images)

    monkeypatch.setattr(image_embeddings, "preprocess", count_preprocess)
    monkeypatch.setattr(counted.tower, "encode", count_encode)
    return counted


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_as_the_processor_and_the_tower_of_transformers(
    make_tower: Callable[..., torch.nn.Module],
    make_processor: Callable[..., Any],
    make_format: Callable[[Any], PixelFormat],
    family: str,
) -> None:
    module: Any = make_tower(family)
    processor = make_processor(patch_size=module.patch_embed.proj.kernel_size[1])
    side = 2 * processor.patch_size
    sizes = [(3, 4), (5, 2), (3, 4), (1, 1)]
    images = [
        picture(seed, side * rows, side * columns) for seed, (rows, columns) in enumerate(sizes)
    ]
    inputs = processor(
        images=[image.movedim(-1, 0) for image in images],
        do_rescale=False,
        do_resize=False,
        return_tensors="pt",
    )
    expected = stock_features(module, inputs["pixel_values"], inputs["image_grid_thw"])
    tower = VisionTower(module, "off", graphs=CompiledGraphs())
    found = embed_images(images, tower, make_format(processor), MODEL).embeddings
    assert [entry.grid_thw for entry in found] == [
        tuple(g) for g in inputs["image_grid_thw"].tolist()
    ]
    packed = torch.cat([entry.packed for entry in found], dim=1)
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)


def test_cold_once_per_distinct_image_and_warm_never(counted: Counted) -> None:
    images = [picture(1), picture(2), picture(1), picture(3, 56, 56)]
    cold = counted(*images)
    assert counted.take() == (3, [2, 1])
    assert (cold.report.misses, cold.report.hits, cold.report.duplicates) == (3, 0, 1)
    warm = counted(*images)
    assert counted.take() == (0, [])
    assert (warm.report.misses, warm.report.hits, warm.report.duplicates) == (0, 3, 1)
    for first, second in zip(cold.embeddings, warm.embeddings, strict=True):
        assert torch.equal(first.packed, second.packed)
    assert torch.equal(warm.embeddings[0].packed, warm.embeddings[2].packed)
    assert not torch.equal(warm.embeddings[0].packed, warm.embeddings[1].packed)


def test_order_and_company_do_not_matter(counted: Counted) -> None:
    first = counted(picture(1), picture(2)).embeddings
    counted.take()
    second = counted(picture(2), picture(4), picture(1)).embeddings
    assert counted.take() == (1, [1])
    assert torch.equal(first[0].packed, second[2].packed)
    assert torch.equal(first[1].packed, second[0].packed)


def test_what_changes_an_embedding_is_encoded_again(counted: Counted) -> None:
    image = picture(1, 600, 600)
    counted(image, quality="balanced")
    assert counted.take() == (1, [1])
    counted(image, quality="fast")
    assert counted.take() == (1, [1])
    changed = image.clone()
    changed[599, 599, 2] = 1 - changed[599, 599, 2]
    reshaped = image.view(300, 1200, 3)
    for other in (changed, reshaped, image.half()):
        counted(other)
        assert counted.take() == (1, [1])
    for model in (ModelIdentity("Qwen/other", "main"), ModelIdentity(MODEL.model_id, "v2")):
        counted(image, model=model)
        assert counted.take() == (1, [1])
    counted.tower.module.half()
    counted(image)
    assert counted.take() == (1, [1])
    counted.tower.module.float()
    for quality in ("balanced", "fast"):
        counted(image, quality=quality)
    counted(image.clone())
    assert counted.take() == (0, [])


def test_a_quality_that_changes_no_size_costs_nothing(counted: Counted) -> None:
    counted(picture(1), quality="fast")
    counted.take()
    counted(picture(1), quality="ultra")
    assert counted.take() == (0, [])
    counted(picture(1), quality="ultra", enlarge=True)
    assert counted.take() == (1, [1])


def test_batches_keep_to_the_budget(counted: Counted) -> None:
    counted.tower.patch_budget = 100  # an image has 48 patches
    counted(*map(picture, range(5)), picture(9, 280, 280))
    assert counted.take() == (6, [2, 2, 1, 1])


def test_without_a_cache_only_duplicates_are_spared(counted: Counted) -> None:
    counted.cache = None
    counted(picture(1), picture(1))
    assert counted.take() == (1, [1])
    counted(picture(1))
    assert counted.take() == (1, [1])


def test_the_cache_outlives_the_tower(
    counted: Counted, make_tower: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counted(picture(1)).embeddings[0]
    again = Counted(
        VisionTower(make_tower("qwen2_5_vl"), "off"), counted.pixel_format, counted.cache
    )
    watch(again, monkeypatch)
    assert torch.equal(again(picture(1)).embeddings[0].packed, before.packed)
    assert again.take() == (0, [])


def test_the_disk_tier_serves_a_new_cache(counted: Counted, tmp_path: Path) -> None:
    counted.cache = EmbeddingCache(tier=DiskTier(tmp_path))
    before = counted(picture(1)).embeddings[0]
    counted.cache = EmbeddingCache(tier=DiskTier(tmp_path))
    counted.take()
    after = counted(picture(1))
    assert counted.take() == (0, [])
    assert after.report.hits == counted.cache.statistics.disk_hits == 1
    assert torch.equal(after.embeddings[0].packed, before.packed)


def test_a_cached_embedding_holds_no_other_images(counted: Counted) -> None:
    assert counted.cache is not None
    found = counted(picture(1), picture(2), picture(3)).embeddings
    assert counted.cache.statistics.nbytes == sum(entry.nbytes for entry in found)
    for entry in counted(picture(1), picture(2), picture(3)).embeddings:
        assert entry.packed.untyped_storage().nbytes() == entry.nbytes


def test_a_clip_and_its_frames(counted: Counted) -> None:
    clip = torch.stack([picture(seed) for seed in range(5)])
    found = counted(clip, clip[0])
    assert [entry.grid_thw for entry in found.embeddings] == [(3, 6, 8), (1, 6, 8)]
    assert found.embeddings[0].features.shape == (36, 64)
    assert found.report.grids[0].tokens == 36
    assert counted.take()[0] == 2


def test_auto_chooses_per_image_and_says_why(counted: Counted) -> None:
    flat = torch.full((900, 900, 3), 0.5)
    found = counted(flat, picture(1, 900, 900), quality="auto")
    assert [choice.quality for choice in found.report.choices] == ["fast", "ultra"]
    assert [grid.tokens for grid in found.report.grids] == [256, 1024]
    counted.take()
    counted(flat, quality="fast")
    counted(torch.stack([flat, flat]), quality="auto")
    assert counted.take() == (1, [1])


def test_every_stage_is_timed(counted: Counted) -> None:
    cold = counted(picture(1)).report.times
    assert min(cold.hash, cold.preprocess, cold.copy, cold.encode) > 0
    warm = counted(picture(1)).report.times
    assert warm.hash > 0
    assert (warm.preprocess, warm.copy, warm.encode, warm.compile) == (0, 0, 0, 0)
    assert counted.cache is not None
    spent = cold.preprocess + cold.copy + cold.encode
    assert counted.cache.statistics.saved_ms == pytest.approx(spent)


def test_compiling_is_reported_for_itself(
    make_tower: Callable[..., torch.nn.Module], pixel_format: PixelFormat
) -> None:
    torch._dynamo.reset()
    graphs = CompiledGraphs(backend="eager")
    tower = VisionTower(make_tower("qwen2_vl"), "on", graphs=graphs)
    first = embed_images([picture(1)], tower, pixel_format, MODEL).report.times
    assert first.compile == pytest.approx(tower.warmup_seconds * 1000)
    assert min(first.compile, first.encode) > 0
    second = embed_images([picture(2)], tower, pixel_format, MODEL).report.times
    assert second.compile == 0


def test_an_interrupt_keeps_what_is_done(counted: Counted) -> None:
    counted.tower.patch_budget = 48
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 3 + 2 + 1:  # three hashes, then before the third image is preprocessed
            raise KeyboardInterrupt

    images = [picture(seed) for seed in range(3)]
    with pytest.raises(KeyboardInterrupt):
        counted(*images, interrupt=interrupt)
    assert counted.take() == (2, [1, 1])
    counted(*images)
    assert counted.take() == (1, [1])


def test_an_interrupt_before_anything(counted: Counted) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        counted(picture(1), interrupt=interrupt)
    assert counted.take() == (0, [])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(0, 28, 3), "Image 2: The image is empty"),
        (torch.rand(1, 28, 3), "Image 2: The image is a line"),
        (torch.rand(3, 1000, 3), "Image 2: .* 200 times"),
        (torch.rand(28, 28, 7), "Image 2: .* has 7"),
        (torch.rand(28, 28), "Image 2: .* not 28x28"),
        (torch.rand(0, 28, 28, 3), "Image 2: The video has no frames"),
    ],
    ids=["empty", "line", "strip", "channels", "2-D", "no frames"],
)
def test_bad_shapes_are_found_before_any_work(
    counted: Counted, image: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        counted(picture(1), image)
    assert counted.take() == (0, [])


@pytest.mark.parametrize("quality", ["balanced", "auto"])
def test_nan_is_named_and_not_cached(counted: Counted, quality: str) -> None:
    image = picture(2)
    image[3, 3] = float("nan")
    for _ in range(2):
        with pytest.raises(ValueError, match="Image 2: The image holds NaN"):
            counted(picture(1), image, quality=quality)
    assert counted.cache is not None
    assert len(counted.cache) == 0


def test_unknown_quality(counted: Counted) -> None:
    with pytest.raises(ValueError, match="'best' is none of"):
        counted(picture(1), quality="best")


def test_no_images(counted: Counted) -> None:
    found = counted()
    assert found.embeddings == []
    assert counted.take() == (0, [])


def test_cached_in_inference_mode_and_used_outside(counted: Counted) -> None:
    with torch.inference_mode():
        inside = counted(picture(1)).embeddings[0]
    found = counted(picture(1), picture(2)).embeddings
    assert torch.equal(found[0].packed + 0, inside.packed)
    assert counted.take() == (2, [1, 1])
