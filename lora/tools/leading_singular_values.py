"""The leading singular values of a large matrix, without decomposing all of it.

Subspace iteration from a random start (Halko, Martinsson and Tropp, "Finding structure with
randomness", 2011), repeated until what is left out hardly changes any more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..factors.delta import LowRank
from .lower_rank import Limit, shrink

EXACT_SIDE = 512  # up to this many rows or columns, decomposing all takes well under a second
_SPARE = 16
_MOST_ROUNDS = 20
_GAIN = 1e-3
_FIRST_RANK = 32


def reduce(matrix: Tensor, limit: Limit) -> LowRank:
    """The best change of a rank, or of the least rank with an error; the matrix is ``[out, in]``.

    For sides of more than `EXACT_SIDE`, what is left out is within about `_GAIN` of the least.
    """
    side = min(matrix.shape)
    rank = min(limit.rank or _FIRST_RANK, side)
    total = float(matrix.double().square().sum())
    while side > EXACT_SIDE and 4 * (rank + _SPARE) < side:
        found = _leading(matrix.float(), rank, total)
        if limit.error is None:
            return found
        values = found.A.double().norm(dim=1).square()  # balanced factors
        lost = (total - values.square().cumsum(0)).clamp(min=0).sqrt()
        enough = (lost <= limit.error * total**0.5).nonzero()
        if len(enough):
            kept = int(enough[0]) + 1
            return LowRank(found.A[:kept], found.B[:, :kept])
        if limit.rank is not None:
            return found
        rank *= 2
    return shrink(matrix, limit)


def _leading(matrix: Tensor, rank: int, total: float) -> LowRank:
    generator = torch.Generator().manual_seed(rank)
    start = torch.randn(matrix.shape[1], rank + _SPARE, generator=generator).to(matrix)
    basis = torch.linalg.qr(matrix @ start)[0]
    inner, basis, core = _round(matrix, basis)
    captured = _captured(core, rank)
    for _ in range(_MOST_ROUNDS):
        before = captured
        inner, basis, core = _round(matrix, basis)
        captured = _captured(core, rank)
        if captured - before <= _GAIN * max(total - captured, 1e-12 * total):
            break
    u, values, v = torch.linalg.svd(core.double(), full_matrices=False)
    root = values[:rank].sqrt()
    a = root[:, None] * (v[:rank] @ inner.double().T)
    return LowRank(a, (basis.double() @ u[:, :rank]) * root)


def _round(matrix: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One more multiplication from both sides: bases of rows and columns, and the core between."""
    inner = torch.linalg.qr(matrix.T @ basis)[0]
    basis, core = torch.linalg.qr(matrix @ inner)
    return inner, basis, core


def _captured(core: Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(core.double())[:rank].square().sum())
