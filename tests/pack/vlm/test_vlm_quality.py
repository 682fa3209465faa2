"""Presets and grids."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.vlm.vision.quality import QUALITIES, grid_of

SIDES = st.integers(2, 20_000)


def test_presets() -> None:
    unit = 28 * 28
    assert {name: tuple(budget) for name, budget in QUALITIES.items()} == {
        "fast": (128 * unit, 256 * unit),
        "balanced": (256 * unit, 512 * unit),
        "high": (256 * unit, 768 * unit),
        "ultra": (256 * unit, 1024 * unit),
    }


@pytest.mark.parametrize(
    ("quality", "patch", "expected"),
    [
        ("fast", 14, (448, 448, (1, 32, 32), 256)),
        ("balanced", 14, (616, 616, (1, 44, 44), 484)),
        ("ultra", 14, (896, 896, (1, 64, 64), 1024)),
        ("balanced", 16, (608, 608, (1, 38, 38), 361)),
        ("ultra", 16, (896, 896, (1, 56, 56), 784)),
    ],
)
def test_a_megapixel(
    quality: str, patch: int, expected: tuple[int, int, tuple[int, int, int], int]
) -> None:
    assert tuple(grid_of(1024, 1024, quality, patch, 2)) == expected


@given(SIDES, SIDES, st.sampled_from(sorted(QUALITIES)), st.sampled_from([14, 16]), st.booleans())
def test_never_over_budget(
    height: int, width: int, quality: str, patch: int, enlarge: bool
) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="200 times"):
            grid_of(height, width, quality, patch, 2)
        return
    grid = grid_of(height, width, quality, patch, 2, enlarge=enlarge)
    factor = patch * 2
    assert grid.height * grid.width <= QUALITIES[quality].max_pixels
    assert grid.height % factor == grid.width % factor == 0
    assert min(grid.height, grid.width) >= factor
    assert grid.grid_thw == (1, grid.height // patch, grid.width // patch)
    assert grid.tokens * 4 == math.prod(grid.grid_thw)


@given(SIDES, SIDES, st.sampled_from([14, 16]), st.booleans())
def test_same_size_as_transformers(height: int, width: int, patch: int, enlarge: bool) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    if max(height, width) > 100 * min(height, width):
        return  # there, transformers exceeds the budget
    low, high = QUALITIES["balanced"]
    expected = smart_resize(
        height, width, factor=patch * 2, min_pixels=low if enlarge else 0, max_pixels=high
    )
    grid = grid_of(height, width, "balanced", patch, 2, enlarge=enlarge)
    # Where a side rounds to nothing, transformers returns a size of 0.
    assert (grid.height, grid.width) == tuple(max(side, patch * 2) for side in expected)


def test_small_images_keep_their_size_unless_asked() -> None:
    assert grid_of(56, 84, "high", 14, 2)[:2] == (56, 84)
    enlarged = grid_of(56, 84, "high", 14, 2, enlarge=True)
    assert enlarged.height * enlarged.width >= QUALITIES["high"].min_pixels


def test_frames_of_a_video_each_have_the_budget() -> None:
    still = grid_of(1024, 768, "fast", 14, 2)
    clip = grid_of(1024, 768, "fast", 14, 2, temporal_patches=5)
    assert clip.grid_thw == (5, *still.grid_thw[1:])
    assert clip.tokens == 5 * still.tokens


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (0, 64, "empty"),
        (64, 0, "empty"),
        (1, 64, "line"),
        (64, 1, "line"),
        (2, 402, "200 times"),
        (10_000, 40, "200 times"),
    ],
)
def test_shapes_nobody_can_look_at(height: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_of(height, width, "fast", 14, 2)


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match="'best' is none of fast, balanced, high, ultra"):
        grid_of(64, 64, "best", 14, 2)
