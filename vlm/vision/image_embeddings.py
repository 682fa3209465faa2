"""Images to embeddings: hash, look up, and encode only what nobody has encoded before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from time import perf_counter

import torch

from .auto_quality import DetailChoice, choose_quality
from .embedding_cache import EmbeddingCache, ImageEmbedding, to_host
from .hashing import EmbeddingKey, image_hash
from .pixel_transfer import Timer, Uploader
from .pixels import RESIZE_METHOD, PixelFormat, check_image, preprocess
from .quality import ImageGrid, grid_of
from .vision_tower import VisionTower

AUTO = "auto"


@dataclass(frozen=True)
class ModelIdentity:
    """The model whose vision tower encodes, for the cache key."""

    model_id: str
    revision: str


@dataclass
class StageTimes:
    """Milliseconds spent. On CUDA, `copy` and `encode` are the device's own times.

    Copying and encoding run beside preprocessing there, so the sum may exceed what was waited for.
    `compile` is what the encoder's first runs took to be compiled, and no part of `encode`.
    """

    detail: float = 0.0
    hash: float = 0.0
    preprocess: float = 0.0
    copy: float = 0.0
    encode: float = 0.0
    compile: float = 0.0

    def __add__(self, other: StageTimes) -> StageTimes:
        return StageTimes(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class EmbedReport:
    """What embedding some images took.

    Attributes:
        hits: images found in the cache; `misses` were encoded; `duplicates` equal another image of
            the same call.
        grids: of each image, in order.
        choices: of each image, with the quality `auto`.
    """

    hits: int = 0
    misses: int = 0
    duplicates: int = 0
    grids: list[ImageGrid] = field(default_factory=list)
    choices: list[DetailChoice] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)

    def __add__(self, other: EmbedReport) -> EmbedReport:
        return EmbedReport(
            self.hits + other.hits,
            self.misses + other.misses,
            self.duplicates + other.duplicates,
            self.grids + other.grids,
            self.choices + other.choices,
            self.times + other.times,
        )


@dataclass(frozen=True)
class Embedded:
    """Embeddings on the tower's device and their keys, in the order of the images; the report."""

    embeddings: list[ImageEmbedding]
    report: EmbedReport
    keys: list[EmbeddingKey]


@dataclass(frozen=True, eq=False)
class _Job:
    position: int
    image: torch.Tensor
    grid: ImageGrid
    key: EmbeddingKey


def embed_images(
    images: Sequence[torch.Tensor],
    tower: VisionTower,
    pixel_format: PixelFormat,
    model: ModelIdentity,
    quality: str = "balanced",
    cache: EmbeddingCache | None = None,
    *,
    enlarge: bool = False,
    interrupt: Callable[[], None] = lambda: None,
) -> Embedded:
    """Return the embedding of each image; those in the cache cost a hash and a copy.

    Images of one grid are encoded together, as many as the tower's patch budget allows. What has
    been encoded when an error or an interrupt ends the call is in the cache.

    Args:
        images: each `[H, W, C]`, or `[T, H, W, C]` for a video clip.
        quality: a preset, or ``"auto"`` for the one that suits the detail of each image.
        cache: None to encode every distinct image.
        enlarge: bring small images up to the preset's smallest size.
        interrupt: is called before each image is hashed or preprocessed, and may raise.

    Raises:
        ValueError: an image cannot be used, as `pixels.to_rgb` and `quality.grid_of`; the message
            begins with its number. Nothing is encoded if the fault is one of shape.
    """
    report = EmbedReport()
    keys: list[EmbeddingKey] = []
    found: dict[EmbeddingKey, ImageEmbedding] = {}
    jobs: dict[EmbeddingKey, _Job] = {}
    for position, image in enumerate(images):
        with _numbered(position):
            check_image(image)
            report.grids.append(_grid(image, tower, quality, enlarge, report))
    for position, (image, grid) in enumerate(zip(images, report.grids, strict=True)):
        interrupt()
        started = perf_counter()
        key = _key(image, grid, tower, model)
        report.times.hash += _since(started)
        keys.append(key)
        if key in found or key in jobs:
            report.duplicates += 1
        elif (cached := cache.get(key) if cache is not None else None) is not None:
            report.hits += 1
            found[key] = cached.to(tower.device)
        else:
            report.misses += 1
            jobs[key] = _Job(position, image, grid, key)
    found |= _encode(jobs.values(), tower, pixel_format, cache, interrupt, report.times)
    return Embedded([found[key] for key in keys], report, keys)


def _grid(
    image: torch.Tensor, tower: VisionTower, quality: str, enlarge: bool, report: EmbedReport
) -> ImageGrid:
    geometry = tower.geometry
    frames = len(image) if image.ndim == 4 else 1
    if quality == AUTO:
        started = perf_counter()
        still = image[frames // 2] if image.ndim == 4 else image
        choice = choose_quality(still, geometry.patch_size, geometry.merge_size)
        report.times.detail += _since(started)
        report.choices.append(choice)
        quality = choice.quality
    return grid_of(
        image.shape[-3],
        image.shape[-2],
        quality,
        geometry.patch_size,
        geometry.merge_size,
        temporal_patches=-(-frames // geometry.temporal_patch_size),
        enlarge=enlarge,
    )


def _key(
    image: torch.Tensor, grid: ImageGrid, tower: VisionTower, model: ModelIdentity
) -> EmbeddingKey:
    dtype = str(tower.dtype).removeprefix("torch.")
    return EmbeddingKey(
        image_hash(image), grid.grid_thw, RESIZE_METHOD, model.model_id, model.revision, dtype
    )


def _encode(
    jobs: Iterable[_Job],
    tower: VisionTower,
    pixel_format: PixelFormat,
    cache: EmbeddingCache | None,
    interrupt: Callable[[], None],
    times: StageTimes,
) -> dict[EmbeddingKey, ImageEmbedding]:
    """Encode batch by batch; while the device encodes one, the next is preprocessed."""
    uploader = Uploader(tower.device)
    found: dict[EmbeddingKey, ImageEmbedding] = {}
    running: _Run | None = None
    try:
        for batch in _batches(jobs, tower.patch_budget):
            started = perf_counter()
            parts = []
            for job in batch:
                interrupt()
                with _numbered(job.position):
                    parts.append(preprocess(job.image, job.grid, pixel_format).to(tower.dtype))
            pixel_values = torch.cat(parts)
            preprocess_ms = _since(started)
            uploaded, copying = uploader.upload(pixel_values)
            if running is not None:
                found |= running.finish(cache, times)
                running = None
            running = _Run(batch, tower, uploaded, copying, preprocess_ms)
    finally:
        if running is not None:
            found |= running.finish(cache, times)
    return found


class _Run:
    """A batch that the device is encoding."""

    def __init__(
        self,
        batch: list[_Job],
        tower: VisionTower,
        pixel_values: torch.Tensor,
        copying: Timer,
        preprocess_ms: float,
    ) -> None:
        self._batch = batch
        self._copying = copying
        self._encoding = Timer(tower.device)
        self._preprocess_ms = preprocess_ms
        warmup = tower.warmup_seconds
        with self._encoding:
            encoded = tower.encode(pixel_values, batch[0].grid.grid_thw, len(batch))
        self._compile_ms = (tower.warmup_seconds - warmup) * 1000
        self._packed = [_alone(encoded[:, index]) for index in range(len(batch))]
        self._copies = [to_host(packed) for packed in self._packed]

    def finish(
        self, cache: EmbeddingCache | None, times: StageTimes
    ) -> dict[EmbeddingKey, ImageEmbedding]:
        """Wait for the device, keep the embeddings, and return them as they lie on the device."""
        copy_ms = self._copying.milliseconds
        encode_ms = self._encoding.milliseconds - self._compile_ms
        times.preprocess += self._preprocess_ms
        times.copy += copy_ms
        times.encode += encode_ms
        times.compile += self._compile_ms
        each_ms = (self._preprocess_ms + copy_ms + encode_ms) / len(self._batch)
        found = {}
        for job, packed, (host, wait) in zip(self._batch, self._packed, self._copies, strict=True):
            found[job.key] = ImageEmbedding(packed, job.grid.grid_thw, each_ms)
            wait()
            if cache is not None:
                cache.put(job.key, ImageEmbedding(host, job.grid.grid_thw, each_ms))
        return found


def _alone(packed: torch.Tensor) -> torch.Tensor:
    """Return it with memory of its own: a view would keep the whole batch alive."""
    return packed if packed.nbytes == packed.untyped_storage().nbytes() else packed.clone()


def _batches(jobs: Iterable[_Job], patch_budget: int) -> Iterator[list[_Job]]:
    """Group jobs of one grid, as many as fit into the budget, or one larger."""
    by_grid: dict[tuple[int, int, int], list[_Job]] = {}
    for job in jobs:
        by_grid.setdefault(job.grid.grid_thw, []).append(job)
    for (time, rows, columns), group in by_grid.items():
        most = max(1, patch_budget // (time * rows * columns))
        for start in range(0, len(group), most):
            yield group[start : start + most]


@contextmanager
def _numbered(position: int) -> Iterator[None]:
    """Say in errors which image is meant."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Image {position + 1}: {error}") from None


def _since(started: float) -> float:
    return (perf_counter() - started) * 1000
