"""The tool that shoots pictures for help pages and the template browser."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vivace.devkit.pictures.image_files import (
    NODE_BYTES,
    THUMBNAIL_BYTES,
    THUMBNAIL_WIDTH,
    save_node,
    save_thumbnail,
)
from vivace.devkit.pictures.node_pictures import our_nodes


def screenshot(width: int, height: int, colors: int) -> bytes:
    """A PNG of noise, which nothing makes small but fewer pixels or worse ones."""
    values = np.random.default_rng(1).integers(0, colors, (height, width, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(values * (255 // max(colors - 1, 1))).save(packed, "PNG")
    return packed.getvalue()


def test_a_thumbnail_is_small_whatever_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "example.jpg"
    size = save_thumbnail(screenshot(1500, 1000, 256), path)
    assert size == path.stat().st_size < THUMBNAIL_BYTES
    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert image.size == (THUMBNAIL_WIDTH, 320)


def test_a_picture_of_a_node_keeps_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "images" / "Node.png"
    shot = screenshot(120, 90, 2)
    size = save_node(shot, path)
    assert size == path.stat().st_size < NODE_BYTES
    with Image.open(path) as image, Image.open(io.BytesIO(shot)) as before:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(before))


def test_a_picture_that_stays_too_large_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "Node.png"
    with pytest.raises(ValueError, match=r"Node\.png would have 40000 bytes or more"):
        save_node(screenshot(600, 600, 256), path)
    assert not path.exists()


def test_our_nodes_are_those_of_the_pack() -> None:
    modules = {
        "VivaceA": "custom_nodes.ComfyUI-Vivace",
        "Other": "custom_nodes.other",
        "K": "nodes",
    }
    info = {name: {"python_module": module} for name, module in modules.items()}
    assert our_nodes(info, "ComfyUI-Vivace") == ["VivaceA"]
