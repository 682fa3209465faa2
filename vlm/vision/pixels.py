"""ComfyUI images to the `pixel_values` of a Qwen vision tower: one resize, then patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from .quality import ImageGrid, check_size

RESIZE_METHOD = "bicubic-antialias"
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class PixelFormat:
    """How a vision tower wants its pixels.

    Attributes:
        patch_size: side of a patch, pixels.
        merge_size: patches per side that become one token.
        temporal_patch_size: frames per patch.
        image_mean, image_std: of red, green and blue, for values from 0 to 1.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @property
    def patch_values(self) -> int:
        """Values per patch: channels * frames * rows * columns."""
        return 3 * self.temporal_patch_size * self.patch_size**2


def check_image(image: torch.Tensor) -> None:
    """Refuse what is not an image `[H, W, C]`, or a video clip `[T, H, W, C]`; reads no pixels.

    Raises:
        ValueError: wrong number of dimensions or channels, unsuitable dtype, no pixels or frames,
            or a shape that no model can look at.
    """
    shape = "x".join(map(str, image.shape))
    if image.ndim not in (3, 4):
        raise ValueError(f"An image has the shape [height, width, channels], not {shape}")
    height, width, channels = image.shape[-3:]
    if channels not in CHANNELS:
        raise ValueError(f"An image has 1, 3 or 4 channels, this one ({shape}) has {channels}")
    if image.ndim == 4 and not len(image):
        raise ValueError("The video has no frames. Connect at least one")
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise ValueError(f"Pixels are floating-point numbers or uint8, not {image.dtype}")
    check_size(height, width)


def to_rgb(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Turn one image into `[3, height, width]` float32 of 0 to 1 and of the given size.

    Args:
        image: `[H, W, C]`; C is 1 (grey), 3 or 4 (with alpha, which is laid over white). Floating
            point of 0 to 1 (values outside are clamped) or uint8 of 0 to 255.
        size: height and width to resize to, in pixels.

    Raises:
        ValueError: as `check_image`, or the image holds NaN or infinity.
    """
    check_image(image)
    low, high = image.aminmax()  # carries NaN along, and needs no copy of the image
    if image.is_floating_point() and not (low.isfinite() and high.isfinite()):
        raise ValueError(
            "The image holds NaN or infinity. Look for the node before this one that makes them "
            "(often a VAE in half precision)"
        )
    pixels = image.movedim(-1, 0)
    if image.dtype == torch.uint8:
        pixels = pixels.float() / 255
    else:
        pixels = pixels.float()
        if low < 0 or high > 1:
            pixels = pixels.clamp(0, 1)
    if len(pixels) == 4:
        pixels, alpha = pixels[:3], pixels[3:]
        pixels = pixels * alpha + (1 - alpha)
    if tuple(pixels.shape[1:]) != size:
        pixels = F.interpolate(
            pixels[None], size, mode="bicubic", antialias=True, align_corners=False
        )[0].clamp(0, 1)  # bicubic overshoots at edges
    return pixels.expand(3, -1, -1)


def patchify(frames: torch.Tensor, pixel_format: PixelFormat) -> torch.Tensor:
    """Cut normalized frames into patches, in the order and layout of the Qwen-VL processors.

    The last frame is repeated until the frames fill the temporal patches; so a still image, one
    frame, is shown for the length of a patch.

    Args:
        frames: `[T, 3, H, W]`, H and W multiples of patch * merge.

    Returns:
        `[t * h * w, 3 * temporal_patch * patch * patch]`, where `t, h, w` is the grid: the patches
        of one token lie together, tokens row by row, temporal patch by temporal patch.
    """
    count, channels, height, width = frames.shape
    patch, merge, depth = (
        pixel_format.patch_size,
        pixel_format.merge_size,
        pixel_format.temporal_patch_size,
    )
    if missing := -count % depth:
        frames = torch.cat((frames, frames[-1:].expand(missing, -1, -1, -1)))
    rows, columns = height // (patch * merge), width // (patch * merge)
    patches = frames.reshape(-1, depth, channels, rows, merge, patch, columns, merge, patch)
    return patches.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, pixel_format.patch_values)


def preprocess(image: torch.Tensor, grid: ImageGrid, pixel_format: PixelFormat) -> torch.Tensor:
    """Resize, normalize and cut an image `[H, W, C]` or a video clip `[T, H, W, C]`.

    Returns:
        `pixel_values` of one image or clip, float32, as `patchify` returns them.

    Raises:
        ValueError: as `to_rgb`.
    """
    size = (grid.height, grid.width)
    frames = image if image.ndim == 4 else image[None]
    pixels = torch.stack([to_rgb(frame, size) for frame in frames])
    mean = pixels.new_tensor(pixel_format.image_mean)[:, None, None]
    std = pixels.new_tensor(pixel_format.image_std)[:, None, None]
    return patchify(pixels.sub_(mean).div_(std), pixel_format)
