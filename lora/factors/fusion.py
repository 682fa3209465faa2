"""Combining deltas of several projections into one, and other exact changes of form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from .delta import LowRank


class PlacedFactors(NamedTuple):
    """A low-rank change of the rows ``start:stop`` of a fused weight."""

    delta: LowRank
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Fusion:
    """One low-rank change of several row ranges that is laid out, but not yet made.

    Attributes:
        members: what goes where.
        columns: of each member, where its ranks begin.
        downs: the A of each group of members that share one, in the order of the ranks.
        common: the scale of all members; None where they differ, so that each goes into its B.
    """

    shape: tuple[int, int]
    members: tuple[PlacedFactors, ...]
    columns: tuple[int, ...]
    downs: tuple[Tensor, ...]
    common: float | None

    @property
    def rank(self) -> int:
        """Ranks of the result."""
        return sum(a.shape[0] for a in self.downs)

    @property
    def scale(self) -> float:
        """The scale of what `write` writes."""
        return 1.0 if self.common is None else self.common

    @property
    def whole(self) -> bool:
        """Whether there is only one member, which is the whole change."""
        only = self.members[0]
        return len(self.members) == 1 and (only.start, only.stop) == (0, self.shape[0])

    def write_down(self, a: Tensor) -> None:
        """Write A ``[rank, in]``, of any dtype and device."""
        row = 0
        for down in self.downs:
            a[row : row + down.shape[0]] = down
            row += down.shape[0]

    def write_up(self, b: Tensor) -> None:
        """Write B ``[out, rank]``, of any dtype and device."""
        if not self.whole:
            b.zero_()
        for column, (delta, start, stop) in zip(self.columns, self.members, strict=True):
            up = delta.folded() if self.common is None else delta.B
            b[start:stop, column : column + delta.rank] = up

    def made(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LowRank:
        """Return the change; a factor that is there already in this form is not copied.

        Without `device` it is where the first member is, without `dtype` in the widest of theirs.
        """
        place = self.downs[0].device if device is None else torch.device(device)
        out, inp = self.shape
        down, up = self.downs[0], self.members[0].delta.B
        a_type = dtype or _widest(self.downs)
        if len(self.downs) > 1 or (down.device, down.dtype) != (place, a_type):
            down = torch.empty(self.rank, inp, dtype=a_type, device=place)
            self.write_down(down)
        ups = [delta.B for delta, *_ in self.members]
        b_type = dtype or (_widest(ups, torch.float32) if self.common is None else _widest(ups))
        if not self.whole or (up.device, up.dtype) != (place, b_type):
            up = torch.empty(out, self.rank, dtype=b_type, device=place)
            self.write_up(up)
        return LowRank(down, up, self.scale)


def lay_out(members: Sequence[PlacedFactors], out_features: int) -> Fusion:
    """Return one low-rank change ``[out_features, in]`` of changes of row ranges, to be written.

    Each member keeps its own scale: equal scales stay the scale of the result, others are applied
    to the member's B in float32. Rows without a member stay zero, and ranks may differ. Members
    with equal A share it, so that projections trained as one fused layer keep rank r; otherwise
    ranks add up, and B is block-diagonal.

    Raises:
        ValueError: no members, or their input sizes differ.
    """
    if not members:
        raise ValueError("nothing to fuse")
    inputs = {member.delta.shape[1] for member in members}
    if len(inputs) > 1:
        raise ValueError(f"members take different numbers of inputs: {sorted(inputs)}")
    groups: list[tuple[Tensor, list[PlacedFactors]]] = []
    for member in members:
        for a, sharing in groups:
            if not _overlap(sharing, member) and _same(a, member.delta.A):
                sharing.append(member)
                break
        else:
            groups.append((member.delta.A, [member]))
    scales = {member.delta.scale for member in members}
    starts = accumulate((a.shape[0] for a, _ in groups), initial=0)
    placed = [
        (member, column)
        for column, (_, sharing) in zip(starts, groups, strict=False)
        for member in sharing
    ]
    return Fusion(
        (out_features, inputs.pop()),
        tuple(member for member, _ in placed),
        tuple(column for _, column in placed),
        tuple(a for a, _ in groups),
        scales.pop() if len(scales) == 1 else None,
    )


def fuse(members: Sequence[PlacedFactors], out_features: int) -> LowRank:
    """Return what `lay_out` lays out, made where the first member is, in the widest dtype.

    Raises:
        ValueError: as `lay_out`.
    """
    return lay_out(members, out_features).made()


def _widest(tensors: Sequence[Tensor], *least: torch.dtype) -> torch.dtype:
    return reduce(torch.promote_types, [*least, *(tensor.dtype for tensor in tensors)])


def _overlap(sharing: list[PlacedFactors], member: PlacedFactors) -> bool:
    return any(member.start < other.stop and other.start < member.stop for other in sharing)


def _same(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def interleave_rows(rows: Tensor, groups: int = 6) -> Tensor:
    """Reorder rows from planar ``[groups, dim]`` to interleaved ``[dim, groups]``.

    SVDQuant checkpoints of Qwen-Image store the modulation layers so: their row ``d * 6 + c`` is
    row ``c * dim + d`` of the original. Works on B ``[6*dim, r]`` and on a bias ``[6*dim]``.

    Raises:
        ValueError: the rows are not a multiple of `groups`.
    """
    if rows.shape[0] % groups:
        raise ValueError(f"{rows.shape[0]} rows are not {groups} equal groups")
    planar = rows.reshape(groups, rows.shape[0] // groups, *rows.shape[1:])
    return planar.transpose(0, 1).reshape(rows.shape)


def recompress(
    delta: LowRank, rank: int | None = None, tolerance: float = 0.0
) -> tuple[LowRank, float]:
    """Return the change with the least rank, and the relative Frobenius error of that.

    QR of both factors and an SVD of the small core, in float64: exact up to rounding if the new
    rank reaches the true rank. Without `rank`, singular values up to `tolerance` times the largest
    are dropped (at least those below float64 precision). The factors are balanced: both carry the
    square root of the singular values.
    """
    u, values, v = singular(delta)
    noise = torch.finfo(torch.float64).eps * max(delta.shape)
    largest = values[0] if len(values) else values.sum()
    kept = int((values > max(tolerance, noise) * largest).sum())
    kept = max(1, min(kept, rank if rank is not None else kept))
    total = values.square().sum().sqrt().item()
    lost = values[kept:].square().sum().sqrt().item()
    root = values[:kept].sqrt()
    wide = torch.promote_types(delta.A.dtype, torch.float32)
    a = (root[:, None] * v[:kept]).to(wide)
    b = (u[:, :kept] * root).to(wide)
    return LowRank(a, b), lost / total if total else 0.0


def singular(delta: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Return U ``[out, k]``, the singular values ``[k]`` and V ``[k, in]`` of the change, float64.

    From QR of both factors and an SVD of the small core, so that k is at most the rank.
    """
    q_a, r_a = torch.linalg.qr(delta.A.double().T)
    q_b, r_b = torch.linalg.qr(delta.B.double() * delta.scale)
    u, values, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return q_b @ u, values, v @ q_a.T
