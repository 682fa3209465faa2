"""Which layers of a model take LoRAs as more ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ...lora.mapping.architecture import Architecture
from .known_kinds import kind_of
from .rank_kind import RankKind
from .weight_kind import Lookup, UnreadableWeightError


@dataclass(frozen=True, eq=False)
class RankTarget:
    """Layers with the same input, and the rows of the fused output that each computes."""

    path: str
    modules: tuple[Any, ...]
    rows: tuple[tuple[int, int], ...]
    kind: RankKind

    @property
    def scales_down(self) -> bool:
        """Whether strengths go into down, which has fewer channels, so that less is written."""
        return self.modules[0].in_features * len(self.modules) < self.rows[-1][1]

    @property
    def rank(self) -> int:
        """Ranks that the layers have now."""
        return self.kind.rank_of(self.modules[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of the factors."""
        return self.kind.factors(self.modules[0])[0].dtype

    def room(self, base: int) -> int | None:
        """Ranks that can be added to `base`; None if there is no limit."""
        return None if self.kind.limit is None else self.kind.limit - base

    def weight(self, rank: int, device: torch.device | None = None) -> Tensor:
        """Return the weight ``[N, K]``, float32, that the target stands for with its first ranks.

        It is worked out on `device`, where the layers are unless given.

        Raises:
            UnreadableWeightError: it cannot be read back.
        """
        try:
            parts = [self.kind.dense(module, rank, device) for module in self.modules]
        except UnreadableWeightError as error:
            raise UnreadableWeightError(f"DoRA cannot be applied to {self.path}: {error}") from None
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def rank_targets(architecture: Architecture, module: Lookup) -> dict[str, RankTarget]:
    """Return all layers that take more ranks, by canonical path or by the name of a fused layer.

    `module` returns the module at a path, or None.
    """
    found: dict[str, RankTarget] = {}
    taken: set[str] = set()
    for path, blocks in architecture.fusions.items():
        rows = tuple((block.start, block.stop) for block in blocks)
        fused = module(path)
        kind = None if fused is None else kind_of(fused)
        if isinstance(kind, RankKind):
            found[path] = RankTarget(path, (fused,), ((0, rows[-1][1]),), kind)
            continue
        members = tuple(module(block.module) for block in blocks)
        shared = _kind_with_shared_input(members)
        if shared is not None:
            found[path] = RankTarget(path, members, rows, shared)
            taken.update(block.module for block in blocks)
    for path, known in architecture.modules.items():
        layer = module(path) if known.kind == "linear" and path not in taken else None
        kind = None if layer is None else kind_of(layer)
        if isinstance(kind, RankKind):
            found[path] = RankTarget(path, (layer,), ((0, known.shape[0]),), kind)
    return found


def _kind_with_shared_input(members: tuple[Any, ...]) -> RankKind | None:
    kinds = {kind_of(member) for member in members if member is not None}
    kind = next(iter(kinds), None)
    if None in members or len(kinds) != 1 or not isinstance(kind, RankKind):
        return None
    return kind if kind.share_input(cast(Any, members)) else None
