"""Images as files, which a server is sent."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vivace.vlm.remote.openai_request import ChatRequest, DataUrls, Message
from vivace.vlm.vision import image_file
from vivace.vlm.vision.image_file import encoded_image, encoded_images, image_key
from vivace.vlm.vision.quality import QUALITIES, grid_of


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(height, width, channels, generator=torch.Generator().manual_seed(seed))


def drawing(side: int) -> torch.Tensor:
    line = torch.arange(side) // 20 % 2
    return (line[:, None] ^ line[None]).float()[..., None].repeat(1, 1, 3)


def decoded(file: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(file))
    picture.load()
    return picture


@given(
    st.integers(2, 1500),
    st.integers(2, 1500),
    st.sampled_from([*QUALITIES, "auto"]),
    st.sampled_from([1, 3, 4]),
)
@settings(max_examples=20)
def test_sizes(height: int, width: int, quality: str, channels: int) -> None:
    image = torch.full((height, width, channels), 0.5)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="200 times"):
            encoded_image(image, quality)
        return
    grid = grid_of(height, width, "fast" if quality == "auto" else quality, 14, 2)
    picture = decoded(encoded_image(image, quality))
    assert picture.size == (min(width, grid.width), min(height, grid.height))
    assert picture.mode == "RGB"


def test_drawings_are_png_without_loss() -> None:
    image = drawing(448)
    picture = decoded(encoded_image(image, "fast"))
    assert picture.format == "PNG"
    found = torch.from_numpy(np.array(picture))
    assert torch.equal(found, (image * 255).to(torch.uint8))


def test_photographs_are_jpeg_with_colour_at_full_resolution() -> None:
    smooth = torch.nn.functional.interpolate(
        noise(80, 80).movedim(-1, 0)[None], (448, 448), mode="bicubic", align_corners=False
    )
    image = (smooth[0].movedim(0, -1).clamp(0, 1) + (noise(448, 448) - 0.5) / 50).clamp(0, 1)
    file = encoded_image(image, "fast")
    picture = decoded(file)
    assert picture.format == "JPEG"
    assert {sampling[1:3] for sampling in picture.layer} == {(1, 1)}  # type: ignore[attr-defined]
    difference = torch.from_numpy(np.array(picture)).float() / 255 - image
    assert difference.abs().mean() < 0.01
    png = io.BytesIO()
    picture.save(png, "PNG")
    assert len(file) < png.tell()


def test_auto_takes_the_preset_that_the_detail_asks_for() -> None:
    assert decoded(encoded_image(noise(900, 900), "auto")).size == (896, 896)
    assert decoded(encoded_image(torch.full((900, 900, 3), 0.3), "auto")).size == (448, 448)


def test_shrinking_is_antialiased() -> None:
    line = torch.arange(1792) % 2
    stripes = line.float().expand(1792, 1792)[..., None]
    values = np.array(decoded(encoded_image(stripes, "fast")))[10:-10, 10:-10]
    assert values.min() >= 120
    assert values.max() <= 135


def test_alpha_is_laid_over_white_and_the_image_is_left_alone() -> None:
    image = torch.zeros(28, 28, 4)
    image[14:, :, 3] = 1
    before = image.clone()
    values = np.array(decoded(encoded_image(image, "fast")))
    assert (values[:14] == 255).all()
    assert (values[14:] == 0).all()
    assert torch.equal(image, before)


def test_values_are_rounded_not_cut() -> None:
    image = torch.full((28, 28, 3), 99.7 / 255)
    assert decoded(encoded_image(image, "fast")).getpixel((3, 3)) == (100, 100, 100)


def test_uint8_and_half_precision() -> None:
    image = drawing(56)
    expected = encoded_image(image, "fast")
    assert encoded_image((image * 255).to(torch.uint8), "fast") == expected
    assert encoded_image(image.to(torch.bfloat16), "fast") == expected


@pytest.mark.parametrize(
    ("image", "quality", "message"),
    [
        (noise(28, 28), "best", "'best' is none of fast"),
        (torch.rand(28, 28), "fast", r"not 28x28"),
        (torch.rand(2, 28, 28, 3), "auto", "frames one by one"),
        (torch.rand(28, 28, 2), "fast", "has 2"),
        (torch.rand(0, 28, 3), "auto", "empty"),
        (torch.full((28, 28, 3), float("nan")), "fast", "NaN"),
    ],
)
def test_what_is_no_image(image: torch.Tensor, quality: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoded_image(image, quality)


def test_each_distinct_image_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Tensor] = []

    def counted(image: torch.Tensor, quality: str) -> bytes:
        calls.append(image)
        return encoded_image(image, quality)

    monkeypatch.setattr(image_file, "encoded_image", counted)
    first, second = noise(28, 28), noise(28, 28, seed=1)
    keys, files = encoded_images([first, second, first.clone()], "fast")
    assert len(calls) == 2
    assert keys == [image_key(first), image_key(second), image_key(first)]
    assert files == {
        image_key(first): encoded_image(first, "fast"),
        image_key(second): encoded_image(second, "fast"),
    }
    request = ChatRequest((Message("user", "Compare", tuple(keys)),))
    urls = DataUrls(files, [request])
    assert len({urls.take(key) for key in keys}) == 2
    assert urls.encoded == 2


def test_errors_give_the_number_of_the_image() -> None:
    with pytest.raises(ValueError, match=r"^Image 2: The image is a line"):
        encoded_images([noise(28, 28), noise(1, 28)], "fast")
    assert encoded_images([], "fast") == ([], {})
