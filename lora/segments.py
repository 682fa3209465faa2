"""What each LoRA of a stack does to each target, and what its strength makes of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .factors.branch import Branch, Term
from .factors.delta import LowRank
from .factors.fusion import Fusion, PlacedFactors, lay_out
from .loader import LoraKey


@dataclass(frozen=True, eq=False)
class Segment:
    """What one LoRA does to one target, at strength 1.

    `factors` view those of the branch as soon as there is one.
    """

    factors: Fusion | None
    terms: tuple[Term, ...]
    bias: Tensor | None
    bias_lift: Tensor | None = None


def whole(delta: LowRank) -> Fusion:
    """Return factors as what is laid out, of which nothing is to be made."""
    return lay_out([PlacedFactors(delta, 0, delta.shape[0])], delta.shape[0])


class Scales:
    """The scale vectors of all targets, laid out so that one tensor operation computes them."""

    def __init__(self, segments: Mapping[str, Mapping[LoraKey, Segment]]) -> None:
        self._keys: list[LoraKey] = sorted(
            {key for present in segments.values() for key in present}
        )
        index = {key: i for i, key in enumerate(self._keys)}
        low = [
            (target, index[key], segment.factors)
            for target, present in segments.items()
            for key, segment in present.items()
            if segment.factors is not None
        ]
        self._owners = torch.tensor([owner for _, owner, _ in low], dtype=torch.long)
        self._values = torch.tensor([factors.scale for *_, factors in low], dtype=torch.float64)
        self._ranks = torch.tensor([factors.rank for *_, factors in low], dtype=torch.long)
        self._device = low[0][2].downs[0].device if low else None
        self._totals: dict[str, int] = {}
        for target, _, factors in low:
            self._totals[target] = self._totals.get(target, 0) + factors.rank

    def vectors(self, strengths: Mapping[LoraKey, float]) -> dict[str, Tensor]:
        """Return, by target, strength times alpha/rank for each of its rank columns."""
        if not self._totals:
            return {}
        by_key = torch.tensor([strengths[key] for key in self._keys], dtype=torch.float64)
        scales = (self._values * by_key[self._owners]).float().repeat_interleave(self._ranks)
        pieces = scales.to(self._device).split(list(self._totals.values()))
        return dict(zip(self._totals, pieces, strict=True))


def scaled(
    branch: Branch,
    present: Mapping[LoraKey, Segment],
    strengths: Mapping[LoraKey, float],
    scales: Tensor | None,
) -> Branch:
    terms: list[Term] = []
    for key, segment in present.items():
        if segment.terms:
            terms += [replace(t, delta=t.delta.scaled(strengths[key])) for t in segment.terms]
    bias = _sum((segment.bias, strengths[key]) for key, segment in present.items())
    bias_lift = _sum((segment.bias_lift, strengths[key]) for key, segment in present.items())
    # Not dataclasses.replace, which takes most of the time of a strength change.
    return Branch(
        branch.target, branch.shape, branch.A, branch.B, scales, tuple(terms), bias, bias_lift
    )


def _sum(vectors: Iterable[tuple[Tensor | None, float]]) -> Tensor | None:
    """Add vectors times strengths; None if there is none."""
    total: Tensor | None = None
    for vector, strength in vectors:
        if vector is not None:
            total = vector * strength if total is None else total + vector * strength
    return total
