"""OFT and BOFT: changes that rotate the base weight ``W [out, in]``, by its rows or its columns.

Source: LyCORIS 4.1 (``lycoris/modules/{diag_oft,boft}.py``) and peft 0.16 to 0.21
(``tuners/oft/layer.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .weight_relative import Apply, Relative


@dataclass(frozen=True, eq=False)
class Rotation(Relative):
    """OFT and BOFT of LyCORIS: ``W' = gain * (R W)``, R orthogonal and block-diagonal in stages.

    Attributes:
        turns: ``R_i - I`` of each stage and block, ``[stages, blocks, size, size]``.
        butterfly: whether stage i mixes rows that are ``2**i * size / 2`` apart (BOFT), instead of
            neighbours (OFT).
        lift: ``gain - 1``, ``[out, 1]``; None for no gain.
    """

    turns: Tensor
    butterfly: bool
    inputs: int
    lift: Tensor | None = None
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.turns.shape[1] * self.turns.shape[2], self.inputs

    def _turned(self, y: Tensor) -> Tensor:
        """Return ``gain * R y - y`` for rows along the last dimension of y."""
        change: Tensor | None = None
        for stage, turn in enumerate(self.turns.to(y.device, y.dtype)):
            before = y if change is None else y + change
            step = self._stage(before, turn, stage)
            change = step if change is None else change + step
        assert change is not None  # noqa: S101 - there is at least one stage
        if self.lift is not None:
            lift = self.lift.flatten().to(y.device, y.dtype)
            change = change + lift * (y + change)
        return change * self.strength

    def _stage(self, y: Tensor, turn: Tensor, stage: int) -> Tensor:
        size = turn.shape[-1]
        half = 2**stage * (size // 2)
        if self.butterfly:
            y = y.unflatten(-1, (-1, 2, half)).transpose(-1, -2).flatten(-3)
        y = torch.einsum("nij,...nj->...ni", turn, y.unflatten(-1, (-1, size))).flatten(-2)
        if self.butterfly:
            y = y.unflatten(-1, (-1, half, 2)).transpose(-1, -2).flatten(-3)
        return y

    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._turned(weight.to(dtype).T).T

    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        y = linear(x)
        # The stages of BOFT follow one another; in 16 bits each would round.
        wide = torch.promote_types(y.dtype, torch.float32)
        return self._turned(y.to(wide)).to(y.dtype)

    def rows(self, start: int, stop: int) -> Rotation:
        if (start, stop) != (0, self.shape[0]):
            raise ValueError("a rotation cannot be cut by rows")
        return self


@dataclass(frozen=True, eq=False)
class InputRotation(Relative):
    """OFT of peft: ``W' = W R.T``, R block-diagonal.

    Attributes:
        turns: ``R_i - I`` of each block of inputs, ``[blocks, size, size]``.
        outputs: rows of the weight.
    """

    turns: Tensor
    outputs: int
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outputs, self.turns.shape[0] * self.turns.shape[1]

    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._turned(weight.to(dtype), "nij,...nj->...ni")

    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        return linear(self._turned(x, "nij,...ni->...nj"))

    def _turned(self, x: Tensor, product: str) -> Tensor:
        turns = self.turns.to(x.device, x.dtype)
        blocks = x.unflatten(-1, turns.shape[:2])
        return torch.einsum(product, turns, blocks).flatten(-2) * self.strength

    def rows(self, start: int, stop: int) -> InputRotation:
        return replace(self, outputs=stop - start)


def skew(vectors: Tensor, size: int) -> Tensor:
    """Return ``[blocks, size, size]`` skew-symmetric matrices, in float64, of their upper triangles
    ``[blocks, size * (size - 1) / 2]``, row by row."""
    rows, columns = torch.triu_indices(size, size, 1, device=vectors.device)
    upper = vectors.new_zeros(len(vectors), size, size, dtype=torch.float64)
    upper[:, rows, columns] = vectors.double()
    return upper - upper.mT


def cayley_series(q: Tensor, terms: int, last_is_halved: bool) -> Tensor:
    """Return peft's ``R - I``, the beginning of ``2 (Q + Q**2 + ...)``.

    Since 0.18 the last power counts once only, and there are at least three powers from three
    terms on (``tuners/oft/layer.py``, ``_cayley_batch``).
    """
    highest = max(terms, 4) - 1 if last_is_halved and terms > 2 else terms - 1
    power, total = q, torch.zeros_like(q)
    for exponent in range(1, highest + 1):
        power = q if exponent == 1 else power @ q
        once = last_is_halved and exponent == highest > 2
        total = total + (power if once else 2 * power)
    return total


def cayley(blocks: Tensor, constraint: float = 0.0) -> Tensor:
    """Return ``R - I`` of ``R = (I + Q)(I - Q)^-1``, with ``Q = blocks - blocks.mT``, in float64.

    A Frobenius norm of Q above a positive `constraint` is reduced to it.
    """
    q = blocks.double() - blocks.double().mT
    if constraint > 0:
        norm = q.norm() + 1e-8
        if norm > constraint:
            q = q * (constraint / norm)
    return cayley_exact(q)


def cayley_exact(q: Tensor) -> Tensor:
    """Return ``R - I`` of ``R = (I + Q)(I - Q)^-1`` for a skew-symmetric Q."""
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    # R - I = 2 Q (I - Q)^-1, which loses nothing where Q is small.
    return 2 * torch.linalg.solve(identity - q, q, left=False)
