"""What the QwenVL nodes keep between runs: sizes, figures, and how to forget it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...vlm.vision.disk_tier import DiskTier
from ...vlm.vision.embedding_cache import DEFAULT_LIMIT
from .vlm_session import EMBEDDINGS, POOL, PREFIXES

MB = 2**20


@dataclass(frozen=True)
class CacheSizes:
    """Megabytes in main memory (None for the default) and on disk (0 for no disk tier)."""

    memory_mb: int | None = None
    disk_mb: int = 0


_current: list[CacheSizes] = []


def configure_once(sizes: CacheSizes, folder: Path) -> None:
    """Apply the settings that ComfyUI was started with, unless a node has changed them since."""
    if not _current:
        configure(sizes, folder)


def configure(sizes: CacheSizes, folder: Path) -> None:
    """Change the sizes of the image cache; what is too much now is evicted.

    Args:
        folder: of the disk tier. Switching it off leaves what is there.
    """
    _current[:] = [sizes]
    EMBEDDINGS.resize(DEFAULT_LIMIT if sizes.memory_mb is None else sizes.memory_mb * MB)
    EMBEDDINGS.tier = DiskTier(folder, sizes.disk_mb * MB) if sizes.disk_mb else None


def clear(disk: bool, folder: Path) -> None:
    """Forget image embeddings and beginnings of prompts; with `disk`, those on disk too."""
    tier, EMBEDDINGS.tier = EMBEDDINGS.tier, None
    EMBEDDINGS.clear()
    EMBEDDINGS.tier = tier
    PREFIXES.clear()
    if disk:
        (tier or DiskTier(folder)).clear()


def statistics() -> str:
    """The figures since ComfyUI was started, as Markdown."""
    images, prompts = EMBEDDINGS.statistics, PREFIXES.statistics
    rows = [
        (
            "images kept",
            f"{images.entries}, {images.nbytes / MB:.1f} of {images.limit / MB:.0f} MB",
        ),
        ("found again", f"{images.hits}, {images.disk_hits} of them on disk"),
        ("encoded", f"{images.misses}"),
        ("evicted", f"{images.evictions}"),
        ("encoding saved", f"{images.saved_ms:.0f} ms"),
        ("prompts kept", f"{prompts.entries}, {prompts.nbytes / MB:.1f} MB"),
        ("prompt tokens saved", f"{prompts.tokens_saved}"),
    ]
    tier = EMBEDDINGS.tier
    if isinstance(tier, DiskTier):
        disk = f"{len(tier)}, {tier.nbytes / MB:.1f} of {tier.limit / MB:.0f} MB in {tier.folder}"
        rows.append(("on disk", disk))
        if tier.last_error:
            rows.append(("disk fault", tier.last_error))
    for patcher in POOL.patchers.values():
        place = "loaded" if patcher.loaded_size() else "waiting in main memory"
        if patcher.local is not None:
            rows.append((f"model {patcher.path.name}", f"{patcher.size / MB:.0f} MB, {place}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| QwenVL cache | |\n|---|---|\n{table}\n"
