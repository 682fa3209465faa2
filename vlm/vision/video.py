"""Which frames of a video the model sees, and when they are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_SAMPLE_FPS = 2.0
MIN_FRAMES = 4
MAX_FRAMES = 768


@dataclass(frozen=True)
class FrameSample:
    """The frames taken from a video.

    Attributes:
        indices: of the frames taken, ascending.
        timestamps: seconds, one per temporal patch: the middle of its first and its last frame.
        fps: frames per second of the video they were taken from.
        total_frames: of that video.
    """

    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    fps: float
    total_frames: int


def sample_frames(
    total_frames: int,
    fps: float,
    temporal_patch_size: int,
    sample_fps: float = DEFAULT_SAMPLE_FPS,
    max_frames: int = MAX_FRAMES,
) -> FrameSample:
    """Choose evenly spaced frames, the first and the last included.

    At least 4 frames and at most `max_frames` are taken, and never more than there are.

    Args:
        fps: frames per second of the video.
        sample_fps: frames per second to take.

    Raises:
        ValueError: no frames, or a rate or limit that is not positive.
    """
    if total_frames < 1:
        raise ValueError("The video has no frames. Connect at least one")
    for name, value in (("fps", fps), ("sample_fps", sample_fps), ("max_frames", max_frames)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; it must be above 0")
    wanted = max(int(total_frames / fps * sample_fps), MIN_FRAMES)
    count = min(wanted, max_frames, total_frames)
    step = (total_frames - 1) / max(count - 1, 1)
    indices = tuple(round(step * position) for position in range(count))
    return FrameSample(indices, timestamps(indices, fps, temporal_patch_size), fps, total_frames)


def timestamps(indices: tuple[int, ...], fps: float, temporal_patch_size: int) -> tuple[float, ...]:
    """Return the seconds at which each temporal patch is shown, as Qwen3-VL's processor does.

    The last frame counts as often as it takes to fill its patch.
    """
    missing = -len(indices) % temporal_patch_size
    padded = indices + indices[-1:] * missing
    return tuple(
        (padded[first] + padded[first + temporal_patch_size - 1]) / 2 / fps
        for first in range(0, len(padded), temporal_patch_size)
    )
