"""The closed-form layouts against the tests' own packer, with the known mistakes as controls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vivace.devkit.doubles import closed_form
from vivace.svdquant import lowrank_packing as lowrank
from vivace.svdquant import packing

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn]
sixteens = st.integers(1, 9).map(lambda i: 16 * i)
tiles = st.integers(1, 4).map(lambda i: 128 * i)
seeds = st.integers(0, 2**31)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def integers(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, dtype and bits."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@settings(max_examples=40)
@given(sixteens, sixteens, st.booleans(), st.sampled_from(DTYPES), seeds)
def test_lowrank_round_trip(
    channels: int, rank: int, down: bool, dtype: torch.dtype, seed: int
) -> None:
    shape = (rank, channels) if down else (channels, rank)
    factor = normal(*shape, seed=seed, dtype=dtype)
    packed = lowrank.pack_lowrank(factor, down=down)
    if dtype != torch.float8_e4m3fn:  # torch scatters no 8-bit floats
        assert same(packed, closed_form.pack_factor(factor, down=down))
    assert packed.shape == (channels, rank)
    assert same(lowrank.unpack_lowrank(packed, down=down), factor)


@settings(max_examples=40)
@given(sixteens, sixteens, sixteens, st.booleans(), seeds)
def test_append_is_packing_the_concatenation(
    channels: int, base: int, extra: int, down: bool, seed: int
) -> None:
    dim = 0 if down else 1
    shapes = [(r, channels) if down else (channels, r) for r in (base, extra)]
    one, other = (normal(*shape, seed=seed + i) for i, shape in enumerate(shapes))
    packed = closed_form.pack_factor(one, down=down)
    more = closed_form.pack_factor(other, down=down)
    result = lowrank.append_lowrank(packed, more)
    assert same(result, closed_form.pack_factor(torch.cat([one, other], dim), down=down))
    assert result.is_contiguous()
    assert same(lowrank.slice_lowrank(result, 0, base), packed)
    assert same(lowrank.slice_lowrank(result, base, base + extra), more)


@pytest.mark.parametrize("down", [True, False])
def test_concatenating_packed_tensors_is_wrong(down: bool) -> None:
    """Negative control: the columns of a packed factor are not its ranks."""
    one, other = (normal(*((32, 64) if down else (64, 32)), seed=i) for i in range(2))
    packed = [closed_form.pack_factor(factor, down=down) for factor in (one, other)]
    right = closed_form.pack_factor(torch.cat([one, other], 0 if down else 1), down=down)
    assert same(lowrank.append_lowrank(*packed), right)
    assert not torch.equal(torch.cat(packed, 1), right)


def test_append_does_not_change_its_arguments_and_slices_are_copies() -> None:
    base, extra = normal(64, 32), normal(64, 16, seed=1)
    before = base.clone(), extra.clone()
    result = lowrank.append_lowrank(base, extra)
    cut, whole = lowrank.slice_lowrank(result, 0, 32), lowrank.slice_lowrank(result, 0, 48)
    result.zero_()
    assert float(whole.abs().min()) > 0
    assert same(base, before[0])
    assert same(extra, before[1])
    assert same(cut, base)


@settings(max_examples=30)
@given(sixteens, st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), seeds)
def test_scale_changes_only_its_own_ranks(
    channels: int, base: int, ranks: int, behind: int, seed: int
) -> None:
    total = 16 * (base + ranks + behind)
    start, stop = 16 * base, 16 * (base + ranks)
    up = normal(channels, total, seed=seed, dtype=torch.bfloat16)
    packed = closed_form.pack_factor(up, down=False)
    source = normal(channels, stop - start, seed=seed + 1)
    factors = normal(stop - start, seed=seed + 2)
    master = closed_form.pack_factor(source, down=False)
    lowrank.scale_lowrank_blocks(packed, start, factors, master)
    result = closed_form.unpack_factor(packed, down=False)
    assert same(result[:, :start], up[:, :start])
    assert same(result[:, stop:], up[:, stop:])
    assert same(result[:, start:stop], (source * factors).bfloat16())


def test_scale_in_place_by_one_number() -> None:
    for down in (True, False):
        factor = normal(*((48, 32) if down else (32, 48)), dtype=torch.bfloat16)
        packed = closed_form.pack_factor(factor, down=down)
        lowrank.scale_lowrank_blocks(packed, 16, 0.3)
        result = closed_form.unpack_factor(packed, down=down)
        ranks = result if down else result.t()
        before = factor if down else factor.t()
        assert same(ranks[:16], before[:16])
        assert same(ranks[16:], (before[16:].float() * 0.3).bfloat16())


def test_scale_computes_in_float32_whatever_the_source() -> None:
    packed = torch.zeros(32, 16)
    source = normal(32, 16, dtype=torch.bfloat16)
    lowrank.scale_lowrank_blocks(packed, 0, 0.3, source)
    assert same(packed, source.float() * 0.3)


def test_scaling_packed_columns_is_wrong() -> None:
    """Negative control: columns of the packed matrix are not the appended ranks."""
    up = normal(64, 48)
    packed = closed_form.pack_factor(up, down=False)
    packed[:, 32:] *= 0.5
    wanted = torch.cat([up[:, :32], up[:, 32:] * 0.5], 1)
    assert not torch.equal(closed_form.unpack_factor(packed, down=False), wanted)


@settings(max_examples=20)
@given(tiles, tiles, seeds)
def test_weight_round_trip(n: int, k: int, seed: int) -> None:
    values = integers(-8, 8, n, k, seed=seed)
    packed = closed_form.pack_weight(values)
    rows = packing.qweight_rows(packed)
    assert same(packing.unpack_nibbles(rows, signed=True), values.to(torch.int8))
    assert same(rows[:, 0] & 15, (values[:, 0] & 15).to(torch.int8))  # low nibble: even input


@settings(max_examples=20)
@given(tiles, st.integers(1, 6), st.sampled_from(DTYPES[:3]), seeds)
def test_scales_and_vectors_round_trip(n: int, groups: int, dtype: torch.dtype, seed: int) -> None:
    scales = normal(groups, n, seed=seed, dtype=dtype)
    assert same(packing.unpack_scales(closed_form.pack_scale(scales)), scales)
    assert same(packing.unpack_vector(closed_form.pack_channels(scales[0])), scales[0])


def test_scales_are_not_packed_row_by_row() -> None:
    """Negative control: with more than one tile, a row of packed scales mixes groups."""
    scales = normal(2, 256)
    by_row = torch.stack([packing.unpack_vector(row) for row in closed_form.pack_scale(scales)])
    assert not torch.equal(by_row, scales)


def test_the_permutation_of_a_vector() -> None:
    order = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
    packed = torch.tensor([*map(float, order), *[0.0] * 112])
    assert packing.unpack_vector(packed)[:16].tolist() == list(range(16))


@settings(max_examples=20)
@given(st.integers(1, 40).map(lambda i: 4 * i), st.integers(1, 5).map(lambda i: 64 * i), seeds)
def test_awq_round_trip(n: int, k: int, seed: int) -> None:
    values = integers(0, 16, n, k, seed=seed)
    rows = packing.awq_qweight_rows(closed_form.pack_awq(values))
    assert same(packing.unpack_nibbles(rows, signed=False), values.to(torch.int8))


def test_nibbles() -> None:
    data = torch.tensor([[0xF1, 0x78]], dtype=torch.uint8).view(torch.int8)
    assert packing.unpack_nibbles(data, signed=True).tolist() == [[1, -1, -8, 7]]
    assert packing.unpack_nibbles(data, signed=False).tolist() == [[1, 15, 8, 7]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lowrank.pack_lowrank(normal(24, 32), down=True), r"\[24, 32\]: .* 16 and 16"),
        (lambda: lowrank.unpack_lowrank(normal(32, 8), down=False), r"\[32, 8\]: .* 16 and 16"),
        (lambda: lowrank.unpack_lowrank(normal(32), down=False), r"cannot have the shape \[32\]"),
        (lambda: lowrank.append_lowrank(normal(32, 16), normal(48, 16)), "channels .* 32 and 48"),
        (
            lambda: lowrank.append_lowrank(normal(32, 16), normal(32, 16).bfloat16()),
            "dtype .* torch.float32 and torch.bfloat16",
        ),
        (lambda: lowrank.append_lowrank(normal(32, 16), normal(32, 20)), r"\[32, 20\]"),
        (lambda: lowrank.slice_lowrank(normal(32, 48), 0, 40), "ranks 0:40 of 48"),
        (lambda: lowrank.slice_lowrank(normal(32, 48), 32, 64), "ranks 32:64 of 48"),
        (
            lambda: lowrank.scale_lowrank_blocks(normal(32, 32).t(), 16, 2.0),
            "not contiguous",
        ),
        (
            lambda: lowrank.scale_lowrank_blocks(normal(32, 32), 16, normal(8)),
            r"16 ranks need as many factors, not \[8\]",
        ),
        (
            lambda: lowrank.scale_lowrank_blocks(normal(32, 32), 16, 1.0, normal(48, 16)),
            "source of 48 channels for a factor of 32",
        ),
        (lambda: lowrank.scale_lowrank_blocks(normal(32, 32), 32, 1.0), "ranks 32:32 of 32"),
        (lambda: packing.qweight_rows(integers(0, 9, 192, 64).to(torch.int8)), r"128 and 64"),
        (lambda: packing.qweight_rows(integers(0, 9, 128, 64)), "int8, not torch.int64"),
        (lambda: packing.unpack_scales(normal(2, 64)), r"\[2, 64\]: .* 1 and 128"),
        (lambda: packing.unpack_vector(normal(2, 128)), r"a vector cannot .* \[2, 128\]"),
        (lambda: packing.unpack_vector(normal(100)), r"multiples of 1 and 128"),
        (lambda: packing.awq_qweight_rows(integers(0, 9, 4, 32)), "int32, not torch.int64"),
        (lambda: packing.unpack_nibbles(integers(0, 9, 4), signed=True), "not torch.int64"),
    ],
)
def test_wrong_shapes_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
