"""Combining deltas of several projections into one, and other exact changes of form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .delta import LowRank


class PlacedFactors(NamedTuple):
    """A low-rank change of the rows ``start:stop`` of a fused weight."""

    delta: LowRank
    start: int
    stop: int


def fuse(members: Sequence[PlacedFactors], out_features: int) -> LowRank:
    """Return one low-rank change ``[out_features, in]`` from changes of row ranges.

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
    if len(members) == 1 and (members[0].start, members[0].stop) == (0, out_features):
        return members[0].delta
    groups: list[tuple[Tensor, list[PlacedFactors]]] = []
    for member in members:
        for a, sharing in groups:
            if not _overlap(sharing, member) and _same(a, member.delta.A):
                sharing.append(member)
                break
        else:
            groups.append((member.delta.A, [member]))
    scales = {member.delta.scale for member in members}
    common = scales.pop() if len(scales) == 1 else None
    pieces = [
        (member, member.delta.folded() if common is None else member.delta.B)
        for _, sharing in groups
        for member in sharing
    ]
    first = pieces[0][1]
    dtype = reduce(torch.promote_types, [piece.dtype for _, piece in pieces])
    ranks = [a.shape[0] for a, _ in groups]
    b = torch.zeros(out_features, sum(ranks), dtype=dtype, device=first.device)
    columns = [sum(ranks[:i]) for i, (_, sharing) in enumerate(groups) for _ in sharing]
    for column, (member, piece) in zip(columns, pieces, strict=True):
        b[member.start : member.stop, column : column + piece.shape[1]] = piece
    a = _concatenated([a for a, _ in groups])
    return LowRank(a, b, 1.0 if common is None else common)


def _overlap(sharing: list[PlacedFactors], member: PlacedFactors) -> bool:
    return any(member.start < other.stop and other.start < member.stop for other in sharing)


def _same(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _concatenated(factors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate factors in the widest of their dtypes; a single one is returned as it is."""
    if len(factors) == 1:
        return factors[0]
    dtype = reduce(torch.promote_types, [factor.dtype for factor in factors])
    return torch.cat([factor.to(dtype) for factor in factors], dim)


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
