"""The best change of lower rank, and what it leaves out, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..factors.delta import LowRank
from ..factors.fusion import singular


@dataclass(frozen=True)
class Limit:
    """How far to reduce: to a rank, or while the relative Frobenius error is at most `error`."""

    rank: int | None = None
    error: float | None = None

    def kept(self, values: Tensor, shape: tuple[int, ...]) -> int:
        """How many singular values (descending) to keep: at least one, and none that is noise."""
        noise = torch.finfo(torch.float64).eps * max(shape)
        kept = int((values > noise * values[0]).sum())
        if self.rank is not None:
            kept = min(kept, self.rank)
        if self.error is not None:
            # lost[k]: what is left out when k values are kept.
            lost = values.square().flip(0).cumsum(0).flip(0).sqrt()
            kept = min(kept, int((lost > self.error * lost[0]).sum()))
        return max(1, kept)


def shrink(change: LowRank | Tensor, limit: Limit) -> LowRank:
    """The change, as factors or as a matrix ``[out, in]``, with its largest singular values only.

    By Eckart and Young no change of that rank is nearer. Factors are float64 and balanced: both
    carry the square root of the singular values.
    """
    if isinstance(change, LowRank):
        u, values, v = singular(change)
    else:
        u, values, v = torch.linalg.svd(change.double(), full_matrices=False)
    kept = limit.kept(values, (u.shape[0], v.shape[1]))
    root = values[:kept].sqrt()
    return LowRank(root[:, None] * v[:kept], u[:, :kept] * root)


def norm(change: LowRank | Tensor) -> float:
    """The Frobenius norm, in float64; of factors without multiplying them out."""
    if isinstance(change, LowRank):
        _, r_a = torch.linalg.qr(change.A.double().T, mode="r")
        _, r_b = torch.linalg.qr(change.B.double(), mode="r")
        return float((r_b @ r_a.T).norm()) * abs(change.scale)
    return float(change.double().norm())


def distance(exact: LowRank | Tensor, stored: LowRank) -> float:
    """The Frobenius norm of the difference of two changes, in float64 or the type of a matrix."""
    if isinstance(exact, LowRank):
        a = torch.cat([exact.A.double(), stored.A.double()])
        b = torch.cat([exact.B.double() * exact.scale, stored.B.double() * -stored.scale], dim=1)
        return norm(LowRank(a, b))
    return norm(exact - stored.matrix(exact.dtype))
