"""DoRA: a change that re-normalizes the weight, so it needs the base weight once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .delta import Delta
from .weight_relative import Apply, Relative

Norm = Literal["merged", "base"]


@dataclass(frozen=True, eq=False)
class Dora:
    """DoRA: ``W' = magnitude * (W + D) / ||W + D||``, a change that needs the base weight.

    `magnitude` is ``[out, 1]`` (norms of rows) or ``[1, in]`` (norms of columns); see Liu et al.,
    "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024. Strength s means ``W + s * (W' - W)``, the
    meaning in ComfyUI's ``weight_decompose``.
    """

    inner: Delta
    magnitude: Tensor
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held."""
        return self.inner.nbytes + self.magnitude.nbytes

    def scaled(self, strength: float) -> Dora:
        """Return the change times `strength`; the norm does not depend on it."""
        return replace(self, strength=self.strength * strength)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Dora:
        """Return the delta moved, its inner delta also converted; the magnitude keeps its dtype."""
        magnitude = self.magnitude.to(device=device)
        return replace(self, inner=self.inner.to(device, dtype), magnitude=magnitude)

    def rows(self, start: int, stop: int) -> Dora:
        """Return rows ``start:stop``.

        Raises:
            ValueError: the magnitude runs along the columns, whose norm needs every row.
        """
        if (start, stop) == (0, self.shape[0]):
            return self
        if self.magnitude.shape[0] != self.shape[0]:
            raise ValueError("a column magnitude cannot be cut by rows")
        magnitude = self.magnitude[start:stop]
        return replace(self, inner=self.inner.rows(start, stop), magnitude=magnitude)

    def resolve(self, weight: Tensor, norm: Norm = "merged") -> ResolvedDora:
        """Compute the gain from the base weight ``[out, in]``, once for all strengths.

        It is computed where the weight is, and lies where the magnitude is.

        `norm` ``"merged"`` divides by ``||W + D||``, the definition, and what trainers do.
        ``"base"`` divides row magnitudes by ``||W||`` instead, as ComfyUI 0.30 does; for column
        magnitudes both mean the same there and here.

        Raises:
            ValueError: the weight has another shape than the change.
        """
        if tuple(weight.shape) != self.shape:
            raise ValueError(f"weight {list(weight.shape)} for a change of {list(self.shape)}")
        # Types of 8 bits are not promoted by torch.
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        by_row = self.magnitude.shape == (self.shape[0], 1)
        change = self.inner.to(weight.device) if norm == "merged" or not by_row else None
        norms = _norms(weight, change, wide, by_row) + torch.finfo(wide).eps
        gain = self.magnitude.to(norms) / norms
        return ResolvedDora(self.inner, gain.to(self.magnitude.device), self.strength)


BLOCK_BYTES = 32 * 2**20


def _norms(weight: Tensor, change: Delta | None, dtype: torch.dtype, by_row: bool) -> Tensor:
    """Return the norms of the rows ``[out, 1]`` or columns ``[1, in]`` of a weight with its change.

    Some rows at a time, so that what it takes beside the weight does not depend on its size.
    """
    out, inp = weight.shape
    height = max(1, BLOCK_BYTES // (inp * dtype.itemsize))
    found: list[Tensor] = []
    for start in range(0, out, height):
        block = weight[start : start + height].to(dtype)
        if change is not None:
            stop = start + block.shape[0]
            block = change.rows(start, stop).matrix(dtype).add_(block)
        found.append(block.norm(dim=1 if by_row else 0, keepdim=True))
    return torch.cat(found) if by_row else torch.cat(found).norm(dim=0, keepdim=True)


@dataclass(frozen=True, eq=False)
class ResolvedDora(Relative):
    """A DoRA change whose `gain` is known: ``D' = strength * (gain * (W + D) - W)``.

    Only the gain is kept (``[out, 1]`` or ``[1, in]``), not the weight.
    """

    inner: Delta
    gain: Tensor
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ResolvedDora:
        """Return the delta moved, its inner delta also converted; the gain keeps its dtype."""
        return replace(self, inner=self.inner.to(device, dtype), gain=self.gain.to(device=device))

    def rows(self, start: int, stop: int) -> ResolvedDora:
        gain = self.gain if self.gain.shape[0] == 1 else self.gain[start:stop]
        return replace(self, inner=self.inner.rows(start, stop), gain=gain)

    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the change multiplied out, given the same base weight."""
        base = weight.to(dtype)
        gain = self.gain.to(base)
        change = self.inner.matrix(dtype).to(base.device)
        return (base * (gain - 1.0) + change * gain) * self.strength

    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        """Return ``x @ D'.T``; `linear` computes ``x @ W.T``, without bias.

        With row magnitudes `linear` is called with x itself, so a caller that has that product
        may return it.
        """
        gain = self.gain.to(x.dtype).flatten()
        lift = (self.gain - 1.0).to(x.dtype).flatten()
        if self.gain.shape[1] == 1 and self.gain.shape[0] == self.inner.shape[0]:
            return (linear(x) * lift + self.inner.apply(x) * gain) * self.strength
        return (linear(x * lift) + self.inner.apply(x * gain)) * self.strength
