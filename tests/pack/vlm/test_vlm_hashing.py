"""The hash of an image, and the key of an embedding."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from vivace.vlm.vision.hashing import BLOCK_BYTES, EmbeddingKey, image_hash

KEY = EmbeddingKey("0" * 32, (1, 32, 32), "bicubic", "Qwen/Qwen3-VL-4B", "main", "bfloat16")


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_it_is_the_md5_of_shape_dtype_and_pixels() -> None:
    image = picture(5, 7, 3)
    content = b"(5, 7, 3) torch.float32\n" + image.numpy().tobytes()
    assert image_hash(image) == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_shape_dtype_and_each_pixel_count() -> None:
    image = picture(8, 16, 3)
    changed = image.clone()
    changed[7, 15, 2] = torch.nextafter(changed[7, 15, 2], torch.tensor(2.0))
    images = [
        image,
        changed,
        image.view(16, 8, 3),
        image[None],
        image.view(torch.int32),
        image.half(),
        image.bfloat16(),
        (image * 255).to(torch.uint8),
    ]
    assert len({image_hash(each) for each in images}) == len(images)


def test_flat_images_of_two_shapes_differ() -> None:
    assert image_hash(torch.zeros(512, 1024, 3)) != image_hash(torch.zeros(1024, 512, 3))


@pytest.mark.parametrize("rows", [6, 1200], ids=["small", "many blocks"])
def test_strides_do_not_count(rows: int) -> None:
    image = picture(rows, 1000, 3)
    wide = torch.zeros(rows, 2000, 6)
    wide[:, ::2, :3] = image
    view = wide[:, ::2, :3]
    assert not view.is_contiguous()
    assert image_hash(view) == image_hash(image)
    assert image_hash(image.transpose(0, 1).contiguous().transpose(0, 1)) == image_hash(image)
    assert image_hash(view[None]) == image_hash(image[None])


def test_nothing_large_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = picture(2000, 1000, 6)
    largest = 0
    contiguous = torch.Tensor.contiguous

    def watch(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        result = contiguous(tensor)
        if result.data_ptr() != tensor.data_ptr():
            largest = max(largest, result.nbytes)
        return result

    monkeypatch.setattr(torch.Tensor, "contiguous", watch)
    tracemalloc.start()
    image_hash(wide[..., :3])
    image_hash(wide)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < largest <= BLOCK_BYTES
    assert peak < BLOCK_BYTES


def test_an_empty_image_has_a_hash() -> None:
    assert image_hash(torch.zeros(0, 4, 3)) != image_hash(torch.zeros(4, 0, 3))


def test_a_numpy_image_has_the_same() -> None:
    array = np.random.default_rng(0).random((4, 4, 3), dtype=np.float32)
    assert image_hash(torch.from_numpy(array)) == image_hash(torch.tensor(array.tolist()))


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, image_hash="1" * 32),
        replace(KEY, grid_thw=(1, 32, 34)),
        replace(KEY, resize="nearest"),
        replace(KEY, model_id="Qwen/Qwen3-VL-8B"),
        replace(KEY, revision="abc"),
        replace(KEY, dtype="float16"),
    ],
)
def test_every_part_of_the_key_counts(other: EmbeddingKey) -> None:
    assert other != KEY
    assert other.file_name != KEY.file_name


def test_parts_cannot_be_confused() -> None:
    one = replace(KEY, model_id="a', 'b", revision="c")
    other = replace(KEY, model_id="a", revision="b', 'c")
    assert one.file_name != other.file_name


def test_the_file_name_is_the_same_in_every_process() -> None:
    code = f"from vivace.vlm.vision.hashing import EmbeddingKey\nprint({KEY!r}.file_name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == KEY.file_name
