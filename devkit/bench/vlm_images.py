"""Embedding images: presets, compiled or not, new or seen before, beside plain transformers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ...vlm.vision.compiled_encoder import CompiledGraphs
from ...vlm.vision.disk_tier import DiskTier
from ...vlm.vision.embedding_cache import EmbeddingCache
from ...vlm.vision.image_embeddings import Embedded, ModelIdentity, embed_images
from ...vlm.vision.pixels import PixelFormat
from ...vlm.vision.quality import QUALITIES, budget_of
from ...vlm.vision.vision_tower import VisionTower, find_vision_tower
from .harness import Timings
from .vlm_models import Shape, build_image_processor

SIDE = 1024


@dataclass(frozen=True)
class Load:
    """What is embedded at once, and by whom.

    Attributes:
        count: images.
        presets: to embed them at.
        compiled, plain: presets at which the compiled encoder and plain transformers take part.
        warm: presets to run once before; the compiled encoder always is.
    """

    count: int
    rounds: int
    presets: tuple[str, ...]
    compiled: tuple[str, ...]
    plain: tuple[str, ...]
    warm: tuple[str, ...]


class Bed:
    """A model, images, and everyone who embeds them."""

    def __init__(self, shape: Shape, model: Any, device: str, images: int = 4) -> None:
        self.shape = shape
        self.device = device
        self._model = model
        module, graphs = find_vision_tower(model), CompiledGraphs()
        self.towers = {
            "eager": VisionTower(module, "off", graphs=graphs),
            "compiled": VisionTower(module, "on", graphs=graphs),
        }
        geometry = self.towers["eager"].geometry
        self.pixel_format = PixelFormat(
            geometry.patch_size,
            geometry.merge_size,
            geometry.temporal_patch_size,
            shape.mean,
            shape.std,
        )
        self.identity = ModelIdentity(shape.name, "random weights")
        self._processors = {
            name: build_image_processor(shape, budget_of(name)) for name in QUALITIES
        }
        noise = torch.Generator().manual_seed(1)
        size = (images, SIDE, SIDE, 3)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=noise)
        self.plain_images = list(pixels.movedim(-1, 1).contiguous())
        self.images = list(pixels.float() / 255)
        self._changes = 0

    @property
    def whole(self) -> bool:
        """Whether the tower has all of its layers."""
        return self.towers["eager"].geometry.depth == self.shape.vision["depth"]

    @property
    def case(self) -> str:
        """Model and layers of its tower."""
        depth, published = self.towers["eager"].geometry.depth, self.shape.vision["depth"]
        return f"{self.shape.name} {depth}/{published} layers"

    def change(self) -> None:
        """Change a pixel of every image: nobody has seen them then."""
        self._changes += 1
        for image in self.images:
            image[0, 0, 0] = self._changes % 4096 / 4096

    def embed(self, way: str, quality: str, count: int, cache: EmbeddingCache | None) -> Embedded:
        """What our engine does with images, from the hash to embeddings on the device."""
        return embed_images(
            self.images[:count],
            self.towers[way],
            self.pixel_format,
            self.identity,
            quality,
            cache,
        )

    @torch.no_grad()
    def plain(self, quality: str, count: int) -> tuple[int, ...]:
        """The model's own processor and `get_image_features`; return the first grid."""
        pixels = self._processors[quality](
            images=self.plain_images[:count], return_tensors="pt"
        ).to(self.device)
        self._model.get_image_features(pixels["pixel_values"], pixels["image_grid_thw"])
        return tuple(pixels["image_grid_thw"][0].tolist())


class Run:
    """The timings of one load, and what our engine says of its own stages."""

    def __init__(self, bed: Bed, load: Load, folder: Path) -> None:
        self.bed = bed
        self.load = load
        self.timings = Timings(bed.device)
        self.stages: dict[str, list[dict[str, float]]] = {}
        self.grids: dict[str, tuple[int, ...]] = {}
        self.tokens: dict[str, int] = {}
        self.compile_seconds: dict[str, float] = {}
        self.not_compiled: dict[str, str] = {}
        self._tier = DiskTier(folder / "embeddings")

    def measure(self) -> None:
        """Warm up, and run all rounds."""
        for quality in self.load.presets:
            self._warm_up(quality)
        for _ in range(self.load.rounds):
            for quality in self.load.presets:
                self._round(quality)

    def _warm_up(self, quality: str) -> None:
        bed, count = self.bed, self.load.count
        if quality in self.load.warm:
            bed.embed("eager", quality, count, None)
            if quality in self.load.plain:
                bed.plain(quality, count)
        if quality in self.load.compiled:
            report = bed.embed("compiled", quality, count, None).report
            reason = bed.towers["compiled"].eager_reason
            if reason is None:
                self.compile_seconds[quality] = round(report.times.compile / 1000, 2)
            else:
                self.not_compiled[quality] = reason

    def _round(self, quality: str) -> None:
        bed, count, time = self.bed, self.load.count, self.timings.time
        embedded = self._ours("eager", quality)
        if quality in self.compile_seconds:
            embedded = self._ours("compiled", quality)
        if quality in self.load.plain:
            grid = time(f"{quality}, plain", lambda: bed.plain(quality, count))
            _same("the grid of plain transformers", grid, self.grids[quality])
        self._from_disk(quality, embedded)

    def _ours(self, way: str, quality: str) -> Embedded:
        bed, count = self.bed, self.load.count
        bed.change()
        cache, tower = EmbeddingCache(), bed.towers[way]
        calls = tower.compiled_calls
        embedded = self.timings.time(
            f"{quality}, {way}, cold", lambda: bed.embed(way, quality, count, cache)
        )
        _same("images encoded", embedded.report.misses, count)
        _same("runs of compiled graphs", tower.compiled_calls > calls, way == "compiled")
        self.grids[quality] = embedded.report.grids[0].grid_thw
        self.tokens[quality] = embedded.report.grids[0].tokens
        self.stages.setdefault(f"{quality}, {way}", []).append(asdict(embedded.report.times))
        again = self.timings.time(
            f"{quality}, {way}, cached", lambda: bed.embed(way, quality, count, cache)
        )
        _same("images found in the cache", again.report.hits, count)
        return embedded

    def _from_disk(self, quality: str, embedded: Embedded) -> None:
        for key, embedding in zip(embedded.keys, embedded.embeddings, strict=True):
            self._tier.put(key, replace(embedding, packed=embedding.packed.cpu()))
        empty = EmbeddingCache(tier=self._tier)
        found = self.timings.time(
            f"{quality}, disk", lambda: self.bed.embed("eager", quality, self.load.count, empty)
        )
        _same("images found on disk", found.report.hits, self.load.count)
        self._tier.clear()

    def stage(self, case: str, *names: str) -> float:
        """Median milliseconds of some stages together, for a preset and a way."""
        return median(sum(times[name] for name in names) for times in self.stages[case])

    def shares(self, case: str, numerator: str, denominator: str) -> list[float]:
        """The ratio of two stages in each round."""
        return [times[numerator] / times[denominator] for times in self.stages[case]]

    @property
    def case(self) -> str:
        """Model, layers of its tower, and number of images."""
        count = self.load.count
        return f"{self.bed.case}, {count} image{'s' * (count > 1)}"

    def details(self) -> dict[str, Any]:
        """Everything that the ratios come from."""
        found: dict[str, Any] = {
            "case": self.case,
            "grids": {name: list(grid) for name, grid in self.grids.items()},
            "tokens_per_image": self.tokens,
            "milliseconds": self.timings.summary(),
            "stages_ms": {
                name: {stage: float(f"{self.stage(name, stage):.4g}") for stage in runs[0]}
                for name, runs in self.stages.items()
            },
            "compile_seconds": self.compile_seconds,
        }
        return found | ({"not_compiled": self.not_compiled} if self.not_compiled else {})


def _same(what: str, found: object, expected: object) -> None:
    """Stop if a contender did not do what its figure is said to be of.

    Raises:
        RuntimeError: it did not.
    """
    if found != expected:
        raise RuntimeError(f"{what}: {found}, where {expected} was expected")
