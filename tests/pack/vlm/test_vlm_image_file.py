"""Images from files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vivace.vlm.vision import image_file
from vivace.vlm.vision.image_file import ImageFileError, read_image

COLORS = torch.randint(0, 256, (6, 8, 3), generator=torch.Generator().manual_seed(0))
PIXELS = COLORS.to(torch.uint8)
PICTURE = Image.fromarray(PIXELS.numpy())


def saved(folder: Path, name: str, picture: Image.Image, **options: object) -> Path:
    path = folder / name
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.TIF"])
def test_lossless_files_come_back(tmp_path: Path, name: str) -> None:
    found = read_image(saved(tmp_path, name, PICTURE))
    assert found.dtype == torch.float32
    assert torch.equal((found * 255).round().to(torch.uint8), PIXELS)
    assert torch.equal(found, PIXELS / 255)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_files_come_back_nearly(tmp_path: Path, name: str) -> None:
    flat = Image.new("RGB", (8, 6), (200, 100, 50))
    found = read_image(saved(tmp_path, name, flat, quality=95))
    assert found.shape == (6, 8, 3)
    expected = torch.tensor([200, 100, 50]) / 255
    torch.testing.assert_close(found, expected.expand(6, 8, 3), rtol=0, atol=4 / 255)


def test_alpha_is_kept(tmp_path: Path) -> None:
    rgba = torch.cat((PIXELS, PIXELS[..., :1]), -1)
    picture = Image.fromarray(rgba.numpy())
    assert torch.equal(read_image(saved(tmp_path, "a.png", picture)), rgba / 255)
    grey = read_image(saved(tmp_path, "b.png", picture.convert("LA")))
    assert grey.shape == (6, 8, 4)
    assert torch.equal(grey[..., 3], PIXELS[..., 0] / 255)


def test_palettes(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 6))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((2, 1), 1)
    opaque = read_image(saved(tmp_path, "a.png", picture))
    assert opaque.shape == (6, 8, 3)
    assert opaque[0, 0].tolist() == [1, 0, 0]
    assert opaque[1, 2].tolist() == [0, 0, 1]
    clear = read_image(saved(tmp_path, "b.png", picture, transparency=1))
    assert clear[0, 0].tolist() == [1, 0, 0, 1]
    assert clear[1, 2].tolist() == [0, 0, 1, 0]


def test_black_and_white(tmp_path: Path) -> None:
    found = read_image(saved(tmp_path, "a.png", Image.new("1", (8, 6), 1)))
    assert torch.equal(found, torch.ones(6, 8, 3))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits(tmp_path: Path, name: str) -> None:
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1390
    found = read_image(saved(tmp_path, name, Image.fromarray(values)))
    expected = torch.from_numpy(values.astype(np.float32) / 65535)[..., None].expand(6, 8, 3)
    assert torch.equal(found, expected)


def test_floating_point(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    found = read_image(saved(tmp_path, "a.tif", Image.fromarray(values)))
    assert torch.equal(found[..., 1], torch.from_numpy(values))
    for name, scale in (("b.tif", 2), ("c.tif", -1), ("d.tif", float("nan"))):
        path = saved(tmp_path, name, Image.fromarray(values * np.float32(scale)))
        with pytest.raises(ValueError, match=r"outside of 0 to 1\. Save it with 8 or 16 bits"):
            read_image(path)


def test_cmyk(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (8, 6), (0, 255, 255, 0))
    for name in ("a.tif", "a.jpg"):
        found = read_image(saved(tmp_path, name, picture))
        torch.testing.assert_close(found[3, 3], torch.tensor([1.0, 0, 0]), rtol=0, atol=4 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_image(saved(tmp_path, "a.png", PICTURE, exif=exif))
    image = PIXELS / 255
    if orientation >= 5:  # rows and columns are swapped
        image = image.transpose(0, 1)
    # Where the file's first row and column are shown, by the EXIF standard.
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    flips = [axis for axis, flip in ((0, bottom), (1, right)) if flip]
    assert torch.equal(found, image.flip(flips))


def test_damaged_exif_does_not_hide_an_image(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", PICTURE, exif=b"Exif\0\0no such thing")
    assert torch.equal(read_image(path), PIXELS / 255)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_animations_show_their_first_frame(tmp_path: Path, name: str) -> None:
    red, blue = Image.new("RGB", (8, 6), (255, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 255))
    options = {"save_all": True, "append_images": [blue], "lossless": True}
    found = read_image(saved(tmp_path, name, red, **options))
    assert torch.equal(found[..., :3], torch.tensor([1.0, 0, 0]).expand(6, 8, 3))


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PICTURE.save(path, "PNG")
    assert torch.equal(read_image(path), PIXELS / 255)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png is no PNG, JPEG.* Convert it to PNG"):
        read_image(path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(
            ValueError, match=rf"{path.name} cannot be read \(.*\)\. Check the path"
        ):
            read_image(path)


def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "a.png", PICTURE)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 48)
    assert read_image(path).shape == (6, 8, 3)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 47)
    with pytest.raises(ValueError, match=r"a\.png has more than 0 million pixels\. Scale it down"):
        read_image(path)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 48)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"a\.png has more than"):
        read_image(path)


def _files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        buffer = io.BytesIO()
        PICTURE.save(buffer, kind)
        files[kind] = buffer.getvalue()
    return files


FILES = _files()


@pytest.mark.filterwarnings("ignore")  # of Pillow, on what is damaged
@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=150)
def test_damaged_files_are_named(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(FILES[kind])
    end = data.draw(st.integers(0, len(content)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content[:end])
    message = ""
    try:
        found = read_image(path)
    except ImageFileError as error:
        message = str(error)
        found = torch.zeros(1, 1, 3)
    assert message == "" or message.startswith(f"{path} ")
    assert found.shape[-1] in (3, 4)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_half_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "half.png"
    path.write_bytes(FILES[kind][: len(FILES[kind]) // 2])
    with pytest.raises(
        ValueError, match=r"half\.png (cannot be decoded \(.+\)\. It may|is no PNG)"
    ):
        read_image(path)


def test_the_error_survives_pickling() -> None:
    error = ImageFileError(Path("a.png"), "is odd", "Repair it")
    assert str(pickle.loads(pickle.dumps(error))) == "a.png is odd. Repair it"  # noqa: S301
