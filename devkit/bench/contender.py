"""The LoRA engine as the bench drives it."""

from __future__ import annotations

import torch

from ...byte_lru import ByteLru
from ...lora import examine
from ...lora.composer import Composer
from ...lora.factors.branch import Branch
from ...lora.loader import CACHE, Lora, load_lora
from ...lora.lora_set import LoraSet
from ...lora.mapping import key_map as mapping
from ...lora.mapping import module_names as naming
from ...lora.mapping import supported_models
from .baselines import Files
from .files import Kind

ROOM = 2**40  # bytes; the bench's own caches hold any stack


class Engine:
    """A composer for one model, a cache of files, and the branches of the last stack."""

    def __init__(self, kind: Kind, device: str, dtype: torch.dtype = torch.bfloat16) -> None:
        self._device = device
        self.cache: ByteLru[Lora] = ByteLru(ROOM)
        self._composer = Composer(kind.architecture(), dtype=dtype)

    def apply(self, files: Files) -> dict[str, Branch]:
        """What a run with these files and strengths costs: load what is not cached, and compose."""
        return self.compose([(self.load(path), strength) for path, strength in files])

    def load(self, path: object) -> Lora:
        """A file from the cache or from the disk."""
        return load_lora(str(path), self._device, cache=self.cache)

    def compose(self, rows: list[tuple[Lora, float]]) -> dict[str, Branch]:
        """Bring the branches up to date with a stack."""
        return self._composer.compose(LoraSet(rows))


def forget_mappings() -> None:
    """Forget how names were mapped, but keep the tables of module spellings."""
    mapping.map_key_set.cache_clear()
    mapping.resolve_names.cache_clear()


def forget_everything() -> None:
    """Forget all that `lora/` computed in this process: as the first LoRA finds it."""
    forget_mappings()
    naming.spellings.cache_clear()
    supported_models.qwen_image.cache_clear()
    supported_models.qwen_image_21.cache_clear()
    supported_models.z_image.cache_clear()
    examine.SEEN.clear()
    CACHE.clear()
