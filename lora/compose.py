"""One branch per module from a stack of LoRAs, kept up to date with the least work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .factors.branch import Branch, Term
from .factors.delta import Delta, LowRank
from .factors.dora import Dora, Norm
from .factors.fusion import PlacedFactors, fuse
from .factors.relative import Relative, Scaling
from .loader import Entry, Lora, LoraKey
from .mapping.architecture import Architecture
from .stack import LoraSet

# LoHa and LoKr are expanded into the common low-rank branch up to this rank. Beyond it, running
# them in their own factored form costs less time and memory.
EXPAND_RANK = 64

Weights = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class _Segment:
    """What one LoRA does to one target, at strength 1."""

    factors: LowRank | None
    terms: tuple[Term, ...]
    bias: Tensor | None
    bias_lift: Tensor | None = None


class Composer:
    """Keeps the composition of a changing stack for one model, doing only what a change needs.

    Adding or removing a LoRA recomposes the modules that it changes; changing a strength replaces
    the scale vectors of its modules; reordering does nothing. The result does not depend on the
    order of the stack nor on how it came about.

    Args:
        architecture: the model that the stack is for.
        fusions: names of fused projections of the model, composed in place of their members (for
            instance ``transformer_blocks.0.attn.to_qkv``).
        device: where branches live; that of the loaded LoRAs unless given.
        dtype: dtype of A and B, float32 unless given.
        expand_rank: largest rank up to which LoHa and LoKr join the low-rank factors.
        weights: returns the base weight of a target, float or dequantized; needed for DoRA, and
            asked once per LoRA and module.
        dora_norm: see `Dora.resolve`.

    Attributes:
        branches: target name -> `Branch`, for the last composed stack.
        recomposed, rescaled: how many branches were rebuilt and rescaled so far.

    Raises:
        ValueError: a LoRA needs base weights and none are given, or is for another model.
    """

    def __init__(
        self,
        architecture: Architecture,
        fusions: Iterable[str] = (),
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        expand_rank: int = EXPAND_RANK,
        weights: Weights | None = None,
        dora_norm: Norm = "merged",
    ) -> None:
        self.architecture = architecture
        self.branches: dict[str, Branch] = {}
        self.recomposed = 0
        self.rescaled = 0
        self._device = device
        self._dtype = dtype
        self._expand_rank = expand_rank
        self._weights = weights
        self._dora_norm: Norm = dora_norm
        self._strengths: dict[LoraKey, float] = {}
        self._segments: dict[str, dict[LoraKey, _Segment]] = {}
        self._scales = _Scales({})
        self._home = {
            block.module: (fused, block.start)
            for fused in fusions
            for block in architecture.layout(fused)
        }

    def compose(self, stack: LoraSet) -> dict[str, Branch]:
        """Bring `branches` up to date with the stack and return them; unchanged ones are reused.

        If this raises, the composer is as before.
        """
        old, new = self._strengths, stack.strengths
        gone = old.keys() - new.keys()
        added = {key: self._segment_all(stack.loras[key]) for key in new.keys() - old.keys()}
        touched = {target for parts in added.values() for target in parts}
        touched |= {t for t, present in self._segments.items() if not gone.isdisjoint(present)}
        changed = {key for key in new.keys() & old.keys() if old[key] != new[key]}
        segments = dict(self._segments)
        branches = dict(self.branches)
        for target in touched:
            before = segments.pop(target, {})
            present = {k: v for k, v in before.items() if k not in gone}
            shrunk = bool(present) and len(present) < len(before)
            present.update((key, parts[target]) for key, parts in added.items() if target in parts)
            branches.pop(target, None)
            if present:
                segments[target] = dict(sorted(present.items()))
                branches[target] = self._join(target, segments[target], shrunk)
        rescaled = [
            target
            for target, present in segments.items()
            if target not in touched and not changed.isdisjoint(present)
        ]
        stale = [*(target for target in touched if target in segments), *rescaled]
        scales = _Scales(segments) if touched else self._scales
        vectors = scales.vectors(new) if stale else {}
        for target in stale:
            vector = vectors.get(target)
            branches[target] = _scaled(branches[target], segments[target], new, vector)
        self._scales = scales
        self.recomposed += len(touched)
        self.rescaled += len(rescaled)
        self._strengths, self._segments, self.branches = dict(new), segments, branches
        return branches

    def _join(self, target: str, present: dict[LoraKey, _Segment], shrunk: bool) -> Branch:
        """Concatenate the factors of a target's segments, which then view the result."""
        shape = self.architecture.target(target).shape
        low = {k: segment.factors for k, segment in present.items() if segment.factors is not None}
        if not low:
            return Branch(target, shape)
        factors = list(low.values())
        if len(factors) == 1 and not shrunk:
            return Branch(target, shape, factors[0].A, factors[0].B)
        # A single factor left over is copied too: as a view it would keep the larger tensor alive.
        a = torch.cat([factor.A for factor in factors])
        b = torch.cat([factor.B for factor in factors], dim=1)
        column = 0
        for key, factor in low.items():
            stop = column + factor.rank
            view = LowRank(a[column:stop], b[:, column:stop], factor.scale)
            present[key] = replace(present[key], factors=view)
            column = stop
        return Branch(target, shape, a, b)

    def _segment_all(self, lora: Lora) -> dict[str, _Segment]:
        mine, theirs = self.architecture, lora.architecture
        if (mine.name, mine.hidden) != (theirs.name, theirs.hidden):
            raise ValueError(f"{lora.path.name} is for {theirs.title}, not {mine.title}")
        placed: dict[str, list[tuple[Entry, int]]] = {}
        for module, entries in lora.deltas.items():
            if module not in mine.modules:
                continue
            target, offset = self._home.get(module, (module, 0))
            placed.setdefault(target, []).extend((entry, offset) for entry in entries)
        return {target: self._segment(target, items) for target, items in placed.items()}

    def _segment(self, target: str, items: list[tuple[Entry, int]]) -> _Segment:
        shape = self.architecture.target(target).shape
        low: list[PlacedFactors] = []
        terms: list[Term] = []
        bias: Tensor | None = None
        bias_lift: Tensor | None = None
        for entry, offset in items:
            start, stop = entry.start + offset, entry.stop + offset
            if entry.parameter == "bias" and isinstance(entry.delta, Scaling):
                change = entry.delta.change().to(self._device)
                bias_lift = _added(bias_lift, change, start, shape[0])
                continue
            if entry.parameter == "bias" and isinstance(entry.delta, Delta):
                bias = _added(bias, entry.delta.matrix().to(self._device), start, shape[0])
                continue
            delta = self._resolved(target, entry, start, stop)
            limit = None if isinstance(delta, LowRank) else self._expand_rank
            factors = delta.low_rank(limit) if isinstance(delta, Delta) else None
            if factors is None:
                terms.append(Term(delta.to(self._device, self._dtype), start, stop))
            else:
                low.append(PlacedFactors(factors, start, stop))
        fused = fuse(low, shape[0]).to(self._device, self._dtype) if low else None
        return _Segment(fused, tuple(terms), bias, bias_lift)

    def _resolved(self, target: str, entry: Entry, start: int, stop: int) -> Delta | Relative:
        if not isinstance(entry.delta, Dora):
            return entry.delta
        if self._weights is None:
            raise ValueError(f"{target}: DoRA needs the base weights")
        weight = self._weights(target)[start:stop]
        return entry.delta.resolve(weight, self._dora_norm)

    def missing(self, stack: LoraSet) -> dict[str, list[str]]:
        """Return, by file name, the modules that a stack changes and this model does not have."""
        found = {
            lora.path.name: [
                module for module in lora.deltas if module not in self.architecture.modules
            ]
            for lora in stack.loras.values()
        }
        return {name: modules for name, modules in found.items() if modules}


def _added(total: Tensor | None, rows: Tensor, start: int, count: int) -> Tensor:
    """Add a vector to the rows of a larger one behind `start`."""
    if total is None:
        total = torch.zeros(count, device=rows.device)
    total[start : start + len(rows)] += rows
    return total


class _Scales:
    """The scale vectors of all targets, laid out so that one tensor operation computes them."""

    def __init__(self, segments: Mapping[str, Mapping[LoraKey, _Segment]]) -> None:
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
        self._device = low[0][2].A.device if low else None
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


def _scaled(
    branch: Branch,
    present: Mapping[LoraKey, _Segment],
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
