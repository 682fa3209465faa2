"""Images and videos to patches, beside the processors of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from vivace.vlm.vision.pixels import PixelFormat, preprocess, to_rgb
from vivace.vlm.vision.quality import ImageGrid, grid_of
from vivace.vlm.vision.video import sample_frames, timestamps


def grid(height: int, width: int, patch: int = 14, frames: int = 1) -> ImageGrid:
    return grid_of(height, width, "balanced", patch, 2, temporal_patches=-(-frames // 2))


def picture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(height, width, channels, generator=torch.Generator().manual_seed(0))


def clip(frames: int) -> torch.Tensor:
    return torch.stack([picture(56, 84) * step / frames for step in range(1, frames + 1)])


@pytest.mark.parametrize("patch", [14, 16])
def test_same_patches_as_the_image_processor(
    make_processor: Callable[..., Any], make_format: Callable[[Any], PixelFormat], patch: int
) -> None:
    processor = make_processor(patch_size=patch)
    height, width = patch * 6, patch * 10
    image = picture(height, width)
    expected = processor(
        images=[image.movedim(-1, 0)], do_rescale=False, do_resize=False, return_tensors="pt"
    )
    found = preprocess(image, grid(height, width, patch), make_format(processor))
    assert grid(height, width, patch).grid_thw == tuple(expected["image_grid_thw"][0].tolist())
    torch.testing.assert_close(found, expected["pixel_values"], rtol=0, atol=1e-5)


def test_resizes_like_the_image_processor(
    make_processor: Callable[..., Any], make_format: Callable[[Any], PixelFormat]
) -> None:
    processor = make_processor()
    coarse = picture(70, 100).movedim(-1, 0)[None]
    smooth = F.interpolate(coarse, (700, 1000), mode="bilinear", align_corners=False)[0]
    image = (smooth.movedim(0, -1) * 255).to(torch.uint8)
    expected = processor(
        images=[image.movedim(-1, 0)],
        size={"shortest_edge": 256 * 28 * 28, "longest_edge": 512 * 28 * 28},
        return_tensors="pt",
    )
    found = preprocess(image, grid(700, 1000), make_format(processor))
    assert grid(700, 1000).grid_thw == tuple(expected["image_grid_thw"][0].tolist())
    # The processor rounds to 8 bits after each direction, half a step, and the cubic kernel may
    # enlarge the first error by a quarter; in units of the deviation.
    step = 1.125 / 255 / min(processor.image_std)
    torch.testing.assert_close(found, expected["pixel_values"], rtol=0, atol=step)


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_same_patches_as_the_video_processor(pixel_format: PixelFormat, frames: int) -> None:
    from transformers import Qwen2VLVideoProcessor

    processor = Qwen2VLVideoProcessor()
    video = clip(frames)
    expected = processor(
        videos=[video.movedim(-1, 1)],
        do_rescale=False,
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    place = grid(56, 84, frames=frames)
    assert place.grid_thw == tuple(expected["video_grid_thw"][0].tolist())
    found = preprocess(video, place, pixel_format)
    torch.testing.assert_close(found, expected["pixel_values_videos"], rtol=0, atol=1e-5)


def test_values_per_patch() -> None:
    assert PixelFormat(16, 2, 2, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).patch_values == 1536


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    image = picture(28, 28).to(dtype)
    found = to_rgb(image, (28, 28))
    assert found.dtype == torch.float32
    assert torch.equal(found, image.float().movedim(-1, 0))


def test_grey_and_alpha() -> None:
    grey = to_rgb(picture(28, 28, 1), (28, 28))
    assert torch.equal(grey[0], grey[2])
    image = picture(28, 28, 4)
    found = to_rgb(image, (28, 28))
    expected = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
    torch.testing.assert_close(found, expected.movedim(-1, 0))


def test_values_outside_are_clamped_and_the_image_is_left_alone() -> None:
    image = picture(64, 64) * 3 - 1
    before = image.clone()
    found = to_rgb(image, (28, 56))
    assert found.min() == 0
    assert found.max() == 1
    assert torch.equal(image, before)


def test_preprocessing_leaves_the_image_alone(pixel_format: PixelFormat) -> None:
    image = picture(56, 56)
    before = image.clone()
    preprocess(image, grid(56, 56), pixel_format)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((28, 28, 3), float("nan")), "NaN or infinity"),
        (torch.full((28, 28, 3), float("inf")), "NaN or infinity"),
        (torch.rand(28, 28), r"\[height, width, channels\], not 28x28"),
        (torch.rand(28, 28, 2), "has 2"),
        (torch.rand(0, 28, 3), "empty"),
        (torch.rand(1, 28, 3), "line"),
        (torch.rand(0, 28, 28, 3), "no frames"),
        (torch.ones(28, 28, 3, dtype=torch.int64), "uint8, not torch.int64"),
    ],
    ids=["NaN", "infinity", "2-D", "channels", "empty", "line", "no frames", "dtype"],
)
def test_bad_images(image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(image, (28, 28))


def test_one_nan_among_the_pixels() -> None:
    image = picture(64, 64)
    image[40, 20, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        to_rgb(image, (28, 28))


def test_frames_are_spread_over_the_video() -> None:
    sample = sample_frames(300, 30.0, 2, sample_fps=1)
    assert len(sample.indices) == 10
    assert sample.indices[0] == 0
    assert sample.indices[-1] == 299
    assert list(sample.indices) == sorted(set(sample.indices))
    assert len(sample.timestamps) == 5


def test_few_frames_and_many() -> None:
    assert sample_frames(3, 30.0, 2).indices == (0, 1, 2)
    assert sample_frames(1, 30.0, 2).indices == (0,)
    assert len(sample_frames(100_000, 25.0, 2, max_frames=64).indices) == 64


@pytest.mark.parametrize("indices", [(0, 7, 15, 22), (0, 5, 9), (4,)])
def test_timestamps_are_those_of_qwen3_vl(indices: tuple[int, ...]) -> None:
    from transformers import Qwen3VLProcessor

    calculate = Qwen3VLProcessor._calculate_timestamps
    expected = calculate(None, list(indices), 24.0, 2)  # type: ignore[arg-type]
    assert timestamps(indices, 24.0, 2) == pytest.approx(expected)


@pytest.mark.parametrize(("frames", "fps"), [(0, 24.0), (10, 0.0), (10, float("nan"))])
def test_bad_videos(frames: int, fps: float) -> None:
    with pytest.raises(ValueError, match=r"no frames|fps is"):
        sample_frames(frames, fps, 2)
