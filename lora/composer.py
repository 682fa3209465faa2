"""One branch per module from a stack of LoRAs, kept up to date with the least work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from .factors.branch import Branch, Term
from .factors.delta import Delta, LowRank
from .factors.dora import Dora, Norm
from .factors.fusion import PlacedFactors, lay_out
from .factors.weight_relative import Relative, Scaling
from .loader import Entry, Lora, LoraKey
from .lora_set import LoraSet
from .mapping.architecture import Architecture
from .segments import Scales, Segment, scaled, whole

# LoHa and LoKr are expanded into the common low-rank branch up to this rank. Beyond it, running
# them in their own factored form costs less time and memory.
EXPAND_RANK = 64

Weights = Callable[[str], Tensor]


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
        compute: the first value of the attribute.
        dtype: dtype of A and B, float32 unless given.
        expand_rank: largest rank up to which LoHa and LoKr join the low-rank factors.
        weights: returns the base weight of a target, float or dequantized; needed for DoRA, and
            asked once per composition and target, however many changes need it.
        dora_norm: see `Dora.resolve`.

    Attributes:
        branches: target name -> `Branch`, for the last composed stack.
        recomposed, rescaled: how many branches were rebuilt and rescaled so far.
        compute: where products are computed (what depends on base weights; LoHa and LoKr multiplied
            out); None for where the weights or the LoRAs are. The results go to `device`.

    Raises:
        ValueError: a LoRA needs base weights and none are given, or is for another model.
    """

    def __init__(
        self,
        architecture: Architecture,
        fusions: Iterable[str] = (),
        *,
        device: str | torch.device | None = None,
        compute: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        expand_rank: int = EXPAND_RANK,
        weights: Weights | None = None,
        dora_norm: Norm = "merged",
    ) -> None:
        self.architecture = architecture
        self.branches: dict[str, Branch] = {}
        self.recomposed = 0
        self.rescaled = 0
        self._device = None if device is None else torch.device(device)
        if compute is not None and device is None:
            raise ValueError("`compute` needs `device`, where the results are to be")
        self.compute = None if compute is None else torch.device(compute)
        self._dtype = dtype
        self._expand_rank = expand_rank
        self._weights = weights
        self._dora_norm: Norm = dora_norm
        self._strengths: dict[LoraKey, float] = {}
        self._segments: dict[str, dict[LoraKey, Segment]] = {}
        self._scales = Scales({})
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
        added = {key: self._placed(stack.loras[key]) for key in new.keys() - old.keys()}
        touched = {target for parts in added.values() for target in parts}
        touched |= {t for t, present in self._segments.items() if not gone.isdisjoint(present)}
        changed = {key for key in new.keys() & old.keys() if old[key] != new[key]}
        segments = dict(self._segments)
        branches = dict(self.branches)
        for target in touched:
            before = segments.pop(target, {})
            present = {k: v for k, v in before.items() if k not in gone}
            shrunk = bool(present) and len(present) < len(before)
            weight = self._weight_once(target)
            for key, parts in added.items():
                if target in parts:
                    present[key] = self._segment(target, parts[target], weight)
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
        scales = Scales(segments) if touched else self._scales
        vectors = scales.vectors(new) if stale else {}
        for target in stale:
            vector = vectors.get(target)
            branches[target] = scaled(branches[target], segments[target], new, vector)
        self._scales = scales
        self.recomposed += len(touched)
        self.rescaled += len(rescaled)
        self._strengths, self._segments, self.branches = dict(new), segments, branches
        return branches

    def _join(self, target: str, present: dict[LoraKey, Segment], shrunk: bool) -> Branch:
        """Write the factors of a target's segments side by side; the segments then view them."""
        shape = self.architecture.target(target).shape
        low = {k: segment.factors for k, segment in present.items() if segment.factors is not None}
        if not low:
            return Branch(target, shape)
        if len(low) == 1 and not shrunk:
            ((key, only),) = low.items()
            made = only.made(self._device, self._dtype)
            present[key] = replace(present[key], factors=whole(made))
            return Branch(target, shape, made.A, made.B)
        # A single factor left over is copied too: as a view it would keep the larger tensor alive.
        rank = sum(factors.rank for factors in low.values())
        place = self._device or next(iter(low.values())).downs[0].device
        a = torch.empty(rank, shape[1], dtype=self._dtype, device=place)
        b = torch.empty(shape[0], rank, dtype=self._dtype, device=place)
        column = 0
        for key, factors in low.items():
            stop = column + factors.rank
            view = LowRank(a[column:stop], b[:, column:stop], factors.scale)
            factors.write_down(view.A)
            factors.write_up(view.B)
            present[key] = replace(present[key], factors=whole(view))
            column = stop
        return Branch(target, shape, a, b)

    def _placed(self, lora: Lora) -> dict[str, list[tuple[Entry, int]]]:
        """The changes of a file by target, each with the row where its module begins there."""
        mine, theirs = self.architecture, lora.architecture
        if (mine.name, mine.hidden) != (theirs.name, theirs.hidden):
            raise ValueError(f"{lora.path.name} is for {theirs.title}, not {mine.title}")
        placed: dict[str, list[tuple[Entry, int]]] = {}
        for module, entries in lora.deltas.items():
            if module not in mine.modules:
                continue
            target, offset = self._home.get(module, (module, 0))
            placed.setdefault(target, []).extend((entry, offset) for entry in entries)
        return placed

    def _segment(
        self, target: str, items: list[tuple[Entry, int]], weight: Callable[[], Tensor]
    ) -> Segment:
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
            delta = entry.delta
            if isinstance(delta, Dora):
                delta = delta.resolve(weight()[start:stop], self._dora_norm)
            factors = self._low_rank(delta)
            if factors is None:
                terms.append(Term(delta.to(self._device, self._dtype), start, stop))
            else:
                low.append(PlacedFactors(factors, start, stop))
        return Segment(lay_out(low, shape[0]) if low else None, tuple(terms), bias, bias_lift)

    def _low_rank(self, delta: Delta | Relative) -> LowRank | None:
        """The change as two factors if they are to join the branch; None if it stays a term."""
        if isinstance(delta, LowRank) or not isinstance(delta, Delta):
            return delta if isinstance(delta, LowRank) else None
        return delta.to(self.compute).low_rank(self._expand_rank)

    def _weight_once(self, target: str) -> Callable[[], Tensor]:
        """What returns the base weight of a target, on the device where changes are computed, and
        asks for it once at most. Who drops it drops the weight."""

        @cache
        def weight() -> Tensor:
            if self._weights is None:
                raise ValueError(f"{target}: DoRA needs the base weights")
            return self._weights(target).to(self.compute)

        return weight

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
