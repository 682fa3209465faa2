"""Patterns of two colours: shapes, ranges and values at places that can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vivace.toolkit import patterns
from vivace.toolkit.images import EmptyRule, emptiness

SIZES = st.integers(1, 24)
COLORS = st.tuples(*[st.floats(0, 1, width=32)] * 4)
DIRECTIONS = st.sampled_from(["right", "down", "diagonal", "outward"])


@given(SIZES, SIZES, DIRECTIONS)
def test_a_gradient_spans_0_to_1(width: int, height: int, direction: patterns.Direction) -> None:
    weight = patterns.gradient(width, height, direction)
    assert weight.shape == (1, height, width, 1)
    assert weight.dtype == torch.float32
    assert 0 <= float(weight.min()) <= float(weight.max()) <= 1
    grows = {"right": width > 1, "down": height > 1}.get(direction, width * height > 1)
    assert float(weight.max()) == pytest.approx(1.0 if grows else 0.0)


def test_gradients_grow_where_they_say() -> None:
    right, down, diagonal, outward = (
        patterns.gradient(5, 3, direction)[0, ..., 0]
        for direction in ("right", "down", "diagonal", "outward")
    )
    assert right[2].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert down[:, 4].tolist() == [0.0, 0.5, 1.0]
    assert diagonal[0].tolist() == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert diagonal[2, 4] == 1.0
    assert outward[1, 2] == 0.0
    assert torch.allclose(outward[[0, 0, 2, 2], [0, 4, 0, 4]], torch.ones(4))


@given(SIZES, SIZES, st.integers(1, 30))
def test_a_checker_alternates(width: int, height: int, cell: int) -> None:
    weight = patterns.checker(width, height, cell)
    assert weight.shape == (1, height, width, 1)
    for y in range(height):
        for x in range(width):
            assert float(weight[0, y, x, 0]) == (x // cell + y // cell) % 2


@given(SIZES, SIZES, st.integers(1, 3), st.integers(0, 2**64 - 1), st.booleans())
def test_noise_repeats_with_its_seed(
    width: int, height: int, batch: int, seed: int, colored: bool
) -> None:
    weight = patterns.noise(width, height, batch, seed, colored)
    assert weight.shape == (batch, height, width, 4 if colored else 1)
    assert torch.equal(weight, patterns.noise(width, height, batch, seed, colored))
    assert not torch.equal(weight, patterns.noise(width, height, batch, seed ^ 1, colored))


def test_noise_is_even_and_differs_in_a_batch() -> None:
    weight = patterns.noise(64, 64, 2, 7, False)
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(weight.var()) == pytest.approx(1 / 12, abs=0.01)
    assert not torch.equal(weight[0], weight[1])


@given(COLORS, COLORS, SIZES, SIZES, st.integers(1, 3), st.booleans())
def test_a_blend_is_an_image_and_a_mask(
    first: patterns.RGBA, second: patterns.RGBA, width: int, height: int, batch: int, full: bool
) -> None:
    weight = patterns.noise(width, height, batch if full else 1, 0, full)
    image, mask = patterns.blend(first, second, weight, batch)
    assert image.shape == (batch, height, width, 3)
    assert mask.shape == (batch, height, width)
    for part in (image, mask):
        assert part.dtype == torch.float32
        assert part.is_contiguous()
        assert 0 <= float(part.min()) <= float(part.max()) <= 1


def test_a_blend_has_each_colour_at_its_end() -> None:
    weight = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 3, 1)
    image, mask = patterns.blend((0.0, 0.25, 1.0, 1.0), (1.0, 0.75, 0.0, 0.0), weight, 2)
    expected = torch.tensor([[0.0, 0.25, 1.0], [0.5, 0.5, 0.5], [1.0, 0.75, 0.0]])
    assert torch.equal(image, expected.expand(2, 1, 3, 3))
    assert torch.equal(mask, torch.tensor([0.0, 0.5, 1.0]).expand(2, 1, 3))


RULE = EmptyRule(0.01, 0.02, 0.98, 0.98)


def test_pixels_that_are_no_numbers_count_as_black() -> None:
    image = torch.full((2, 4, 4, 3), float("nan"))
    image[1] = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    image[1, 0, 0, 0] = float("nan")
    answers = emptiness(image, None, RULE)
    assert [empty for empty, _ in answers] == [True, False]
    assert answers[0][1].startswith("uniform + black: darkest 0.0000")
    assert answers[0][1].endswith(", 48 values are not numbers")
    assert answers[1][1].endswith(", 1 values are not numbers")


def test_one_image_without_a_batch_is_one_image() -> None:
    image = torch.rand(8, 6, 3, generator=torch.Generator().manual_seed(0))
    assert emptiness(image, None, RULE) == emptiness(image.unsqueeze(0), None, RULE)
    assert len(emptiness(torch.zeros(0, 6, 3), None, RULE)) == 1


@pytest.mark.parametrize("shape", [(), (3,), (8, 8), (1, 2, 8, 8, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no image"):
        emptiness(torch.zeros(shape), None, RULE)
