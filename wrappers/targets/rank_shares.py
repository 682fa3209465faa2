"""How the branch of a layer is shared out: more ranks for the layer, and what is added beside it.

A layer that fused operations compute without calling it, and that cannot be computed otherwise, can
only take ranks. What has no exact low-rank form of the size that fits is approximated there, and
where there are more ranks than fit; the relative error of that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ...lora.factors.branch import Branch
from ...lora.factors.delta import LowRank
from ...lora.factors.fusion import recompress
from ...lora.factors.weight_relative import Relative
from .rank_kind import RANK_STEP
from .rank_target import RankTarget

_EXTRA = 8  # directions of the random projection beyond the rank wanted
_ITERATIONS = 4
_NEGLIGIBLE = 1e-5

Weights = Callable[[str], Tensor]


@dataclass(frozen=True)
class Share:
    """What becomes of a branch.

    Attributes:
        ranks: the low-rank part that the layer takes; None for none.
        beside: the rest, by module path.
        error: relative Frobenius error of an approximation, 0 if there is none.
        lost_bias: whether a change of the bias could not be kept.
    """

    ranks: Branch | None
    beside: Mapping[str, Branch]
    error: float = 0.0
    lost_bias: bool = False


def share_out(
    branch: Branch, target: RankTarget, base: int, members: Mapping[str, tuple[int, int]],
    *, only_ranks: bool, weights: Weights, device: torch.device,
) -> Share:  # fmt: skip
    """Decide for one target.

    Args:
        branch: all that a stack adds to the target.
        target: the layer or layers.
        base: ranks that the layer has without LoRAs.
        members: rows of each module of the target, by path.
        only_ranks: whether the layer is not called, so that nothing can be beside it.
        weights: returns the weight of a target, for DoRA.
        device: where to approximate.
    """
    room = target.room(base)
    ranks = None
    if branch.A is not None:
        ranks = Branch(branch.target, branch.shape, branch.A, branch.B, branch.s)
    fits = room is None or _padded(branch.rank) <= room
    beside = {path: rest for path, rows in members.items() if (rest := _rest(branch, *rows, path))}
    dora = any(isinstance(term.delta, Relative) for term in branch.terms)
    if dora and not only_ranks:
        # DoRA scales what the layer computes without LoRAs, so none may be part of the layer.
        whole = {path: _rows(branch, *rows, path) for path, rows in members.items()}
        return Share(None, {path: part for path, part in whole.items() if part is not None})
    if fits and not (beside and only_ranks):
        return Share(ranks, beside)
    most = (room if room is not None else min(branch.shape)) // RANK_STEP * RANK_STEP
    lost = only_ranks and (branch.bias is not None or branch.bias_lift is not None)
    if branch.terms and only_ranks:
        matrix = branch.to(device).matrix(weights(target.path).to(device) if dora else None)
        factors, error = _approximated(matrix, most)
    elif ranks is None:
        return Share(None, {}, lost_bias=lost)
    elif fits:
        return Share(ranks, {}, lost_bias=lost)
    else:
        factors, error = _shortened(branch, most, device)
    return Share(_as_branch(branch, factors), {} if only_ranks else beside, error, lost)


def approximations(shares: Mapping[str, Share]) -> list[str]:
    """What could not be kept exactly, in words, for the report."""
    rounded = {path: share.error for path, share in shares.items() if share.error > _NEGLIGIBLE}
    lost = [path for path, share in shares.items() if share.lost_bias]
    found = []
    if rounded:
        worst = max(rounded, key=rounded.__getitem__)
        found.append(
            f"{len(rounded)} layers take this stack only as a low-rank approximation; the largest"
            f" relative error is {rounded[worst]:.2g}, in {worst}"
        )
    if lost:
        found.append(
            f"{len(lost)} changes of biases cannot be applied here, the first in {lost[0]}"
        )
    return found


def _padded(rank: int) -> int:
    return rank + -rank % RANK_STEP


def _rows(branch: Branch, start: int, stop: int, path: str) -> Branch | None:
    """All that a branch adds to some rows."""
    rest = _rest(branch, start, stop, path)
    if branch.A is None or branch.B is None:
        return rest
    rest = rest or Branch(path, (stop - start, *branch.shape[1:]))
    return replace(rest, A=branch.A, B=branch.B[start:stop], s=branch.s)


def _rest(branch: Branch, start: int, stop: int, path: str) -> Branch | None:
    """Terms and bias of some rows."""
    terms = tuple(
        replace(term, start=term.start - start, stop=term.stop - start)
        for term in branch.terms
        if start <= term.start and term.stop <= stop
    )
    bias = None if branch.bias is None else branch.bias[start:stop]
    if bias is not None and not bool(bias.any()):
        bias = None
    lift = None if branch.bias_lift is None else branch.bias_lift[start:stop]
    if not terms and bias is None and lift is None:
        return None
    shape = (stop - start, *branch.shape[1:])
    return Branch(path, shape, terms=terms, bias=bias, bias_lift=lift)


def _shortened(branch: Branch, rank: int, device: torch.device) -> tuple[LowRank, float]:
    a, b, s = (cast(Tensor, tensor).to(device) for tensor in (branch.A, branch.B, branch.s))
    return recompress(LowRank(a, b.double() * s.double()), rank)


def _approximated(matrix: Tensor, rank: int) -> tuple[LowRank, float]:
    q = min(rank + _EXTRA, *matrix.shape)
    u, values, v = torch.svd_lowrank(matrix, q, _ITERATIONS)
    root = values[:rank].sqrt()
    factors = LowRank(root[:, None] * v[:, :rank].T, u[:, :rank] * root)
    norm = matrix.norm()
    error = (matrix - factors.matrix()).norm() / norm if norm else norm
    return factors, float(error)


def _as_branch(branch: Branch, factors: LowRank) -> Branch:
    dtype = branch.A.dtype if branch.A is not None else factors.A.dtype
    a = factors.A.to(branch.device, dtype)
    b = (factors.B * factors.scale).to(branch.device, dtype)
    scales = torch.ones(factors.rank, device=a.device)
    return Branch(branch.target, branch.shape, a, b, scales)
