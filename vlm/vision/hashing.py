"""What identifies an image, and the embedding of an image."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

import torch

BLOCK_BYTES = 2**22


def image_hash(image: torch.Tensor) -> str:
    """Return the MD5 of shape, dtype and pixels, as 32 hexadecimal digits.

    The same pixels in another shape or dtype have another hash; strides and device do not matter.
    Beyond the image itself, at most a few megabytes are held.
    """
    digest = hashlib.md5(usedforsecurity=False)
    digest.update(f"{tuple(image.shape)} {image.dtype}\n".encode())
    for block in _blocks(image):
        digest.update(block.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _blocks(image: torch.Tensor) -> list[torch.Tensor]:
    """Cut into pieces that are cheap to copy; what needs no copy stays whole."""
    if not image.numel():
        return []
    if (image.is_contiguous() and image.device.type == "cpu") or image.nbytes <= BLOCK_BYTES:
        return [image.detach()]
    if len(image) == 1:
        return _blocks(image[0])
    rows = max(1, BLOCK_BYTES * len(image) // image.nbytes)
    return list(image.detach().split(rows))


@dataclass(frozen=True)
class EmbeddingKey:
    """All that the embedding of an image depends on.

    Attributes:
        image_hash: from `image_hash`.
        grid_thw: temporal patches, patch rows and patch columns.
        resize: name of the resize method.
        model_id, revision: the model that the vision tower belongs to.
        dtype: of the vision tower, such as ``"bfloat16"``.
    """

    image_hash: str
    grid_thw: tuple[int, int, int]
    resize: str
    model_id: str
    revision: str
    dtype: str

    @property
    def file_name(self) -> str:
        """A file name of 32 hexadecimal digits, the same in every process."""
        text = repr(astuple(self)).encode()
        return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".safetensors"
