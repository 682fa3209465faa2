"""Fusion against dense references, with the known mistakes as negative controls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lora_samples import QWEN, Z_IMAGE, close, random
from vivace.lora.factors.delta import Hadamard, Kronecker, LowRank
from vivace.lora.factors.fusion import PlacedFactors, fuse, interleave_rows, recompress


def member(rank: int, seed: int, scale: float = 1.0, out: int = 8, inp: int = 12) -> LowRank:
    return LowRank(random(rank, inp, seed=seed), random(out, rank, seed=seed + 50), scale)


def dense(members: list[PlacedFactors], out: int) -> torch.Tensor:
    result = torch.zeros(out, 12, dtype=torch.float64)
    for delta, start, stop in members:
        result[start:stop] += (delta.B.double() @ delta.A.double()) * delta.scale
    return result


@settings(max_examples=60, deadline=None)
@given(
    layout=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(1, 5),
            st.floats(-4, 4).filter(lambda s: abs(s) > 1e-9),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_fuse_equals_dense_sum(layout: list[tuple[int, int, float, int]]) -> None:
    members = [
        PlacedFactors(member(rank, seed, scale), 8 * row, 8 * row + 8)
        for row, rank, scale, seed in layout
    ]
    fused = fuse(members, 48)
    error = (fused.matrix(torch.float64) - dense(members, 48)).norm()
    sizes = [float(dense([one], 48).norm()) for one in members]  # members may cancel
    assert error <= 1e-6 * sum(sizes)
    assert fused.rank <= sum(m.delta.rank for m in members)


def test_equal_inputs_are_shared() -> None:
    a = random(4, 12, seed=1)
    parts = [LowRank(a.clone(), random(8, 4, seed=i), 0.5) for i in range(3)]
    fused = fuse([PlacedFactors(p, 8 * i, 8 * i + 8) for i, p in enumerate(parts)], 24)
    assert (fused.rank, fused.scale) == (4, 0.5)
    assert torch.equal(fused.B, torch.cat([p.B for p in parts]))
    uneven = [p.scaled(i + 1.0) for i, p in enumerate(parts)]
    placed = [PlacedFactors(p, 8 * i, 8 * i + 8) for i, p in enumerate(uneven)]
    fused = fuse(placed, 24)
    assert (fused.rank, fused.scale) == (4, 1.0)
    assert close(fused.matrix(), dense(placed, 24))


def test_equal_scales_leave_stored_factors_unrounded() -> None:
    parts = [member(2, i, 0.3).to(dtype=torch.bfloat16) for i in range(2)]
    fused = fuse([PlacedFactors(p, 8 * i, 8 * i + 8) for i, p in enumerate(parts)], 16)
    assert fused.B.dtype == torch.bfloat16
    assert torch.equal(fused.B[:8, :2], parts[0].B)
    assert fused.scale == 0.3


def test_alpha_must_be_applied_before_fusion() -> None:
    """Negative control: alpha over the fused rank gives a third of the change."""
    alpha, rank = 2.0, 4
    parts = [member(rank, i, alpha / rank) for i in range(3)]
    placed = [PlacedFactors(p, 8 * i, 8 * i + 8) for i, p in enumerate(parts)]
    right = fuse(placed, 24)
    late = LowRank(right.A, right.B, alpha / right.rank)
    assert close(right.matrix(), dense(placed, 24))
    assert not close(late.matrix(), dense(placed, 24), 0.5)
    assert close(late.matrix() * 3, dense(placed, 24))


def test_swiglu_halves_must_be_w3_then_w1() -> None:
    """Negative control: the other order is another change."""
    layout = Z_IMAGE.layout("layers.0.feed_forward.w13")
    parts = {"w1": member(2, 1, out=48), "w3": member(2, 2, out=48)}
    names = [block.module.rpartition(".")[2] for block in layout]
    blocks = list(zip(layout, names, strict=True))
    fused = fuse([PlacedFactors(parts[n], b.start, b.stop) for b, n in blocks], 96)
    expected = torch.cat([parts["w3"].matrix(), parts["w1"].matrix()])
    assert close(fused.matrix(), expected)
    swapped = torch.cat([parts["w1"].matrix(), parts["w3"].matrix()])
    assert not close(fused.matrix(), swapped, 0.5)


def test_fuse_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="nothing"):
        fuse([], 8)
    with pytest.raises(ValueError, match="inputs"):
        fuse([PlacedFactors(member(2, 1), 0, 8), PlacedFactors(member(2, 1, inp=13), 8, 16)], 16)


@pytest.mark.parametrize("columns", [(), (5,)])
def test_interleave_rows(columns: tuple[int, ...]) -> None:
    dim = 7
    rows = random(6 * dim, *columns)
    result = interleave_rows(rows)
    for c in range(6):
        for d in range(dim):
            assert torch.equal(result[d * 6 + c], rows[c * dim + d])
    assert not torch.equal(result, rows)
    with pytest.raises(ValueError, match="6 equal groups"):
        interleave_rows(random(13))


def test_recompress_is_exact_at_the_true_rank() -> None:
    low = member(3, 1, 0.4)
    wide = fuse([PlacedFactors(low, 0, 8), PlacedFactors(low.scaled(2.0), 0, 8)], 8)
    assert wide.rank == 6
    small, residual = recompress(wide)
    assert small.rank == 3
    assert residual < 1e-12
    assert close(small.matrix(), low.matrix(torch.float64) * 3)
    norms = small.A.norm(dim=1), small.B.norm(dim=0)
    assert torch.allclose(*norms, rtol=1e-4)


def test_recompress_reports_what_truncation_loses() -> None:
    delta = member(6, 2)
    small, residual = recompress(delta, rank=2)
    full = delta.matrix(torch.float64)
    lost = (small.matrix(torch.float64) - full).norm() / full.norm()
    assert small.rank == 2
    assert residual == pytest.approx(float(lost), rel=1e-5)
    values = torch.linalg.svdvals(full)
    assert residual == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-6)


def test_recompress_of_zero() -> None:
    small, residual = recompress(LowRank(torch.zeros(4, 12), torch.zeros(8, 4)))
    assert (small.rank, residual) == (1, 0.0)
    assert not small.matrix().any()


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize(("start", "stop"), [(0, 24), (6, 18), (3, 12), (7, 8), (0, 5)])
def test_kronecker_is_cut_anywhere(start: int, stop: int, factored: bool) -> None:
    w1 = (random(4, 2), random(2, 3)) if factored else (random(4, 3),)
    delta = Kronecker(w1, (random(6, 5),), 0.5)
    whole = delta.matrix(torch.float64)
    cut = delta.rows(start, stop)
    assert isinstance(cut, Kronecker) == (start % 6 == stop % 6 == 0)
    x = random(2, 15, seed=4)
    assert close(cut.matrix(), whole[start:stop])
    assert close(cut.apply(x), x.double() @ whole[start:stop].T)
    assert close(cut.scaled(3.0).rows(0, 1).matrix(), whole[start : start + 1] * 3)
    low = cut.low_rank()
    if low is not None:
        assert close(low.matrix(), whole[start:stop])


def loha(rank1: int, rank2: int) -> Hadamard:
    return Hadamard(
        A1=random(rank1, 40), B1=random(30, rank1), A2=random(rank2, 40), B2=random(30, rank2)
    )


def test_expansion_obeys_its_limit() -> None:
    assert loha(2, 3).low_rank(5) is None
    low = loha(2, 3).low_rank(6)
    assert low is not None
    assert low.rank == 6
    assert loha(9, 9).low_rank() is None


def test_kronecker_takes_the_smaller_rank() -> None:
    delta = Kronecker((random(8, 2),), (random(16, 3), random(3, 16)))
    low = delta.low_rank()
    assert low is not None
    assert low.rank == 2 * 3


def test_qwen_fusion_layout_matches_members() -> None:
    layout = QWEN.layout("transformer_blocks.0.attn.add_qkv_proj")
    assert [(b.start, b.stop) for b in layout] == [(0, 32), (32, 64), (64, 96)]
